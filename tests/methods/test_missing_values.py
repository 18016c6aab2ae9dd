"""NaN is a gap for a method that takes gaps: from fit to file, and refused by name where it is none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

import nvisa
from nvisa import NVISA, SettingError, Training
from nvisa.methods import METHODS
from small_methods import NORMED, make, separated_blobs


@pytest.fixture(scope="module")
def gaps():
    X, y = separated_blobs()
    rng = np.random.RandomState(0)
    holes = np.where(rng.rand(*X.shape) < 0.3, np.nan, X)
    holes[4] = np.nan
    return X, holes.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted(gaps):
    training = Training(epochs=30, batch_size=64)
    return NVISA(3, init="auto", network=NORMED, training=training, random_state=0).fit(gaps[1])


def test_groups_that_gaps_leave_apart_are_found(fitted, gaps):
    seen = (~np.isnan(gaps[1])).sum(1) > 1
    assert adjusted_rand_score(gaps[2][seen], fitted.labels_[seen]) > 0.9
    assert fitted.fills_gaps_
    np.testing.assert_array_equal(fitted.predict(gaps[1]), fitted.labels_)


def test_every_call_takes_rows_with_gaps_and_those_without(fitted, gaps):
    whole, holes, _ = gaps
    for X in (whole, holes):
        for call in (fitted.predict_proba, fitted.transform, fitted.score_samples, fitted.reconstruct, fitted.impute):
            assert np.isfinite(call(X)).all(), call
    assert np.isfinite(fitted.sample(5)[0]).all()


def test_what_is_imputed_stands_in_the_gaps_and_is_nearer_than_the_mean(fitted, gaps):
    whole, holes, _ = gaps
    filled, missing = fitted.impute(holes), np.isnan(holes)
    np.testing.assert_array_equal(filled[~missing], holes[~missing])
    np.testing.assert_array_equal(filled[missing], fitted.reconstruct(holes)[missing])
    error = np.abs(filled - whole)[missing].mean()
    assert error < 0.8 * np.abs(np.nanmean(holes, 0) - whole)[missing].mean()


def test_a_model_with_gaps_is_saved_and_loaded_and_goes_on(fitted, gaps, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = nvisa.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(gaps[1]), fitted.predict_proba(gaps[1]))
    np.testing.assert_array_equal(loaded.impute(gaps[1]), fitted.impute(gaps[1]))
    assert np.isfinite(loaded.partial_fit(gaps[1][:64]).predict_proba(gaps[1])).all()


def test_a_model_without_gaps_says_which_row_has_one(gaps):
    X = pd.DataFrame(gaps[0], columns=list("abcde"))
    model = make("nvisa", 2).fit(X)
    X.iloc[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"without gaps.*NaN in row 7, column 'd'\. Fit to rows that have gaps"):
        model.predict(X)


def test_a_column_of_gaps_alone_is_refused_by_name(gaps):
    X = pd.DataFrame(gaps[0], columns=list("abcde")).assign(c=np.nan)
    with pytest.raises(ValueError, match="gaps only in 'c'. Leave it out"):
        make("nvisa", 1).fit(X)
    with pytest.raises(ValueError, match="gaps only in 2"):
        make("nvisa", 1).fit(X.to_numpy())


def test_infinity_is_no_gap(gaps, fitted):
    X = gaps[1].copy()
    X[3, 1] = np.inf
    for call in (clone(fitted).fit, fitted.predict):
        with pytest.raises(ValueError, match="infinity"):
            call(X)


def test_images_with_gaps_are_not_augmented(gaps):
    X = np.c_[gaps[1], gaps[1][:, :4]]
    with pytest.raises(SettingError, match="another than Augment for rows with gaps"):
        make("nvisa", 1, consistency="augment").fit(X)


def test_a_memory_map_may_have_gaps(gaps, tmp_path):
    np.save(tmp_path / "X.npy", gaps[1])
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    first, second = (make("nvisa", 2).fit(X) for X in (gaps[1], mapped))
    np.testing.assert_array_equal(first.predict_proba(gaps[1]), second.predict_proba(mapped))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.TAKES_GAPS])
def test_other_methods_refuse_them(gaps, name):
    with pytest.raises(ValueError, match="NaN"):
        make(name, 1).fit(gaps[1])
