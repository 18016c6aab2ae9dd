"""The nested prior: a density, draws from it, and its start, against their definitions."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from nvisa import Network
from nvisa.mixture_vae import Densities, NestedMixturePrior
from nvisa.nets import MixturePrior, Rescale
from oracles import TIGHT, build, grid, normal
from oracles import log_normal as log_normal_oracle

K, C, Z = 3, 4, 2


@pytest.fixture
def prior(rng):
    return build(lambda: NestedMixturePrior(K, Z, C), rng)


def mean_and_variance(prior):
    """Of p(z|y), by the laws of total expectation and variance."""
    w = prior.logits.softmax(-1)[..., None]
    mean = (w * prior.loc).sum(1)
    return mean, (w * (prior.scale**2 + prior.loc**2)).sum(1) - mean**2


def test_it_is_the_weighted_sum_of_the_component_s_normals(rng, prior):
    z, y = normal(rng, 4, 6, Z), torch.randint(K, (4, 6), generator=rng)
    log_p_z = prior.log_p_z(z, y)
    for m, b in np.ndindex(4, 6):
        weights = prior.logits[y[m, b]].exp() / prior.logits[y[m, b]].exp().sum()
        parts = [
            w * log_normal_oracle(z[m, b], loc, log_scale.exp()).exp()
            for w, loc, log_scale in zip(weights, prior.loc[y[m, b]], prior.log_scale[y[m, b]], strict=True)
        ]
        assert_close(log_p_z[m, b], sum(parts).log(), **TIGHT)


def test_it_integrates_to_one_over_y_and_z(prior):
    with torch.no_grad():
        prior.log_scale.mul_(0.4)  # for the grid: neither wider than it, nor narrower than its cells
    z, cell = grid(-15, 15, 401, 2)
    y = torch.arange(K)[:, None].expand(K, len(z))
    log_p = prior.log_p_y() + prior.log_p_z(z.expand(K, -1, -1), y)
    assert float(log_p.detach().exp().sum()) * cell == pytest.approx(1, abs=1e-10)


def test_one_component_is_the_paper_s_prior(rng):
    plain, nested = build(lambda: MixturePrior(K, Z), rng), build(lambda: NestedMixturePrior(K, Z, 1), rng)
    with torch.no_grad():
        nested.loc.copy_(plain.loc[:, None])
        nested.log_scale.copy_(plain.log_scale[:, None])
    z, y = normal(rng, 4, 6, Z), torch.randint(K, (4, 6), generator=rng)
    assert_close(nested.log_p_z(z, y), plain.log_p_z(z, y), **TIGHT)
    rescale = Rescale(torch.zeros(5), torch.ones(5))
    network = Network(hidden=(4,), latent_dim=Z)
    net = build(lambda: Densities(rescale, K, network, likelihood="gaussian", posterior="joint"), rng)
    assert type(net.prior) is MixturePrior


@pytest.mark.parametrize("kind", ["plain", "nested"])
def test_draws_have_the_moments_of_their_cluster(rng, kind):
    prior = build(lambda: MixturePrior(K, Z) if kind == "plain" else NestedMixturePrior(K, Z, C), rng)
    mean, variance = mean_and_variance(prior) if kind == "nested" else (prior.loc, prior.scale**2)
    n = 20_000
    z = prior.draw(torch.arange(K).repeat_interleave(n), rng).detach().reshape(K, n, Z)
    error = (z.mean(1) - mean) / (variance / n).sqrt()
    assert error.abs().max() < 4  # standard errors
    assert_close(z.var(1), variance.detach(), rtol=0.06, atol=0)


def test_its_components_share_the_draws_by_their_weights(rng, prior):
    with torch.no_grad():
        prior.loc.copy_(100.0 * torch.arange(C)[None, :, None].expand(K, C, Z))
    n = 20_000
    z = prior.draw(torch.full((n,), 1), rng).detach()
    share = torch.bincount((z[:, 0] / 100).round().long(), minlength=C) / n
    assert_close(share.double(), prior.logits[1].softmax(-1).detach(), rtol=0, atol=4 * (0.25 / n) ** 0.5)


def test_its_start_has_exactly_the_moments_asked_for_and_components_that_differ(rng, prior):
    mean, variance = normal(rng, K, Z).numpy(), normal(rng, K, Z).exp().numpy()
    prior.set_moments(mean, variance)
    got = mean_and_variance(prior)
    np.testing.assert_allclose(got[0].detach(), mean, atol=1e-12)
    np.testing.assert_allclose(got[1].detach(), variance, rtol=1e-12)
    between = prior.loc.detach().var(1, correction=0).numpy()
    np.testing.assert_allclose(between, variance / 4, rtol=1e-12)


def test_renumbering_moves_whole_clusters(rng):
    rescale, network = Rescale(torch.zeros(5), torch.ones(5)), Network(hidden=(4,), latent_dim=Z, prior_components=C)
    net = build(lambda: Densities(rescale, K, network, likelihood="gaussian", posterior="joint"), rng)
    z, order = normal(rng, 1, 6, Z).expand(K, 6, Z), torch.tensor([2, 0, 1])
    y = torch.arange(K)[:, None].expand(K, 6)
    before = net.prior.log_p_z(z, y).detach()
    net.permute(order)
    assert_close(net.prior.log_p_z(z, y).detach(), before[order], **TIGHT)
