"""Fits with convolutions and with modules of the user's: images as they are, models that come back, what is refused."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.testing import assert_close

import nvisa
from nvisa import IMSAT, NVISA, Conv, ModelError, Modules, SettingError, Training

SMALL = {"training": Training(epochs=20, batch_size=40), "random_state": 0}
CONV = Conv(channels=(4, 8), hidden=(16,), latent_dim=2)


def bars(seed=0):
    """Images of a horizontal or a vertical bar at any place, [N 8 8], and which each is."""
    rng = np.random.RandomState(seed)
    y, images = rng.choice(2, 120), 0.1 * rng.randn(120, 8, 8)
    for image, is_vertical in zip(images, y, strict=True):
        place = 2 * rng.choice(4)
        (image.T if is_vertical else image)[place : place + 2] += 1.0
    return images.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted():
    return NVISA(8, network=CONV, **SMALL).fit(bars()[0])


def test_images_go_in_as_they_are_and_predictions_take_them_flat_too(fitted):
    images, y = bars()
    assert fitted.image_shape_ == (8, 8)
    found = {(k, label) for k, label in zip(fitted.labels_, y, strict=True)}
    assert len(found) <= len(set(fitted.labels_)) + 1  # a cluster has bars of one direction
    assert (fitted.predict(images) == fitted.labels_).all()
    assert (fitted.predict(images.reshape(120, 64)) == fitted.labels_).all()
    with pytest.raises(ValueError, match=r"expected rows of shape \(8, 8\).*got \(4, 16\)"):
        fitted.predict(images.reshape(120, 4, 16))


def test_channels_first_and_last_are_the_same_images():
    images = np.stack([bars()[0], bars(1)[0], bars(2)[0]], -1)
    settings = {"network": CONV, "consistency": None, "init": "random", **SMALL, "training": Training(epochs=2)}
    last = NVISA(2, **settings).fit(images)
    first = NVISA(2, **settings).fit(torch.from_numpy(np.moveaxis(images, -1, 1)))
    assert first.image_shape_ == (3, 8, 8)
    np.testing.assert_allclose(
        last.predict_proba(images), first.predict_proba(np.moveaxis(images, -1, 1)), rtol=1e-3, atol=1e-4
    )


def test_a_model_with_convolutions_comes_back(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    again = nvisa.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(bars()[0]), fitted.predict_proba(bars()[0]))
    np.testing.assert_array_equal(again.sample(4)[0], fitted.sample(4)[0])


def test_a_copy_of_the_users_modules_is_trained_and_its_weights_come_back_with_the_code(tmp_path):
    X = bars()[0].reshape(120, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        decoder = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 64))
    network = Modules(encoder=encoder, decoder=decoder, latent_dim=2)
    before = deepcopy(encoder.state_dict())
    model = clone(NVISA(2, network=network, **SMALL | {"training": Training(epochs=3)})).fit(X)
    assert_close(encoder.state_dict(), before)
    assert not torch.equal(model.module_.trunk.module[0].weight, encoder[0].weight)
    model.save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"encoder \(Sequential\), decoder \(Sequential\): nvisa.load\(path, network="):
        nvisa.load(tmp_path / "model")
    again = nvisa.load(tmp_path / "model", network=network)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    with torch.random.fork_rng(devices=[]):
        other = Modules(encoder=nn.Sequential(nn.Linear(64, 17)), decoder=decoder, latent_dim=2)
    with pytest.raises(ModelError, match="shape|differing"):
        nvisa.load(tmp_path / "model", network=other)


@pytest.mark.parametrize(
    ("make", "X", "said"),
    [
        (
            lambda: IMSAT(2, network=CONV),
            bars()[0].reshape(120, 64),
            "network must be a Network with IMSAT: Conv is NVISA",
        ),
        (lambda: NVISA(2, network=CONV), np.ones((120, 63)), r"network.image_shape must be \(H, W\).* of 63 numbers"),
        (lambda: NVISA(2), bars()[0], "dim 3|3 dimensions"),
        (
            lambda: NVISA(2, network=CONV),
            np.where(np.arange(64) == np.arange(120)[:, None], np.nan, 1.0) * np.arange(120)[:, None],
            "network must be a Network for counts, gaps",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_fit_is_refused_before_training(make, X, said):
    with pytest.raises((SettingError, ValueError), match=said):
        make().set_params(random_state=0).fit(X)
