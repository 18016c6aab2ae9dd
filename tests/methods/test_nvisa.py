"""NVISA's densities, draws, objective and scores, against the equations of its first page in other words."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest, norm
from torch import nn
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F
from torch.testing import assert_close

import nvisa.methods.nvisa as nvisa_module
from nvisa.fitting.consistency import VAT, Augment, augmented, information, vat
from nvisa.fitting.training import Training
from nvisa.maths.bounds import RunningMoments, enum_y
from nvisa.maths.schedules import Geometric
from nvisa.methods.nvisa import NVISA, StdFloor
from nvisa.nets.layers import Network, Rescale, standardize
from nvisa.nets.mixture_vae import Densities, Drawn, draw, log_weights
from oracles import TIGHT, all_draws, binary_vectors, build, gradients, grid, hermite, normal, swap_one_out_matrix
from oracles import log_normal as log_normal_oracle

B, D, Z, K, M = 5, 4, 2, 3, 3
LIKELIHOODS = ("gaussian", "gaussian_shared", "bernoulli")
POSTERIORS = ("joint", "mean_field")
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


def networks(
    rng, *, n_features=D, n_clusters=K, latent_dim=Z, hidden=(6, 7), likelihood="gaussian", posterior="joint", **options
):
    """Densities with random weights; the rescaling is the identity unless given."""
    rescale = options.pop("rescale", None) or Rescale(torch.zeros(n_features), torch.ones(n_features))
    network = Network(hidden=hidden, latent_dim=latent_dim, batch_norm=False)
    make = lambda: Densities(rescale, n_clusters, network, likelihood=likelihood, posterior=posterior, **options)  # noqa: E731
    return build(make, rng, spread=0.5)


def iwae(log_w):
    """log 1/M sum_m w_m, as it is written, in units of the largest weight."""
    top = log_w.max(0).values.detach()
    return top + (log_w - top).exp().mean(0).log()


def some_x(rng, likelihood="gaussian", n=B):
    x = normal(rng, n, D)
    return x.sigmoid() if likelihood == "bernoulli" else x


def drawn_pairs(net, x, rng, floor_z=0.2, **options):
    options = {"n_samples": M, "reparameterize": True, "generator": rng, **options}
    h = net.trunk(x)
    return draw(net, h, net.log_q_y(h), floor_z, **options)


class Page:
    """The model's densities as its first page states them, one pair (y, z) and one x at a time."""

    def __init__(self, net, likelihood, posterior, floor_x, floor_z):
        self.net, self.likelihood, self.posterior = net, likelihood, posterior
        self.floor_x, self.floor_z = floor_x, floor_z

    @staticmethod
    def perceptron(layers, a, leak=0.2):
        for layer in layers:
            if isinstance(layer, nn.Linear):
                a = layer.weight @ a + layer.bias
                a = torch.where(a > 0, a, leak * a)
        return a

    def trunk(self, x):
        return self.perceptron(self.net.trunk, x, leak=0.0)

    def log_q_y(self, x, y):
        logits = self.net.y_logits(self.trunk(x))
        return Categorical(logits=logits).log_prob(y)

    def q_z(self, x, y):
        """A hidden layer on h(x) beside a one-hot y, written as the slides draw it."""
        net, h = self.net, self.trunk(x)
        weight, inputs = net.z_base.weight, h
        if self.posterior == "joint":
            weight = torch.cat([net.z_base.weight, net.y_embedding.weight.T], 1)
            inputs = torch.cat([h, F.one_hot(y, len(net.prior.loc)).to(h)])
        a = weight @ inputs + net.z_base.bias
        a = torch.where(a > 0, a, 0.2 * a)
        raw = net.z_head.raw_scale.weight @ a + net.z_head.raw_scale.bias
        return net.z_head.loc.weight @ a + net.z_head.loc.bias, torch.log1p(raw.exp()) + self.floor_z

    def log_p_z(self, z, y):
        return log_normal_oracle(z, self.net.prior.loc[y], self.net.prior.log_scale[y].exp())

    def log_p_x(self, x, z):
        h, head = self.perceptron(self.net.decoder, z), self.net.x_head
        if self.likelihood == "bernoulli":
            return -F.binary_cross_entropy((head.logits.weight @ h + head.logits.bias).sigmoid(), x, reduction="sum")
        raw = head.raw_scale if self.likelihood == "gaussian_shared" else head.raw_scale(h)
        return log_normal_oracle(x, head.loc.weight @ h + head.loc.bias, torch.log1p(raw.exp()) + self.floor_x)

    def over(self, function, x, y, z):
        """``function(x, y, z)`` of every pair [M B]."""
        return torch.stack(
            [torch.stack([function(x[b], y[m, b], z[m, b]) for b in range(len(x))]) for m in range(len(y))]
        )

    def log_q(self, x, y, z):
        return self.log_q_y(x, y) + log_normal_oracle(z, *self.q_z(x, y))

    def log_joint(self, x, y, z):
        return self.log_p_x(x, z) + self.log_p_z(z, y) - math.log(len(self.net.prior.loc))


# ---- densities -------------------------------------------------------------------------------------------------------


@each_likelihood
@each_posterior
def test_the_terms_add_up_to_the_log_joint_minus_log_q(rng, likelihood, posterior):
    net, x = networks(rng, likelihood=likelihood, posterior=posterior), some_x(rng, likelihood)
    page = Page(net, likelihood, posterior, floor_x=0.4, floor_z=0.2)
    pairs = drawn_pairs(net, x, rng, 0.2)
    log_q = page.over(page.log_q, x, pairs.y, pairs.z)
    assert_close(pairs.log_q_y + pairs.log_q_z, log_q, **TIGHT)
    terms = log_weights(net, x, pairs, 0.4)
    assert_close(sum(terms.values()), page.over(page.log_joint, x, pairs.y, pairs.z) - log_q, **TIGHT)
    assert_close(terms["log_p_x_given_z"], page.over(lambda x, y, z: page.log_p_x(x, z), x, pairs.y, pairs.z), **TIGHT)
    assert_close(terms["log_p_z_given_y"], page.over(lambda x, y, z: page.log_p_z(z, y), x, pairs.y, pairs.z), **TIGHT)


@pytest.mark.parametrize("m", [K, K + 1, 4 * K])
@each_posterior
def test_looking_samples_up_is_computing_each_of_them(rng, m, posterior):
    """More samples than clusters take the gather path; one row of y at a time never does."""
    net, x = networks(rng, posterior=posterior), some_x(rng)
    h, y = net.trunk(x), torch.randint(K, (m, B), generator=rng)
    direct = [torch.cat(parts) for parts in zip(*[net.q_z(h, row[None], 0.3) for row in y], strict=True)]
    weights = normal(rng, 2, m, B, Z)
    for mine, theirs, w in zip(net.q_z(h, y, 0.3), direct, weights, strict=True):
        assert_close(mine, theirs, **TIGHT)
        tables = list(net.parameters())
        for a, b in zip(gradients((w * mine).sum(), tables), gradients((w * theirs).sum(), tables), strict=True):
            assert_close(a, b, **TIGHT)


def test_the_mean_field_posterior_does_not_see_y_and_the_joint_one_does(rng):
    for posterior, sees in (("mean_field", False), ("joint", True)):
        net, x = networks(rng, posterior=posterior), some_x(rng)
        loc, scale = net.q_z(net.trunk(x), torch.arange(K)[:, None].expand(-1, B), 0.0)
        assert (loc.std(0) > 0).all() == sees
        assert (scale.std(0) > 0).all() == sees


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_y_is_drawn_as_often_as_q_says_exactly_for_evenly_spaced_uniforms(rng, monkeypatch):
    net, x, n = networks(rng), some_x(rng), 2000
    uniforms = ((torch.arange(n) + 0.5) / n).double().expand(B, n)
    monkeypatch.setattr(nvisa_module.torch, "rand", lambda *shape, **_: uniforms)
    y = drawn_pairs(net, x, rng, n_samples=n).y
    counts = F.one_hot(y, K).sum(0)
    assert (counts - n * net.log_posterior(x).exp()).abs().max() <= 1


def test_y_is_drawn_as_often_as_q_says(rng):
    net, x, n = networks(rng), some_x(rng), 4000
    counts = F.one_hot(drawn_pairs(net, x, rng, n_samples=n).y, K).sum(0).numpy()
    low, high = binom.interval(1 - 1e-8, n, net.log_posterior(x).exp().detach().numpy())
    assert ((low <= counts) & (counts <= high)).all()


def test_a_cluster_without_probability_is_never_drawn(rng, monkeypatch):
    """Not even for the uniform 0, which a float32 generator returns once in 2^24 draws: its weight would explode."""
    net, x = networks(rng), some_x(rng)
    with torch.no_grad():
        net.y_logits.weight.zero_()
        net.y_logits.bias.copy_(torch.tensor([-1e4, 0.0, -1e4]))
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64).expand(B, 3)
    monkeypatch.setattr(nvisa_module.torch, "rand", lambda *shape, **_: uniforms)
    assert (drawn_pairs(net, x, rng, n_samples=3).y == 1).all()


def test_z_given_y_is_normal_around_its_posterior_and_enumeration_draws_every_y_once(rng):
    net, x = networks(rng), some_x(rng, n=400)
    pairs = drawn_pairs(net, x, rng, n_samples=None)
    assert torch.equal(pairs.y, torch.arange(K)[:, None].expand(K, 400))
    loc, scale = net.q_z(net.trunk(x), pairs.y, 0.2)
    noise = ((pairs.z - loc) / scale).detach()
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(noise.permute(0, 2, 1).flatten(0, 1).numpy()) - np.eye(K * Z)).max() < 0.25


def test_only_a_reparameterized_z_carries_a_gradient(rng):
    net, x = networks(rng), some_x(rng)
    assert drawn_pairs(net, x, rng, reparameterize=True).z.requires_grad
    assert not drawn_pairs(net, x, rng, reparameterize=False).z.requires_grad


# ---- the objective ---------------------------------------------------------------------------------------------------


def ascent(net, *, inference="vimco", n_samples=M, reparameterize=False, floor_x=0.4, floor_z=0.2, seed=5, **options):
    """One training step's objective; its draws are those of :func:`same_draws`."""
    settings = {"consistency": (), "neighbor_distance": None, "moments": RunningMoments(), **options}
    generator = torch.Generator().manual_seed(seed)
    return nvisa_module.Objective(
        net, inference, n_samples, reparameterize,
        lambda t: floor_x, lambda t: floor_z, generator=generator, **settings,
    )  # fmt: skip


def same_draws(net, x, *, n_samples=M, reparameterize=False, floor_z=0.2, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return drawn_pairs(net, x, generator, floor_z, n_samples=n_samples, reparameterize=reparameterize)


ROWS = np.arange(B)


@each_likelihood
@each_posterior
def test_the_objective_is_the_bound_per_feature(rng, likelihood, posterior):
    net, x = networks(rng, likelihood=likelihood, posterior=posterior, baseline=True), some_x(rng, likelihood)
    page = Page(net, likelihood, posterior, floor_x=0.4, floor_z=0.2)
    for inference, n_samples in (("vimco", M), ("nvil", M), ("enum_y", None)):
        pairs = same_draws(net, x, n_samples=n_samples)
        log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), x, pairs.y, pairs.z)
        q_y = page.over(lambda x, y, z: page.log_q_y(x, y), x, pairs.y, pairs.z).exp()
        bound = {
            "vimco": iwae(log_w),
            "nvil": log_w.mean(0),
            "enum_y": (q_y * log_w).sum(0),
        }[inference]
        step = ascent(net, inference=inference)(x, ROWS, 0.5)
        assert_close(step.value, bound / D, **TIGHT)
        assert_close(step.terms["bound"], bound, **TIGHT)
        if inference != "vimco":  # whose bound is no mean of log w
            parts = [step.terms[name] for name in log_weights(net, x, pairs, 0.4)]
            assert_close(sum(part.mean(0) if part.dim() == 2 else part for part in parts), bound.detach(), **TIGHT)


def test_the_networks_see_x_in_their_own_units(rng):
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    net, x = networks(rng, rescale=rescale), some_x(rng)
    scaled = (x - rescale.shift) / rescale.scale
    page = Page(net, "gaussian", "joint", floor_x=0.4, floor_z=0.2)
    pairs = same_draws(net, scaled)
    log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), scaled, pairs.y, pairs.z)
    assert_close(ascent(net)(x, ROWS, 0.5).value, iwae(log_w) / D, **TIGHT)


def test_floor_zero_is_no_annealing_and_the_floors_are_asked_at_the_fraction_done(rng):
    net, x = networks(rng), some_x(rng)
    page = Page(net, "gaussian", "joint", floor_x=0.0, floor_z=0.0)
    pairs = same_draws(net, x, floor_z=0.0)
    log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), x, pairs.y, pairs.z)
    off = ascent(net, floor_x=0.0, floor_z=0.0)(x, ROWS, 0.5)
    assert_close(off.value, iwae(log_w) / D, **TIGHT)
    annealed = ascent(net)
    annealed.floor_x, annealed.floor_z = (lambda t: 4 * t), (lambda t: 2 * t)
    assert_close(annealed(x, ROWS, 0.1).value, ascent(net, floor_x=0.4, floor_z=0.2)(x, ROWS, 0.9).value, **TIGHT)


@pytest.mark.parametrize("inference", ["vimco", "nvil", "enum_y"])
def test_with_one_cluster_nvisa_is_a_vae(rng, inference):
    """IWAE's bound, or the ELBO, of N(z; mu_0, sigma_0): p(y) = q(y|x) = 1 leave no trace in value or gradient."""
    net, x = networks(rng, n_clusters=1, baseline=True), some_x(rng)
    eps = same_draws(net, x, n_samples=None if inference == "enum_y" else M)
    loc, scale = (t.detach() for t in net.q_z(net.trunk(x), eps.y, 0.2))
    noise = (eps.z.detach() - loc) / scale

    h = F.leaky_relu(net.z_base(net.trunk(x)) + net.y_embedding.weight[0], 0.2)
    loc, scale = net.z_head.loc(h), F.softplus(net.z_head.raw_scale(h)) + 0.2
    z = loc + scale * noise
    d = net.decoder(z)
    log_w = (
        Normal(net.x_head.loc(d), F.softplus(net.x_head.raw_scale(d)) + 0.4).log_prob(x).sum(-1)
        + Normal(net.prior.loc[0], net.prior.scale[0]).log_prob(z).sum(-1)
        - Normal(loc, scale).log_prob(z).sum(-1)
    )
    vae = iwae(log_w) if inference == "vimco" else log_w.mean(0)
    value = ascent(net, inference=inference, reparameterize=True)(x, ROWS, 0.5).value
    assert_close(value, vae / D, **TIGHT)
    tables = [p for name, p in net.named_parameters() if not name.startswith("baseline")]
    for mine, theirs in zip(gradients(value.sum() * D, tables), gradients(vae.sum(), tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_enum_y_is_the_exact_elbo(rng):
    """log 1/K + H[q(y|x)] + sum_y q(y|x) ( E log p(x|z) - KL( q(z|y,x) || p(z|y) ) ), z by quadrature."""
    net, x = networks(rng), some_x(rng)
    nodes, weights = hermite(6, Z)
    h = net.trunk(x)
    log_q_y, y = net.log_q_y(h), torch.arange(K)[:, None].expand(K, B)
    loc, scale = net.q_z(h, y, 0.2)
    mean = reconstruction = 0.0
    for node, weight in zip(nodes, weights, strict=True):
        z = loc + scale * node
        terms = log_weights(net, x, Drawn(y, z, log_q_y.T, log_normal_oracle(z, loc, scale)), 0.4)
        mean = mean + weight * enum_y(sum(terms.values()), log_q_y.T)
        reconstruction = reconstruction + weight * net.log_p_x(x, z, 0.4)
    kl = kl_divergence(Normal(loc, scale), Normal(net.prior.loc[:, None], net.prior.scale[:, None])).sum(-1)
    elbo = (log_q_y.T.exp() * (reconstruction - kl)).sum(0) + Categorical(logits=log_q_y).entropy() - math.log(K)
    assert_close(mean, elbo, rtol=1e-9, atol=1e-9)


def test_the_hybrid_s_gradient_is_unbiased_over_all_draws_of_y(rng, monkeypatch):
    """z reparameterized with fixed noise, y scored: K^M draws, against autograd through their probabilities."""
    net, m = networks(rng, hidden=(4,)), 2
    one, noise = some_x(rng, n=1), normal(rng, m, 1, Z)
    y = all_draws(K, m)
    x = one.expand(y.shape[1], D)

    def every_draw(densities, h, log_q_y, std_floor_z, **options):
        assert options["reparameterize"]
        loc, scale = densities.q_z(h, y, std_floor_z)
        z = loc + scale * noise
        return Drawn(y, z, log_q_y.T.gather(0, y), log_normal_oracle(z, loc, scale))

    monkeypatch.setattr(nvisa_module, "draw", every_draw)
    h = net.trunk(x)
    log_q_y = net.log_q_y(h)
    pairs = every_draw(net, h, log_q_y, 0.2, reparameterize=True)
    probability = pairs.log_q_y.sum(0).exp()
    assert float(probability.detach().sum()) == pytest.approx(1, abs=1e-12)
    exact = (probability * iwae(sum(log_weights(net, x, pairs, 0.4).values()))).sum()
    step = ascent(net, n_samples=m, reparameterize=True)(x, np.arange(len(x)), 0.5)
    expected = (probability.detach() * step.value).sum() * D
    tables = list(net.parameters())
    for mine, truth in zip(gradients(expected, tables), gradients(exact, tables), strict=True):
        assert_close(mine, truth, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("inference", ["vimco", "nvil"])
def test_without_reparameterization_the_gradient_is_the_slides_formula(rng, inference):
    """grad f + sum_m s_m grad log q(y_m, z_m | x), with z constant, and the signals from their definitions."""
    net, x = networks(rng, baseline=True), some_x(rng)
    page = Page(net, "gaussian", "joint", floor_x=0.4, floor_z=0.2)
    pairs = same_draws(net, x)
    log_q = page.over(page.log_q, x, pairs.y, pairs.z)
    log_w = page.over(page.log_joint, x, pairs.y, pairs.z) - log_q
    moments = RunningMoments(mean=1.5, variance=9.0)
    tables = [p for name, p in net.named_parameters() if not name.startswith("baseline")]
    if inference == "vimco":
        bound = iwae(log_w)
        signal = bound - swap_one_out_matrix(log_w)
        surrogate = bound + (signal.detach() * log_q).sum(0)
    else:
        signal = (log_w - net.baseline(net.trunk(x)).squeeze(-1) - 1.5) / 3.0
        surrogate = log_w.mean(0) + (signal.detach() * log_q).mean(0)
    step = ascent(net, inference=inference, moments=moments)(x, ROWS, 0.5)
    truths = gradients(surrogate.sum(), tables)
    for mine, truth in zip(gradients(step.value.sum() * D, tables), truths, strict=True):
        assert_close(mine, truth, rtol=1e-8, atol=1e-9)


def test_nvil_s_baseline_climbs_minus_its_squared_error_about_the_running_mean(rng):
    net, x = networks(rng, baseline=True), some_x(rng)
    page = Page(net, "gaussian", "joint", floor_x=0.4, floor_z=0.2)
    pairs = same_draws(net, x)
    log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), x, pairs.y, pairs.z).detach()
    moments = RunningMoments(mean=1.5, variance=9.0)
    step = ascent(net, inference="nvil", moments=moments)(x, ROWS, 0.5)
    centered = log_w - net.baseline(net.trunk(x).detach()).squeeze(-1)
    batch = centered.detach().numpy()
    assert moments.mean == pytest.approx(0.8 * 1.5 + 0.2 * batch.mean())
    assert moments.variance == pytest.approx(0.8 * 9.0 + 0.2 * batch.var())
    tables = list(net.baseline.parameters())
    truths = gradients(-(centered - moments.mean).square().mean(0).sum(), tables)
    for mine, truth in zip(gradients(step.value.sum() * D, tables), truths, strict=True):
        assert_close(mine, truth, rtol=1e-8, atol=1e-9)


def test_consistency_is_subtracted_at_each_row_s_own_radius_and_information_added(rng):
    """And the bound is then estimated on every second row of the batch."""
    net, x = networks(rng), some_x(rng)
    settings = VAT(weight=0.7, radius=0.5, information=0.3, balance=2.0, probe=1.1, pull=1.0)
    distance, rows = torch.linspace(0.5, 4, 9).double(), np.array([8, 0, 3, 5, 1])
    step = ascent(net, consistency=(settings,), neighbor_distance=distance)(x, rows, 0.5)

    generator = torch.Generator().manual_seed(5)
    drawn_pairs(net, x[::2], generator, reparameterize=False)  # the bound draws first
    bound, log_q_y, unit = ascent(net)(x[::2], rows[::2], 0.5).value, net.log_posterior(x), distance[rows]
    local = vat(net.log_posterior, x, log_q_y, 0.5 * unit, 1.1 * unit, generator)
    expected = bound.mean() + 0.7 * (0.3 * information(log_q_y, 2.0) - local.mean())
    assert_close(step.value, expected, **TIGHT)
    assert (local > 0).all()
    tables = list(net.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("inference", ["vimco", "enum_y"])
def test_pull_is_the_share_of_the_bound_s_gradient_that_reaches_q_of_y(rng, inference):
    """With the consistency weighted by zero only the bound is left: at pull 0 it moves all but the head of q(y|x)."""
    net, x = networks(rng), some_x(rng)

    def slope(pull):
        settings = VAT(weight=0.0, pull=pull)
        step = ascent(net, inference=inference, consistency=(settings,), neighbor_distance=torch.ones(B).double())
        return gradients(step(x, ROWS, 0.5).value, list(net.parameters()))

    none, some, whole = slope(0.0), slope(0.3), slope(1.0)
    alone = gradients(ascent(net, inference=inference)(x[::2], ROWS[::2], 0.5).value.mean(), list(net.parameters()))
    for name, a, b, c, d in zip(dict(net.named_parameters()), none, some, whole, alone, strict=True):
        assert_close(c, d, rtol=1e-8, atol=1e-9)
        assert_close(b, a + 0.3 * (c - a), rtol=1e-8, atol=1e-9)
        assert bool((a == 0).all()) == name.startswith("y_logits"), name


@pytest.mark.parametrize("settings", [VAT(), Augment()])
def test_batch_norm_keeps_the_statistics_of_the_rows_and_not_of_their_neighbors(rng, settings):
    network, units = Network(hidden=(6,), latent_dim=Z, batch_norm=True), Rescale(torch.zeros(D), torch.ones(D))
    net = build(lambda: Densities(units, K, network, likelihood="gaussian", posterior="joint"), rng).train()
    x, (linear, layer) = some_x(rng), net.trunk[:2]
    ascent(net, consistency=(settings,), neighbor_distance=torch.ones(B).double())(x, ROWS, 0.5)
    assert_close(layer.running_mean, 0.1 * linear(x).mean(0).detach(), **TIGHT)  # from zero, at torch's momentum


def test_augmentations_are_drawn_in_the_user_s_units_and_their_divergence_is_subtracted(rng):
    """Two kinds of consistency add up. The networks' units differ by pixel: there, a moved image is another image."""
    net = networks(rng, rescale=Rescale(normal(rng, D), normal(rng, D).exp()))
    x, rows, distance = some_x(rng), np.array([8, 0, 3, 5, 1]), torch.linspace(0.5, 4, 9).double()
    moving = Augment(shift=0.3, scale=0.5, rotation=40.0, weight=0.6, information=0.2, balance=3.0, pull=1.0)
    step = ascent(net, consistency=(VAT(information=0.0, pull=1.0), moving), neighbor_distance=distance)(x, rows, 0.5)
    scaled = net.rescale(x)

    generator = torch.Generator().manual_seed(5)
    drawn_pairs(net, scaled[::2], generator, reparameterize=False)
    bound, log_q_y, unit = ascent(net)(x[::2], rows[::2], 0.5).value, net.log_posterior(scaled), distance[rows]
    adversarial = vat(net.log_posterior, scaled, log_q_y, 0.25 * unit, 1.8 * unit, generator)
    log_q_moved = net.log_posterior(net.rescale(augmented(x, moving, generator)))
    p = log_q_y.detach().exp()
    local = (p * (log_q_y.detach() - log_q_moved)).sum(-1)
    expected = bound.mean() - adversarial.mean() + 0.6 * (0.2 * information(log_q_y, 3.0) - local.mean())
    assert_close(step.value, expected, **TIGHT)
    assert (local > 0).all()
    tables = list(net.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


# ---- moving the parameters without moving the model ------------------------------------------------------------------


@each_posterior
def test_standardizing_the_codes_changes_no_reconstruction(rng, posterior):
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    net, x = networks(rng, posterior=posterior, rescale=rescale), some_x(rng, n=50)
    y = torch.randint(K, (1, 50), generator=rng)

    def seen():
        with torch.no_grad():
            loc = net.q_z(net.trunk(rescale(x)), y, 0.0)[0][0]
            return net.code(x), net.reconstruct(net.code(x)), net.reconstruct(loc)

    codes, *before = seen()
    told = standardize(net.z_head.loc, net.decoder[0], codes.numpy())
    standard, *after = seen()
    assert_close(torch.from_numpy(told), standard, **TIGHT)
    for mine, theirs in zip(after, before, strict=True):
        assert_close(mine, theirs, **TIGHT)
    assert_close(standard.mean(0), torch.zeros(Z).double(), **TIGHT)
    assert_close(standard.std(0, correction=0), torch.ones(Z).double(), **TIGHT)


def test_the_prior_takes_the_moments_of_the_codes_under_the_responsibilities(rng):
    net = networks(rng)
    codes, proba = normal(rng, 40, Z).numpy(), normal(rng, 40, K).softmax(1).numpy()
    net.set_prior(codes, proba)
    for k in range(K):
        loc = np.average(codes, axis=0, weights=proba[:, k])
        variance = np.average((codes - loc) ** 2, axis=0, weights=proba[:, k])
        np.testing.assert_allclose(net.prior.loc[k].detach(), loc, atol=1e-12)
        np.testing.assert_allclose(net.prior.scale[k].detach() ** 2, variance, rtol=1e-10)


def test_a_cluster_of_equal_codes_keeps_a_deviation(rng):
    net = networks(rng)
    net.set_prior(np.ones((6, Z)), np.eye(K)[[0, 0, 1, 1, 2, 2]])
    np.testing.assert_allclose(net.prior.scale.detach() ** 2, np.full((K, Z), 1e-3))


# ---- the clusterer's scores ------------------------------------------------------------------------------------------


def clusterer(net, likelihood="gaussian", floor_x=0.3):
    """A fitted NVISA around the given networks."""
    fitted = NVISA(len(net.prior.loc), likelihood=likelihood)
    fitted.module_, fitted.std_floor_x_, fitted.std_floor_z_ = net, floor_x, 0.0
    return fitted


@each_likelihood
@each_posterior
def test_renumbering_permutes_q_and_leaves_log_p_of_x(rng, likelihood, posterior):
    net, x = networks(rng, likelihood=likelihood, posterior=posterior), some_x(rng, likelihood)
    fitted, order = clusterer(net, likelihood), torch.tensor([2, 0, 1])
    with torch.no_grad():
        log_q_y, log_p_x = net.log_posterior(x), fitted._log_p_x(x)
        loc, scale = net.q_z(net.trunk(x), order[:, None].expand(K, B), 0.1)
        net.permute(order)
        assert_close(net.log_posterior(x), log_q_y[:, order], **TIGHT)
        assert_close(fitted._log_p_x(x), log_p_x, **TIGHT)
        assert_close(net.q_z(net.trunk(x), torch.arange(K)[:, None].expand(K, B), 0.1), (loc, scale), **TIGHT)


def linear_gaussian(rng, likelihood, n_features):
    """NVISA whose rectifiers never bend and whose q(z|y,x) is the exact posterior, with its exact p(x|y).

    z|y ~ N(mu_y, s^2) in one dimension, x|z ~ N(a z + b, diag t^2) in the networks' units. A large bias keeps
    every hidden unit positive: the first D of q carry x, the last one what the posterior mean owes to y.
    """
    far, floor_x, s = 200.0, 0.3, torch.tensor(0.8).double()
    rescale = Rescale(normal(rng, n_features), normal(rng, n_features).exp())
    net = networks(
        rng, n_features=n_features, latent_dim=1, hidden=(n_features + 1,), likelihood=likelihood, rescale=rescale
    )
    a, b, mu, raw_t = normal(rng, n_features), normal(rng, n_features), 2 * normal(rng, K), normal(rng, n_features)
    t = F.softplus(raw_t) + floor_x
    variance = 1 / (s**-2 + (a / t).square().sum())  # of z given x, the same for every y
    gain = variance * a / t**2
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.trunk[0].weight[:n_features] = torch.eye(n_features)
        net.trunk[0].bias.fill_(far)
        net.z_base.weight.copy_(torch.eye(n_features + 1))
        net.y_embedding.weight[:, -1] = variance * mu / s**2 - gain @ b
        net.z_head.loc.weight[0] = torch.cat([gain, torch.ones(1)])
        net.z_head.loc.bias.fill_(-far * (gain.sum() + 1))
        net.z_head.raw_scale.bias.fill_(variance.sqrt().expm1().log())
        net.prior.loc.copy_(mu[:, None])
        net.prior.log_scale.fill_(s.log())
        net.decoder[0].weight[0] = 1.0
        net.decoder[0].bias.fill_(far)
        net.x_head.loc.weight[:, 0] = a
        net.x_head.loc.bias.copy_(b - far * a)
        (net.x_head.raw_scale if likelihood == "gaussian_shared" else net.x_head.raw_scale.bias).copy_(raw_t)
    covariance = rescale.scale[:, None] * (s**2 * torch.outer(a, a) + torch.diag(t**2)) * rescale.scale
    p_x_given_y = MultivariateNormal(rescale.inverse(mu[:, None] * a + b), covariance)
    return clusterer(net, likelihood, floor_x), p_x_given_y


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared"])
def test_the_score_of_a_linear_gaussian_model_is_its_evidence_in_the_user_s_units(rng, likelihood):
    """With the exact posterior every importance weight is p(x): no tolerance for sampling."""
    fitted, p_x_given_y = linear_gaussian(rng, likelihood, 3)
    x = p_x_given_y.mean[:, None] + 3 * normal(rng, K, 7, 3) @ p_x_given_y.scale_tril[0].T
    x = x.flatten(0, 1)
    exact = p_x_given_y.log_prob(x[:, None]).logsumexp(1) - math.log(K)
    with torch.no_grad():
        assert_close(fitted._log_p_x(x), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared"])
def test_samples_follow_the_density_that_scores_them(rng, likelihood):
    fitted, p_x_given_y = linear_gaussian(rng, likelihood, 1)
    for k in range(K):
        with torch.no_grad():
            x = fitted._draw(torch.full((3000,), k), rng, noise=True)
        exact = norm(p_x_given_y.mean[k].item(), p_x_given_y.variance[k].sqrt().item())
        assert kstest(x[:, 0].numpy(), exact.cdf).pvalue > 1e-3


def prior_as_posterior(net):
    """Set q(z|y,x) to p(z|y): the score is then a finite mixture of p(x|z), with any decoder."""
    with torch.no_grad():
        for layer in (net.z_base, net.y_embedding, net.z_head.loc, net.z_head.raw_scale):
            for parameter in layer.parameters():
                parameter.zero_()
        net.y_embedding.weight[:, :K] = torch.eye(K)
        net.z_head.loc.weight[:, :K] = net.prior.loc.T
        net.z_head.raw_scale.weight[:, :K] = net.prior.scale.expm1().log().T
    return net


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared"])
def test_the_score_is_a_density_over_the_user_s_x(rng, likelihood):
    rescale = Rescale(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double())
    net = prior_as_posterior(networks(rng, n_features=2, likelihood=likelihood, rescale=rescale))
    x, cell = grid(-25, 25, 201, 2)
    with torch.no_grad():
        assert float(clusterer(net, likelihood, 0.6)._log_p_x(x).exp().sum()) * cell == pytest.approx(1, abs=1e-6)


def test_the_score_sums_to_one_over_binary_x(rng):
    net = prior_as_posterior(networks(rng, likelihood="bernoulli"))
    with torch.no_grad():
        assert float(clusterer(net, "bernoulli")._log_p_x(binary_vectors(D)).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_bernoulli_networks_see_the_pixels_as_they_are(rng):
    """x l - softplus(l) is a log probability for x in [0, 1] only: centered pixels would have no upper bound."""
    X = torch.bernoulli(torch.full((60, D), 0.3), generator=rng).numpy()
    training = Training(epochs=1, device="cpu")
    fitted = NVISA(2, likelihood="bernoulli", init="random", consistency=None, training=training, random_state=0).fit(X)
    assert torch.equal(fitted.module_.rescale(torch.from_numpy(X)), torch.from_numpy(X))
    assert (fitted.score_samples(X) < 0).all()
    mean, ones = fitted.sample(50, noise=False)[0], fitted.sample(50)[0]
    assert ((mean > 0) & (mean < 1)).all()
    assert set(np.unique(ones)) == {0.0, 1.0}


def test_the_score_of_a_bent_decoder_is_near_the_integral_over_y_and_z(rng):
    """Wide noise makes 32 draws of z enough for two decimals."""
    net, x, floor_x = prior_as_posterior(networks(rng)), some_x(rng), 8.0
    page = Page(net, "gaussian", "joint", floor_x=floor_x, floor_z=0.0)
    nodes, weights = hermite(20, Z)
    total = torch.zeros(B).double()
    with torch.no_grad():
        for k in range(K):
            for z, weight in zip(net.prior.loc[k] + net.prior.scale[k] * nodes, weights, strict=True):
                total += weight * torch.stack([page.log_p_x(row, z) for row in x]).exp() / K
        score = clusterer(net, floor_x=floor_x)._log_p_x(x)
    assert_close(score, total.log(), rtol=0, atol=1e-2)


def test_transform_and_reconstruct_use_the_most_probable_cluster_without_noise(rng):
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    net, x = networks(rng, rescale=rescale), some_x(rng)
    fitted, page = clusterer(net), Page(net, "gaussian", "joint", floor_x=0.3, floor_z=0.0)
    with torch.no_grad():
        z, back = fitted._encode(x), fitted._reconstruct(x)
        for b, row in enumerate((x - rescale.shift) / rescale.scale):
            y = torch.stack([page.log_q_y(row, torch.tensor(k)) for k in range(K)]).argmax()
            assert_close(z[b], page.q_z(row, y)[0], **TIGHT)
            mean = net.x_head.loc(page.perceptron(net.decoder, z[b]))
            assert_close(back[b], mean * rescale.scale + rescale.shift, **TIGHT)


def test_the_papers_preset_halves_epsilon_every_hundred_epochs_and_the_rate_every_three_hundred():
    model = NVISA.preset("paper", 16, random_state=1)
    assert (model.n_clusters, model.random_state, model.n_samples, model.likelihood) == (16, 1, 15, "gaussian")
    assert model.consistency is None
    for epoch, floor in [(0, 1.0), (99, 1.0), (100, 0.5), (400, 0.0625), (1399, 2.0**-13), (1400, 1e-4), (2999, 1e-4)]:
        assert model.std_floor.x(epoch / 3000) == model.std_floor.z(epoch / 3000) == pytest.approx(floor)
    assert not model.std_floor.relative
    assert [model.training.rate(epoch / 3000) for epoch in (0, 300, 600)] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    with pytest.raises(ValueError, match="paper"):
        NVISA.preset("papers")


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")  # after one epoch that moves nothing
@pytest.mark.parametrize("relative", [False, True])
def test_a_relative_floor_of_x_counts_in_the_largest_principal_deviation(relative):
    X = np.random.RandomState(0).normal(size=(60, 3)) @ np.diag([1.0, 4.0, 2.0])
    floor = StdFloor(x=Geometric(2.0, 0.5), z=Geometric(1.0, 0.1), relative=relative)
    settings = {"network": Network(hidden=(4,), scaling="none"), "training": Training(epochs=1, learning_rate=0.0)}
    model = NVISA(2, init="random", consistency=None, std_floor=floor, random_state=0, **settings).fit(X)
    top = np.sqrt(np.linalg.eigvalsh(np.cov(X.T, bias=True))[-1])
    assert model.std_floor_x_ == pytest.approx(0.5 * (top if relative else 1.0), rel=1e-4)
    assert model.std_floor_z_ == pytest.approx(0.1)


def test_without_inference_consistency_alone_trains():
    """The objective is the weighted information less the divergence, and nothing of p(x|z), p(z|y), q(z|y,x) moves."""
    X = np.random.RandomState(0).normal(size=(40, 5)) + 4 * np.repeat(np.eye(2, 5), 20, axis=0)
    settings = {"init": "random", "network": Network(hidden=(8,)), "random_state": 0}
    untrained = NVISA(2, inference=None, training=Training(epochs=1, learning_rate=0.0), **settings).fit(X)
    trained = NVISA(2, inference=None, training=Training(epochs=3), **settings).fit(X)
    last = trained.history_[-1]
    assert last["objective"] == pytest.approx(last["information"] - last["vat"], rel=1e-5)
    before, after = (dict(model.module_.named_parameters()) for model in (untrained, trained))
    moved = {name for name in before if "prior" not in name and not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("trunk", "y_logits")) for name in moved)
    with pytest.raises(ValueError, match="leaves only consistency"):
        NVISA(2, inference=None, consistency=None).fit(X)
