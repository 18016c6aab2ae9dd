"""Data frames with categories: from fit to file, codes nowhere to be seen; refused or warned of by name."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import nvisa
from nvisa import NVISA, SettingError, Training
from nvisa.methods.categories import decoded, encoded, has_categories
from small_methods import NORMED, make

K = 3


@pytest.fixture(scope="module")
def frame():
    rng, y = np.random.RandomState(0), np.repeat(range(K), 60)
    table = {
        "age": 10.0 * y + rng.randn(len(y)),
        "city": np.array(["rome", "oslo", "bonn"])[(y + (rng.rand(len(y)) < 0.1)) % K],
        "member": y > 0,
        "plan": pd.Categorical(np.array(["s", "m", "l"])[y], categories=["s", "m", "l", "xl"], ordered=True),
        "spend": rng.randn(len(y)),
    }
    made = pd.DataFrame(table)
    made.loc[2, "city"] = None
    return made


@pytest.fixture(scope="module")
def fitted(frame):
    training = Training(epochs=100, batch_size=64)
    return NVISA(K, network=NORMED, training=training, random_state=0).fit(frame)


def test_codes_are_positions_among_the_values_and_what_pandas_says_decides(frame):
    codes, known = encoded(frame)
    assert known == {"1": ["bonn", "oslo", "rome"], "2": [False, True], "3": ["s", "m", "l"]}
    assert list(codes.columns) == list(frame.columns)
    assert codes["city"].isna().sum() == 1
    assert codes["plan"].tolist() == np.repeat([0.0, 1.0, 2.0], 60).tolist()
    as_numbers = frame.astype({"member": float}).drop(columns=["city", "plan"])
    assert not has_categories(as_numbers)
    assert not has_categories(as_numbers.astype(object))  # numbers kept as objects
    assert has_categories(as_numbers.astype({"member": "category"}))


def test_groups_are_found_and_labels_are_those_of_predict(fitted, frame):
    assert adjusted_rand_score(np.repeat(range(K), 60), fitted.labels_) > 0.9
    np.testing.assert_array_equal(fitted.predict(frame), fitted.labels_)


def test_rows_come_back_as_a_data_frame_with_its_categories(fitted, frame):
    back, made = fitted.reconstruct(frame), fitted.sample(40)[0]
    for found in (back, made, fitted.prototypes()):
        assert list(found.columns) == list(frame.columns)
        assert set(found["city"]) <= {"rome", "oslo", "bonn"}
        assert set(found["plan"]) <= {"s", "m", "l"}
        assert found["member"].isin([True, False]).all()
    assert (back["plan"] == frame["plan"].astype(str)).mean() > 0.7


def test_a_gap_is_filled_and_nothing_else_is_touched(fitted, frame):
    filled = fitted.impute(frame)
    assert filled.loc[2, "city"] in {"rome", "oslo", "bonn"}
    kept = frame["city"].notna()
    assert (filled.loc[kept, "city"] == frame.loc[kept, "city"]).all()
    np.testing.assert_allclose(filled["age"], frame["age"], rtol=1e-5, atol=1e-5)


def test_saved_and_loaded_it_says_the_same(fitted, frame, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = nvisa.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(frame), fitted.predict_proba(frame))
    pd.testing.assert_frame_equal(loaded.sample(5)[0], fitted.sample(5)[0])
    assert loaded.categories_ == fitted.categories_


def test_a_value_that_the_fit_has_not_seen_is_a_gap_and_warned_of(fitted, frame):
    rows = frame.tail(4).copy()
    rows.loc[rows.index[0], "city"] = "nowhere"
    gap = rows.copy()
    gap.loc[gap.index[0], "city"] = None
    with pytest.warns(UserWarning, match=r"'city' has 1 values that the fit has not seen \('nowhere'\)"):
        found = fitted.predict_proba(rows)
    np.testing.assert_array_equal(found, fitted.predict_proba(gap))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (lambda f: f.assign(name=[f"n{i}" for i in range(len(f))]), "'name', got 180 different values in 180 rows"),
        (lambda f: f.assign(city=None), "gaps only in 'city'"),
        (lambda f: f.assign(when=pd.Categorical(pd.to_datetime(["2026-01-01"] * len(f)))), "'when', got Timestamp"),
    ],
)
def test_what_is_no_category_is_refused_by_name(frame, changed, match):
    with pytest.raises(ValueError, match=match):
        make("nvisa", 1).fit(changed(frame))


def test_other_rows_than_a_data_frame_of_these_columns_are_refused(fitted, frame):
    with pytest.raises(ValueError, match="Expected a data frame, as that of the fit was, got ndarray"):
        fitted.predict(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.rename(columns={"city": "town"}))


def test_categories_are_neither_augmented_nor_beside_bernoulli(frame):
    for setting, value in (("likelihood", "bernoulli"), ("consistency", "augment")):
        with pytest.raises(SettingError, match=f"^{setting}"):
            make("nvisa", 1, **{setting: value}).fit(
                frame.assign(**{f"c{i}": frame["age"] % (i + 2) for i in range(4)})
            )


def test_other_methods_refuse_them(frame):
    with pytest.raises(ValueError, match="rome"):
        make("ae_gmm", 1).fit(frame)


def test_rows_without_categories_are_left_as_they_are(fitted):
    x = np.zeros((2, 2))
    assert decoded(x, make("nvisa")) is x
