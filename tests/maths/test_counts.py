"""Counts: scipy's negative binomial, exact sums over all counts, the limit to Poisson, moments of the draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from nvisa.maths.counts import draw_negative_binomial, log_negative_binomial, log_zero_inflated_negative_binomial

MEAN, THETA = np.array([0.02, 1.0, 7.5, 300.0]), np.array([0.3, 5.0, 0.8, 40.0])
COUNTS = np.array([[0, 0, 0, 0], [1, 2, 30, 250], [3, 0, 7, 411]])
MU, TH, X = (torch.from_numpy(a).double() for a in (MEAN, THETA, COUNTS))


def of_scipy(x):
    return stats.nbinom.logpmf(x, THETA, THETA / (THETA + MEAN))


def test_negative_binomial_is_scipys():
    found = log_negative_binomial(X, MU.log(), TH.log())
    assert_close(found, torch.from_numpy(of_scipy(COUNTS).sum(1)))


def test_zero_inflation_is_a_mixture_of_scipys_and_a_point_at_zero():
    share = np.array([0.9, 0.5, 0.1, 0.01])
    found = log_zero_inflated_negative_binomial(X, MU.log(), TH.log(), torch.from_numpy(share).logit())
    expected = np.log(share * (COUNTS == 0) + (1 - share) * np.exp(of_scipy(COUNTS))).sum(1)
    assert_close(found, torch.from_numpy(expected))


def test_without_additional_zeros_it_is_the_negative_binomial():
    none = torch.full((4,), -1e4).double()
    assert_close(
        log_zero_inflated_negative_binomial(X, MU.log(), TH.log(), none), log_negative_binomial(X, MU.log(), TH.log())
    )


@pytest.mark.parametrize("zeros", [None, 0.7])
def test_the_probabilities_of_all_counts_sum_to_one_with_the_stated_moments(zeros):
    x, mu, theta = torch.arange(4000).double()[:, None], torch.tensor([6.0]).double(), torch.tensor([1.5]).double()
    if zeros is None:
        p, kept = log_negative_binomial(x, mu.log(), theta.log()).exp(), 1.0
    else:
        logits = torch.tensor([zeros]).double().logit()
        p, kept = log_zero_inflated_negative_binomial(x, mu.log(), theta.log(), logits).exp(), 1 - zeros
    mean, square = kept * 6.0, kept * (6.0 + 36.0 / 1.5 + 36.0)
    assert_close(torch.stack([p.sum(), p @ x[:, 0], p @ x[:, 0] ** 2]), torch.tensor([1.0, mean, square]).double())


def test_of_large_theta_it_is_poisson():
    found = log_negative_binomial(X, MU.log(), torch.full((4,), 1e9).double().log())
    assert_close(found, torch.from_numpy(stats.poisson.logpmf(COUNTS, MEAN).sum(1)), rtol=1e-5, atol=1e-4)


def test_gradients_are_those_of_differences_and_finite_at_the_ends():
    parts = [part.clone().requires_grad_() for part in (MU.log(), TH.log(), torch.zeros(4).double())]
    assert torch.autograd.gradcheck(lambda *p: log_zero_inflated_negative_binomial(X, *p), parts)
    far = torch.tensor([-80.0, 80.0, 0.0, 5.0], requires_grad=True)
    log_zero_inflated_negative_binomial(X.float(), far, torch.zeros(4), -far).sum().backward()
    assert far.grad.isfinite().all()


def test_draws_have_the_mean_and_the_variance():
    n = 200_000
    drawn = draw_negative_binomial(MU.log().expand(n, 4), TH.log(), torch.Generator().manual_seed(0))
    variance = MU + MU**2 / TH
    assert ((drawn.mean(0) - MU).abs() < 5 * (variance / n).sqrt()).all()
    assert_close(drawn.var(0), variance, rtol=0.1, atol=0.0)
    assert (drawn == drawn.round()).all()
