"""Methods that start from codes can start from one fitted autoencoder: it is taken whole, or refused with a reason."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

import nvisa
from nvisa.fitting.initialization import mask_inputs, pretrain
from nvisa.fitting.training import Training
from nvisa.methods import METHODS
from nvisa.methods.ae_gmm import AEGMM
from nvisa.nets.layers import Network
from nvisa.nets.rows import Source
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError

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
    with pytest.raises(SettingError, match=r"same network and likelihood, with trunk .*\(7, 4\).*got .*\(6, 4\)"):
        take(name, fitted, network=Network(hidden=(7, 5), latent_dim=2, batch_norm=False)).fit(X)
    with pytest.raises(SettingError, match="same network and likelihood, with code"):
        take(name, fitted, network=Network(hidden=(6, 5), latent_dim=3, batch_norm=False)).fit(X)


def test_pixels_and_numbers_are_not_the_same_x(X, fitted):
    pixels = (X - X.min()) / np.ptp(X)
    with pytest.raises(SettingError, match=r"with logits of x .* got \[\]"):
        take("vade", fitted, likelihood="bernoulli").fit(pixels)


@pytest.mark.parametrize("start", [AEGMM(3), "ae_gmm", 3])
def test_what_is_not_fitted_has_no_autoencoder(start, X):
    with pytest.raises(SettingError, match=f"got '{type(start).__name__}'. Fit it first"):
        take("vade", start).fit(X)


def test_the_contract_holds_with_a_fitted_clusterer_as_a_setting(X, fitted, tmp_path):
    model = take("vade", FrozenEstimator(fitted)).fit(X)
    twin = clone(model)
    assert not hasattr(twin, "module_")
    assert np.array_equal(twin.fit(X).labels_, model.labels_), "the frozen start is still fitted in a clone"
    with pytest.raises(SettingError, match="a clone is not fitted"):
        clone(take("vade", fitted)).fit(X)
    with pytest.warns(UserWarning, match="pretraining is a FrozenEstimator object, not stored"):
        model.save(tmp_path / "model")
    assert np.array_equal(nvisa.load(tmp_path / "model").predict(X), model.labels_)
    stopped = take("vade", fitted, training=Training(epochs=3))
    whole = take("vade", fitted, training=Training(epochs=3)).fit(X)
    assert np.array_equal(stopped.fit(X, checkpoint=tmp_path / "checkpoint").labels_, whole.labels_)


def test_a_masked_number_stands_at_its_shift_and_the_others_where_they_were():
    x, shift = torch.arange(1.0, 40_001).reshape(200, 200), -torch.arange(200.0)
    seen = mask_inputs(x, shift, 0.3, torch.Generator().manual_seed(0))
    gone = seen != x
    assert torch.equal(seen[gone], shift.expand_as(x)[gone])
    assert abs(gone.float().mean() - 0.3) < 4 * (0.3 * 0.7 / gone.numel()) ** 0.5
    assert torch.equal(mask_inputs(x, shift, 0.0, torch.Generator()), x)


class Watched(torch.nn.Module):
    """An autoencoder that is the identity times a weight, and keeps what its encoder is shown."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.ones(())), []
        self.rescale = Rescale(torch.full((5,), 7.0), torch.ones(5))

    def code(self, x):
        self.seen.append(x)
        return self.weight * x

    def reconstruct(self, z):
        return self.rescale(z)


def test_the_encoder_sees_the_masked_row_and_is_judged_by_the_whole_one():
    X, net = np.random.RandomState(0).rand(500, 5), Watched()
    training, generator = Training(epochs=1, batch_size=500, learning_rate=0.0), torch.Generator().manual_seed(0)
    (record,) = pretrain(net, Source(X, torch.device("cpu")), training, generator, masked=0.3)
    (seen,) = net.seen
    gone = seen == 7.0
    assert 0.25 < gone.float().mean() < 0.35
    # what was seen comes back as it was: the error is that of the numbers that were not, which come back as 7
    assert record["reconstruction_error"] == pytest.approx(float(((7 - X) ** 2).mean() * 0.3), rel=0.1)


def test_dec_may_start_from_the_means_of_a_mixture(X, fitted):
    model = take("dec", fitted, init="mixture", n_init=20, tol=1.0).fit(X)  # whatever changed, it has converged at once
    codes = fitted.module_.code(torch.from_numpy(X).float()).detach().numpy()
    judge = GaussianMixture(3, n_init=20, tol=1e-7, max_iter=1000, random_state=1).fit(codes)
    mine, its = model.module_.centroids.detach(), torch.from_numpy(judge.means_).float()
    assert_close(mine[mine[:, 0].argsort()], its[its[:, 0].argsort()], rtol=1e-2, atol=1e-2)
