"""DEC against the equations of its paper; what it shares with every method is tested beside the base."""

import numpy as np
import torch
from torch.testing import assert_close

from autoencoders import NETWORK, B, K, Z, rescale, some_x
from nvisa.fitting.training import Training, maximize
from nvisa.methods import dec
from nvisa.methods.dec import Refinement, log_assignments, target_distribution
from nvisa.nets.autoencoder import Autoencoder, Encoder
from nvisa.nets.rows import Source
from oracles import TIGHT, build, dec_assignments, dec_gradients, dec_target, gradients, normal


def test_dec_s_assignments_and_target_are_the_paper_s(rng):
    z, mu = normal(rng, 20, Z), normal(rng, K, Z)
    q = log_assignments(z, mu).exp()
    assert_close(q, dec_assignments(z, mu), **TIGHT)
    assert_close(target_distribution(q), dec_target(q), **TIGHT)


def test_the_target_of_one_hot_assignments_is_itself():
    q = torch.eye(4, dtype=torch.float64)[[0, 1, 1, 3, 0, 1]]  # nobody is in cluster 2
    assert torch.equal(target_distribution(q), q)


def dec_networks(rng):
    return build(lambda: dec.Networks(rescale(), K, NETWORK), rng)


@torch.no_grad()
def test_renumbering_permutes_the_centroids(rng):
    net, x, order = dec_networks(rng), some_x(rng), torch.tensor([2, 0, 1])
    before, codes = net.log_q_y(x), net.code(x)
    net.permute(order)
    assert_close(net.log_q_y(x), before[:, order], **TIGHT)
    assert torch.equal(net.code(x), codes)


def refinement(net, x, **options):
    settings = {"update_interval": 2, "tol": 0.0, **options}
    return Refinement(net, lambda: net.log_q_y(x).detach().numpy(), **settings)


def test_the_target_is_of_the_whole_data_set_and_fixed_between_refreshes(rng):
    net, x = dec_networks(rng), some_x(rng, n=30)
    whole, rows = dec_target(net.log_q_y(x).exp().detach()), np.arange(4)
    objective = refinement(net, x, update_interval=3)
    first = objective(x[:4], rows, 0.0)
    expected = (whole[:4] * (whole[:4].log() - net.log_q_y(x[:4]))).sum(1)
    assert_close(first.terms["kl"], expected, **TIGHT)
    assert (dec_target(net.log_q_y(x[:4]).exp().detach()) - whole[:4]).abs().max() > 0.01  # pt-dec's error shows
    with torch.no_grad():
        net.centroids += 0.5
    objective(x[:4], rows, 0.0)
    assert_close(objective.target, whole, **TIGHT)


def test_the_target_is_made_in_evaluation_mode_and_the_step_in_training_mode(rng):
    """With batch norm, P in training mode would depend on how the rows are cut into blocks."""
    net, x, modes = dec_networks(rng).train(), some_x(rng, n=B), []

    def all_log_q():
        modes.append(net.training)
        return net.log_q_y(x).detach().numpy()

    Refinement(net, all_log_q, update_interval=2, tol=0.0)(x, np.arange(B), 0.0)
    assert (modes, net.training) == ([False], True)


def test_dec_s_gradient_is_the_paper_s_and_the_target_has_none(rng):
    net, x = dec_networks(rng), some_x(rng, n=B)
    kl = refinement(net, x)(x, np.arange(B), 0.0).terms["kl"].sum()
    z = net.code(x).detach()
    dz, dmu = dec_gradients(z, net.centroids.detach(), dec_target(net.log_q_y(x).exp().detach()))
    in_mu, in_bias = gradients(kl, [net.centroids, net.z_loc.bias])
    assert_close(in_mu, dmu, **TIGHT)
    assert_close(in_bias, dz.sum(0), **TIGHT)  # z = W h + b: the bias collects every dL/dz_i


def test_dec_stops_when_no_more_than_the_tolerated_share_changed(rng):
    net, x = dec_networks(rng), some_x(rng, n=30)
    still = refinement(net, x)
    assert [still(x, np.arange(30), 0.0) is None for _ in range(3)] == [False, False, True]
    assert still.converged
    moving = refinement(net, x, tol=0.5)
    labels = iter([np.eye(2)[[0] * 10], np.eye(2)[[1] * 6 + [0] * 4], np.eye(2)[[1] * 9 + [0]]])
    moving.all_log_q = lambda: np.log(next(labels) + 0.1)
    shares = []
    for _ in range(3):
        moving.refresh()
        shares.append((moving.changed, moving.converged))
    assert shares == [(1.0, False), (0.6, False), (0.3, True)]


def test_training_ends_where_the_objective_has_converged(rng):
    net, X = dec_networks(rng).float(), some_x(rng, n=40).numpy()
    source = Source(X, torch.device("cpu"))
    objective = refinement(net, source[slice(0, 40)], update_interval=6, tol=0.99)  # at the second refresh
    history = maximize(objective, net, source, Training(epochs=9, batch_size=10), rng)
    assert (len(history), objective.step) == (2, 6)
    assert not net.training


def test_the_decoder_shares_dec_s_encoder(rng):
    net = dec_networks(rng)
    autoencoder = build(lambda: Autoencoder(net, NETWORK), rng)
    x = some_x(rng)
    assert torch.equal(autoencoder.code(x), net.code(x))
    assert not any(name.startswith("decoder") for name in net.state_dict())
    assert isinstance(net, Encoder)
