"""VaDE against the equations of its paper; what it shares with every method is tested beside the base."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from autoencoders import FLOOR, B, K, Z, log_p_x_given_z, mass, rotated_clusters, some_x, vade_networks, vae_networks
from nvisa.fitting.training import Training
from nvisa.methods import vade
from nvisa.nets.autoencoder import START_SCALE
from nvisa.nets.layers import Network
from nvisa.nets.priors import moments
from oracles import TIGHT, normal, vade_elbo

LIKELIHOODS = ("gaussian", "gaussian_shared", "gaussian_unit", "bernoulli")
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


@each_likelihood
def test_vade_s_terms_add_up_to_the_equation_of_the_paper(rng, likelihood):
    net, x, noise = vade_networks(rng, likelihood), some_x(rng, likelihood), normal(rng, B, Z)
    terms, log_gamma = net.elbo(x, noise, FLOOR)
    m, scale = (a.detach() for a in net.encoder.q_z(x))
    z, prior = m + scale * noise, net.prior
    recon = log_p_x_given_z(net, x, z, likelihood).detach()
    pi, mu, s2 = (a.detach() for a in (prior.logits.softmax(0), prior.loc, (2 * prior.log_scale).exp()))
    expected = [vade_elbo(recon[i], z[i], m[i], scale[i] ** 2, pi, mu, s2) for i in range(B)]
    assert_close(sum(terms.values()).detach(), torch.tensor(expected, dtype=torch.float64), **TIGHT)
    assert_close(terms["log_p_x_given_z"].detach(), recon, **TIGHT)
    assert_close(log_gamma, prior.log_q_y(z))


def test_vade_with_one_cluster_k_times_over_is_the_vae(rng):
    net, vae = vade_networks(rng), vae_networks(rng)
    weights = {name: value for name, value in net.state_dict().items() if not name.startswith("prior")}
    vae.load_state_dict(weights | {k: v for k, v in vae.state_dict().items() if k.startswith("mixture")})
    with torch.no_grad():
        for table in (net.prior.logits, net.prior.loc, net.prior.log_scale):
            table.zero_()
    x, noise = some_x(rng), normal(rng, B, Z)
    terms, log_gamma = net.elbo(x, noise, FLOOR)
    assert_close(sum(terms.values()), sum(vae.elbo(x, noise, FLOOR).values()), **TIGHT)
    assert_close(log_gamma.exp(), torch.full((B, K), 1 / K, dtype=torch.float64))


@torch.no_grad()
def test_vade_starts_where_its_diagonal_prior_fits_best_and_reconstructs_as_before(rng):
    net, (codes, proba, _) = vade_networks(rng), rotated_clusters(rng)
    whitened = vade_networks(rng)
    w, b = net.encoder.z_loc.weight.clone(), net.encoder.z_loc.bias.clone()
    h = normal(rng, 20, w.shape[1])
    before = net.decoder(h @ w.T + b)
    net.start_from(codes.numpy(), proba.numpy())
    assert_close(net.decoder(net.encoder.z_loc(h)), before, **TIGHT)
    scale = net.encoder.q_z_from(h)[1]
    assert_close(scale, torch.full_like(scale, START_SCALE + 1e-4), **TIGHT)
    # The same codes, as the encoder makes them now: unit deviation, and densities above those of the whitened axes.
    turn = net.encoder.z_loc.weight @ torch.linalg.pinv(w)
    z = (codes - b) @ turn.T + net.encoder.z_loc.bias
    assert_close(z.mean(0), torch.zeros(Z).double(), **TIGHT)
    assert_close(z.std(0, correction=0), torch.ones(Z).double(), **TIGHT)
    white = torch.from_numpy(whitened.whiten(codes.numpy()))
    whitened.prior.load(proba.numpy().mean(0), *moments(white.numpy(), proba.numpy()))
    change = torch.linalg.slogdet(turn * codes.std(0, correction=0))[1]
    here, there = net.prior.log_p_z(z).mean() + change, whitened.prior.log_p_z(white).mean()
    best = GaussianMixture(K, covariance_type="full", means_init=whitened.prior.loc.numpy(), random_state=0).fit(
        white.numpy()
    )
    assert float(here) > float(there) + 0.1
    assert float(here) == pytest.approx(best.score(white.numpy()), abs=0.02)


def test_vade_starts_from_an_assignment_with_one_m_step_of_its_codes(rng):
    net, x, proba = vade_networks(rng), some_x(rng, n=60), normal(rng, 60, K).softmax(1)
    net.start_from(net.code(x).detach().numpy(), proba.numpy())
    z, share = net.code(x).detach(), proba / proba.sum(0)
    mean = torch.einsum("nk,nz->kz", share, z)
    spread = torch.einsum("nk,nkz->kz", share, (z[:, None] - mean) ** 2)
    found = net.prior.log_weights.exp(), net.prior.loc, net.prior.scale**2
    for mine, expected in zip(found, (proba.mean(0), mean, spread), strict=True):
        assert_close(mine.detach(), expected, **TIGHT)


def test_vade_starts_from_em_with_full_covariances(rng):
    net, codes = vade_networks(rng), rotated_clusters(rng)[0]
    net.start(codes.numpy(), 5, np.random.RandomState(0))
    judge = GaussianMixture(K, n_init=5, random_state=1).fit(codes.numpy())
    assert_close(
        net.prior.log_weights.exp().sort().values.detach(),
        torch.from_numpy(judge.weights_).sort().values,
        atol=0.01,
        rtol=0,
    )


def test_vade_takes_the_clusters_of_a_fitted_clusterer():
    X, _ = make_blobs(300, centers=np.diag([8.0, 8.0, 8.0]), random_state=0)
    given = GaussianMixture(3, random_state=0).fit(X)
    settings = {"network": Network(hidden=(16,), latent_dim=2, batch_norm=False), "random_state": 0}
    model = vade.VaDE(3, init=given, pretraining=Training(steps=60), training=Training(steps=60), **settings).fit(X)
    joint = np.zeros((3, 3))
    np.add.at(joint, (given.predict(X), model.labels_), 1)
    assert (joint.max(1) > 0.95 * joint.sum(1)).all()
    assert model.start_score_ > 0.9 * np.log(3)
    assert [r["stage"] for r in model.history_ if r["epoch"] == 1] == ["pretraining", "distillation", "training"]


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "gaussian_unit"])
def test_the_density_has_mass_one_in_the_user_s_units(rng, likelihood):
    net, fitted = vade_networks(rng, likelihood, n_features=2), vade.VaDE(K, likelihood=likelihood, std_floor=FLOOR)
    with torch.no_grad():
        net.prior.loc.zero_()
        net.prior.log_scale.zero_()
    assert mass(fitted, net) == pytest.approx(1, abs=1e-6)


def test_labels_come_from_the_responsibilities_that_scikit_learn_computes(rng):
    net, x = vade_networks(rng), some_x(rng, n=50)
    judge = GaussianMixture(K, covariance_type="diag")
    judge.weights_, judge.means_ = net.prior.logits.detach().softmax(0).numpy(), net.prior.loc.detach().numpy()
    judge.covariances_ = net.prior.log_scale.detach().exp().square().numpy()
    judge.precisions_cholesky_ = 1 / np.sqrt(judge.covariances_)
    expected = torch.from_numpy(judge.predict_proba(net.code(x).detach().numpy()))
    assert_close(net.log_q_y(x).exp().detach(), expected, **TIGHT)
    order = torch.tensor([2, 0, 1])
    net.permute(order)
    assert_close(net.log_q_y(x).exp().detach(), expected[:, order], **TIGHT)
