"""EM as matrix products is EM: scikit-learn's from the same starts, and at its end no step gains anything."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from nvisa.maths.full_covariance import log_normal_tril
from nvisa.maths.mixtures import BLOCK, RIDGE, TOL, common_axes, e_step, em, fit_mixture, natural, statistics
from oracles import TIGHT, normal

Z, K = 2, 3


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # scikit-learn is run for one step, or until its own tolerance
        yield


def touching(n=3000, middle=0.0):
    """Three clusters that touch, and two directions that differ."""
    rng = np.random.RandomState(0)
    return rng.randn(n, Z) @ np.diag([1.0, 0.5]) + 1.6 * np.eye(K, Z)[rng.randint(K, size=n)] + middle


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_em_of_the_codes_goes_on_until_a_step_gains_nothing(covariance):
    rng = np.random.RandomState(0)
    codes = touching()

    def next_step_s_gain(found):
        start = {"means_init": found.means_, "weights_init": found.weights_, "precisions_init": found.precisions_}
        step = GaussianMixture(K, covariance_type=covariance, max_iter=1, **start).fit(codes)
        return step.score(codes) - found.score(codes)

    assert next_step_s_gain(fit_mixture(codes, K, rng, covariance=covariance)) < 2e-5
    early = GaussianMixture(K, covariance_type=covariance, random_state=0).fit(codes)  # scikit-learn's tolerance
    assert next_step_s_gain(early) > 1e-4


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("middle", [0.0, 1e4])
def test_it_is_scikit_learns_em_from_the_same_starts(covariance, middle):
    codes = touching(BLOCK + 700, middle)  # two blocks
    settings = {"n_init": 3, "tol": TOL, "max_iter": 300, "reg_covar": RIDGE}
    its = GaussianMixture(K, covariance_type=covariance, random_state=np.random.RandomState(5), **settings).fit(codes)
    ours = fit_mixture(codes, K, np.random.RandomState(5), n_init=3, covariance=covariance)
    assert its.n_iter_ > 10
    assert ours.lower_bound_ == pytest.approx(its.lower_bound_, abs=2 * TOL)
    for name in ("weights_", "means_", "covariances_"):  # one step apart, where steps are short
        np.testing.assert_allclose(getattr(ours, name), getattr(its, name), atol=5e-3, err_msg=name)


@pytest.mark.parametrize("full", [True, False])
def test_the_products_are_the_densities(rng, full):
    z, loc, log_weights, root = (normal(rng, *shape) for shape in ((9, Z), (K, Z), (K,), (K, Z, Z)))
    within = root @ root.mT + torch.eye(Z) if full else torch.diag_embed(root.diagonal(dim1=1, dim2=2).square() + 0.1)
    weights = log_weights.softmax(0)
    pairs = torch.triu_indices(Z, Z) if full else torch.arange(Z).expand(2, Z)
    expected = weights.log() + log_normal_tril(z, loc, torch.linalg.cholesky(within))
    w = natural(weights, loc, within, pairs)
    assert_close(statistics(z, pairs) @ w, expected, **TIGHT)
    log_p, total = e_step(z, w, pairs)
    assert log_p == pytest.approx(float(expected.logsumexp(1).mean()))
    assert_close(total, expected.softmax(1).T @ statistics(z, pairs), **TIGHT)


def test_codes_that_are_all_the_same_have_the_ridge_for_a_variance():
    found = fit_mixture(np.ones((40, Z)), 1, np.random.RandomState(0), n_init=1)
    np.testing.assert_allclose(found.covariances_[0], RIDGE * np.eye(Z), rtol=1e-9)
    within = em(torch.zeros(40, Z).double(), np.ones((40, 1)), "full")[-1]
    assert_close(within[0], RIDGE * torch.eye(Z).double(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_an_empty_cluster_stays_empty_and_leaves_the_others_as_they_are(covariance):
    z = torch.from_numpy(touching(300, 2.0))
    proba = np.eye(K)[np.arange(300) % K]
    log_p, *parts = em(z, proba, covariance)
    with_empty, *parts_with_empty = em(z, np.c_[proba, np.zeros(300)], covariance)
    assert with_empty == pytest.approx(log_p, abs=1e-9)
    for part, its in zip(parts, parts_with_empty, strict=True):
        assert_close(its[:K], part, rtol=0, atol=1e-9)
    assert 0 < parts_with_empty[0][K] < 1e-12


# ---- axes in which several clusters are diagonal at once -------------------------------------------------------------


def test_common_axes_recover_the_basis_in_which_clusters_were_drawn(rng):
    basis, variances, weights = normal(rng, Z, Z) + 2 * torch.eye(Z), normal(rng, K, Z).exp(), normal(rng, K).softmax(0)
    within = torch.einsum("ij,kj,lj->kil", basis, variances, basis)
    axes = torch.from_numpy(common_axes(weights.numpy(), within.numpy()))
    found = axes @ basis  # one number a row: the axes, in some order and scale
    assert_close(
        (found.abs() / found.abs().amax(1, keepdim=True)).sum(), torch.tensor(float(Z)).double(), atol=1e-4, rtol=0
    )
    turned = torch.einsum("ij,kjl,ml->kim", axes, within, axes)
    gap = turned.diagonal(dim1=1, dim2=2).log().sum(1) - torch.logdet(turned)
    assert_close(gap, torch.zeros(K).double(), atol=1e-6, rtol=0)
