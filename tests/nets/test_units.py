"""The networks' units against moments in float64 of all rows at once."""

import warnings

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from torch.testing import assert_close

from nvisa.nets.layers import Rescale
from nvisa.nets.scaling import Rescaled, make_rescale, top_deviation, warn_of_units

MEANS, DEVIATIONS = np.array([0.0, -3.0, 200.0]), np.array([1.0, 2.0, 4.0])


def rows(n=20_000):
    """More rows than a block has, whose moments are exactly MEANS and DEVIATIONS (but for float32)."""
    x = RandomState(0).randn(n, 3)
    return (MEANS + DEVIATIONS * (x - x.mean(0)) / x.std(0)).astype(np.float32)


@pytest.mark.parametrize(
    ("scaling", "shift", "scale"),
    [
        ("columns", MEANS, DEVIATIONS),
        ("global", MEANS, np.full(3, np.sqrt(7.0))),  # the root of the mean variance, (1 + 4 + 16) / 3
        ("none", np.zeros(3), np.ones(3)),
    ],
)
def test_the_units_are_the_moments_of_all_rows(scaling, shift, scale):
    made = make_rescale(rows(), scaling)
    assert_close(made.shift.double(), torch.from_numpy(shift), rtol=1e-5, atol=1e-5)
    assert_close(made.scale.double(), torch.from_numpy(scale), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("ratio", "scaling"), [(9.0, "global"), (11.0, "columns")])
def test_left_to_itself_it_divides_by_column_from_a_ratio_of_ten_to_the_median_on(ratio, scaling):
    X = rows() / DEVIATIONS * [1.0, 1.0, ratio]
    for mine, its in zip(*(make_rescale(X, kind).state_dict().values() for kind in ("auto", scaling)), strict=True):
        assert torch.equal(mine, its)


def test_far_from_zero_the_deviation_keeps_its_digits():
    """``E x^2 - (E x)^2`` of numbers at 5e6 with deviation 1 has two or three left in float64."""
    made = make_rescale(5e6 + rows().astype(np.float64), "columns")
    assert_close(made.scale.double(), torch.from_numpy(DEVIATIONS), rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:. of 3 columns are constant")
def test_a_column_that_float32_cannot_hold_is_not_called_constant_without_a_word():
    """Three days of seconds since 1970: 300 values, one of float32."""
    seconds = 1.7e9 + 20.0 * np.repeat([0.0, 1.0, 2.0], 100) + np.linspace(-1, 1, 300)
    X = np.c_[seconds, np.linspace(0, 1, 300), np.full(300, 1 / 3)]
    with pytest.warns(UserWarning, match="^Columns 0 vary by less than float32"):
        make_rescale(X, "global")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Columns")
        make_rescale(X - X.mean(0), "global")


@pytest.mark.filterwarnings("ignore:1 of 3 columns are constant")
def test_a_constant_column_is_shifted_to_zero_and_not_divided():
    X = rows()
    X[:, 2] = 0.1
    made = make_rescale(X, "columns")
    assert (made.scale[2], made(torch.from_numpy(X))[:, 2].abs().max()) == (1, 0)


@pytest.mark.parametrize("at", [0.0, 100.0])
def test_the_top_deviation_is_that_of_the_first_principal_component(at):
    x = RandomState(1).randn(500, 6) @ RandomState(2).randn(6, 6) + at
    units = Rescale(torch.zeros(6), torch.full((6,), 2.0))
    top = np.sqrt(np.linalg.eigvalsh(np.cov(x.T, bias=True))[-1])
    assert top_deviation(Rescaled(x, units), RandomState(0)) == pytest.approx(top / 2, rel=1e-4)


@pytest.mark.parametrize("factor", [1 / 255, 1 / 31, 1 / 29, 1, 29, 31, 255])
def test_rows_in_other_units_than_the_fits_are_told(factor):
    X = 3.0 + np.random.RandomState(0).rand(200, 5)
    rescale = make_rescale(X, "global")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_units(factor * X, rescale)
    assert ["times as far as those of the fit" in str(w.message) for w in told] == [True] * (not 1 / 30 < factor < 30)


def test_few_rows_or_equal_rows_have_no_spread_that_could_be_wrong(recwarn):
    rescale = make_rescale(np.random.RandomState(0).rand(200, 5), "global")
    warn_of_units(255 * np.random.RandomState(1).rand(19, 5), rescale)
    warn_of_units(np.ones((200, 5)), rescale)
    assert not recwarn.list


def test_from_twenty_rows_on_the_spread_is_compared():
    rng = np.random.RandomState(0)
    with pytest.warns(UserWarning, match="times as far as those of the fit"):
        warn_of_units(255 * rng.rand(20, 5), make_rescale(3.0 + rng.rand(200, 5), "global"))


def test_data_that_were_fitted_as_they_are_have_no_spread_to_compare_with(recwarn):
    X = 3.0 + np.random.RandomState(0).rand(200, 5)
    warn_of_units(255 * X, make_rescale(X, "none"))
    assert not recwarn.list
