"""What every fitted clusterer does: predict, transform, save. None of it depends on how it was fitted."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from nvisa import ModelError, SettingError, load
from nvisa.maths.metrics import accuracy
from nvisa.methods.generative import GenerativeClusterer
from small_methods import make

STREAMED = ("predict", "predict_proba", "transform", "score_samples", "reconstruct")


def test_separated_blobs_are_recovered(blobs, fitted):
    X, y = blobs
    assert accuracy(y, fitted.labels_) > 0.95


def test_labels_are_the_prediction_of_the_training_rows_and_numbered_by_size(blobs, fitted):
    X, y = blobs
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(X))
    sizes = np.bincount(fitted.labels_, minlength=3)
    assert (np.diff(sizes) < 0).all()
    np.testing.assert_allclose(sizes, np.sort(np.bincount(y))[::-1], atol=10)


def test_the_history_names_finite_terms_of_every_epoch(fitted):
    assert len(fitted.history_) == fitted.n_iter_
    for record in fitted.history_:
        terms = {name: value for name, value in record.items() if name not in ("stage", "epoch", "n_epochs", "seconds")}
        assert len(terms) > 1
        assert np.isfinite(list(terms.values())).all()


def test_no_row_depends_on_the_others(blobs, fitted):
    X, _ = blobs
    order = np.random.RandomState(0).permutation(len(X))
    for method in STREAMED:
        if (function := getattr(fitted, method, None)) is None:
            continue
        whole = function(X)
        np.testing.assert_array_equal(function(X[order]), whole[order])
        np.testing.assert_array_equal(np.concatenate([function(X[:7]), function(X[7:8]), function(X[8:])]), whole)


def test_probabilities_sum_to_one_and_point_at_the_label(blobs, fitted):
    proba = fitted.predict_proba(blobs[0])
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(proba.argmax(1), fitted.labels_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_floating_type_goes_through(blobs, fitted, dtype):
    X = blobs[0].astype(dtype)
    assert {fitted.transform(X).dtype, fitted.predict_proba(X).dtype} == {np.dtype(dtype)}
    if isinstance(fitted, GenerativeClusterer):
        assert fitted.score_samples(X).dtype == dtype


def test_latent_columns_are_as_many_as_their_names(blobs, fitted):
    names = list(fitted.get_feature_names_out())
    assert names == [f"{type(fitted).__name__.lower()}{i}" for i in range(fitted.transform(blobs[0]).shape[1])]


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")
def test_data_frames_and_set_output(blobs):
    frame = pd.DataFrame(blobs[0], columns=list("abcde"))
    model = make("ae_gmm").set_output(transform="pandas").fit(frame)
    assert list(model.transform(frame).columns) == ["aegmm0", "aegmm1"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_pickle_and_clone(blobs, fitted):
    X, _ = blobs
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    assert clone(fitted).get_params() == fitted.get_params()


def test_a_model_directory_gives_the_clusterer_back(blobs, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    again, X = load(tmp_path / "model"), blobs[0]
    assert (type(again), again.get_params()) == (type(fitted), fitted.get_params())
    np.testing.assert_array_equal(again.labels_, fitted.labels_)
    for method in STREAMED:
        if hasattr(fitted, method):
            np.testing.assert_array_equal(getattr(again, method)(X), getattr(fitted, method)(X))


def test_a_model_of_other_networks_than_its_settings_say_is_not_saved(fitted, tmp_path):
    """It could not be loaded."""
    other = clone(fitted).set_params(network=None)
    for name, value in vars(fitted).items():
        if name.endswith("_"):
            setattr(other, name, value)
    with pytest.raises(ModelError, match="Set back what was changed after fit"):
        other.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_page_is_written_by_a_function_now(fitted_by, blobs):
    with pytest.raises(AttributeError, match=r"nvisa\.write_report\(clusterer, X\)"):
        fitted_by("ae_gmm").report(blobs[0])
    assert not hasattr(fitted_by("ae_gmm"), "report")


# ---- rows that are refused, probabilities that are calibrated --------------------------------------------------------


def test_a_share_of_the_training_rows_is_refused_and_what_is_far_from_all_of_them(blobs, fitted):
    X = blobs[0]
    labels = fitted.predict(X, reject=0.1)
    values = fitted._typicality(X)
    assert values.keys() == fitted.reject_quantiles_.keys()
    is_refused = np.any([of < np.quantile(of.astype(float), 0.1) for of in values.values()], axis=0)
    np.testing.assert_array_equal(labels, np.where(is_refused, -1, fitted.labels_))
    assert is_refused.mean() <= 0.1 * len(values)
    if "log_density" in fitted.reject_quantiles_:
        assert (fitted.predict(X[:20] + 30, reject=0.01) == -1).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6])
def test_a_share_to_refuse_is_one(blobs, fitted, share):
    with pytest.raises(SettingError, match=r"reject must be a number in \(0, 0.5\], got"):
        fitted.predict(blobs[0], reject=share)


def test_calibrating_moves_probabilities_and_no_cluster(blobs, fitted, tmp_path):
    X, clusterer = blobs[0], deepcopy(fitted)
    before = clusterer.predict_proba(X)
    assert clusterer.calibrate(X) is clusterer
    expected = before ** (1 / clusterer.temperature_)
    np.testing.assert_allclose(clusterer.predict_proba(X), expected / expected.sum(1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(clusterer.predict(X), fitted.labels_)
    assert clusterer.calibration_["before"] == pytest.approx(before.max(1).mean(), abs=1e-5)
    clusterer.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X), clusterer.predict_proba(X))
    with pytest.raises(ValueError, match="at least 50 rows to calibrate with, got 10"):
        clusterer.calibrate(X[:10])


@pytest.mark.parametrize("name", ["nvisa", "vade", "imsat"])
def test_far_from_zero_the_clusters_are_those_near_zero(blobs, name, tmp_path):
    """At 1.7e9, seconds since 1970, float32 steps by 128; the blobs are 6 apart."""
    near = np.round(1024 * (blobs[0] - blobs[0].mean(0)).astype(np.float64)) / 1024
    near[0] -= near.sum(0)  # their mean is 0 and far + near exact, so that both fits get the same numbers
    far = near + np.array([1.7e9, 0, -3e8, 0, 0])
    expected, found = make(name).fit(near), make(name).fit(far)
    assert not hasattr(expected, "origin_")
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    found.save(tmp_path / "m")
    for model in (found, load(tmp_path / "m")):
        np.testing.assert_array_equal(model.predict(far), expected.labels_)
        np.testing.assert_array_equal(model.transform(far), expected.transform(near))
        for method in ("reconstruct", "score_samples"):
            if hasattr(expected, method):
                got = getattr(model, method)(far) - (far - near if method == "reconstruct" else 0.0)
                np.testing.assert_allclose(got, getattr(expected, method)(near), rtol=1e-6, atol=1e-6)
    if name == "nvisa":
        np.testing.assert_allclose(found.prototypes() - (far - near)[0], expected.prototypes(), atol=1e-5)
        np.testing.assert_allclose(found.sample(5)[0] - (far - near)[0], expected.sample(5)[0], atol=1e-5)
        again = make(name, init=expected).fit(near), make(name, init=_OfNear(expected, far - near)).fit(far)
        np.testing.assert_array_equal(again[0].labels_, again[1].labels_)
        assert not hasattr(found.fit(near), "origin_")


class _OfNear:
    """An estimator of the user's own, which knows rows far from zero."""

    def __init__(self, clusterer, offset):
        self.clusterer, self.offset = clusterer, offset[0]

    def predict_proba(self, X):
        if len(X) > 2:  # those that show how many clusters it has
            assert X[:, 0].min() > 1e9
        return self.clusterer.predict_proba(X - self.offset)
