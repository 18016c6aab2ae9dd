"""Methods that start from codes can start from one fitted autoencoder: it is taken whole, or refused with a reason."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch.testing import assert_close

import nvisa
from nvisa.autoencoders import Autoencoder, adopt
from nvisa.methods import METHODS
from nvisa.methods.ae_gmm import AEGMM
from nvisa.nets import Network, build
from nvisa.training import Training

NETWORK = Network(hidden=(6, 5), latent_dim=2, batch_norm=False)
STILL = Training(epochs=1, learning_rate=0.0)  # an epoch that moves nothing
SETTINGS = {"network": NETWORK, "training": STILL, "random_state": 0}
TAKERS = {
    "vae_gmm": {"n_init": 1},
    "dec": {"n_init": 1},
    "vade": {"n_init": 1},
    "ltvae": {"n_init": 1},
    "gmvae": {"init": "gmm"},
}


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).randn(60, 4) * [1, 2, 3, 4] + np.repeat([[0], [5], [10]], 20, 0)


@pytest.fixture(scope="module")
def fitted(X):
    return AEGMM(3, network=NETWORK, training=Training(epochs=30), n_init=1, random_state=7).fit(X)


def take(name, start, **changes):
    return METHODS[name](3, pretraining=start, **(SETTINGS | TAKERS[name] | changes))


@pytest.mark.parametrize("name", TAKERS)
def test_the_autoencoder_is_taken_as_it_is(name, X, fitted):
    model = take(name, fitted).fit(X)
    x, net, given = torch.from_numpy(X).float(), model.module_, fitted.module_
    trunk = net.trunk if name == "dec" else net.encoder.trunk
    for own, its in zip(trunk.parameters(), given.encoder.trunk.parameters(), strict=True):
        assert torch.equal(own, its)
    assert not any(record["stage"] == "pretraining" for record in model.history_)
    if name == "dec":
        assert torch.equal(net.code(x), given.code(x))
    else:  # the others whiten the codes, which changes no reconstruction
        assert_close(net.reconstruct(net.code(x)), given.reconstruct(given.code(x)), rtol=1e-4, atol=1e-4)
        assert_close(net.code(x).std(0, correction=0), torch.ones(2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", TAKERS)
def test_another_network_or_likelihood_is_refused(name, X, fitted):
    with pytest.raises(ValueError, match=r"same network and likelihood, with trunk .*\(7, 4\).*got .*\(6, 4\)"):
        take(name, fitted, network=Network(hidden=(7, 5), latent_dim=2, batch_norm=False)).fit(X)
    with pytest.raises(ValueError, match="same network and likelihood, with code"):
        take(name, fitted, network=Network(hidden=(6, 5), latent_dim=3, batch_norm=False)).fit(X)


def test_pixels_and_numbers_are_not_the_same_x(X, fitted):
    pixels = (X - X.min()) / np.ptp(X)
    with pytest.raises(ValueError, match="with logits of x .* got one with \\[\\]"):
        take("vade", fitted, likelihood="bernoulli").fit(pixels)


@pytest.mark.parametrize("start", [AEGMM(3), "ae_gmm", 3])
def test_what_is_not_fitted_has_no_autoencoder(start, X):
    with pytest.raises(ValueError, match=f"got {type(start).__name__} without one. Fit it first"):
        take("vade", start).fit(X)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "gaussian_unit"])
def test_what_the_fitted_one_lacks_stays(likelihood, X, fitted):
    model = METHODS["vade"](3, network=NETWORK, likelihood=likelihood)
    network = build(lambda: model._networks(fitted.module_.rescale), torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items() if "raw_scale" in name}
    adopt(network, fitted)
    assert isinstance(network, Autoencoder)
    assert torch.equal(network.x_head.loc.weight, fitted.module_.x_head.loc.weight)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_the_contract_holds_with_a_fitted_clusterer_as_a_setting(X, fitted, tmp_path):
    model = take("vade", FrozenEstimator(fitted)).fit(X)
    twin = clone(model)
    assert not hasattr(twin, "module_")
    assert np.array_equal(twin.fit(X).labels_, model.labels_), "the frozen start is still fitted in a clone"
    with pytest.raises(ValueError, match="a clone is not fitted"):
        clone(take("vade", fitted)).fit(X)
    with pytest.warns(UserWarning, match="pretraining is a FrozenEstimator object, not stored"):
        model.save(tmp_path / "model")
    assert np.array_equal(nvisa.load(tmp_path / "model").predict(X), model.labels_)
    stopped = take("vade", fitted, training=Training(epochs=3))
    whole = take("vade", fitted, training=Training(epochs=3)).fit(X)
    assert np.array_equal(stopped.fit(X, checkpoint=tmp_path / "checkpoint").labels_, whole.labels_)
