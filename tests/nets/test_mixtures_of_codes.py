"""Mixtures of codes: the density of the one that is trained, and what is drawn from them."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

from nvisa.nets.priors import FullMixture, Mixture
from oracles import TIGHT, normal

B, Z, K = 6, 2, 3


@pytest.mark.parametrize("trained", [True, False])
def test_the_mixture_is_the_one_it_was_given(rng, trained):
    mixture = Mixture(K, Z, trained=trained).double()
    weights, loc, variance = normal(rng, K).softmax(0), normal(rng, K, Z), normal(rng, K, Z).exp()
    mixture.load(weights.numpy(), loc.numpy(), variance.numpy())
    judge = MixtureSameFamily(Categorical(probs=weights), Independent(Normal(loc, variance.sqrt()), 1))
    z = normal(rng, 4, B, Z)
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
