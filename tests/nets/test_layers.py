"""Heads, floors, the mixture prior and the input scale, against their equations."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.nets.layers import (
    LIKELIHOODS,
    BernoulliHead,
    GaussianHead,
    Rescale,
    SharedGaussianHead,
    frozen_statistics,
    initialize,
    mlp,
)
from nvisa.nets.priors import MixturePrior
from oracles import TIGHT, binary_vectors, build, gradients, grid, normal
from oracles import log_normal as log_normal_oracle

H = 4
FLOORS = pytest.mark.parametrize("floor", [0.0, 1e-4, 1.0])
GAUSSIANS = pytest.mark.parametrize("kind", [GaussianHead, SharedGaussianHead])


def scale_of(head, h, floor):
    """sigma' as the head states it, one a row and feature."""
    return head(h, floor)[1] if isinstance(head, GaussianHead) else head.scale(floor).expand(*h.shape[:-1], -1)


# ---- the std floor ---------------------------------------------------------------------------------------------------


@FLOORS
@GAUSSIANS
def test_the_scale_is_softplus_plus_the_floor_and_never_below_it(rng, kind, floor):
    head, h = build(lambda: kind(H, 3), rng, spread=20.0), normal(rng, 50, H)
    raw = head.raw_scale(h) if kind is GaussianHead else head.raw_scale.expand(50, -1)
    scale = scale_of(head, h, floor)
    assert (scale >= floor).all()
    assert raw.min() < -15  # so far down that the floor alone is left
    assert_close(scale, torch.log1p(raw.exp()) + floor, **TIGHT)


@GAUSSIANS
def test_floor_zero_is_no_annealing(rng, kind):
    head, x, h = build(lambda: kind(H, 3), rng), normal(rng, 5, 3), normal(rng, 2, 5, H)
    raw = head.raw_scale(h) if kind is GaussianHead else head.raw_scale
    plain = log_normal_oracle(x, h @ head.loc.weight.T + head.loc.bias, F.softplus(raw))
    assert_close(head.log_prob(x, h, 0.0), plain, **TIGHT)


@pytest.mark.parametrize("floor", [0.1, 1.0])
def test_a_wider_floor_is_what_the_likelihood_uses_and_bernoulli_has_none(rng, floor):
    x, h = normal(rng, 5, 3), normal(rng, 2, 5, H)
    for kind in (GaussianHead, SharedGaussianHead):
        head = build(lambda kind=kind: kind(H, 3), rng)
        loc = h @ head.loc.weight.T + head.loc.bias
        assert_close(head.log_prob(x, h, floor), log_normal_oracle(x, loc, scale_of(head, h, floor)), **TIGHT)
    head = build(lambda: BernoulliHead(H, 3), rng)
    assert torch.equal(head.log_prob(x.sigmoid(), h, floor), head.log_prob(x.sigmoid(), h, 0.0))


# ---- likelihoods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_head_s_density_has_mass_one_and_the_mean_that_it_states(rng, name):
    head, h = build(lambda: LIKELIHOODS[name](H, 2), rng), normal(rng, H)
    x, cell = (binary_vectors(2), 1.0) if name == "bernoulli" else grid(-25, 25, 401, 2)
    mass = cell * head.log_prob(x, h.expand(1, len(x), H), 0.3).exp().squeeze(0).detach()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-10)
    assert_close(mass @ x, head.mean(h).detach(), **TIGHT)


@FLOORS
@GAUSSIANS
def test_a_gaussian_draw_is_the_mean_plus_the_scale_times_the_generator_s_noise(rng, kind, floor):
    head, h = build(lambda: kind(H, 3), rng), normal(rng, 2, 5, H)
    noise = normal(torch.Generator().manual_seed(7), 2, 5, 3)
    drawn = head.draw(h, torch.Generator().manual_seed(7), floor)
    assert_close(drawn, head.mean(h) + scale_of(head, h, floor) * noise, **TIGHT)


def test_bernoulli_draws_are_ones_as_often_as_the_mean_says(rng):
    head, h, n = build(lambda: BernoulliHead(H, 3), rng), normal(rng, H), 20_000
    drawn = head.draw(h.expand(n, H), rng, 0.0)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    low, high = binom.interval(1 - 1e-9, n, head.mean(h).detach().numpy())
    ones = drawn.sum(0).detach().numpy()
    assert ((low <= ones) & (ones <= high)).all()


def test_shared_and_per_z_heads_agree_when_the_deviation_does_not_depend_on_z(rng):
    shared, free = build(lambda: SharedGaussianHead(H, 3), rng), build(lambda: GaussianHead(H, 3), rng)
    with torch.no_grad():
        free.loc.load_state_dict(shared.loc.state_dict())
        free.raw_scale.weight.zero_()
        free.raw_scale.bias.copy_(shared.raw_scale)
    x, h, floor = normal(rng, 5, 3), normal(rng, 2, 5, H), 0.2
    assert_close(shared.log_prob(x, h, floor), free.log_prob(x, h, floor), **TIGHT)
    for mine, theirs in zip(
        gradients(shared.log_prob(x, h, floor).sum(), [shared.loc.weight, shared.loc.bias, shared.raw_scale]),
        gradients(free.log_prob(x, h, floor).sum(), [free.loc.weight, free.loc.bias, free.raw_scale.bias]),
        strict=True,
    ):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


# ---- multilayer perceptron -------------------------------------------------------------------------------------------


def test_mlp_is_linear_leaky_relu_repeated(rng):
    net, x = build(lambda: mlp([3, 5, 4]), rng), normal(rng, 6, 3)
    expected = x.numpy()
    for layer in (net[0], net[2]):
        expected = expected @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        expected = np.where(expected > 0, expected, 0.2 * expected)
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=1e-12)


def test_batch_norm_stands_between_the_linear_layer_and_the_leaky_relu(rng):
    net = build(lambda: mlp([3, 5], batch_norm=True), rng).train()
    x = normal(rng, 60, 3)
    a = net[0](x)
    a = (a - a.mean(0)) / (a.var(0, correction=0) + net[1].eps).sqrt() * net[1].weight + net[1].bias
    assert_close(net(x), F.leaky_relu(a, 0.2), **TIGHT)


def test_initial_weights_are_glorot_normal_from_the_generator_alone():
    def made(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # what torch's layers draw when built must not be left in them
            module = nn.ModuleList([nn.Linear(300, 500), MixturePrior(50, 40), nn.Embedding(80, 100)])
        initialize(module, torch.Generator().manual_seed(3))
        return module

    linear, prior, embedding = made(1)
    for mine, theirs in zip(made(1).parameters(), made(2).parameters(), strict=True):
        assert torch.equal(mine, theirs)
    # Standard error of a deviation from n draws: sigma / sqrt(2 n), below 0.2 % and 2 %.
    assert float(linear.weight.detach().std()) == pytest.approx(math.sqrt(2 / 800), rel=0.01)
    assert (linear.bias == 0).all()
    assert float(prior.loc.detach().std()) == pytest.approx(1, rel=0.06)
    assert (prior.scale == 1).all()
    assert float(embedding.weight.detach().std()) == pytest.approx(0.1, rel=0.04)


def test_batch_norm_keeps_its_statistics_inside(rng):
    with torch.random.fork_rng():
        net = mlp([3, 4], batch_norm=True).train()
    before = {name: value.clone() for name, value in net[1].named_buffers()}
    x = torch.randn(8, 3, generator=rng)
    with frozen_statistics(net):
        inside = net(x)
    assert torch.equal(net[1].running_mean, before["running_mean"])
    assert torch.equal(net[1].running_var, before["running_var"])
    assert torch.equal(net(x), inside)
    assert not torch.equal(net[1].running_mean, before["running_mean"])
