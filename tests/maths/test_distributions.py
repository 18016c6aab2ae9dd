"""Every density against another library, against one, and against its other form."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.maths.distributions import (
    entropy,
    information,
    kl_categorical,
    kl_normal,
    log_bernoulli,
    log_normal,
    marginal_entropy,
    mean_squared_error,
    responsibilities,
)
from nvisa.maths.full_covariance import log_normal_tril
from oracles import TIGHT, binary_vectors, grid, normal
from oracles import information as information_oracle
from oracles import log_bernoulli as log_bernoulli_oracle
from oracles import log_normal as log_normal_oracle

# ---- normal ----------------------------------------------------------------------------------------------------------


def test_log_normal_is_torch_s(rng):
    x, loc, scale = normal(rng, 4, 1, 3), normal(rng, 5, 3), normal(rng, 5, 3).exp()
    assert_close(log_normal(x, loc, scale), log_normal_oracle(x, loc, scale), **TIGHT)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_normal_integrates_to_one(dims):
    loc, scale = torch.tensor([0.4, -1.1]).double()[:dims], torch.tensor([0.5, 1.7]).double()[:dims]
    points, cell = grid(-20, 20, 401, dims)
    assert log_normal(points, loc, scale).exp().sum() * cell == pytest.approx(1, abs=1e-12)


def test_correlated_normals_are_torch_s(rng):
    x, loc, below = normal(rng, 6, 3), normal(rng, 4, 3), normal(rng, 4, 3, 3)
    tril = below.tril(-1) + torch.diag_embed(normal(rng, 4, 3).exp())
    assert_close(log_normal_tril(x, loc, tril), MultivariateNormal(loc, scale_tril=tril).log_prob(x[:, None]), **TIGHT)


# ---- Bernoulli -------------------------------------------------------------------------------------------------------


def test_log_bernoulli_is_torch_s_and_minus_the_cross_entropy_between_zero_and_one(rng):
    logits = 3 * normal(rng, 2, 5)
    x = binary_vectors(5)[:, None]
    assert_close(log_bernoulli(x, logits), log_bernoulli_oracle(x, logits), **TIGHT)
    gray = torch.rand(2, 5, generator=rng, dtype=torch.float64)
    cross_entropy = F.binary_cross_entropy(logits.sigmoid(), gray, reduction="none").sum(-1)
    assert_close(log_bernoulli(gray, logits), -cross_entropy, **TIGHT)


def test_the_bernoulli_sums_to_one_over_all_binary_vectors(rng):
    assert log_bernoulli(binary_vectors(6), 4 * normal(rng, 6)).exp().sum() == pytest.approx(1, abs=1e-13)


def test_log_bernoulli_needs_no_clipping():
    logits = torch.tensor([[1e4], [-1e4]]).double()
    assert log_bernoulli(torch.ones(1).double(), logits).tolist() == [0.0, -1e4]


# ---- divergences -----------------------------------------------------------------------------------------------------


def test_kl_normal_is_torch_s_and_zero_only_at_itself(rng):
    p, q = [(normal(rng, 4, 3), normal(rng, 4, 3).exp()) for _ in range(2)]
    expected = kl_divergence(Independent(Normal(*p), 1), Independent(Normal(*q), 1))
    assert_close(kl_normal(*p, *q), expected, **TIGHT)
    assert_close(kl_normal(*p, *p), torch.zeros(4).double(), **TIGHT)
    assert (kl_normal(*p, *q) > 0).all()


def test_kl_categorical_is_torch_s_and_zero_only_at_itself(rng):
    p, q = (2 * normal(rng, 2, 4, 3)).log_softmax(-1)
    expected = kl_divergence(Categorical(logits=p), Categorical(logits=q))
    assert_close(kl_categorical(p, q), expected, **TIGHT)
    assert (kl_categorical(p, p) == 0).all()
    assert (kl_categorical(p, q) > 0).all()


def test_entropy_is_torch_s(rng):
    log_p = (2 * normal(rng, 4, 3)).log_softmax(-1)
    assert_close(entropy(log_p), Categorical(logits=log_p).entropy(), **TIGHT)


def test_a_zero_probability_adds_nothing_to_the_entropy_nor_to_its_gradient():
    log_p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).double().log().requires_grad_()
    h = entropy(log_p)
    assert h.tolist() == pytest.approx([math.log(2), 0.0], abs=1e-15)
    (slope,) = torch.autograd.grad(h.sum(), log_p)
    # d/dl of -exp(l) l is -exp(l) (l + 1)
    assert_close(slope, torch.tensor([[0.5, 0.5, 0], [1, 0, 0]]).double() * -(1 + log_p.detach().clamp_min(-9)))


# ---- responsibilities ------------------------------------------------------------------------------------------------


@pytest.fixture
def mixture(rng):
    """z [B Z], log weights [K], loc [K Z] and scale [K Z] of clusters whose widths differ."""
    return normal(rng, 20, 2), normal(rng, 3).log_softmax(0), normal(rng, 3, 2), normal(rng, 3, 2).exp()


def test_responsibilities_are_scikit_learn_s(mixture):
    z, log_weights, loc, scale = mixture
    judge = GaussianMixture(3, covariance_type="diag")
    judge.weights_, judge.means_ = log_weights.exp().numpy(), loc.numpy()
    judge.covariances_ = scale.square().numpy()
    judge.precisions_cholesky_ = 1 / scale.numpy()
    np.testing.assert_allclose(responsibilities(*mixture).exp(), judge.predict_proba(z.numpy()), atol=1e-12)


def test_responsibilities_sum_to_one_and_follow_a_renumbering_of_the_clusters(mixture):
    z, *clusters = mixture
    log_r, order = responsibilities(z, *clusters), torch.tensor([2, 0, 1])
    assert_close(log_r.exp().sum(1), torch.ones(20).double(), **TIGHT)
    assert_close(responsibilities(z, *(table[order] for table in clusters)), log_r[:, order], **TIGHT)


# ---- information -----------------------------------------------------------------------------------------------------


def test_information_is_the_mutual_information_of_row_and_cluster(rng):
    log_q_y = (2 * normal(rng, 7, 3)).log_softmax(1)
    joint = log_q_y.exp().numpy() / 7  # a row is drawn with probability 1/7
    assert float(information(log_q_y)) == pytest.approx(information_oracle(joint), abs=1e-12)


def test_balance_weighs_the_entropy_of_the_mean_assignment(rng):
    log_q_y = (2 * normal(rng, 7, 3)).log_softmax(1)
    mean = log_q_y.exp().mean(0)
    entropy_of_mean = float(-(mean * mean.log()).sum())
    assert float(marginal_entropy(log_q_y)) == pytest.approx(entropy_of_mean, abs=1e-12)
    for balance in (0.0, 4.0):
        added = float(information(log_q_y, balance) - information(log_q_y))
        assert added == pytest.approx((balance - 1) * entropy_of_mean, abs=1e-12)


def test_information_with_sizes_is_largest_at_them_and_the_plain_one_where_they_are_equal(rng):
    log_q_y = normal(rng, 7, 3).log_softmax(-1)
    equal = torch.full((3,), -math.log(3.0), dtype=torch.float64)
    shift = 2.5 * math.log(3.0)
    assert_close(information(log_q_y, 2.5, equal), information(log_q_y, 2.5) - shift, **TIGHT)
    sizes = torch.tensor([0.9, 0.08, 0.02], dtype=torch.float64)
    q = log_q_y.exp()
    by_hand = -2.5 * (q.mean(0) * (q.mean(0) / sizes).log()).sum() + (q * q.log()).sum(1).mean()
    assert_close(information(log_q_y, 2.5, sizes.log()), by_hand, **TIGHT)
    sure = torch.eye(3)[[0] * 45 + [1] * 4 + [2]].double().log().clamp_min(-1e3)
    assert_close(information(sure, 4.0, sizes.log()), torch.tensor(0.0).double(), rtol=0, atol=1e-9)


def test_information_is_log_k_for_sure_and_equal_clusters_and_zero_for_one_or_for_doubt():
    def of(rows):
        return float(information(torch.tensor(rows, dtype=torch.float64).log()))

    assert of([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]) == pytest.approx(math.log(3), abs=1e-12)
    assert of([[0.0, 1, 0]] * 3) == pytest.approx(0, abs=1e-12)
    assert of([[0.2, 0.5, 0.3]] * 3) == pytest.approx(0, abs=1e-12)


def test_the_mean_squared_error_is_over_what_is_observed_and_hides_no_broken_network():
    x = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [2.0, 4.0]])
    mean = torch.zeros(3, 2, requires_grad=True)
    assert_close(mean_squared_error(x, mean, -1), torch.tensor([1.0, 0.0, 10.0]))
    assert_close(mean_squared_error(x, mean, 0), torch.tensor([2.5, 16.0]))
    mean_squared_error(x, mean, -1).sum().backward()
    assert mean.grad.tolist() == [[-2.0, 0.0], [0.0, 0.0], [-2.0, -4.0]]
    assert mean_squared_error(x, torch.full((3, 2), torch.nan), -1)[2].isnan()
