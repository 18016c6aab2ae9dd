"""What a start hands over to training: its codes, its assignment, and the deviations at which the bound is largest."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch import nn
from torch.testing import assert_close

from nvisa import GMVAE, NVISA
from nvisa.fitting.graph import neighbor_information, neighbors
from nvisa.fitting.initialization import (
    Start,
    distill,
    keep,
    merged_microclusters,
    pretrain,
    reconstruction_error,
)
from nvisa.fitting.training import Source, Training
from nvisa.maths.bounds import RunningMoments
from nvisa.maths.schedules import Constant, Geometric
from nvisa.methods.nvisa import Objective, StdFloor
from nvisa.nets.layers import Network, Rescale
from nvisa.nets.mixture_vae import Densities
from oracles import TIGHT, build, gradients, normal

D, Z, K = 4, 2, 3


def networks(rng, likelihood="gaussian_shared", hidden=7):
    """Densities with random weights; the rescaling is the identity."""
    network = Network(hidden=(hidden, hidden), latent_dim=Z, batch_norm=False)
    rescale = Rescale(torch.zeros(D), torch.ones(D))
    return build(lambda: Densities(rescale, K, network, likelihood=likelihood, posterior="joint"), rng, spread=0.5)


def test_distilling_with_the_autoencoder_keeps_it_and_without_it_does_not(rng):
    x = normal(rng, 100, D).float()
    source = Source(x.numpy(), torch.device("cpu"))
    start = Start(np.arange(100), normal(rng, 100, K).mul(9).softmax(1).float().numpy(), np.zeros((100, Z)), 0.0)
    errors = {}
    for kept in (True, False):
        net = networks(torch.Generator().manual_seed(3), hidden=32).float()
        pretrain(net, source, Training(epochs=200, batch_size=50, learning_rate=5e-3), rng)
        before = float(reconstruction_error(net, x).detach().mean())
        training = Training(epochs=200, batch_size=50, learning_rate=5e-3)
        also = partial(lambda net, x: -reconstruction_error(net, x), net) if kept else None
        history = distill(net.log_posterior, net, source, start, training, rng, also=also)
        assert history[-1]["log_q_of_start"] > -0.6  # of -1.1: it has learned the assignment
        errors[kept] = float(reconstruction_error(net, x).detach().mean()) / before
    assert errors[True] < 1.2
    assert errors[False] > 2.0


def test_the_start_s_rows_are_taught_and_no_others(rng):
    """Of 200 rows the start knows the last 50, and of these the side of the first column."""
    x = normal(rng, 200, D).float()
    source, rows = Source(x.numpy(), torch.device("cpu")), np.arange(150, 200)
    side = (x[:, 0] > 0).long()
    start = Start(rows, torch.eye(K)[side[rows]].numpy(), np.zeros((50, Z)), 0.0)
    net = networks(torch.Generator().manual_seed(3), hidden=16).float()
    distill(net.log_posterior, net, source, start, Training(epochs=60, batch_size=25, learning_rate=1e-2), rng)
    with torch.no_grad():
        assert (net.log_posterior(x[rows]).argmax(1) == side[rows]).float().mean() > 0.95
        assert (net.log_posterior(x).argmax(1) == side).float().mean() > 0.7  # the others follow as far as it reaches


def test_the_deviations_of_a_kept_start_settle_at_the_first_floors(rng):
    x, proba = normal(rng, 60, D).float(), normal(rng, 60, K).mul(3).softmax(1).float().numpy()
    start = Start(np.arange(60), proba, np.zeros((60, Z)), 0.0)
    floors = {"floor_x": Geometric(0.7, 0.01), "floor_z": Geometric(0.4, 0.01)}
    kept, twin = (networks(torch.Generator().manual_seed(3)).float() for _ in range(2))
    untaught = lambda *_, **__: None  # noqa: E731
    source = Source(x.numpy(), torch.device("cpu"))
    keep(kept, source, start, untaught, Training(), lambda: SimpleNamespace(held=None, **floors))
    twin.load_codes(twin.code(x).detach().numpy(), proba)
    twin.settle(x, 0.7, 0.4)
    assert all(map(torch.equal, kept.state_dict().values(), twin.state_dict().values()))


@pytest.mark.parametrize("fineness", [(1, 3, 10), (10, 3, 1)])
def test_of_several_cuts_the_one_with_the_most_neighbor_information_is_kept(fineness):
    random = np.random.RandomState(0)
    points = make_blobs(300, centers=4, cluster_std=1.5, random_state=0)[0]
    graph = neighbors(points, 10)
    alone = [merged_microclusters(points, graph, 4, random, per_cluster=(n,))[1] for n in fineness]
    proba, score = merged_microclusters(points, graph, 4, np.random.RandomState(0), per_cluster=fineness)
    assert score == max(alone) > min(alone)
    assert neighbor_information(proba, graph) == pytest.approx(score)


def test_a_held_bound_is_the_bound_and_moves_everything_but_q_y(rng):
    net, x = networks(rng), normal(rng, 6, D)
    values = []
    for held in (True, False):
        generator = torch.Generator().manual_seed(5)
        floors = Constant(0.5), Constant(0.3)
        ascent = Objective(net, "vimco", 4, False, *floors, (), None, generator, RunningMoments())
        value = ascent.held(x) if held else ascent(x, np.arange(6), 0.0).value
        net.zero_grad()
        value.sum().backward()
        values.append(value.detach())
        assert (net.y_logits.weight.grad is None) == held
        assert net.z_head.loc.weight.grad.abs().max() > 0
        assert net.trunk[0].weight.grad.abs().max() > 0
    assert_close(*values)


def test_training_begins_higher_from_a_settled_start():
    X, _ = make_blobs(400, centers=4, n_features=8, cluster_std=0.7, random_state=0)
    bounds = {}
    for settled in (True, False):
        floor = StdFloor(Constant(0.02), Constant(0.02), settled=settled)
        network = Network(hidden=(24,), latent_dim=2, batch_norm=False)
        settings = {"network": network, "training": Training(epochs=20, batch_size=50), "std_floor": floor}
        model = NVISA(4, init="gmm", consistency=None, n_samples=5, random_state=0, **settings).fit(X)
        bounds[settled] = next(record["bound"] for record in model.history_ if record["stage"] == "training")
    assert bounds[True] > bounds[False] + 1.0


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")  # after twelve epochs
@pytest.mark.parametrize("kind", [NVISA, GMVAE])
def test_the_history_begins_with_the_start(kind):
    seen = []
    model = kind(2, init="gmm", training=Training(epochs=12, batch_size=64), random_state=0)
    X, _ = make_blobs(120, 4, centers=2, random_state=0)
    model.on_epoch(lambda clusterer, record: seen.append(record)).fit(X)
    assert list(dict.fromkeys(record["stage"] for record in seen)) == ["pretraining", "distillation", "training"]
    assert model.history_ == seen
    assert model.n_iter_ == len(seen)
