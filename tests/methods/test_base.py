"""What every fit has: checks of its input, a seed, restarts, numbers by size, callbacks, no half results."""

from typing import Annotated, get_args, get_origin

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from nvisa import NVISA, SettingError, StdAnnealing, Training, WarmStart
from nvisa.fitting import checkpoint
from nvisa.fitting.consistency import VAT, Augment
from nvisa.methods import METHODS
from nvisa.methods.base import DeepClusterer
from nvisa.nets.layers import Network
from nvisa.nets.rows import Rescale
from small_methods import make

# A few epochs may leave one cluster; that it is said is tested in test_collapse.py.
pytestmark = pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")
each_method = pytest.mark.parametrize("name", METHODS)


# ---- seeds -----------------------------------------------------------------------------------------------------------


@each_method
def test_the_same_seed_gives_the_same_model(blobs, name):
    # conftest.py fails this and every other test that moves a global generator.
    first, second = (make(name, 2).fit(blobs[0]) for _ in range(2))
    for tensor, value in first.module_.state_dict().items():
        assert torch.equal(value, second.module_.state_dict()[tensor]), tensor


# ---- restarts --------------------------------------------------------------------------------------------------------


def test_restarts_keep_the_one_with_the_most_neighbor_information(blobs):
    model = make("nvisa", 3, n_restarts=3, init="random").fit(blobs[0])
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    assert len(set(scores)) > 1
    assert model.neighbor_information_ == max(scores)


def test_restarts_take_the_starts_of_a_tuple_in_turn(blobs):
    """``start_score_`` is NaN after random weights, and the restart that is kept is one of its start alone."""
    X = blobs[0]
    model = make("nvisa", 3, n_restarts=3, init=("random", "gmm"), random_state=2).fit(X)
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    kept = int(np.argmax(scores))
    assert np.isnan(model.start_score_) == (kept != 1)
    randoms = make("nvisa", 3, n_restarts=3, init="random", random_state=2).fit(X).restarts_
    mixtures = make("nvisa", 3, n_restarts=3, init="gmm", random_state=2).fit(X).restarts_
    assert model.restarts_ == [randoms[0], mixtures[1], randoms[2]]


def test_methods_without_restarts_say_nothing_of_them(fitted_by):
    assert [name for name in METHODS if hasattr(fitted_by(name), "restarts_")] == ["nvisa", "imsat"]
    assert [name for name in METHODS if hasattr(fitted_by(name), "neighbor_information_")] == ["nvisa", "imsat"]


# ---- numbers by size -------------------------------------------------------------------------------------------------


class Fixed(torch.nn.Module):
    """Networks that put a row into the cluster that its first number says, under the name it has now."""

    def __init__(self, n_clusters):
        super().__init__()
        self.names = torch.arange(n_clusters)
        self.rescale, self.latent_dim = Rescale(torch.zeros(1), torch.ones(1)), 1

    def log_q_y(self, x):
        old = torch.nn.functional.one_hot(x[:, 0].long(), len(self.names)).float().log()
        return old[:, self.names]

    def encode(self, x):
        return x

    def permute(self, order):
        self.names = self.names[order]


def test_the_largest_cluster_is_number_zero_and_equal_ones_keep_their_order():
    X = np.repeat([3.0, 1.0, 0.0, 4.0], [5, 9, 2, 5])[:, None]
    clusterer = NVISA(5)
    clusterer.module_ = Fixed(5)
    clusterer._number_by_size(X)
    assert clusterer.module_.names.tolist() == [1, 3, 4, 0, 2]  # nobody is in cluster 2
    assert np.bincount(clusterer._mapped(lambda x: clusterer.module_.log_q_y(x).argmax(-1), X)).tolist() == [9, 5, 5, 2]


# ---- nothing half done -----------------------------------------------------------------------------------------------


def stop(clusterer, record):
    raise KeyboardInterrupt


@pytest.mark.parametrize("fresh", [make("nvisa", 3, init="random"), make("ae_gmm", 3)], ids=["nvisa", "ae_gmm"])
def test_a_fit_that_fails_leaves_the_clusterer_as_it_was(blobs, fresh):
    """Neither a half of the fit that failed nor a mixture of two; a refused call costs no model."""
    X, fresh = blobs[0], clone(fresh)
    with pytest.raises(KeyboardInterrupt):
        fresh.on_epoch(stop).fit(X)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    fitted = fresh.on_epoch(None).fit(X)
    proba, before = fitted.predict_proba(X), dict(vars(fitted))
    with pytest.raises(KeyboardInterrupt):
        fitted.on_epoch(stop).fit(X[:50, :1] + 5)
    with pytest.raises(ValueError, match="n_samples=2"):
        fitted.on_epoch(None).fit(X[:2, :1])
    assert {name: id(value) for name, value in vars(fitted).items() if name != "_callback"} == {
        name: id(value) for name, value in before.items() if name != "_callback"
    }
    np.testing.assert_array_equal(fitted.predict_proba(X), proba)


# ---- who looks on ----------------------------------------------------------------------------------------------------


def test_a_callback_sees_every_epoch_with_networks_that_predict_and_changes_nothing(blobs):
    X, seen = blobs[0], []

    def look(clusterer, record):
        seen.append((record["stage"], record["epoch"], clusterer.module_.training, clusterer.predict(X[:5]).shape))

    watched, alone = make("nvisa", 3).on_epoch(look).fit(X), make("nvisa", 3).fit(X)
    assert [(stage, epoch) for stage, epoch, *_ in seen] == [(r["stage"], r["epoch"]) for r in alone.history_]
    assert {(training, shape) for _, _, training, shape in seen} == {(False, (5,))}
    for name, value in watched.module_.state_dict().items():
        assert torch.equal(value, alone.module_.state_dict()[name]), name
    n, refit = len(seen), watched.on_epoch(None).fit(X)
    assert len(seen) == n
    assert refit is watched
    assert not hasattr(clone(watched.on_epoch(look)), "_callback")


IN_TEST_CHECKPOINT = ("nvisa", "vade", "dec")  # killed there in every stage


@pytest.mark.parametrize("method", [name for name in METHODS if name not in IN_TEST_CHECKPOINT])
def test_a_killed_fit_goes_on_as_if_it_had_not_been(blobs, method, tmp_path, monkeypatch):
    """An objective that has a state of its own must offer it: see nvisa.fitting.checkpoint."""
    quick = make(method, 3)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    calls = []

    def kill(clusterer, record):
        calls.append(record)
        if clusterer is not whole and (record["stage"], record["epoch"]) == (last["stage"], last["epoch"] - 1):
            raise KeyboardInterrupt

    whole = clone(quick)
    whole.on_epoch(kill).fit(blobs[0])
    last = calls[-1]
    with pytest.raises(KeyboardInterrupt):
        clone(quick).on_epoch(kill).fit(blobs[0], checkpoint=tmp_path)
    resumed = clone(quick).fit(blobs[0], checkpoint=tmp_path)
    for name, value in whole.module_.state_dict().items():
        assert torch.equal(value, resumed.module_.state_dict()[name]), name
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)


# ---- bad input -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("setting", [{"prior_components": 2}, {"prior_covariance": "full"}], ids=str)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "nvisa"])
def test_a_prior_that_only_nvisa_reads_is_refused(name, setting):
    """NVISA's own are fitted in test_persistence.py."""
    model = make(name).set_params(network=Network(hidden=(4,), **setting))
    error = assert_refused(model, np.eye(9), SettingError, "it is NVISA's")
    assert error.setting == f"network.{next(iter(setting))}"


def test_a_batch_that_batch_norm_cannot_normalize_is_refused():
    model = make("nvisa").set_params(network=NORMED, training=Training(batch_size=2))
    assert assert_refused(model, np.eye(9), SettingError, "batch_norm=False").setting == "training.batch_size"


@pytest.mark.parametrize(
    ("X", "settings", "message"),
    [
        (np.ones((2, 2)), {}, "n_samples=2 should be >= n_clusters=3"),
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
