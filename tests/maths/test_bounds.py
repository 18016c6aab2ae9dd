"""The gradient estimators, exactly: every draw of a tiny model is enumerated, no tolerance hides a bias."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from nvisa.maths.bounds import (
    N_DRAWS,
    EnumY,
    RunningMoments,
    add_gradient,
    drawn_by_weight,
    enum_y,
    importance_sampled,
    log_mean_exp,
    log_mean_exp_swap_one_out,
    nvil,
    nvil_fitting,
    scaled_gradient,
    vimco,
)
from oracles import (
    TIGHT,
    all_draws,
    gradients,
    hermite,
    log_mean_exp_decimal,
    normal,
    swap_one_out_decimal,
    swap_one_out_matrix,
)
from oracles import log_normal as log_normal_oracle

EXACT = {"rtol": 1e-8, "atol": 1e-8}
K = 3


# ---- log_mean_exp ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 900.0, -900.0])
def test_log_mean_exp_is_the_logarithm_of_the_mean_also_where_exp_overflows(rng, shift):
    a = 5 * normal(rng, 6, 2) + shift
    expected = torch.tensor([log_mean_exp_decimal(column) for column in a.T], dtype=torch.float64)
    assert_close(log_mean_exp(a), expected, rtol=1e-14, atol=1e-13)


# ---- swap one out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 3, 7])
def test_swap_one_out_is_its_definition_also_where_one_sample_dominates(rng, m):
    columns = [normal(rng, m), 40 * normal(rng, m)]
    for far in (800.0, -800.0):
        for place in {0, m // 2, m - 1}:
            columns.append(normal(rng, m).index_add(0, torch.tensor([place]), torch.tensor([far]).double()))
    log_w = torch.stack(columns, 1)
    expected = torch.tensor([swap_one_out_decimal(column) for column in log_w.T], dtype=torch.float64).T
    assert_close(log_mean_exp_swap_one_out(log_w), expected, rtol=1e-13, atol=1e-12)


def test_swap_one_out_of_a_thousand_samples_is_the_matrix_form(rng):
    log_w = torch.stack([normal(rng, 1000), 50 * normal(rng, 1000)], 1)
    assert_close(log_mean_exp_swap_one_out(log_w), swap_one_out_matrix(log_w), rtol=1e-12, atol=1e-11)


def test_swap_one_out_does_not_see_the_sample_that_is_left_out(rng):
    log_w = normal(rng, 4, 2)
    slopes = jacobian(log_mean_exp_swap_one_out, log_w)  # [M B M B]
    assert (torch.einsum("mbmb->mb", slopes) == 0).all()


# ---- a tiny discrete model: q(y) = softmax(phi), log p(x, y) = theta -------------------------------------------------


@pytest.fixture
def tiny(rng) -> tuple[Tensor, Tensor]:
    return normal(rng, K), normal(rng, K)


def drawn(phi: Tensor, theta: Tensor, n_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """log_w and log_q [M, K^M] of every possible draw, and its probability [K^M]."""
    y = all_draws(K, n_samples)
    log_q = phi.log_softmax(0)[y]
    return theta[y] - log_q, log_q, log_q.sum(0).exp()


def exact_bound(phi: Tensor, theta: Tensor, n_samples: int) -> Tensor:
    """L^M = sum over all draws of probability x log 1/M sum_m w_m: differentiable as it stands."""
    log_w, _, probability = drawn(phi, theta, n_samples)
    return (probability * log_w.exp().mean(0).log()).sum()


def moments(estimator, phi: Tensor, theta: Tensor, n_samples: int) -> tuple[Tensor, Tensor]:
    """Exact mean of the gradient in (phi, theta) [2K], and its exact total variance."""
    rows = jacobian(lambda phi, theta: estimator(*drawn(phi, theta, n_samples)[:2]), (phi, theta))
    gradient, probability = torch.cat(rows, 1), drawn(phi, theta, n_samples)[2]
    mean = probability @ gradient
    return mean, probability @ (gradient - mean).square().sum(1)


def exact_gradient(phi: Tensor, theta: Tensor, n_samples: int) -> Tensor:
    return torch.cat(jacobian(lambda phi, theta: exact_bound(phi, theta, n_samples), (phi, theta)))


@pytest.mark.parametrize("m", [2, 3])
def test_vimco_is_unbiased(tiny, m):
    assert_close(moments(vimco, *tiny, m)[0], exact_gradient(*tiny, m), **EXACT)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("baseline", [0.0, -2.3, 11.0])
def test_nvil_is_unbiased_whatever_the_baseline(tiny, m, baseline):
    def estimator(log_w, log_q):
        return nvil(log_w, log_q, torch.full((log_w.shape[1],), baseline).double())

    # The mean of M one-sample estimates: its gradient is that of L^1 for every M.
    assert_close(moments(estimator, *tiny, m)[0], exact_gradient(*tiny, 1), **EXACT)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_nvil_s_divisor_divides_the_gradient_of_q_and_nothing_else(tiny, scale):
    """grad log_w has mean zero in phi (it is a score), so all of phi's gradient is the signal's: exactly 1 / scale.

    The model's gradient does not pass through the signal: exact for every scale.
    """
    mean, _ = moments(lambda w, q: nvil(w, q, torch.tensor(0.4).double(), scale), *tiny, 2)
    exact = exact_gradient(*tiny, 1)
    assert_close(mean, torch.cat([exact[:K] / scale, exact[K:]]), **EXACT)


def with_signal(signal):
    """VIMCO with another learning signal: unbiased, hence easy to miss."""

    def estimator(log_w, log_q):
        bound = log_w.exp().mean(0).log()
        return add_gradient(bound, (signal(log_w, bound).detach() * log_q).sum(0))

    return estimator


plain_score = with_signal(lambda log_w, bound: bound.expand_as(log_w))
without_log_m = with_signal(lambda log_w, bound: bound - (swap_one_out_matrix(log_w) + math.log(len(log_w))))


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("drifted", [plain_score, without_log_m])
def test_vimco_has_less_variance_than_its_drifted_copies(m, drifted):
    phi, theta = torch.tensor([0.5, -0.3, 0.1]).double(), torch.tensor([-2.0, -3.5, -4.0]).double()
    mean, variance = moments(vimco, phi, theta, m)
    drifted_mean, drifted_variance = moments(drifted, phi, theta, m)
    assert_close(drifted_mean, mean, **EXACT)
    assert variance < 0.5 * drifted_variance


def test_vimco_s_gradient_ignores_the_unit_of_x_and_the_plain_score_s_does_not(tiny):
    """A change of unit adds a constant to log p(x): hundreds of nats for an image."""
    phi, theta = tiny
    mean, variance = moments(vimco, phi, theta, 3)
    far_mean, far_variance = moments(vimco, phi, theta - 500.0, 3)
    assert_close((far_mean, far_variance), (mean, variance), **EXACT)
    assert moments(plain_score, phi, theta - 500.0, 3)[1] > 1e4 * variance


def test_nvil_s_variance_is_the_parabola_in_the_baseline_that_its_formula_gives(tiny):
    """With g = grad log q and M = 1 the gradient is (f - b - 1) g: Var(b) - Var(b*) = (b - b*)^2 E|g|^2."""
    log_w, _, probability = drawn(*tiny, 1)
    g = jacobian(lambda phi: phi.log_softmax(0), tiny[0]).square().sum(1)
    best = (probability * g) @ (log_w[0] - 1) / (probability @ g)
    lowest = moments(lambda w, q: nvil(w, q, best), *tiny, 1)[1]
    for off in (-3.0, 0.5, 2.0):
        variance = moments(lambda w, q, b=best + off: nvil(w, q, b), *tiny, 1)[1]
        assert_close(variance - lowest, off**2 * probability @ g, **EXACT)


def test_the_bounds_are_ordered_and_below_the_evidence(tiny):
    phi, theta = tiny
    levels = []
    for m in (1, 2, 3):
        log_w, log_q, probability = drawn(phi, theta, m)
        value = vimco(log_w, log_q) if m > 1 else nvil(log_w, log_q, torch.zeros(()).double())
        levels.append(float((probability * value).sum()))
    assert levels == sorted(levels)
    assert levels[-1] < theta.logsumexp(0)
    assert max(levels) - min(levels) > 1e-3


def test_one_sample_drawn_by_its_weight_has_the_gradient_of_all_on_average(tiny):
    """sum_m w_m (gradient of sample m alone) = the gradient of log 1/M sum_m w_m, for every draw of the M samples."""
    phi, theta = tiny
    log_w, _, _ = drawn(phi, theta, 3)
    y = all_draws(K, 3)
    every = jacobian(lambda theta: log_mean_exp(theta[y] - phi.log_softmax(0)[y]), theta)
    one = jacobian(lambda theta: theta[y], theta)  # [M, draws, K]
    assert_close((log_w.softmax(0)[..., None] * one).sum(0), every, **EXACT)


def test_samples_are_drawn_as_often_as_their_weight_says(rng):
    log_w = torch.tensor([[0.0, -700.0, 3.0], [1.0, 0.0, 3.0], [-2.0, -1e4, -torch.inf]], dtype=torch.float64)
    n = 200_000
    m = drawn_by_weight(log_w, n, rng)
    found = torch.stack([(m == k).double().mean(0) for k in range(3)])
    assert (found - log_w.softmax(0)).abs().max() < 4 * 0.5 / n**0.5
    assert (found[:, 1] == torch.tensor([0.0, 1.0, 0.0])).all()
    assert found[2, 2] == 0


# ---- clusters that are not tried -------------------------------------------------------------------------------------


def test_the_most_probable_cluster_is_tried_and_all_are_unless_told_otherwise():
    q = torch.tensor([[0.3, 0.998], [0.4, 0.001], [0.3, 0.001]], dtype=torch.float64)
    assert EnumY().tried(q.log()) is None
    assert EnumY(0.01).tried(q.log()).tolist() == [[True, True], [True, False], [True, False]]
    assert EnumY(0.9).tried(q.log()).tolist() == [[False, True], [True, False], [False, False]]


def test_no_force_moves_a_cluster_that_is_not_tried_and_the_bias_is_the_one_stated(rng):
    logits, log_p = normal(rng, 4, 5).requires_grad_(), 30 * normal(rng, 4, 5)
    tried = torch.rand(4, 5, generator=rng) > 0.4
    tried[0] = True
    log_q = logits.log_softmax(0)
    bound = enum_y(log_p - log_q, log_q, tried)
    (slope,) = gradients(bound.sum(), [logits])
    assert (slope[~tried].abs() < 1e-12).all()
    q, log_w = log_q.exp().detach(), (log_p - log_q).detach()
    mean = torch.stack([(q[t, b] @ log_w[t, b]) / q[t, b].sum() for b, t in enumerate(tried.T)])
    assert_close(bound + (q * ~tried * (log_w - mean)).sum(0), enum_y(log_w, log_q), **TIGHT)
    # Among those tried the force is that of the whole bound with the others held at the mean.
    assert_close(slope, q * tried * (log_w - mean), **TIGHT)
    assert_close(enum_y(log_w, log_q, torch.ones(4, 5, dtype=torch.bool)), enum_y(log_w, log_q), **TIGHT)


# ---- value -----------------------------------------------------------------------------------------------------------


def test_the_value_is_the_bound_and_the_extra_term_only_changes_the_gradient(rng):
    log_w, log_q = normal(rng, 4, 5), normal(rng, 4, 5)
    assert_close(vimco(log_w, log_q), log_w.exp().mean(0).log(), **TIGHT)
    assert_close(nvil(log_w, log_q, normal(rng, 5), 3.0), log_w.mean(0), **TIGHT)
    log_q_y = log_q.log_softmax(0)
    assert_close(enum_y(log_w, log_q_y), torch.stack([log_q_y[:, b].exp() @ log_w[:, b] for b in range(5)]), **TIGHT)


def test_add_gradient_keeps_the_value_and_adds_the_gradient(rng):
    a = normal(rng, 3).requires_grad_()
    added = add_gradient(a.square().sum(), (5 * a).sum())
    assert added == a.square().sum()
    assert_close(gradients(added, [a])[0], 2 * a + 5, **TIGHT)


def test_a_scaled_gradient_has_the_same_value(rng):
    x = normal(rng, 3, 2).requires_grad_()
    y = scaled_gradient(x, 0.3)
    assert torch.equal(y, x)
    assert_close(gradients(y.square().sum(), [x])[0], 0.6 * x, **TIGHT)


def test_enum_y_is_the_exact_elbo_with_its_exact_gradient(tiny):
    def enumerated(phi, theta):
        log_q = phi.log_softmax(0)[:, None]
        return enum_y(theta[:, None] - log_q, log_q).squeeze()

    assert_close(enumerated(*tiny), exact_bound(*tiny, 1), **EXACT)
    assert_close(torch.cat(jacobian(enumerated, tiny)), exact_gradient(*tiny, 1), **EXACT)


def test_the_gradient_in_log_q_is_the_signal_and_none_flows_through_it(rng):
    log_w, log_q, baseline = (normal(rng, 3, 2).requires_grad_() for _ in range(3))
    w = log_w.detach()
    through_w, through_q = gradients(vimco(log_w, log_q).sum(), [log_w, log_q])
    assert_close(through_w, w.softmax(0), **TIGHT)
    assert_close(through_q, w.exp().mean(0).log() - swap_one_out_matrix(w), **TIGHT)
    through_w, through_q, through_baseline = gradients(
        nvil(log_w, log_q, baseline, 2.5).sum(), [log_w, log_q, baseline]
    )
    assert_close(through_w, torch.full((3, 2), 1 / 3, dtype=torch.float64), **TIGHT)
    assert_close(through_q, (w - baseline.detach()) / 2.5 / 3, **TIGHT)
    assert (through_baseline == 0).all()


def test_vimco_refuses_a_single_sample_and_says_what_to_do():
    one = torch.zeros(1, 4).double()
    with pytest.raises(ValueError, match=r"at least 2 samples, got 1: raise n_samples, or use inference='nvil'"):
        vimco(one, one)


# ---- reparameterized z -----------------------------------------------------------------------------------------------


def test_vimco_is_unbiased_when_z_is_reparameterized_and_y_alone_is_scored(rng):
    """z = mu_y + sigma_y eps with eps = -1 or +1: 2K values of (y, eps) a sample, (2K)^M draws."""
    m, parameters = 2, tuple(normal(rng, 4, K))
    pairs = all_draws(2 * K, m)
    y, eps = pairs // 2, (2.0 * (pairs % 2) - 1).double()

    def weigh(phi, mu, log_sigma, theta):
        log_q_y = phi.log_softmax(0)[y]
        z = mu[y] + log_sigma.exp()[y] * eps
        return -(z - theta[y]).square() + y * z - log_q_y + log_sigma[y], log_q_y

    def exact(*parameters):
        log_w, log_q_y = weigh(*parameters)
        return ((log_q_y.exp() / 2).prod(0) * log_w.exp().mean(0).log()).sum()

    probability = (weigh(*parameters)[1].exp() / 2).prod(0)
    estimated = jacobian(lambda *p: probability @ vimco(*weigh(*p)), parameters)
    for mine, truth in zip(estimated, jacobian(exact, parameters), strict=True):
        assert_close(mine, truth, **EXACT)


# ---- linear-Gaussian mixture: the posterior is known -----------------------------------------------------------------


@pytest.fixture
def linear_gaussian(rng):
    """p(y) = 1/K, z|y ~ N(mu_y, diag s_y^2), x|z ~ N(A z + b, diag t^2), and one x; D = 3, Z = 2."""
    model = [normal(rng, K, 2), 0.3 * normal(rng, K, 2), normal(rng, 3, 2), normal(rng, 3), 0.3 * normal(rng, 3)]
    return [parameter.requires_grad_() for parameter in model], normal(rng, 3)


def evidence(model, x):
    """log p(x, y) for every y: x|y ~ N(A mu_y + b, A S_y A^T + T)."""
    mu, log_s, a, b, log_t = model
    covariance = a @ torch.diag_embed((2 * log_s).exp()) @ a.T + torch.diag((2 * log_t).exp())
    return MultivariateNormal(mu @ a.T + b, covariance).log_prob(x) - math.log(K)


def exact_posterior(model, x):
    """Logits of p(y|x), loc and Cholesky factor of p(z|x, y), as leaves of their own."""
    mu, log_s, a, b, log_t = model
    noise = (-2 * log_t).exp()
    precision = torch.diag_embed((-2 * log_s).exp()) + a.T @ (noise[:, None] * a)
    covariance = torch.linalg.inv(precision)
    shift = (-2 * log_s).exp() * mu + (noise * (x - b)) @ a
    q = evidence(model, x), (covariance @ shift[..., None]).squeeze(-1), torch.linalg.cholesky(covariance)
    return [parameter.detach().requires_grad_() for parameter in q]


def weigh_pairs(model, q, x, y, z):
    """log_w and log_q of the pairs."""
    (mu, log_s, a, b, log_t), (logits, loc, factor) = model, q
    log_q = logits.log_softmax(0)[y] + MultivariateNormal(loc[y], scale_tril=factor[y]).log_prob(z)
    log_prior = log_normal_oracle(z, mu[y], log_s[y].exp()) - math.log(K)
    return log_prior + log_normal_oracle(x, z @ a.T + b, log_t.exp()) - log_q, log_q


@pytest.mark.parametrize("m", [1, 2])
def test_at_the_exact_posterior_the_bound_is_tight_and_q_s_gradient_zero(linear_gaussian, m):
    """And the model's gradient is that of log p(x).

    There every log weight is log p(x), so the gradient is a polynomial of degree 2 in the noise and three
    Hermite nodes a dimension make its expectation exact: K * 9 values a sample, (K * 9)^M draws.
    """
    model, x = linear_gaussian
    q = exact_posterior(model, x)
    nodes, node_weights = hermite(3, 2)
    draws = all_draws(K * len(nodes), m)
    y, node = draws // len(nodes), draws % len(nodes)
    z = (q[1][y] + torch.einsum("mbij,mbj->mbi", q[2][y], nodes[node])).detach()
    log_w, log_q = weigh_pairs(model, q, x, y, z)
    log_p_x = evidence(model, x).logsumexp(0)
    assert_close(log_w, log_p_x.expand_as(log_w), rtol=1e-10, atol=1e-10)

    bound = vimco(log_w, log_q) if m > 1 else nvil(log_w, log_q, torch.tensor(0.3).double())
    probability = (q[0].log_softmax(0)[y].exp() * node_weights[node]).prod(0).detach()
    assert float(probability.sum()) == pytest.approx(1, abs=1e-12)
    expected = (probability * bound).sum()
    assert_close(expected, log_p_x, **TIGHT)
    for zero in gradients(expected, q):
        assert zero.abs().max() < 1e-9
    for mine, truth in zip(gradients(expected, model), gradients(log_p_x, model), strict=True):
        assert_close(mine, truth, **EXACT)


# ---- an estimate of log p(x) -----------------------------------------------------------------------------------------


def test_the_importance_sampled_evidence_is_exact_at_the_exact_posterior(linear_gaussian):
    """For diagonal posteriors, whatever is drawn: every weight is p(x). Elsewhere it is the mean of the weights."""
    (mu, log_s, _, b, log_t), x = linear_gaussian
    model = [mu[:, :1], log_s[:, :1], normal(torch.Generator().manual_seed(2), 3, 1), b, log_t]  # Z = 1
    _, loc, factor = exact_posterior(model, x)
    loc, scale = loc[:, None], factor[:, None, :, 0]  # [K B Z], B = 1

    def log_joint(z):
        prior = log_normal_oracle(z, model[0][:, None], model[1][:, None].exp())
        return prior + log_normal_oracle(x, z @ model[2].T + b, log_t.exp())

    found = importance_sampled(log_joint, loc, scale)[:, 0] - math.log(K)
    assert_close(found, evidence(model, x), **TIGHT)
    far = importance_sampled(log_joint, loc + 0.3, 1.5 * scale)
    noise = torch.randn(N_DRAWS, 1, generator=torch.Generator().manual_seed(0)).double()
    drawn = [(loc + 0.3) + 1.5 * scale * eps for eps in noise]
    weights = [(log_joint(z) - log_normal_oracle(z, loc + 0.3, 1.5 * scale)).exp() for z in drawn]
    assert_close(far, torch.stack(weights).mean(0).log(), **TIGHT)
    assert (far[:, 0] - math.log(K) - evidence(model, x)).abs().max() > 1e-4  # another q, another estimate


# ---- running moments -------------------------------------------------------------------------------------------------


def test_running_moments_are_exponentially_weighted_means(rng):
    batches = [3 * normal(rng, 4, 5) + 2 for _ in range(6)]
    running = RunningMoments(decay=0.7)
    for batch in batches:
        running.update(batch)
    weights = [0.3 * 0.7 ** (len(batches) - 1 - t) for t in range(len(batches))]
    means = [float(batch.numpy().mean()) for batch in batches]
    variances = [float(batch.numpy().var()) for batch in batches]
    assert running.mean == pytest.approx(sum(w * v for w, v in zip(weights, means, strict=True)))
    assert running.variance == pytest.approx(sum(w * v for w, v in zip(weights, variances, strict=True)))
    assert running.scale == pytest.approx(running.variance**0.5) != running.variance


def test_the_signal_is_never_multiplied(rng):
    running = RunningMoments(decay=0.0)
    running.update(0.1 * normal(rng, 3, 4))
    assert 0 < running.variance < 1
    assert running.scale == 1.0


def test_nvil_with_its_moments_is_nvil_and_fits_its_baseline_by_least_squares(rng):
    """Twice in a row: the second batch sees the moments that the first one left."""
    running, before = RunningMoments(), RunningMoments()
    for _ in range(2):
        log_w, log_q, baseline = ((3 * normal(rng, *shape)).requires_grad_() for shape in ((4, 5), (4, 5), (5,)))
        bound = nvil_fitting(log_w, log_q, baseline, running)
        expected = nvil(log_w, log_q, baseline + before.mean, before.scale)
        assert_close(bound, log_w.mean(0), **TIGHT)
        pairs = zip(*(gradients(b.sum(), [log_w, log_q]) for b in (bound, expected)), strict=True)
        for mine, theirs in pairs:
            assert_close(mine, theirs, **TIGHT)
        before.update((log_w - baseline).detach())
        error = (log_w - baseline - before.mean).detach()
        assert_close(gradients(bound.sum(), [baseline])[0], 2 * error.mean(0), **TIGHT)
        assert running == before != RunningMoments()
