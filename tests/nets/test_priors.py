"""Every mixture of latent vectors: densities, draws and starts, against their definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.testing import assert_close

from nvisa import Network
from nvisa.nets.priors import (
    FactorPrior,
    FullMixture,
    FullPrior,
    Mixture,
    MixturePrior,
    NestedMixturePrior,
    covariances,
    make_prior,
    mixture_of_codes,
    moments,
)
from nvisa.settings import SettingError
from oracles import TIGHT, build, grid, normal
from oracles import log_normal as log_normal_oracle

K, C, Z = 3, 4, 2


# ---- the paper's -----------------------------------------------------------------------------------------------------


def test_the_prior_is_a_uniform_mixture_of_the_table_s_normals(rng):
    prior = build(lambda: MixturePrior(3, 2), rng)
    z, y = normal(rng, 4, 6, 2), torch.randint(3, (4, 6), generator=rng)
    log_p_z = prior.log_p_z_given_y(z, y)
    for m in range(4):
        for b in range(6):
            k = y[m, b]
            expected = log_normal_oracle(z[m, b], prior.loc[k], prior.log_scale[k].exp())
            assert_close(log_p_z[m, b], expected, **TIGHT)
    assert 3 * math.exp(prior.log_p_y()) == pytest.approx(1, abs=1e-15)


def test_the_prior_integrates_to_one_over_y_and_z(rng):
    prior = build(lambda: MixturePrior(3, 2), rng)
    z, cell = grid(-25, 25, 301, 2)
    y = torch.arange(3)[:, None].expand(3, len(z))
    log_p = prior.log_p_y() + prior.log_p_z_given_y(z.expand(3, -1, -1), y)
    assert float(log_p.detach().exp().sum()) * cell == pytest.approx(1, abs=1e-10)


# ---- a mixture itself, or with a full covariance ---------------------------------------------------------------------


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
    log_p_z = prior.log_p_z_given_y(z, y)
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
    log_p = prior.log_p_y() + prior.log_p_z_given_y(z.expand(K, -1, -1), y)
    assert float(log_p.detach().exp().sum()) * cell == pytest.approx(1, abs=1e-10)


def test_one_component_is_the_paper_s_prior(rng):
    plain, nested = build(lambda: MixturePrior(K, Z), rng), build(lambda: NestedMixturePrior(K, Z, 1), rng)
    with torch.no_grad():
        nested.loc.copy_(plain.loc[:, None])
        nested.log_scale.copy_(plain.log_scale[:, None])
    z, y = normal(rng, 4, 6, Z), torch.randint(K, (4, 6), generator=rng)
    assert_close(nested.log_p_z_given_y(z, y), plain.log_p_z_given_y(z, y), **TIGHT)
    assert type(make_prior(K, Network(latent_dim=Z))) is MixturePrior


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


KINDS = {
    "paper": lambda: make_prior(K, Network(latent_dim=Z)),
    "nested": lambda: make_prior(K, Network(latent_dim=Z, prior_components=C)),
    "full": lambda: make_prior(K, Network(latent_dim=Z, prior_covariance="full")),
    "identity": lambda: make_prior(K, Network(latent_dim=Z, prior_covariance="identity")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_renumbering_moves_whole_clusters(rng, kind):
    prior = build(KINDS[kind], rng)
    z, order = normal(rng, 1, 6, Z).expand(K, 6, Z), torch.tensor([2, 0, 1])
    y = torch.arange(K)[:, None].expand(K, 6)
    before = prior.log_p_z_given_y(z, y).detach()
    prior.permute(order)
    assert_close(prior.log_p_z_given_y(z, y).detach(), before[order], **TIGHT)


# ---- a full covariance -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(rng):
    return build(lambda: FullPrior(K, Z + 1), rng)


def test_a_full_prior_is_the_normal_with_its_covariance(rng, full):
    z, y = normal(rng, 4, 6, Z + 1), torch.randint(K, (4, 6), generator=rng)
    covariance = full.tril @ full.tril.mT
    expected = MultivariateNormal(full.loc[y], covariance_matrix=covariance[y]).log_prob(z)
    assert_close(full.log_p_z_given_y(z, y), expected, **TIGHT)
    assert_close(full.scale.square(), covariance.diagonal(dim1=-2, dim2=-1), **TIGHT)
    assert_close(full.precision, torch.linalg.inv(covariance).diagonal(dim1=-2, dim2=-1), **TIGHT)


def test_without_correlations_it_is_the_paper_s_prior(rng, full):
    plain = build(lambda: MixturePrior(K, Z + 1), rng)
    with torch.no_grad():
        full.below.copy_(full.below.triu())  # what stands on and above the diagonal counts for nothing
        full.loc.copy_(plain.loc)
        full.log_scale.copy_(plain.log_scale)
    z, y = normal(rng, 4, 6, Z + 1), torch.randint(K, (4, 6), generator=rng)
    assert_close(full.log_p_z_given_y(z, y), plain.log_p_z_given_y(z, y), **TIGHT)
    assert_close(full.precision, plain.precision, **TIGHT)


def test_its_draws_have_its_covariance(rng, full):
    n = 20_000
    z = full.draw(torch.arange(K).repeat_interleave(n), rng).detach().reshape(K, n, Z + 1)
    expected = (full.tril @ full.tril.mT).detach()
    size = full.scale.detach()[:, :, None] * full.scale.detach()[:, None]
    for k in range(K):
        assert ((z[k].mean(0) - full.loc[k].detach()) / (full.scale[k].detach() / n**0.5)).abs().max() < 4
        assert ((z[k].T.cov() - expected[k]) / size[k]).abs().max() < 0.05


def test_a_start_gives_it_the_covariances_of_the_codes(rng, full):
    codes, proba = normal(rng, 40, Z + 1).numpy(), normal(rng, 40, K).softmax(1).numpy()
    full.set_from(codes, proba)
    for k in range(K):
        expected = np.cov(codes.T, aweights=proba[:, k], ddof=0) + 1e-3 * np.eye(Z + 1)
        np.testing.assert_allclose((full.tril[k] @ full.tril[k].T).detach(), expected, atol=1e-12)
        np.testing.assert_allclose(full.loc[k].detach(), proba[:, k] @ codes / proba[:, k].sum(), atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "identity"])
def test_a_prior_cannot_have_components_and_another_covariance(kind):
    match = rf"network\.prior_covariance must be 'diag' with prior_components=2, got '{kind}"
    with pytest.raises(SettingError, match=match):
        make_prior(K, Network(prior_covariance=kind, prior_components=2))


def test_an_identity_prior_is_the_normal_of_deviation_one_and_learns_means_only(rng):
    prior = build(KINDS["identity"], rng)
    assert [name for name, _ in prior.named_parameters()] == ["loc"]
    z, y = normal(rng, 4, 6, Z), torch.randint(K, (4, 6), generator=rng)
    expected = MultivariateNormal(prior.loc[y], covariance_matrix=torch.eye(Z, dtype=z.dtype)).log_prob(z)
    assert_close(prior.log_p_z_given_y(z, y), expected, **TIGHT)
    prior.set_from(normal(rng, 40, Z).numpy(), normal(rng, 40, K).softmax(1).numpy())
    assert_close(prior.scale, torch.ones(K, Z, dtype=z.dtype), **TIGHT)


# ---- GM-GAN's --------------------------------------------------------------------------------------------------------


def test_means_start_uniformly_at_the_separation_asked_for(rng):
    """The mean squared distance of two means is (separation sigma)^2; no coordinate is beyond c."""
    separation, scale, n, latent_dim = 5.0, 0.3, 4000, 3
    prior = FactorPrior(n, latent_dim, dynamic=False)
    prior.start(separation, scale, rng)
    spread = separation * scale * math.sqrt(3 / (2 * latent_dim))
    assert 0.99 * spread < prior.loc.max() <= spread * (1 + 1e-6)
    assert -0.99 * spread > prior.loc.min() >= -spread * (1 + 1e-6)
    squared = (prior.loc[: n // 2] - prior.loc[n // 2 :]).square().sum(1)
    assert abs(squared.mean() - (separation * scale) ** 2) < 5 * squared.std() / (n // 2) ** 0.5
    assert_close(prior.factor, scale * torch.eye(latent_dim).expand(n, -1, -1))


@pytest.mark.parametrize("dynamic", [True, False])
def test_its_draws_are_affine_in_the_noise_and_its_tables_trained_only_if_they_are_to_move(rng, dynamic):
    prior, y = FactorPrior(K, Z, dynamic=dynamic).double(), torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        prior.loc.copy_(normal(rng, K, Z))
        prior.factor.copy_(normal(rng, K, Z, Z))
    noise = normal(torch.Generator().manual_seed(4), 4, Z)
    drawn = prior.draw(y, torch.Generator().manual_seed(4))
    for row, e, k in zip(drawn, noise, y, strict=True):
        assert_close(row, prior.factor[k] @ e + prior.loc[k], **TIGHT)
    assert {name for name, _ in prior.named_parameters()} == ({"loc", "factor"} if dynamic else set())
    assert set(prior.state_dict()) == {"loc", "factor"}


# ---- loaded mixtures, and moments of codes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_mixture_of_codes_is_loaded_whole_and_renumbered_whole(rng, kind):
    mixture, weights = mixture_of_codes(K, Z, kind).double(), normal(rng, K).softmax(0)
    loc, root = normal(rng, K, Z), normal(rng, K, Z, Z)
    covariance = root @ root.mT if kind == "full" else torch.diag_embed(root[:, 0].square())
    mixture.load(weights.numpy(), loc.numpy(), (covariance if kind == "full" else root[:, 0].square()).numpy())
    assert isinstance(mixture, FullMixture if kind == "full" else Mixture)
    assert list(mixture.parameters()) == []  # what EM has found is not trained on
    z, order = normal(rng, 9, Z), torch.tensor([2, 0, 1])
    log_joint = MultivariateNormal(loc, covariance_matrix=covariance).log_prob(z[:, None]) + weights.log()
    expected = log_joint.log_softmax(1)
    assert_close(mixture.log_q_y(z), expected, rtol=1e-8, atol=1e-8)
    mixture.permute(order)
    assert_close(mixture.log_q_y(z), expected[:, order], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("trained", [True, False])
def test_the_mixture_is_the_one_it_was_given(rng, trained):
    mixture = Mixture(K, Z, trained=trained).double()
    weights, loc, variance = normal(rng, K).softmax(0), normal(rng, K, Z), normal(rng, K, Z).exp()
    mixture.load(weights.numpy(), loc.numpy(), variance.numpy())
    judge = MixtureSameFamily(Categorical(probs=weights), Independent(Normal(loc, variance.sqrt()), 1))
    z = normal(rng, 4, 6, Z)
    assert_close(mixture.log_p_z(z).detach(), judge.log_prob(z), **TIGHT)
    assert len(list(mixture.parameters())) == (3 if trained else 0)
    assert set(mixture.state_dict()) == {"logits", "loc", "log_scale"}


def random_full_mixture(rng):
    """A mixture with correlated latents, and scikit-learn's with the same parameters."""
    mixture, root = FullMixture(K, Z).double(), normal(rng, K, Z, Z)
    covariance = (root @ root.mT + torch.eye(Z)).numpy()
    judge = GaussianMixture(K, covariance_type="full")
    judge.weights_, judge.means_, judge.covariances_ = (
        normal(rng, K).softmax(0).numpy(),
        normal(rng, K, Z).numpy(),
        covariance,
    )
    judge.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(covariance))
    mixture.load(judge.weights_, judge.means_, covariance)
    return mixture, judge


def test_codes_drawn_from_a_full_mixture_have_its_moments(rng):
    mixture, judge = random_full_mixture(rng)
    n = 40_000
    z = mixture.draw(torch.ones(n, dtype=torch.long), rng)
    spread = np.sqrt(np.diag(judge.covariances_[1]))
    assert np.all(abs(z.mean(0).numpy() - judge.means_[1]) < 5 * spread / np.sqrt(n))
    assert np.all(abs(np.cov(z.numpy().T) - judge.covariances_[1]) < 10 * np.outer(spread, spread) / np.sqrt(n))
    share = np.bincount(mixture.draw_y(n, np.random.RandomState(0)), minlength=K) / n
    assert np.all(abs(share - judge.weights_) < 5 / np.sqrt(n))


def test_clusters_and_codes_are_drawn_from_the_mixture(rng):
    mixture, n = Mixture(2, 1, trained=False), 20_000
    mixture.load(np.array([0.7, 0.3]), np.array([[0.0], [5.0]]), np.array([[1.0], [0.25]]))
    y = mixture.draw_y(n, np.random.RandomState(0))
    low, high = binom.interval(1 - 1e-9, n, 0.3)
    assert low <= y.sum() <= high
    z = mixture.draw(torch.ones(n, dtype=torch.long), rng)
    assert abs(float(z.mean()) - 5) < 6 * 0.5 / n**0.5
    assert abs(float(z.std()) - 0.5) < 6 * 0.5 / (2 * n) ** 0.5


def test_moments_are_numpy_s_under_the_responsibilities(rng):
    codes, proba = normal(rng, 40, Z).numpy(), normal(rng, 40, K).softmax(1).numpy()
    loc, variance = moments(codes, proba)
    for k in range(K):
        expected = np.cov(codes.T, aweights=proba[:, k], ddof=0)
        np.testing.assert_allclose(loc[k], np.average(codes, axis=0, weights=proba[:, k]), atol=1e-12)
        np.testing.assert_allclose(variance[k], expected.diagonal(), atol=1e-12)
        np.testing.assert_allclose(covariances(codes, proba)[k], expected + 1e-3 * np.eye(Z), atol=1e-12)


def test_equal_codes_and_empty_clusters_keep_a_variance():
    codes, proba = np.ones((6, Z)), np.eye(K)[[0, 0, 1, 1, 1, 0]]  # nobody is in cluster 2
    loc, variance = moments(codes, proba)
    np.testing.assert_allclose(loc, [[1.0] * Z, [1.0] * Z, [0.0] * Z])
    np.testing.assert_allclose(variance, np.full((K, Z), 1e-3))
    assert (np.linalg.eigvalsh(covariances(codes, proba)) >= 1e-3 - 1e-12).all()
