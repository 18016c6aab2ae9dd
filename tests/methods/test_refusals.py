"""Settings and rows that no fit can use are refused by name, before anything is trained: each once, where it lives."""

from typing import Annotated, get_args, get_origin

import numpy as np
import pytest
from sklearn.base import clone

from nvisa import SettingError, StdAnnealing, Training, WarmStart
from nvisa.fitting.consistency import VAT, Augment
from nvisa.methods import METHODS
from nvisa.methods.base import DeepClusterer
from nvisa.nets.layers import Network
from small_methods import make


def assert_refused(clusterer, X, error, message):
    """Before anything is trained."""
    epochs = []
    with pytest.raises(error, match=message) as caught:
        clusterer.on_epoch(lambda _, record: epochs.append(record)).fit(X)
    assert not epochs
    assert not hasattr(clusterer, "module_")
    return caught.value


def forced(settings, name, value):
    """Settings with a value of another type than annotated: the checker of the tests refuses it, a user does not."""
    object.__setattr__(settings, name, value)
    return settings


NORMED = Network(hidden=(4,))
OF_EVERY_METHOD = [
    ("n_clusters", 1, "n_clusters"),
    ("n_clusters", 2.5, "n_clusters"),
    ("network", 500, "network"),
    ("network", Network(hidden=()), "network.hidden"),
    ("network", forced(Network(), "hidden", 500), "network.hidden"),
    ("network", Network(latent_dim=0), "network.latent_dim"),
    ("network", Network(hidden=(4,), scaling="max"), "network.scaling"),
    ("network", Network(prior_components=0), "network.prior_components"),
    ("network", forced(Network(), "batch_norm", "yes"), "network.batch_norm"),
    ("training", {"epochs": 3}, "training"),
    ("training", Training(epochs=0), "training.epochs"),
    ("training", Training(max_epochs=0), "training.max_epochs"),
    ("training", Training(batch_size=0), "training.batch_size"),
    ("training", Training(clip_norm=0.0), "training.clip_norm"),
    ("training", Training(learning_rate=-1e-3), "training.learning_rate"),
    ("training", forced(Training(), "learning_rate", "fast"), "training.learning_rate"),
    ("training", Training(device="no such"), "training.device"),
]
EPOCHLESS = Training(epochs=0)
OWN = {
    "nvisa": [
        ("inference", "vinco", "inference"),
        ("inference", None, "inference"),
        ("n_samples", 0, "n_samples"),
        ("likelihood", "poisson", "likelihood"),
        ("posterior", "full", "posterior"),
        ("reparameterize", "yes", "reparameterize"),
        ("std_annealing", "low", "std_annealing"),
        ("std_annealing", 0.1, "std_annealing"),
        ("std_annealing", forced(StdAnnealing(), "x", "low"), "std_annealing.x"),
        ("init", "no such", "init"),
        ("init", (), "init"),
        ("init", ("random", "no such"), "init"),
        ("init", WarmStart("random"), "init.init"),
        ("init", ("random", WarmStart(masked=1.0)), "init[1].masked"),
        ("consistency", "mixup", "consistency"),
        ("consistency", VAT(radius=-1.0), "consistency.radius"),
        ("consistency", ("vat", forced(VAT(), "probe", "a")), "consistency[1].probe"),
        ("consistency", Augment((3, 3), shift=-0.1), "consistency.shift"),
        ("n_restarts", 0, "n_restarts"),
    ],
    "imsat": [("consistency", None, "consistency"), ("n_restarts", 0, "n_restarts")],
    "ae_gmm": [
        ("likelihood", "gaussian", "likelihood"),
        ("covariance", "tied", "covariance"),
        ("masked", 1.0, "masked"),
        ("n_init", 0, "n_init"),
    ],
    "vae_gmm": [
        ("likelihood", "poisson", "likelihood"),
        ("std_floor", -0.1, "std_floor"),
        ("std_floor", "low", "std_floor"),
        ("covariance", "tied", "covariance"),
        ("n_init", 0, "n_init"),
        ("pretraining", EPOCHLESS, "pretraining.epochs"),
    ],
    "dec": [
        ("update_interval", 0, "update_interval"),
        ("tol", -0.1, "tol"),
        ("tol", "x", "tol"),
        ("init", "umap", "init"),
        ("n_init", 0, "n_init"),
        ("pretraining", EPOCHLESS, "pretraining.epochs"),
    ],
    "vade": [
        ("likelihood", "poisson", "likelihood"),
        ("std_floor", StdAnnealing(), "std_floor"),
        ("n_init", 0, "n_init"),
        ("init", "random", "init"),
        ("pretraining", EPOCHLESS, "pretraining.epochs"),
    ],
    "gmvae": [
        ("likelihood", "poisson", "likelihood"),
        ("n_samples", 0, "n_samples"),
        ("noise_dim", 0, "noise_dim"),
        ("free_bits", -3, "free_bits"),
        ("std_floor", -0.1, "std_floor"),
        ("init", "no such", "init"),
        ("pretraining", EPOCHLESS, "pretraining.epochs"),
    ],
    "ltvae": [
        ("likelihood", "poisson", "likelihood"),
        ("std_floor", -0.1, "std_floor"),
        ("structure", "tree", "structure"),
        ("states", 3, "states"),
        ("n_searches", 1.5, "n_searches"),
        ("search_rows", 0, "search_rows"),
        ("em_rate", 0.0, "em_rate"),
        ("n_init", 0, "n_init"),
        ("pretraining", EPOCHLESS, "pretraining.epochs"),
    ],
    "gm_gan": [
        ("latent", "moving", "latent"),
        ("separation", -1.0, "separation"),
        ("scale", 0.0, "scale"),
        ("scale", "a", "scale"),
        ("information", -1.0, "information"),
        ("penalty", -1.0, "penalty"),
        ("classifier_training", 3, "classifier_training"),
        ("classifier_training", EPOCHLESS, "classifier_training.epochs"),
    ],
}
CASES = [("ae_gmm", *row) for row in OF_EVERY_METHOD] + [(name, *row) for name, rows in OWN.items() for row in rows]


@pytest.mark.parametrize(("name", "setting", "value", "named"), CASES, ids=lambda part: str(part)[:30])
def test_a_setting_that_no_fit_can_use_is_refused_by_its_name_before_training(name, setting, value, named):
    error = assert_refused(make(name).set_params(**{setting: value}), np.eye(9), SettingError, " must be ")
    assert error.setting == named


def test_every_setting_that_is_constrained_has_such_a_case():
    shared = set(DeepClusterer.SETTINGS)
    for name, kind in METHODS.items():
        constrained = {key for key, a in kind.SETTINGS.items() if get_origin(a) is Annotated and len(get_args(a)) > 1}
        tested = {setting for setting, *_ in OWN[name]}
        assert constrained - shared - tested == set(), name
    assert {"n_clusters", "network", "training"} == {setting for setting, *_ in OF_EVERY_METHOD}


@pytest.mark.parametrize(
    "setting", [{"prior_components": 2}, {"prior_covariance": "full"}, {"prior_covariance": "identity"}], ids=str
)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "nvisa"])
def test_a_prior_that_only_nvisa_reads_is_refused(name, setting):
    """NVISA's own are fitted in test_persistence.py."""
    model = make(name).set_params(network=Network(hidden=(4,), **setting))
    error = assert_refused(model, np.eye(9), SettingError, "it is NVISA's")
    assert error.setting == f"network.{next(iter(setting))}"


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name != "nvisa" and "likelihood" in METHODS[name].SETTINGS]
)
def test_a_likelihood_whose_rows_only_nvisa_draws_anew_is_refused(name):
    model = make(name).set_params(likelihood="bernoulli_binarized")
    assert assert_refused(model, np.eye(9), SettingError, "must be").setting == "likelihood"


def test_a_batch_that_batch_norm_cannot_normalize_is_refused():
    model = make("nvisa").set_params(network=NORMED, training=Training(batch_size=2))
    assert assert_refused(model, np.eye(9), SettingError, "batch_norm=False").setting == "training.batch_size"


@pytest.mark.parametrize(
    ("X", "settings", "message"),
    [
        (np.eye(2), {}, "n_samples=2 should be >= n_clusters=3"),
        (np.array([[0.0, np.nan]] * 9), {}, "NaN"),
        (np.array([[0.0, np.inf]] * 9), {}, "infinity"),
        (3 * np.eye(9), {"likelihood": "bernoulli"}, r"likelihood must be .* data in \[0, 1\], for data in 0 \.\. 3"),
        (np.eye(9) - 0.5, {"likelihood": "bernoulli"}, r"for data in -0\.5 \.\. 0\.5"),
    ],
    ids=["rows", "NaN", "infinity", "above", "below"],
)
def test_rows_that_no_fit_can_use_are_refused(X, settings, message):
    assert_refused(make("ae_gmm", **settings), X, ValueError, message)


def test_numbers_that_float32_cannot_hold_are_refused_by_every_call(blobs, fitted_by):
    X = blobs[0].astype(np.float64)
    fitted, too_large = fitted_by("vade"), X.copy()
    too_large[-1, 0] = 1e39
    calls = (fitted.predict, fitted.predict_proba, fitted.transform, fitted.score_samples, clone(fitted).fit)
    for call in calls:
        with pytest.raises(ValueError, match="too large for dtype..float32"):
            call(too_large)


@pytest.mark.parametrize("name", ["ae_gmm", "gm_gan"])  # which has units of its own, for images
def test_constant_columns_are_named_in_a_warning(blobs, name):
    X = np.c_[blobs[0], np.full(len(blobs[0]), 7.0)]
    with pytest.warns(UserWarning, match=r"1 of 6 columns are constant.*columns 5"):
        make(name, 1).fit(X)
