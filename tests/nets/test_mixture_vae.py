"""NVISA's networks: what a start loads into them, the deviations they begin at, what a renumbering keeps.

The densities, the draws and log w are tested with the objective that they are for, in tests/methods.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nvisa.nets.layers import Network
from nvisa.nets.mixture_vae import MixtureVAE
from nvisa.nets.units import Rescale
from oracles import TIGHT, build, gradients, normal

D, Z, K = 4, 2, 3


def networks(rng, likelihood="gaussian_shared", posterior="joint", rescale=None):
    """A MixtureVAE with random weights; the rescaling is the identity unless given."""
    network = Network(hidden=(7, 7), latent_dim=Z, batch_norm=False)
    units = rescale or Rescale(torch.zeros(D), torch.ones(D))
    return build(lambda: MixtureVAE(units, K, network, likelihood=likelihood, posterior=posterior), rng, spread=0.5)


# ---- rows in the user's units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", ["joint", "mean_field"])
def test_labels_and_latent_vectors_are_those_of_the_rescaled_row(rng, posterior):
    net = networks(rng, posterior=posterior, rescale=Rescale(normal(rng, D), normal(rng, D).exp()))
    x = normal(rng, 9, D)
    h = net.trunk((x - net.rescale.shift) / net.rescale.scale)
    log_q_y = net.y_logits(h).log_softmax(1)
    assert_close(net.log_q_y(x), log_q_y, **TIGHT)
    assert_close(net.log_q_y_from(h), log_q_y, **TIGHT)
    z, y = net.encode(x), log_q_y.argmax(1)
    assert len(set(y.tolist())) > 1
    for b in range(9):
        assert_close(z[b], net.q_z(h[b : b + 1], y[b].view(1, 1), 0.0)[0][0, 0], **TIGHT)


@pytest.mark.parametrize("posterior", ["joint", "mean_field"])
def test_renumbering_permutes_q_and_p_and_moves_no_latent_vector(rng, posterior):
    net, x, order = networks(rng, posterior=posterior), normal(rng, 9, D), torch.tensor([2, 0, 1])
    y = torch.arange(K)[:, None].expand(K, 9)
    h, z = net.trunk(x), net.encode(x)
    before = [net.log_q_y(x), *net.q_z(h, y, 0.1), net.prior.log_p_z_given_y(z.expand(K, -1, -1), y)]
    before = [table.detach() for table in before]
    net.permute(order)
    after = [net.log_q_y(x), *net.q_z(h, y, 0.1), net.prior.log_p_z_given_y(z.expand(K, -1, -1), y)]
    assert_close(after[0], before[0][:, order], **TIGHT)
    for mine, theirs in zip(after[1:], before[1:], strict=True):
        assert_close(mine, theirs[order], **TIGHT)
    assert_close(net.encode(x), z, **TIGHT)


def test_rows_are_drawn_in_the_user_s_units(rng):
    net, z = networks(rng, rescale=Rescale(normal(rng, D), normal(rng, D).exp())), normal(rng, 9, Z)
    mean = net.reconstruct(z) * net.rescale.scale + net.rescale.shift
    assert_close(net.draw_x(z, None, 0.2), mean, **TIGHT)
    noise = normal(torch.Generator().manual_seed(3), 9, D)
    expected = mean + net.x_head.scale(0.2) * noise * net.rescale.scale
    assert_close(net.draw_x(z, torch.Generator().manual_seed(3), 0.2), expected, **TIGHT)


# ---- from a start ----------------------------------------------------------------------------------------------------


def test_loaded_codes_are_standard_and_the_prior_has_their_moments(rng):
    net, x = networks(rng), 2 + 3 * normal(rng, 60, D)
    proba, before = normal(rng, 60, K).softmax(1).numpy(), net.reconstruct(net.code(x)).detach()
    net.load_codes(net.code(x).detach().numpy(), proba)
    codes = net.code(x).detach()
    assert_close(net.reconstruct(net.code(x)).detach(), before, rtol=1e-8, atol=1e-8)
    assert_close(codes.mean(0), torch.zeros(Z).double(), **TIGHT)
    assert_close(codes.std(0, correction=0), torch.ones(Z).double(), **TIGHT)
    for k in range(K):
        loc = np.average(codes, axis=0, weights=proba[:, k])
        variance = np.average((codes.numpy() - loc) ** 2, axis=0, weights=proba[:, k])
        np.testing.assert_allclose(net.prior.loc[k].detach(), loc, atol=1e-12)
        np.testing.assert_allclose(net.prior.scale[k].detach() ** 2, variance, rtol=1e-10)


def linear_decoder(net):
    """The decoder where no unit's sign changes: x^ = z A^T + c."""
    with torch.no_grad():
        for layer in net.decoder:
            if isinstance(layer, nn.Linear):
                layer.bias.fill_(40.0)
    at = torch.eye(Z + 1, Z).double()
    x = net.reconstruct(at).detach()
    return (x[:Z] - x[Z]).T


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared"])
def test_deviations_begin_where_the_bound_is_largest(rng, likelihood):
    net, x = networks(rng, likelihood), normal(rng, 200, D)
    A = linear_decoder(net)
    with torch.no_grad():
        net.x_head.loc.bias -= net.reconstruct(net.code(x)).mean(0) - x.mean(0)
        z, error = net.code(x), x - net.reconstruct(net.code(x))
        net.prior.log_scale.fill_(-1.0)
    s = error.square().mean(0).sqrt()
    net.init_scales(x, 0.0, 0.0)
    y = torch.zeros(1, len(x), dtype=torch.long)
    with torch.no_grad():
        loc, scale_z = net.q_z(net.trunk(x), y, 0.0)
        h = net.decoder(z)
        scale_x = net.x_head(h, 0.0)[1] if likelihood == "gaussian" else net.x_head.scale(0.0).expand_as(x)
    assert_close(loc[0], z, **TIGHT)  # every cluster begins at the code
    assert_close(scale_z, scale_z[:, :1].expand_as(scale_z), **TIGHT)

    def bound(log_z, log_x):
        """E log p(x|z) + log p(z|y) - log q(z|y,x), the decoder linear, up to a constant."""
        squared = error.square().mean(0) + A.square() @ (2 * log_z).exp()
        expected = -0.5 * (squared / (2 * log_x).exp()).sum() - log_x.sum()
        return expected - 0.5 * ((2 * log_z).exp() * net.prior.scale[0].detach() ** -2).sum() + log_z.sum()

    log_z = scale_z[0, 0].log().requires_grad_()
    log_x = scale_x[0].log().requires_grad_()
    (slope_z,) = gradients(bound(log_z, s.log()), [log_z])
    (slope_x,) = gradients(bound(log_z.detach(), log_x), [log_x])
    assert_close(slope_z, torch.zeros_like(slope_z), rtol=0, atol=1e-6)
    assert_close(slope_x, torch.zeros_like(slope_x), rtol=0, atol=1e-6)


def test_z_begins_at_what_the_floor_of_x_leaves_it(rng):
    """``1 / sigma_z,j^2 = sum_d A_dj^2 / epsilon_x^2 + 1 / sigma_y,j^2`` where no error is as large as epsilon_x."""
    net, x = networks(rng), normal(rng, 200, D)
    A = linear_decoder(net)
    with torch.no_grad():
        net.x_head.loc.bias -= net.reconstruct(net.code(x)).mean(0) - x.mean(0)
        net.prior.log_scale.fill_(3.0)
        floor = 3 * float((x - net.reconstruct(net.code(x))).square().mean(0).max().sqrt())
        net.init_scales(x, floor, 0.0)
        scale = net.q_z(net.trunk(x), torch.zeros(1, len(x), dtype=torch.long), 0.0)[1][0, 0]
    assert_close(scale**-2, A.square().sum(0) / floor**2 + math.exp(-6.0), rtol=1e-6, atol=0)


def test_no_deviation_begins_below_its_floor(rng):
    net, x = networks(rng), normal(rng, 50, D)
    net.init_scales(x, 50.0, 60.0)
    scale_x, scale_z = net.x_head.scale(50.0), net.q_z(net.trunk(x), torch.zeros(1, 50).long(), 60.0)[1]
    for scale, floor in ((scale_x, 50.0), (scale_z, 60.0)):
        assert (scale > floor).all()
        assert (scale < floor + 0.02).all()


def test_a_likelihood_without_a_deviation_begins_as_it_is(rng):
    net, x = networks(rng, "bernoulli"), normal(rng, 50, D).sigmoid()
    before = {name: value.clone() for name, value in net.x_head.state_dict().items()}
    net.init_scales(x, 0.0, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in net.x_head.state_dict().items())
    assert (net.z_head.raw_scale.weight == 0).all()


# ---- dynamic binarization --------------------------------------------------------------------------------------------


def test_pixels_are_drawn_anew_at_every_step_from_their_probabilities(rng):
    net, x = networks(rng, "bernoulli_binarized"), normal(rng, 3, D).sigmoid()
    n = 4_000
    drawn = torch.stack([net.as_trained(x, rng) for _ in range(n)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    deviation = (x * (1 - x) / n).sqrt()
    assert ((drawn.mean(0) - x) / deviation).abs().max() < 4
    assert_close(net.as_trained(torch.tensor([[0.0, 1.0, 1.0, 0.0]]), rng), torch.tensor([[0.0, 1.0, 1.0, 0.0]]))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_other_likelihoods_train_on_the_rows_as_they_are(rng, likelihood):
    x = normal(rng, 3, D).sigmoid()
    assert networks(rng, likelihood).as_trained(x, rng) is x
