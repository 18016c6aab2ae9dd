"""What NVISA is compared with, against the equations of their papers; the surface is tested in test_contract.py."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

from nvisa import commands
from nvisa.data import DataError
from nvisa.fitting.training import Source, Training, maximize
from nvisa.methods import ae_gmm, dec, vade, vae_gmm
from nvisa.methods.dec import Refinement, log_assignments, target_distribution
from nvisa.nets.autoencoder import START_SCALE, Autoencoder, Encoder, MixtureAutoencoder
from nvisa.nets.layers import Network, Rescale
from nvisa.nets.mixtures import FullMixture, Mixture, common_axes, covariances, moments
from oracles import (
    TIGHT,
    build,
    dec_assignments,
    dec_gradients,
    dec_target,
    gradients,
    grid,
    log_bernoulli,
    normal,
    vade_elbo,
    vae_elbo,
)
from oracles import log_normal as log_normal_oracle

B, D, Z, K = 6, 4, 2, 3
NETWORK = Network(hidden=(6, 5), latent_dim=Z, batch_norm=False)
LIKELIHOODS = ("gaussian", "gaussian_shared", "gaussian_unit", "bernoulli")
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
FLOOR = 0.3


def rescale(n_features=D, *, likelihood="gaussian"):
    if likelihood == "bernoulli":
        return Rescale(torch.zeros(n_features), torch.ones(n_features))
    return Rescale(torch.arange(n_features) / 3.0, 0.5 + torch.arange(n_features))


def vade_networks(rng, likelihood="gaussian", n_features=D):
    units = rescale(n_features, likelihood=likelihood)
    return build(lambda: vade.Networks(units, K, NETWORK, likelihood=likelihood), rng, spread=0.5)


def vae_networks(rng, likelihood="gaussian", n_features=D):
    units = rescale(n_features, likelihood=likelihood)
    how = {"likelihood": likelihood, "covariance": "diag", "variational": True}
    net = build(lambda: vae_gmm.Networks(units, K, NETWORK, **how), rng, spread=0.5)
    random_mixture(net.mixture, rng)
    return net


def random_mixture(mixture, rng):
    weights, loc, variance = normal(rng, K).softmax(0), normal(rng, K, Z), normal(rng, K, Z).exp()
    mixture.load(weights.numpy(), loc.numpy(), variance.numpy())


def some_x(rng, likelihood="gaussian", n=B):
    x = normal(rng, n, D)
    return x.sigmoid() if likelihood == "bernoulli" else 2 * x


def log_p_x_given_z(net, x, z, likelihood):
    """log p(x|z) in the networks' units by torch.distributions, from the last layer's own outputs."""
    x, h, head = net.rescale(x), net.decoder(z), net.x_head
    if likelihood == "bernoulli":
        return log_bernoulli(x, head.logits(h))
    if likelihood == "gaussian_unit":
        return log_normal_oracle(x, head.loc(h), torch.ones_like(x))
    raw = head.raw_scale if likelihood == "gaussian_shared" else head.raw_scale(h)
    return log_normal_oracle(x, head.loc(h), (raw.exp() + 1).log() + FLOOR)


# ---- mixtures --------------------------------------------------------------------------------------------------------


def sklearn_mixture(mixture):
    """scikit-learn's mixture with the same parameters."""
    model = GaussianMixture(K, covariance_type="diag")
    model.weights_ = mixture.logits.detach().softmax(0).numpy()
    model.means_, model.covariances_ = mixture.loc.detach().numpy(), mixture.log_scale.detach().exp().square().numpy()
    model.precisions_cholesky_ = 1 / np.sqrt(model.covariances_)
    return model


def ae_networks(rng):
    how = {"likelihood": "gaussian_unit", "covariance": "diag"}
    net = build(lambda: MixtureAutoencoder(rescale(), K, NETWORK, **how), rng)
    random_mixture(net.mixture, rng)
    return net


@pytest.mark.parametrize(
    ("networks", "table"), [(ae_networks, "mixture"), (vae_networks, "mixture"), (vade_networks, "prior")]
)
def test_labels_come_from_the_responsibilities_that_scikit_learn_computes(rng, networks, table):
    net, x = networks(rng), some_x(rng, n=50)
    expected = sklearn_mixture(getattr(net, table)).predict_proba(net.code(x).detach().numpy())
    assert_close(net.log_q_y(x).exp().detach(), torch.from_numpy(expected), **TIGHT)
    order = torch.tensor([2, 0, 1])
    net.permute(order)
    assert_close(net.log_q_y(x).exp().detach(), torch.from_numpy(expected)[:, order], **TIGHT)


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


def test_full_covariances_give_the_responsibilities_that_scikit_learn_computes(rng):
    mixture, judge = random_full_mixture(rng)
    z, order = 3 * normal(rng, 50, Z), torch.tensor([2, 0, 1])
    expected = torch.from_numpy(judge.predict_proba(z.numpy()))
    assert_close(mixture.log_q_y(z).exp(), expected, **TIGHT)
    mixture.permute(order)
    assert_close(mixture.log_q_y(z).exp(), expected[:, order], **TIGHT)


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


# ---- bounds ----------------------------------------------------------------------------------------------------------


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


@each_likelihood
def test_the_vae_s_terms_add_up_to_its_bound(rng, likelihood):
    net, x, noise = vae_networks(rng, likelihood), some_x(rng, likelihood), normal(rng, B, Z)
    terms = net.elbo(x, noise, FLOOR)
    loc, scale = net.encoder.q_z(x)
    expected = vae_elbo(log_p_x_given_z(net, x, loc + scale * noise, likelihood), loc, scale)
    assert_close(sum(terms.values()), expected, **TIGHT)


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


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "gaussian_unit"])
@pytest.mark.parametrize(
    ("networks", "kind"), [(vae_networks, vae_gmm.VAEGMM), (vade_networks, vade.VaDE)], ids=["vae_gmm", "vade"]
)
def test_the_density_has_mass_one_in_the_user_s_units(rng, networks, kind, likelihood):
    """With q(z|x) = p(z) the estimate is the mean of S densities in x, whatever S is."""
    net = networks(rng, likelihood, n_features=2)
    net.encoder.fix_scale(1 - 1e-4)
    with torch.no_grad():
        net.encoder.z_loc.weight.zero_()
        net.encoder.z_loc.bias.zero_()
        if kind is vade.VaDE:
            net.prior.loc.zero_()
            net.prior.log_scale.zero_()
    fitted = kind(K, likelihood=likelihood, std_floor=FLOOR)
    fitted.module_ = net
    x, cell = grid(-40, 40, 401, 2)
    with torch.inference_mode():
        assert float(fitted._log_p_x(x).exp().sum()) * cell == pytest.approx(1, abs=1e-6)


def rotated_clusters(rng, n=3000):
    """Clusters that are diagonal in one basis only, and in which they were drawn."""
    basis, which = normal(rng, Z, Z) + 2 * torch.eye(Z), torch.randint(K, (n,), generator=rng)
    u = 3 * normal(rng, K, Z)[which] + normal(rng, K, Z).exp()[which] * normal(rng, n, Z)
    return u @ basis.T, torch.nn.functional.one_hot(which, K).double(), basis


def test_covariances_are_those_of_the_rows_by_responsibility(rng):
    codes, weights = normal(rng, 50, Z).numpy(), normal(rng, 50, K).softmax(1).numpy()
    expected = [np.cov(codes.T, aweights=w, ddof=0) + 1e-3 * np.eye(Z) for w in weights.T]
    np.testing.assert_allclose(covariances(codes, weights), expected, rtol=1e-10)


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
    white = torch.from_numpy(whitened.begin(codes.numpy()))
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
    with pytest.raises(ValueError, match="init must be one of 'gmm', 'umap', got 'random'"):
        vade.VaDE(3, init="random").fit(X)


# ---- DEC -------------------------------------------------------------------------------------------------------------


def test_dec_s_assignments_and_target_are_the_paper_s(rng):
    z, mu = normal(rng, 20, Z), normal(rng, K, Z)
    q = log_assignments(z, mu).exp()
    assert_close(q, dec_assignments(z, mu), **TIGHT)
    assert_close(target_distribution(q), dec_target(q), **TIGHT)


def test_the_target_of_one_hot_assignments_is_itself():
    q = torch.eye(4, dtype=torch.float64)[[0, 1, 1, 3, 0, 1]]  # nobody is in cluster 2
    assert torch.equal(target_distribution(q), q)


def dec_networks(rng):
    return build(lambda: dec.Networks(rescale(), K, NETWORK), rng)


def refinement(net, x, **options):
    settings = {"update_interval": 2, "tol": 0.0, **options}
    return Refinement(net, lambda: net.log_q_y(x).detach().numpy(), **settings)


def test_the_target_is_of_the_whole_data_set_and_fixed_between_refreshes(rng):
    net, x = dec_networks(rng), some_x(rng, n=30)
    whole, rows = dec_target(net.log_q_y(x).exp().detach()), np.arange(4)
    objective = refinement(net, x, update_interval=3)
    first = objective(x[:4], rows, 0.0)
    expected = (whole[:4] * (whole[:4].log() - net.log_q_y(x[:4]))).sum(1)
    assert_close(first.terms["kl"], expected, **TIGHT)
    assert (dec_target(net.log_q_y(x[:4]).exp().detach()) - whole[:4]).abs().max() > 0.01  # pt-dec's error shows
    with torch.no_grad():
        net.centroids += 0.5
    objective(x[:4], rows, 0.0)
    assert_close(objective.target, whole, **TIGHT)


def test_the_target_is_made_in_evaluation_mode_and_the_step_in_training_mode(rng):
    """With batch norm, P in training mode would depend on how the rows are cut into blocks."""
    net, x, modes = dec_networks(rng).train(), some_x(rng, n=B), []

    def all_log_q():
        modes.append(net.training)
        return net.log_q_y(x).detach().numpy()

    Refinement(net, all_log_q, update_interval=2, tol=0.0)(x, np.arange(B), 0.0)
    assert (modes, net.training) == ([False], True)


def test_dec_s_gradient_is_the_paper_s_and_the_target_has_none(rng):
    net, x = dec_networks(rng), some_x(rng, n=B)
    kl = refinement(net, x)(x, np.arange(B), 0.0).terms["kl"].sum()
    z = net.code(x).detach()
    dz, dmu = dec_gradients(z, net.centroids.detach(), dec_target(net.log_q_y(x).exp().detach()))
    in_mu, in_bias = gradients(kl, [net.centroids, net.z_loc.bias])
    assert_close(in_mu, dmu, **TIGHT)
    assert_close(in_bias, dz.sum(0), **TIGHT)  # z = W h + b: the bias collects every dL/dz_i


def test_dec_stops_when_no_more_than_the_tolerated_share_changed(rng):
    net, x = dec_networks(rng), some_x(rng, n=30)
    still = refinement(net, x)
    assert [still(x, np.arange(30), 0.0) is None for _ in range(3)] == [False, False, True]
    assert still.converged
    moving = refinement(net, x, tol=0.5)
    labels = iter([np.eye(2)[[0] * 10], np.eye(2)[[1] * 6 + [0] * 4], np.eye(2)[[1] * 9 + [0]]])
    moving.all_log_q = lambda: np.log(next(labels) + 0.1)
    shares = []
    for _ in range(3):
        moving.refresh()
        shares.append((moving.changed, moving.converged))
    assert shares == [(1.0, False), (0.6, False), (0.3, True)]


def test_training_ends_where_the_objective_has_converged(rng):
    net, X = dec_networks(rng).float(), some_x(rng, n=40).numpy()
    source = Source(X, torch.device("cpu"))
    objective = refinement(net, source[slice(0, 40)], update_interval=6, tol=0.99)  # at the second refresh
    history = maximize(objective, net, source, Training(epochs=9, batch_size=10), rng)
    assert (len(history), objective.step) == (2, 6)
    assert not net.training


def test_the_decoder_shares_dec_s_encoder(rng):
    net = dec_networks(rng)
    autoencoder = build(lambda: Autoencoder(net, NETWORK), rng)
    x = some_x(rng)
    assert torch.equal(autoencoder.code(x), net.code(x))
    assert not any(name.startswith("decoder") for name in net.state_dict())
    assert isinstance(net, Encoder)


def test_the_command_line_says_what_cannot_be_drawn_from(tmp_path):
    X = np.random.RandomState(0).randn(20, 3)
    network, training = Network(hidden=(4,), latent_dim=2), Training(epochs=1)
    ae_gmm.AEGMM(2, n_init=1, network=network, training=training, random_state=0).fit(X).save(tmp_path / "model")
    with pytest.raises(DataError, match="with a density, got AEGMM"):
        commands.sample(str(tmp_path / "model"), str(tmp_path / "x.npz"), 3)
