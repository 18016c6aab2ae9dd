"""GMVAE against the equations of its paper; the surface is tested in test_contract.py."""

import math

import pytest
import torch
from torch.testing import assert_close

from nvisa.fitting.training import Training
from nvisa.maths.distributions import log_normal
from nvisa.methods.gmvae import GMVAE, Networks, free_bits_penalty
from nvisa.nets.autoencoder import LEAST_SCALE
from nvisa.nets.layers import Network
from nvisa.nets.units import Rescale
from oracles import TIGHT, build, gmvae_terms, gradients, grid, hermite, normal, vae_elbo
from oracles import log_normal as log_normal_oracle

B, D, Z, W, K, M = 5, 4, 2, 3, 3, 4
FLOOR = 0.3
TERMS = ("log_p_x_given_z", "minus_kl_z", "minus_kl_w", "minus_kl_y")


def networks(rng, likelihood="gaussian", n_features=D, latent_dim=Z, noise_dim=W, spread=0.5):
    network = Network(hidden=(6, 5), latent_dim=latent_dim, batch_norm=False)
    units = Rescale(torch.arange(n_features) / 3.0, 0.5 + torch.arange(n_features))
    if likelihood == "bernoulli":
        units = Rescale(torch.zeros(n_features), torch.ones(n_features))
    return build(lambda: Networks(units, K, network, likelihood=likelihood, noise_dim=noise_dim), rng, spread=spread)


def some_x(rng, likelihood="gaussian", n=B):
    x = normal(rng, n, D)
    return x.sigmoid() if likelihood == "bernoulli" else 2 * x


def heads(prior, w):
    """mu_y(w), sigma_y(w) [K Z] of one w, a cluster at a time from the layers' weights."""
    linear, n = prior.trunk[0], prior.shape[1]
    h = (linear.weight @ w + linear.bias).tanh()
    rows = [slice(k * n, (k + 1) * n) for k in range(prior.shape[0])]
    loc = [prior.head.loc.weight[r] @ h + prior.head.loc.bias[r] for r in rows]
    raw = [prior.head.raw_scale.weight[r] @ h + prior.head.raw_scale.bias[r] for r in rows]
    return torch.stack(loc), (torch.stack(raw).exp() + 1).log() + LEAST_SCALE


def forget_w(prior, loc=0.0, scale=1.0):
    """Make every p(z|w,y) the same Gaussian, whatever w is."""
    with torch.no_grad():
        for layer, value in ((prior.head.loc, loc), (prior.head.raw_scale, math.log(math.expm1(scale - LEAST_SCALE)))):
            layer.weight.zero_()
            layer.bias.fill_(value)


@torch.no_grad()
def test_the_posterior_of_y_is_bayes_rule_by_brute_force(rng):
    prior, z, w = networks(rng).prior, normal(rng, M, B, Z), normal(rng, M, B, W)
    found = prior.log_q_y(z, w).exp()
    for m in range(M):
        for i in range(B):
            loc, scale = heads(prior, w[m, i])
            joint = []
            for k in range(K):
                p = 1 / K
                for d in range(Z):
                    s = float(scale[k, d])
                    p *= math.exp(-((float(z[m, i, d] - loc[k, d]) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
                joint.append(p)
            expected = torch.tensor(joint, dtype=torch.float64)
            assert_close(found[m, i], expected / expected.sum(), **TIGHT)
            assert_close(prior.log_p_z(z, w)[m, i].exp(), expected.sum(), **TIGHT)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "gaussian_unit", "bernoulli"])
@torch.no_grad()
def test_the_terms_are_the_paper_s_a_number_at_a_time(rng, likelihood):
    net, x = networks(rng, likelihood), some_x(rng, likelihood)
    noise_z, noise_w = normal(rng, M, B, Z), normal(rng, M, B, W)
    terms, log_q_y = net.elbo(x, noise_z, noise_w, FLOOR)
    z_loc, z_scale, w_loc, w_scale = net.posterior(x)
    z, w = z_loc + z_scale * noise_z, w_loc + w_scale * noise_w
    for i in range(B):
        of_samples = [(z[m, i], heads(net.prior, w[m, i])) for m in range(M)]
        kl_z, kl_w, kl_y, gamma = gmvae_terms(of_samples, z_loc[i], z_scale[i], w_loc[i], w_scale[i])
        assert float(terms["minus_kl_z"][i]) == pytest.approx(-kl_z, rel=1e-9)
        assert float(terms["minus_kl_w"][i]) == pytest.approx(-kl_w, rel=1e-9)
        assert float(terms["minus_kl_y"][i]) == pytest.approx(-kl_y, rel=1e-9)
        assert log_q_y[i].exp().tolist() == pytest.approx(gamma, rel=1e-9)
    assert_close(terms["log_p_x_given_z"], net.log_p_x_given_z(x, z, FLOOR).mean(0), **TIGHT)
    assert tuple(terms) == TERMS


@torch.no_grad()
def test_every_term_is_the_expectation_it_stands_for(rng):
    """Against draws of all variables, y too, and no closed form: six standard errors."""
    net, n = networks(rng), 40_000
    with torch.no_grad():
        x = some_x(rng, n=1)
        z_loc, z_scale, w_loc, w_scale = net.posterior(x)
        terms, _ = net.elbo(x, normal(rng, n, 1, Z), normal(rng, n, 1, W), FLOOR)
        z, z2 = (z_loc + z_scale * normal(rng, n, Z) for _ in range(2))
        w = w_loc + w_scale * normal(rng, n, W)
        loc, scale = net.prior(w)
        log_joint = log_normal_oracle(z[:, None], loc, scale) - math.log(K)
        log_gamma = log_joint - log_joint.logsumexp(1, keepdim=True)
        y = torch.multinomial(log_gamma.exp(), 1, generator=rng)
        each, pick = torch.arange(n), y.squeeze(1)
        draws = {
            "log_p_x_given_z": net.log_p_x_given_z(x, z[:, None], FLOOR)[:, 0],
            "minus_kl_z": log_normal_oracle(z2, loc[each, pick], scale[each, pick])
            - log_normal_oracle(z2, z_loc, z_scale),
            "minus_kl_w": log_normal_oracle(w, torch.zeros_like(w), torch.ones_like(w))
            - log_normal_oracle(w, w_loc, w_scale),
            "minus_kl_y": -math.log(K) - log_gamma.gather(1, y).squeeze(1),
        }
    for name in TERMS:
        error = float(draws[name].std()) * math.sqrt(2 / n)  # both sides are means of n draws
        assert float(terms[name]) == pytest.approx(float(draws[name].mean()), abs=6 * error), name
        assert abs(float(terms[name])) > 6 * error, f"{name} could not be told from zero"


@torch.no_grad()
def test_the_paper_s_bound_is_below_the_elbo_and_that_below_log_p_x(rng):
    """L <= E log p(x, z, w) / q(z|x) q(w|x) <= log p(x), by quadrature over one z and one w."""
    net = networks(rng, n_features=2, latent_dim=1, noise_dim=1)
    with torch.no_grad():
        x = normal(rng, 1, 2)
        z_loc, z_scale, w_loc, w_scale = net.posterior(x)
        nodes, weights = hermite(60, 2)
        noise_z, noise_w = nodes[:, None, :1].mT, nodes[:, None, 1:].mT
        terms, _ = net.elbo(x.expand(len(nodes), -1), noise_z.transpose(0, 1), noise_w.transpose(0, 1), FLOOR)
        bound = float(weights @ sum(terms.values()))

        def log_joint(z, w):
            log_p_w = log_normal_oracle(w, torch.zeros_like(w), torch.ones_like(w))
            return net.log_p_x_given_z(x, z[:, None], FLOOR)[:, 0] + net.prior.log_p_z(z, w) + log_p_w

        z, w = z_loc + z_scale * nodes[:, :1], w_loc + w_scale * nodes[:, 1:]
        elbo = weights @ (log_joint(z, w) - log_normal(z, z_loc, z_scale) - log_normal(w, w_loc, w_scale))
        points, cell = grid(-12, 12, 601, 2)
        log_p_x = log_joint(points[:, :1], points[:, 1:]).logsumexp(0) + math.log(cell)
    assert bound < float(elbo) - 1e-3
    assert float(elbo) < float(log_p_x) - 1e-3


@torch.no_grad()
def test_one_cluster_k_times_over_that_ignores_w_is_a_vae(rng):
    net, x, noise_z = networks(rng), some_x(rng), normal(rng, 1, B, Z)
    forget_w(net.prior)
    terms, log_q_y = net.elbo(x, noise_z, normal(rng, 1, B, W), FLOOR)
    loc, scale = net.encoder.q_z(x)
    vae = vae_elbo(net.log_p_x_given_z(x, loc + scale * noise_z, FLOOR)[0], loc, scale)
    assert_close(sum(terms.values()) - terms["minus_kl_w"], vae, **TIGHT)
    assert_close(log_q_y.exp(), torch.full((B, K), 1 / K, dtype=torch.float64))
    assert_close(terms["minus_kl_y"], torch.zeros(B).double(), **TIGHT)


@torch.no_grad()
def test_m_samples_are_the_mean_of_m_bounds(rng):
    net, x, noise_z, noise_w = networks(rng), some_x(rng), normal(rng, M, B, Z), normal(rng, M, B, W)
    whole, _ = net.elbo(x, noise_z, noise_w, FLOOR)
    parts = [net.elbo(x, noise_z[m, None], noise_w[m, None], FLOOR)[0] for m in range(M)]
    for name in TERMS:
        assert_close(whole[name], sum(part[name] for part in parts) / M, **TIGHT)


# ---- free bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("free_bits", [0.0, 0.3, 5.0])
def test_the_y_prior_costs_lambda_or_itself_and_below_lambda_has_no_gradient(free_bits):
    kl = torch.tensor([0.1, 0.7, 1.0], dtype=torch.float64, requires_grad=True)  # mean 0.6
    cost = kl.mean() + free_bits_penalty(kl, free_bits)
    assert float(cost.detach()) == pytest.approx(max(free_bits, 0.6))
    (slope,) = gradients(cost, [kl])
    assert_close(slope, torch.full_like(kl, 1 / 3 if free_bits < 0.6 else 0.0))


@pytest.mark.parametrize("free_bits", [0.0, 0.2, 9.0])
def test_training_maximizes_the_bound_with_its_free_bits(rng, free_bits):
    X = normal(rng, 40, D).float().numpy()
    network = Network(hidden=(8,), latent_dim=2, batch_norm=False)
    short = Training(epochs=3, batch_size=40)
    model = GMVAE(
        K, free_bits=free_bits, noise_dim=2, n_samples=2, init="random",
        network=network, training=short, random_state=0,
    ).fit(X)  # fmt: skip
    records = [record for record in model.history_ if record["stage"] == "training"]  # one batch an epoch
    assert len(records) == 3
    for record in records:
        others = sum(record[name] for name in TERMS[:-1])
        assert record["bound"] == pytest.approx(others + record["minus_kl_y"], rel=1e-5)
        assert D * record["objective"] == pytest.approx(others - max(free_bits, -record["minus_kl_y"]), rel=1e-5)


# ---- density, draws, start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "gaussian_unit"])
@torch.no_grad()
def test_the_density_weighs_its_draws_by_p_z_w_over_q(rng, likelihood):
    """Where q does not look at x, the integral over x of the estimate is the mean weight of the S draws."""
    net = networks(rng, likelihood, n_features=1)
    with torch.no_grad():
        for layer in (net.encoder.z_loc, net.encoder.z_raw_scale, net.w_head.loc, net.w_head.raw_scale):
            layer.weight.zero_()
        fitted = GMVAE(K, likelihood=likelihood, std_floor=FLOOR, noise_dim=W)
        fitted.module_ = net
        x, cell = grid(-60, 60, 4001, 1)
        mass = float(fitted._log_p_x(x).exp().sum()) * cell
        z_loc, z_scale, w_loc, w_scale = net.posterior(x[:1])
        noise = torch.randn(32, Z + W, generator=torch.Generator().manual_seed(0)).double()
        weights = []
        for eps in noise:
            z, w = z_loc[0] + z_scale[0] * eps[:Z], w_loc[0] + w_scale[0] * eps[Z:]
            p_z = log_normal_oracle(z, *heads(net.prior, w)).exp().mean()
            q = log_normal_oracle(z, z_loc[0], z_scale[0]) + log_normal_oracle(w, w_loc[0], w_scale[0])
            weights.append(p_z * (log_normal_oracle(w, torch.zeros(W), torch.ones(W)) - q).exp())
    assert mass == pytest.approx(float(sum(weights)) / 32, rel=1e-6)


@torch.no_grad()
def test_rows_are_drawn_from_their_cluster_through_w(rng):
    net, n = networks(rng, n_features=1, latent_dim=1, noise_dim=1, spread=1.0).float(), 40_000
    fitted = GMVAE(K, likelihood="gaussian", noise_dim=1)
    fitted.module_ = net
    nodes, weights = hermite(60, 2)
    nodes, weights, means = nodes.float(), weights.float(), []
    with torch.no_grad():
        loc, scale = net.prior(nodes[:, 1:])
        for k in range(K):
            expected = net.draw(loc[:, k] + scale[:, k] * nodes[:, :1], None, 0.1)[:, 0]
            mean = float(weights @ expected)
            error = math.sqrt(float(weights @ (expected - mean) ** 2) / n)
            drawn = fitted._draw(torch.full((n,), k), rng, noise=False)
            assert float(drawn.mean()) == pytest.approx(mean, abs=6 * error)
            means.append(mean)
    assert max(means) - min(means) > 12 * error


@torch.no_grad()
def test_renumbering_permutes_the_heads(rng):
    net, x, order = networks(rng), some_x(rng), torch.tensor([2, 0, 1])
    before = net.log_q_y(x).detach()
    net.permute(order)
    assert_close(net.log_q_y(x).detach(), before[:, order], **TIGHT)


@torch.no_grad()
def test_a_start_puts_the_mixture_of_the_codes_where_w_is_zero_on_average(rng):
    prior, w = networks(rng).prior, normal(rng, B, W)
    loc, variance = normal(rng, K, Z), normal(rng, K, Z).exp()
    first = prior(w)[0]
    bias = prior.head.loc.bias.detach().unflatten(0, prior.shape).clone()
    prior.load(loc.numpy(), variance.numpy(), gain=0.1)
    assert_close(prior(w)[0] - loc, 0.1 * (first - bias), **TIGHT)  # w keeps a tenth of what it moved
    prior.load(loc.numpy(), variance.numpy(), gain=0.0)
    assert_close(prior(w)[1], (variance.sqrt() + LEAST_SCALE).expand(B, -1, -1), **TIGHT)
    z = normal(rng, B, Z)
    oracle = (log_normal_oracle(z[:, None], loc, variance.sqrt() + LEAST_SCALE)).log_softmax(1)
    assert_close(prior.log_q_y(z, w), oracle, **TIGHT)
