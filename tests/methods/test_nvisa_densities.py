"""NVISA's densities, its draws and its scores, against the equations of its first page in other words."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest, norm
from torch.distributions import MultivariateNormal
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.fitting.training import Training
from nvisa.methods.nvisa import NVISA
from nvisa.nets.mixture_vae import log_weights
from nvisa.nets.units import Rescale
from nvisa_page import B, D, K, Page, Z, drawn_pairs, networks, some_x
from oracles import TIGHT, binary_vectors, gradients, grid, hermite, normal

LIKELIHOODS = ("gaussian", "gaussian_shared", "bernoulli")
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
each_posterior = pytest.mark.parametrize("posterior", ["joint", "mean_field"])


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
    assert_close(
        terms["log_p_x_given_z"], page.over(lambda x, y, z: page.log_p_x_given_z(x, z), x, pairs.y, pairs.z), **TIGHT
    )
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
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: uniforms)
    y = drawn_pairs(net, x, rng, n_samples=n).y
    counts = F.one_hot(y, K).sum(0)
    assert (counts - n * net.log_q_y(x).exp()).abs().max() <= 1


def test_y_is_drawn_as_often_as_q_says(rng):
    net, x, n = networks(rng), some_x(rng), 4000
    counts = F.one_hot(drawn_pairs(net, x, rng, n_samples=n).y, K).sum(0).numpy()
    low, high = binom.interval(1 - 1e-8, n, net.log_q_y(x).exp().detach().numpy())
    assert ((low <= counts) & (counts <= high)).all()


def test_a_cluster_without_probability_is_never_drawn(rng, monkeypatch):
    """Not even for the uniform 0, which a float32 generator returns once in 2^24 draws: its weight would explode."""
    net, x = networks(rng), some_x(rng)
    with torch.no_grad():
        net.y_logits.weight.zero_()
        net.y_logits.bias.copy_(torch.tensor([-1e4, 0.0, -1e4]))
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64).expand(B, 3)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: uniforms)
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
        log_q_y, log_p_x = net.log_q_y(x), fitted._log_p_x(x)
        loc, scale = net.q_z(net.trunk(x), order[:, None].expand(K, B), 0.1)
        net.permute(order)
        assert_close(net.log_q_y(x), log_q_y[:, order], **TIGHT)
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
                total += weight * torch.stack([page.log_p_x_given_z(row, z) for row in x]).exp() / K
        score = clusterer(net, floor_x=floor_x)._log_p_x(x)
    assert_close(score, total.log(), rtol=0, atol=1e-2)


def test_transform_and_reconstruct_use_the_most_probable_cluster_without_noise(rng):
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    net, x = networks(rng, rescale=rescale), some_x(rng)
    fitted, page = clusterer(net), Page(net, "gaussian", "joint", floor_x=0.3, floor_z=0.0)
    with torch.no_grad():
        z, back = net.encode(x), fitted._reconstruct(x)
        for b, row in enumerate((x - rescale.shift) / rescale.scale):
            y = torch.stack([page.log_q_y(row, torch.tensor(k)) for k in range(K)]).argmax()
            assert_close(z[b], page.q_z(row, y)[0], **TIGHT)
            mean = net.x_head.loc(page.perceptron(net.decoder, z[b]))
            assert_close(back[b], mean * rescale.scale + rescale.shift, **TIGHT)
