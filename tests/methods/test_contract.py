"""The contract of every registered method: scikit-learn's, with real training, and the house's own."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from nvisa import VAT, Augment, checkpoint
from nvisa.fitting.training import Training
from nvisa.maths.metrics import accuracy
from nvisa.maths.schedules import StdFloor
from nvisa.methods import AEGMM, DEC, GMGAN, GMVAE, LTVAE, METHODS, NVISA, VAEGMM, VaDE, load
from nvisa.methods.generative import GenerativeClusterer, SamplingClusterer
from nvisa.nets.layers import Network

# A few epochs on the few rows of a check may leave one cluster; that it is said is tested in test_guidance.py.
pytestmark = pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")

SMALL = {"n_clusters": 3, "network": Network(hidden=(16,), latent_dim=2, batch_norm=False), "random_state": 0}


def make(name, epochs, **settings):
    """A small clusterer of each method; one line a method."""
    training = Training(epochs=epochs, batch_size=64)
    kind, own = {
        "nvisa": (NVISA, {"init": "gmm", "network": Network(hidden=(16,), latent_dim=2)}),
        "ae_gmm": (AEGMM, {"n_init": 2}),
        "vae_gmm": (VAEGMM, {"n_init": 2}),
        "dec": (DEC, {"n_init": 2, "pretraining": training, "update_interval": 20}),
        "vade": (VaDE, {"n_init": 2, "pretraining": training}),
        "gmvae": (GMVAE, {"init": "gmm", "noise_dim": 2, "pretraining": training}),
        "ltvae": (LTVAE, {"n_init": 2, "pretraining": training, "structure": "search"}),
        "gm_gan": (
            GMGAN,
            {"network": Network(hidden=(64, 64), latent_dim=2, batch_norm=False), "recognition": training},
        ),
    }[name]
    return kind(**{**SMALL, "training": training, **own, **settings})


EPOCHS = {"nvisa": 15}  # 3 do for the others: their start does not have to be distilled
QUICK = [make(name, EPOCHS.get(name, 3)) for name in METHODS]

# scikit-learn sets n_clusters=1 in these, which the house refuses as bad input ("K < 2"). They run below at K = 2.
ONE_CLUSTER = {
    "check_dont_overwrite_parameters": "fits with n_clusters=1",
    "check_fit2d_predict1d": "fits with n_clusters=1",
    "check_methods_subset_invariance": "fits with n_clusters=1",
    "check_fit2d_1sample": "fits with n_clusters=1",
    "check_fit2d_1feature": "fits with n_clusters=1",
}


@pytest.mark.global_rng  # scikit-learn's own checks draw from it; ours is tested below
@parametrize_with_checks(QUICK, expected_failed_checks=lambda estimator: ONE_CLUSTER)
def test_sklearn_contract(estimator, check):
    check(estimator)


def at_least_two(kind):
    """The clusterer that reads the checks' n_clusters=1 as 2."""

    def set_attribute(self, name, value):
        kind.__setattr__(self, name, 2 if (name, value) == ("n_clusters", 1) else value)

    return type("AtLeastTwo", (kind,), {"__setattr__": set_attribute})


@pytest.mark.filterwarnings("ignore:.*columns are constant")
@pytest.mark.parametrize("check", ONE_CLUSTER)
@pytest.mark.parametrize("quick", QUICK, ids=list(METHODS))
def test_sklearn_checks_that_ask_for_one_cluster_hold_at_two(quick, check):
    kind = type(quick)
    getattr(estimator_checks, check)(kind.__name__, at_least_two(kind)(**quick.get_params()))


@pytest.fixture(scope="module")
def blobs():
    X, y = make_blobs(300, 5, centers=[[0] * 5, [6] * 5, [-6, 6] * 2 + [0]], random_state=0)
    return X.astype(np.float32), y


@pytest.fixture(scope="module", params=list(METHODS))
def fitted(request, blobs):
    return make(request.param, 100).fit(blobs[0])


@pytest.fixture
def generative(fitted):
    if not isinstance(fitted, GenerativeClusterer):
        pytest.skip("has no density")
    return fitted


def test_separated_blobs_are_recovered(blobs, fitted):
    X, y = blobs
    assert accuracy(y, fitted.labels_) > 0.95


def test_labels_are_the_prediction_of_the_training_rows_and_sorted_by_size(blobs, fitted):
    X, _ = blobs
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(X))
    sizes = np.bincount(fitted.labels_, minlength=3)
    assert (np.diff(sizes) <= 0).all()


def test_the_history_names_finite_terms_of_every_epoch(fitted):
    assert len(fitted.history_) == fitted.n_iter_
    for record in fitted.history_:
        terms = {name: value for name, value in record.items() if name not in ("stage", "epoch", "n_epochs", "seconds")}
        assert len(terms) > 1
        assert np.isfinite(list(terms.values())).all()


def test_no_row_depends_on_the_others(blobs, fitted):
    X, _ = blobs
    order = np.random.RandomState(0).permutation(len(X))
    for method in ("predict", "predict_proba", "transform", "score_samples", "reconstruct"):
        if (function := getattr(fitted, method, None)) is None:
            continue
        whole = function(X)
        np.testing.assert_array_equal(function(X[order]), whole[order])
        np.testing.assert_array_equal(np.concatenate([function(X[:7]), function(X[7:8]), function(X[8:])]), whole)


def test_probabilities_sum_to_one_and_point_at_the_label(blobs, fitted):
    proba = fitted.predict_proba(blobs[0])
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(proba.argmax(1), fitted.labels_)


@pytest.mark.parametrize("quick", QUICK, ids=list(METHODS))
def test_the_same_seed_gives_the_same_model(blobs, quick):
    # conftest.py fails this and every other test that moves a global generator.
    first, second = (clone(quick).fit(blobs[0]) for _ in range(2))
    for name, value in first.module_.state_dict().items():
        assert torch.equal(value, second.module_.state_dict()[name]), name


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


def test_a_fit_that_fails_leaves_the_clusterer_as_it_was(blobs):
    """Neither a half of the fit that failed nor a mixture of two; a refused call costs no model."""
    X = blobs[0]

    def stop(clusterer, record):
        raise KeyboardInterrupt

    for fresh in (make("nvisa", 3, init="random"), make("ae_gmm", 3)):
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


def test_numbers_that_float32_cannot_hold_are_refused_by_every_call(blobs):
    X = blobs[0].astype(np.float64)
    fitted, too_large = make("nvisa", 3, init="random").fit(X), X.copy()
    too_large[-1, 0] = 1e39
    calls = (fitted.predict, fitted.predict_proba, fitted.transform, fitted.score_samples, clone(fitted).fit)
    for call in calls:
        with pytest.raises(ValueError, match="too large for dtype..float32"):
            call(too_large)


def test_restarts_take_the_starts_of_a_tuple_in_turn(blobs):
    """``start_score_`` is NaN after random weights, and the restart that is kept is one of its start alone."""
    X = blobs[0]
    model = make("nvisa", 3, n_init=3, init=("random", "gmm"), random_state=2).fit(X)
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    kept = int(np.argmax(scores))
    assert np.isnan(model.start_score_) == (kept != 1)
    randoms = make("nvisa", 3, n_init=3, init="random", random_state=2).fit(X).restarts_
    mixtures = make("nvisa", 3, n_init=3, init="gmm", random_state=2).fit(X).restarts_
    assert model.restarts_ == [randoms[0], mixtures[1], randoms[2]]
    with pytest.raises(ValueError, match="n_init"):
        make("nvisa", 3, n_init=1, init=("random", "gmm")).fit(X)
    with pytest.raises(ValueError, match="no such"):
        make("nvisa", 3, n_init=2, init=("random", "no such")).fit(X)
    with pytest.raises(ValueError, match="no start"):
        make("nvisa", 3, init=()).fit(X)


def test_restarts_keep_the_one_with_the_most_neighbor_information(blobs):
    model = make("nvisa", 3, n_init=3, init="random").fit(blobs[0])
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    assert len(set(scores)) > 1
    assert model.neighbor_information_ == max(scores)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_floating_type_goes_through(blobs, fitted, dtype):
    X = blobs[0].astype(dtype)
    assert {fitted.transform(X).dtype, fitted.predict_proba(X).dtype} == {np.dtype(dtype)}
    if isinstance(fitted, GenerativeClusterer):
        assert fitted.score_samples(X).dtype == dtype


@pytest.mark.parametrize("quick", QUICK, ids=list(METHODS))
def test_data_frames_and_set_output(blobs, quick):
    frame = pd.DataFrame(blobs[0], columns=list("abcde"))
    model = clone(quick).set_output(transform="pandas").fit(frame)
    out, name = model.transform(frame), type(quick).__name__.lower()
    assert list(out.columns) == [f"{name}0", f"{name}1"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


def test_pickle_and_clone(blobs, fitted):
    X, _ = blobs
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    assert clone(fitted).get_params() == fitted.get_params()


def test_a_model_directory_gives_the_clusterer_back(blobs, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    again, X = load(tmp_path / "model"), blobs[0]
    assert (type(again), again.get_params()) == (type(fitted), fitted.get_params())
    np.testing.assert_array_equal(again.labels_, fitted.labels_)
    for method in ("predict", "predict_proba", "transform", "score_samples", "reconstruct"):
        if hasattr(fitted, method):
            np.testing.assert_array_equal(getattr(again, method)(X), getattr(fitted, method)(X))


def test_sampled_rows_belong_to_their_cluster(fitted):
    if not isinstance(fitted, SamplingClusterer):
        pytest.skip("makes no rows")
    for cluster in range(3):
        x, y = fitted.sample(50, cluster=cluster, random_state=1)
        assert (y == cluster).all()
        assert (fitted.predict(x) == cluster).mean() > 0.9


def test_data_score_higher_than_noise(blobs, generative):
    X, _ = blobs
    noise = np.random.RandomState(0).uniform(-40, 40, X.shape).astype(np.float32)
    assert generative.score(X) > generative.score(noise) + 10


def test_reconstruction_explains_most_of_the_variance(blobs, generative):
    X, _ = blobs
    assert ((X - generative.reconstruct(X)) ** 2).mean() < 0.2 * X.var(0).mean()


def forced(settings, name, value):
    """Settings with a value of another type than annotated: the checker of the tests refuses it, a user does not."""
    object.__setattr__(settings, name, value)
    return settings


BAD = {
    "one cluster": (np.ones((20, 2)), {"n_clusters": 1}, "n_clusters"),
    "no whole number": (np.ones((20, 2)), {"n_clusters": 2.5}, "n_clusters"),
    "too few rows": (np.ones((2, 2)), {}, "n_samples=2 should be >= n_clusters=3"),
    "NaN": (np.array([[0.0, np.nan]] * 9), {}, "NaN"),
    "infinity": (np.array([[0.0, np.inf]] * 9), {}, "infinity"),
    "likelihood": (np.eye(9), {"likelihood": "poisson"}, "bernoulli"),
    "restarts": (np.eye(9), {"n_init": 0}, "n_init"),
    "scaling": (np.eye(9), {"network": Network(hidden=(4,), scaling="max")}, "scaling"),
    "pixels": (3 * np.eye(9), {"likelihood": "bernoulli"}, r"\[0, 1\]"),
    "inference": (np.eye(9), {"inference": "vinco"}, "vimco"),
    "posterior": (np.eye(9), {"posterior": "full"}, "mean_field"),
    "init": (np.eye(9), {"init": "no such"}, "init must be"),
    "consistency": (np.eye(9), {"consistency": "mixup"}, "vat"),
    "image shape": (np.eye(9), {"consistency": Augment(image_shape=(2, 4))}, "got 9 features"),
    "no square": (np.eye(9)[:, :8], {"consistency": (VAT(), "augment")}, "got 8 features"),
    "one sample": (np.eye(9), {"n_samples": 1, "inference": "vimco"}, "at least 2"),
    "no sample": (np.eye(9), {"n_samples": 0}, "n_samples"),
    "no noise": (np.eye(9), {"noise_dim": 0}, "noise_dim"),
    "interval": (np.eye(9), {"update_interval": 0}, "update_interval"),
    "nothing to train with": (np.eye(9), {"inference": None, "consistency": ()}, "only consistency"),
    "no epochs": (np.eye(9), {"training": Training(epochs=0)}, "Training.epochs"),
    "a batch of one row": (np.eye(9), {"training": Training(batch_size=2), "network": Network()}, "batch_norm=False"),
    "no batch": (np.eye(9), {"training": Training(batch_size=0)}, "Training.batch_size"),
    "settings of a network": (np.eye(9), {"network": 500}, "network must be an instance of"),
    "empty floor": (np.eye(9), {"std_floor": ""}, "std_floor must be an instance of"),
    "settings of training": (np.eye(9), {"training": {"epochs": 3}}, "training must be an instance of"),
    "one width": (np.eye(9), {"network": forced(Network(), "hidden", 500)}, "Network.hidden must be an instance of"),
    "a rate below zero": (np.eye(9), {"training": Training(learning_rate=-1e-3)}, "Training.learning_rate == -0.001"),
    "annealing in words": (np.eye(9), {"std_floor": forced(StdFloor(), "x", "low")}, "StdFloor"),  # others: a number
    "a rate in words": (
        np.eye(9),
        {"training": forced(Training(), "learning_rate", "fast")},
        "Training.learning_rate must be",
    ),
    "a floor in words": (np.eye(9), {"std_floor": "low"}, "std_floor must be an instance of"),
    "no epochs at the most": (np.eye(9), {"training": Training(max_epochs=0)}, "training: Training.max_epochs"),
    "no gradient": (np.eye(9), {"training": Training(clip_norm=0.0)}, "training: Training.clip_norm"),
    "no epochs before": (np.eye(9), {"pretraining": Training(epochs=0)}, "pretraining: Training.epochs"),
    "no epochs after": (np.eye(9), {"recognition": Training(epochs=0)}, "recognition: Training.epochs"),
    "no schedule": (np.eye(9), {"recognition": 3}, "recognition must be an instance of"),
    "free bits": (np.eye(9), {"free_bits": -3}, "free_bits"),
    "a tolerance in words": (np.eye(9), {"tol": "x"}, "tol must be an instance of"),
    "negative tolerance": (np.eye(9), {"tol": -0.1}, "tol"),
    "no deviation": (np.eye(9), {"scale": 0.0}, "scale"),
    "a deviation in words": (np.eye(9), {"scale": "a"}, "scale must be an instance of"),
    "separation": (np.eye(9), {"separation": -1.0}, "separation"),
    "information": (np.eye(9), {"information": -1.0}, "information"),
    "penalty": (np.eye(9), {"penalty": -1.0}, "penalty"),
    "a radius in words": (np.eye(9), {"consistency": forced(VAT(), "radius", "a")}, "VAT.radius must be an instance"),
    "a shift backwards": (np.eye(9), {"consistency": Augment((3, 3), shift=-0.1)}, "Augment.shift"),
    "no layers": (np.eye(9), {"network": Network(hidden=())}, "Network.hidden"),
    "no latent": (np.eye(9), {"network": Network(latent_dim=0)}, "Network.latent_dim"),
    "no part": (np.eye(9), {"network": Network(prior_components=0)}, "Network.prior_components"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("quick", QUICK, ids=list(METHODS))
def test_bad_input_is_refused_before_training(quick, name):
    X, settings, match = BAD[name]
    if not settings.keys() <= quick.get_params().keys():
        pytest.skip("has no such setting")
    assert_refused(quick, X, settings, match)


def assert_refused(quick, X, settings, match):
    epochs = []
    model = clone(quick).set_params(**settings).on_epoch(lambda _, record: epochs.append(record))
    with pytest.raises((ValueError, TypeError), match=match):
        model.fit(X)
    assert not epochs


@pytest.mark.parametrize("setting", [{"prior_components": 2}, {"prior_covariance": "full"}], ids=str)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "nvisa"])
def test_a_prior_that_only_nvisa_reads_is_refused(name, setting):
    """NVISA's own are fitted in test_persistence.py."""
    assert_refused(make(name, 3), np.eye(9), {"network": Network(hidden=(4,), **setting)}, "is NVISA's: .* expected")


@pytest.mark.parametrize("quick", QUICK, ids=list(METHODS))
def test_constant_columns_are_named_in_a_warning(blobs, quick):
    X = np.c_[blobs[0], np.full(300, 7.0)]
    with pytest.warns(UserWarning, match=r"1 of 6 columns are constant.*columns 5"):
        clone(quick).fit(X)
