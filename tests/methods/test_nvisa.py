"""NVISA's objective, its bound with and without consistency, against the equations of its page in other words."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence
from torch.nn import functional as F
from torch.testing import assert_close

import nvisa.methods.nvisa as nvisa_module
from nvisa.fitting.consistency import VAT, Augment, ConsistencyObjective, augmented, information, vat
from nvisa.fitting.training import Training
from nvisa.maths.bounds import VIMCO, EnumY, RunningMoments, enum_y
from nvisa.maths.schedules import Geometric, StdAnnealing
from nvisa.methods.nvisa import NVISA, Bound
from nvisa.nets.layers import Network
from nvisa.nets.mixture_vae import Drawn, MixtureVAE, log_weights
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError
from nvisa_page import B, D, K, M, Page, Z, drawn_pairs, networks, some_x
from oracles import TIGHT, all_draws, build, gradients, hermite, normal, swap_one_out_matrix
from oracles import log_normal as log_normal_oracle

LIKELIHOODS = ("gaussian", "gaussian_shared", "bernoulli")
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
each_posterior = pytest.mark.parametrize("posterior", ["joint", "mean_field"])


def iwae(log_w):
    """log 1/M sum_m w_m, as it is written, in units of the largest weight."""
    top = log_w.max(0).values.detach()
    return top + (log_w - top).exp().mean(0).log()


# ---- the objective ---------------------------------------------------------------------------------------------------


def bound(net, *, inference="vimco", n_samples=M, reparameterize=False, floor_x=0.4, floor_z=0.2, moments=None):
    """One training step's objective; its draws are those of :func:`same_draws`."""
    generator, moments = torch.Generator().manual_seed(5), moments or RunningMoments()
    floors = (lambda t: floor_x), (lambda t: floor_z)
    return Bound(net, inference, n_samples, reparameterize, *floors, generator, moments)


def consistent(net, *settings, neighbor_distance, **options):
    """The bound with these consistencies beside it, which share its generator."""
    inner = bound(net, **options)
    return ConsistencyObjective(net, settings, neighbor_distance, inner.generator, inner)


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
        expected = {
            "vimco": iwae(log_w),
            "nvil": log_w.mean(0),
            "enum_y": (q_y * log_w).sum(0),
        }[inference]
        step = bound(net, inference=inference)(x, ROWS, 0.5)
        assert_close(step.value, expected / D, **TIGHT)
        assert_close(step.terms["bound"], expected, **TIGHT)
        if inference != "vimco":  # whose bound is no mean of log w
            parts = [step.terms[name] for name in log_weights(net, x, pairs, 0.4)]
            assert_close(sum(part.mean(0) if part.dim() == 2 else part for part in parts), expected.detach(), **TIGHT)


def test_the_networks_see_x_in_their_own_units(rng):
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    net, x = networks(rng, rescale=rescale), some_x(rng)
    scaled = (x - rescale.shift) / rescale.scale
    page = Page(net, "gaussian", "joint", floor_x=0.4, floor_z=0.2)
    pairs = same_draws(net, scaled)
    log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), scaled, pairs.y, pairs.z)
    assert_close(bound(net)(x, ROWS, 0.5).value, iwae(log_w) / D, **TIGHT)


def test_floor_zero_is_no_annealing_and_the_floors_are_asked_at_the_fraction_done(rng):
    net, x = networks(rng), some_x(rng)
    page = Page(net, "gaussian", "joint", floor_x=0.0, floor_z=0.0)
    pairs = same_draws(net, x, floor_z=0.0)
    log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), x, pairs.y, pairs.z)
    off = bound(net, floor_x=0.0, floor_z=0.0)(x, ROWS, 0.5)
    assert_close(off.value, iwae(log_w) / D, **TIGHT)
    annealed = bound(net)
    annealed.floor_x, annealed.floor_z = (lambda t: 4 * t), (lambda t: 2 * t)
    assert_close(annealed(x, ROWS, 0.1).value, bound(net, floor_x=0.4, floor_z=0.2)(x, ROWS, 0.9).value, **TIGHT)


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
    value = bound(net, inference=inference, reparameterize=True)(x, ROWS, 0.5).value
    assert_close(value, vae / D, **TIGHT)
    tables = [p for name, p in net.named_parameters() if not name.startswith("baseline")]
    for mine, theirs in zip(gradients(value.sum() * D, tables), gradients(vae.sum(), tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_enum_y_is_the_exact_elbo(rng):
    """log 1/K + H[q(y|x)] + sum_y q(y|x) ( E log p(x|z) - KL( q(z|y,x) || p(z|y) ) ), z by quadrature."""
    net, x = networks(rng), some_x(rng)
    nodes, weights = hermite(6, Z)
    h = net.trunk(x)
    log_q_y, y = net.log_q_y_from(h), torch.arange(K)[:, None].expand(K, B)
    loc, scale = net.q_z(h, y, 0.2)
    mean = reconstruction = 0.0
    for node, weight in zip(nodes, weights, strict=True):
        z = loc + scale * node
        terms = log_weights(net, x, Drawn(y, z, log_q_y.T, log_normal_oracle(z, loc, scale)), 0.4)
        mean = mean + weight * enum_y(sum(terms.values()), log_q_y.T)
        reconstruction = reconstruction + weight * net.log_p_x_given_z(x, z, 0.4)
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
    log_q_y = net.log_q_y_from(h)
    pairs = every_draw(net, h, log_q_y, 0.2, reparameterize=True)
    probability = pairs.log_q_y.sum(0).exp()
    assert float(probability.detach().sum()) == pytest.approx(1, abs=1e-12)
    exact = (probability * iwae(sum(log_weights(net, x, pairs, 0.4).values()))).sum()
    step = bound(net, n_samples=m, reparameterize=True)(x, np.arange(len(x)), 0.5)
    expected = (probability.detach() * step.value).sum() * D
    tables = list(net.parameters())
    for mine, truth in zip(gradients(expected, tables), gradients(exact, tables), strict=True):
        assert_close(mine, truth, rtol=1e-8, atol=1e-8)


def test_enum_y_reparameterizes_z_whether_it_is_asked_to_or_not(rng):
    net, x = networks(rng), some_x(rng)
    tables = list(net.z_head.parameters())
    asked, not_asked = (
        gradients(bound(net, inference="enum_y", reparameterize=flag)(x, ROWS, 0.5).value.sum(), tables)
        for flag in (True, False)
    )
    for one, other in zip(asked, not_asked, strict=True):
        assert_close(one, other, **TIGHT)
        assert (one != 0).any()


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
        value = iwae(log_w)
        signal = value - swap_one_out_matrix(log_w)
        surrogate = value + (signal.detach() * log_q).sum(0)
    else:
        signal = (log_w - net.baseline(net.trunk(x)).squeeze(-1) - 1.5) / 3.0
        surrogate = log_w.mean(0) + (signal.detach() * log_q).mean(0)
    step = bound(net, inference=inference, moments=moments)(x, ROWS, 0.5)
    truths = gradients(surrogate.sum(), tables)
    for mine, truth in zip(gradients(step.value.sum() * D, tables), truths, strict=True):
        assert_close(mine, truth, rtol=1e-8, atol=1e-9)


def test_one_decoded_sample_has_the_value_of_all_and_their_gradient_on_average(rng, monkeypatch):
    """Every sample drawn in turn, weighted by w_m, is the gradient of all M; nothing else differs."""
    net, x = networks(rng), some_x(rng)
    tables = list(net.parameters())
    every = bound(net)(x, ROWS, 0.5)
    page = Page(net, "gaussian", "joint", floor_x=0.4, floor_z=0.2)
    pairs = same_draws(net, x)
    log_w = page.over(page.log_joint, x, pairs.y, pairs.z) - page.over(page.log_q, x, pairs.y, pairs.z)
    w, found = log_w.softmax(0).detach(), []
    for m in range(M):
        monkeypatch.setattr("nvisa.methods.nvisa.drawn_by_weight", lambda *_, m=m: torch.full((1, B), m))
        one = bound(net, inference=VIMCO(decoder_samples=1))(x, ROWS, 0.5)
        assert_close(one.value, every.value, **TIGHT)
        found.append([gradients(one.value[b], tables) for b in range(B)])
    for i, truth in enumerate(gradients(every.value.sum(), tables)):
        mean = sum(w[m, b] * found[m][b][i] for m in range(M) for b in range(B))
        assert_close(mean, truth, rtol=1e-8, atol=1e-9)


def test_clusters_of_a_small_probability_are_not_decoded_and_the_rest_is_enumerated(rng):
    net, x = networks(rng), some_x(rng)
    everything, most = (bound(net, inference=EnumY(p))(x, ROWS, 0.5) for p in (1e-12, 0.2))
    exact = bound(net, inference="enum_y")(x, ROWS, 0.5)
    assert_close(everything.value, exact.value, **TIGHT)
    tables = list(net.parameters())
    for mine, truth in zip(*(gradients(step.value.sum(), tables) for step in (everything, exact)), strict=True):
        assert_close(mine, truth, rtol=1e-8, atol=1e-9)
    assert (EnumY(0.2).tried(most.log_q_y.T) == 0).any()
    parts = [most.terms[name] for name in log_weights(net, x, same_draws(net, x), 0.4)]
    assert_close(sum(parts), most.terms["bound"].detach(), **TIGHT)


def test_nvil_s_baseline_climbs_minus_its_squared_error_about_the_running_mean(rng):
    net, x = networks(rng, baseline=True), some_x(rng)
    page = Page(net, "gaussian", "joint", floor_x=0.4, floor_z=0.2)
    pairs = same_draws(net, x)
    log_w = page.over(lambda x, y, z: page.log_joint(x, y, z) - page.log_q(x, y, z), x, pairs.y, pairs.z).detach()
    moments = RunningMoments(mean=1.5, variance=9.0)
    step = bound(net, inference="nvil", moments=moments)(x, ROWS, 0.5)
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
    settings = VAT(weight=0.7, radius=0.5, information=0.3, balance=2.0, probe=1.1, bound_gradient=1.0)
    distance, rows = torch.linspace(0.5, 4, 9).double(), np.array([8, 0, 3, 5, 1])
    step = consistent(net, settings, neighbor_distance=distance)(x, rows, 0.5)

    generator = torch.Generator().manual_seed(5)
    drawn_pairs(net, x[::2], generator, reparameterize=False)  # the bound draws first
    alone, log_q_y, unit = bound(net)(x[::2], rows[::2], 0.5).value, net.log_q_y(x), distance[rows]
    local = vat(net.log_q_y, x, log_q_y, 0.5 * unit, 1.1 * unit, generator)
    expected = alone.mean() + 0.7 * (0.3 * information(log_q_y, 2.0) - local.mean())
    assert_close(step.value, expected, **TIGHT)
    assert (local > 0).all()
    tables = list(net.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("inference", ["vimco", "enum_y"])
def test_of_the_bound_s_gradient_a_share_reaches_q_of_y(rng, inference):
    """With the consistency weighted by zero only the bound is left: at share 0 it moves all but the head of q(y|x)."""
    net, x = networks(rng), some_x(rng)

    def slope(share):
        settings = VAT(weight=0.0, bound_gradient=share)
        step = consistent(net, settings, inference=inference, neighbor_distance=torch.ones(B).double())
        return gradients(step(x, ROWS, 0.5).value, list(net.parameters()))

    none, some, whole = slope(0.0), slope(0.3), slope(1.0)
    alone = gradients(bound(net, inference=inference)(x[::2], ROWS[::2], 0.5).value.mean(), list(net.parameters()))
    for name, a, b, c, d in zip(dict(net.named_parameters()), none, some, whole, alone, strict=True):
        assert_close(c, d, rtol=1e-8, atol=1e-9)
        assert_close(b, a + 0.3 * (c - a), rtol=1e-8, atol=1e-9)
        assert bool((a == 0).all()) == name.startswith("y_logits"), name


@pytest.mark.parametrize("settings", [VAT(), Augment()])
def test_batch_norm_keeps_the_statistics_of_the_rows_and_not_of_their_neighbors(rng, settings):
    network, units = Network(hidden=(6,), latent_dim=Z, batch_norm=True), Rescale(torch.zeros(D), torch.ones(D))
    net = build(lambda: MixtureVAE(units, K, network, likelihood="gaussian", posterior="joint"), rng).train()
    x, (linear, layer) = some_x(rng), net.trunk[:2]
    consistent(net, settings, neighbor_distance=torch.ones(B).double())(x, ROWS, 0.5)
    assert_close(layer.running_mean, 0.1 * linear(x).mean(0).detach(), **TIGHT)  # from zero, at torch's momentum


def test_augmentations_are_drawn_in_the_user_s_units_and_their_divergence_is_subtracted(rng):
    """Two kinds of consistency add up. The networks' units differ by pixel: there, a moved image is another image."""
    net = networks(rng, rescale=Rescale(normal(rng, D), normal(rng, D).exp()))
    x, rows, distance = some_x(rng), np.array([8, 0, 3, 5, 1]), torch.linspace(0.5, 4, 9).double()
    moving = Augment(shift=0.3, scale=0.5, rotation=40.0, weight=0.6, information=0.2, balance=3.0, bound_gradient=1.0)
    step = consistent(net, VAT(information=0.0, bound_gradient=1.0), moving, neighbor_distance=distance)(x, rows, 0.5)
    scaled, of_scaled = net.rescale(x), lambda x: net.log_q_y_from(net.trunk(x))

    generator = torch.Generator().manual_seed(5)
    drawn_pairs(net, scaled[::2], generator, reparameterize=False)
    alone, log_q_y, unit = bound(net)(x[::2], rows[::2], 0.5).value, net.log_q_y(x), distance[rows]
    adversarial = vat(of_scaled, scaled, log_q_y, 0.25 * unit, 1.8 * unit, generator)
    log_q_moved = net.log_q_y(augmented(x, moving, generator))
    p = log_q_y.detach().exp()
    local = (p * (log_q_y.detach() - log_q_moved)).sum(-1)
    expected = alone.mean() - adversarial.mean() + 0.6 * (0.2 * information(log_q_y, 3.0) - local.mean())
    assert_close(step.value, expected, **TIGHT)
    assert (local > 0).all()
    tables = list(net.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_the_papers_preset_halves_epsilon_every_hundred_epochs_and_the_rate_every_three_hundred():
    model = NVISA.preset("paper", 16, random_state=1)
    assert (model.n_clusters, model.random_state, model.n_samples, model.likelihood) == (16, 1, 15, "gaussian")
    assert model.consistency is None
    for epoch, floor in [(0, 1.0), (99, 1.0), (100, 0.5), (400, 0.0625), (1399, 2.0**-13), (1400, 1e-4), (2999, 1e-4)]:
        assert model.std_annealing.x(epoch / 3000) == model.std_annealing.z(epoch / 3000) == pytest.approx(floor)
    assert not model.std_annealing.relative
    assert [model.training.rate(epoch / 3000) for epoch in (0, 300, 600)] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    with pytest.raises(ValueError, match="paper"):
        NVISA.preset("papers")


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")  # after one epoch that moves nothing
@pytest.mark.parametrize("relative", [False, True])
def test_a_relative_floor_of_x_counts_in_the_largest_principal_deviation(relative):
    X = np.random.RandomState(0).normal(size=(60, 3)) @ np.diag([1.0, 4.0, 2.0])
    floor = StdAnnealing(x=Geometric(2.0, 0.5), z=Geometric(1.0, 0.1), relative=relative)
    settings = {"network": Network(hidden=(4,), scaling="none"), "training": Training(epochs=1, learning_rate=0.0)}
    model = NVISA(2, init="random", consistency=None, std_annealing=floor, random_state=0, **settings).fit(X)
    top = np.sqrt(np.linalg.eigvalsh(np.cov(X.T, bias=True))[-1])
    assert model.std_floor_x_ == pytest.approx(0.5 * (top if relative else 1.0), rel=1e-4)
    assert model.std_floor_z_ == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "setting", "message"),
    [
        ({"n_samples": 1}, "n_samples", "at least 2 with inference='vimco'"),
        ({"init": ("random", "gmm")}, "n_restarts", "at least the number of starts in init"),
        ({"init": ["random", "gmm"]}, "n_restarts", "at least the number of starts in init"),
        ({"consistency": Augment(image_shape=(2, 4))}, "consistency.image_shape", "rows of 9 features"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused_by_name(settings, setting, message):
    with pytest.raises(SettingError, match=message) as caught:
        NVISA(3, **settings).fit(np.eye(9))
    assert caught.value.setting == setting


def test_settings_of_before_are_refused_with_their_names_of_today():
    for old, new in {"reparameterise": "reparameterize", "n_init": "n_restarts", "std_floor": "std_annealing"}.items():
        with pytest.raises(TypeError, match=f"NVISA: {old} is now {new}"):
            NVISA(3, **{old: 1})
