"""The encoder, the autoencoder, what whitening changes and what it does not, and what one takes over from another."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.nets.autoencoder import LEAST_SCALE, START_SCALE, Autoencoder, Encoder, MixtureAutoencoder, load_autoencoder
from nvisa.nets.layers import LIKELIHOODS, Network
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError
from oracles import TIGHT, build, normal
from oracles import log_normal as log_normal_oracle

D, Z, K = 4, 2, 3
NETWORK = Network(hidden=(6, 5), latent_dim=Z, batch_norm=False)


def autoencoder(rng, *, variational=True, likelihood="gaussian_shared", network=NETWORK):
    """Random weights, and units that are not the identity."""
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    encoder = lambda: Encoder(rescale, network, variational=variational)  # noqa: E731
    return build(lambda: Autoencoder(encoder(), network, likelihood), rng, spread=0.5)


# ---- x in the user's units, z, and back ------------------------------------------------------------------------------


def test_the_code_is_the_mean_of_q_of_z_and_its_deviation_a_softplus(rng):
    net, x = autoencoder(rng), normal(rng, 7, D)
    encoder = net.encoder
    h = encoder.trunk((x - net.rescale.shift) / net.rescale.scale)
    loc, scale = encoder.q_z(x)
    assert_close(loc, encoder.z_loc.bias + h @ encoder.z_loc.weight.T, **TIGHT)
    raw = encoder.z_raw_scale.bias + h @ encoder.z_raw_scale.weight.T
    assert_close(scale, torch.log1p(raw.exp()) + LEAST_SCALE, **TIGHT)
    for code in (encoder.code, encoder.encode, net.code, net.encode):
        assert torch.equal(code(x), loc)


def test_q_of_z_starts_at_the_deviation_asked_for_everywhere(rng):
    net, x = autoencoder(rng), normal(rng, 7, D)
    before = net.code(x)
    net.encoder.init_scale(0.3)
    loc, scale = net.encoder.q_z(x)
    assert torch.equal(loc, before)
    assert_close(scale, torch.full_like(scale, 0.3 + LEAST_SCALE), rtol=1e-6, atol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_rows_are_drawn_and_judged_in_their_units(rng, likelihood):
    """x ~ p(x|z) comes in the user's units; log p(x|z) is a density over the networks'."""
    net, z = autoencoder(rng, likelihood=likelihood), normal(rng, 7, Z)
    mean = net.draw(z, None, 0.2)
    assert_close(mean, net.reconstruct(z) * net.rescale.scale + net.rescale.shift, **TIGHT)
    drawn = net.draw(z, torch.Generator().manual_seed(3), 0.2)
    unscaled = net.x_head.draw(net.decoder(z), torch.Generator().manual_seed(3), 0.2)
    assert_close(drawn, unscaled * net.rescale.scale + net.rescale.shift, **TIGHT)
    if likelihood == "gaussian_shared":
        x, several = normal(rng, 7, D), normal(rng, 3, 7, Z)
        scale = F.softplus(net.x_head.raw_scale) + 0.2
        expected = log_normal_oracle(net.rescale(x), net.x_head.loc(net.decoder(several)), scale)
        assert_close(net.log_p_x_given_z(x, several, 0.2), expected, **TIGHT)


# ---- whitening -------------------------------------------------------------------------------------------------------


def test_whitened_codes_have_mean_zero_and_deviation_one_and_no_reconstruction_changes(rng):
    net, x = autoencoder(rng), 1 + 3 * normal(rng, 60, D)
    before = net.reconstruct(net.code(x)).detach()
    told = net.whiten(net.code(x).detach().numpy())
    codes, scale = (t.detach() for t in net.encoder.q_z(x))
    np.testing.assert_allclose(told, codes, atol=1e-10)
    assert_close(codes.mean(0), torch.zeros(Z).double(), **TIGHT)
    assert_close(codes.std(0, correction=0), torch.ones(Z).double(), **TIGHT)
    assert_close(scale, torch.full_like(scale, START_SCALE + LEAST_SCALE), rtol=1e-6, atol=0)
    assert_close(net.reconstruct(net.code(x)).detach(), before, rtol=1e-8, atol=1e-8)


def test_with_clusters_the_axes_are_turned_to_where_these_are_diagonal(rng):
    """Clusters whose covariances share their axes: after the turn nothing is correlated within one."""
    net, x = autoencoder(rng), normal(rng, 4000, D)
    with torch.no_grad():
        codes = net.code(x)
        mixing = normal(rng, Z, Z)
        deviations = normal(rng, K, Z).exp()
        y = torch.arange(4000) % K
        planted = (normal(rng, 4000, Z) * deviations[y]) @ mixing.T
    before = net.reconstruct(codes).detach()
    proba = np.eye(K)[y]
    told = net.whiten(planted.numpy(), proba)
    assert_close(torch.from_numpy(told.std(0)), torch.ones(Z).double(), rtol=1e-6, atol=0)
    for k in range(K):
        within = np.corrcoef(told[y == k].T)
        assert abs(within[0, 1]) < 0.1  # of about 0.9 before
    assert max(abs(np.corrcoef(planted[y == k].T)[0, 1]) for k in range(K)) > 0.5
    assert_close(net.reconstruct(net.code(x)).detach(), before, rtol=1e-6, atol=1e-6)


# ---- a mixture of the codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_the_mixture_is_fitted_to_the_codes_and_labels_by_them(rng, covariance):
    rescale = Rescale(normal(rng, D), normal(rng, D).exp())
    how = {"likelihood": "gaussian_unit", "covariance": covariance}
    net = build(lambda: MixtureAutoencoder(rescale, K, NETWORK, **how), rng)
    x, planted = normal(rng, 300, D), 5 * torch.eye(K, Z).double()[torch.arange(300) % K] + 0.3 * normal(rng, 300, Z)
    log_p = net.fit_mixture(planted.numpy(), 2, np.random.RandomState(0))
    log_q = net.mixture.log_q_y(planted)
    labels = log_q.argmax(1)
    assert [len(set(labels[k::K].tolist())) for k in range(K)] == [1] * K
    assert log_p > -2.5  # nats: three tight clusters, of 300 rows
    assert_close(net.log_q_y(x), net.mixture.log_q_y(net.code(x)), **TIGHT)
    net.permute(order := torch.tensor([2, 0, 1]))
    assert_close(net.mixture.log_q_y(planted), log_q[:, order], **TIGHT)


# ---- taking another's over -------------------------------------------------------------------------------------------


class Fitted:
    """A clusterer as far as it is looked at."""

    def __init__(self, module):
        self.module_ = module


def test_what_both_have_is_taken_and_the_rest_stays(rng):
    given, own = autoencoder(rng, variational=False), autoencoder(rng)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    load_autoencoder(own, Fitted(given))
    taken = given.state_dict()
    for name, value in own.state_dict().items():
        expected = before[name] if "raw_scale" in name else taken[name]
        assert torch.equal(value, expected), name
    encoder = autoencoder(rng).encoder
    load_autoencoder(encoder, Fitted(given))  # DEC's: no decoder
    assert torch.equal(encoder.code(x := normal(rng, 5, D)), given.code(x))


def test_another_network_or_likelihood_is_refused_and_nothing_taken(rng):
    own = autoencoder(rng)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    wider = Network(hidden=(7, 5), latent_dim=Z, batch_norm=False)
    deeper = Network(hidden=(6, 5), latent_dim=Z + 1, batch_norm=False)
    for given, named in [
        (autoencoder(rng, network=wider), r"with trunk \[.*\(6, 4\).*got \[.*\(7, 4\)"),
        (autoencoder(rng, network=deeper), "with code "),
        (autoencoder(rng, likelihood="bernoulli"), r"with mean of x .*got \[\]\. Give both the same network= and"),
    ]:
        with pytest.raises(SettingError, match=f"pretraining must be an autoencoder of the same network.*{named}"):
            load_autoencoder(own, Fitted(given))
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize("fitted", [Fitted(torch.nn.Linear(2, 2)), "ae_gmm", 3, None])
def test_what_has_no_autoencoder_is_refused(rng, fitted):
    name = type(fitted).__name__
    with pytest.raises(SettingError, match=f"fitted clusterer with an autoencoder, .*got '{name}'. Fit it first"):
        load_autoencoder(autoencoder(rng), fitted)
