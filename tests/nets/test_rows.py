"""A memory map gives what the array gives and leaves no pages behind; the units are the moments of all rows."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from torch import nn
from torch.testing import assert_close

from nvisa import AEGMM, NVISA, Network, Training
from nvisa.nets.layers import build
from nvisa.nets.rows import Source, blocks, is_mapped, map_blocks, subset, take
from nvisa.nets.units import Rescale, Rescaled, centered, make_rescale, origin_of, top_deviation, warn_of_units
from nvisa.settings import SettingError
from oracles import TIGHT, normal

ROWS = (slice(None), slice(3, 11), slice(1, 12, 4), slice(0, 0), np.array([9, 2, 2, 12]), np.array([], dtype=int))


@pytest.fixture
def array():
    return np.random.RandomState(0).normal(size=(13, 4)).astype(np.float32)


@pytest.fixture
def mapped(array, tmp_path):
    np.save(tmp_path / "x.npy", array)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("piece", [2, 5, 1024])
@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_of_a_map_are_those_of_the_array(array, mapped, rows, piece, monkeypatch):
    monkeypatch.setattr("nvisa.nets.rows.PIECE", piece)
    for X in (array, mapped, np.asarray(mapped), array.astype(np.float64)):
        taken = take(X, rows, np.float32)
        np.testing.assert_array_equal(taken, array[rows])
        assert taken.dtype == np.float32
        assert taken.flags.owndata
    assert torch.equal(Source(mapped)[rows], torch.from_numpy(array[rows]))


@pytest.mark.parametrize("size", [1, 5, 13, 100])
def test_blocks_are_the_rows_in_order(array, mapped, size):
    for X in (array, mapped):
        assert [len(block) <= size for block in blocks(X, size)] == [True] * -(-13 // size)
        np.testing.assert_array_equal(np.concatenate([block.copy() for block in blocks(X, size)]), array)


def test_a_private_map_keeps_its_changes(array, tmp_path):
    """Handing back the pages of a copy-on-write map would undo what its owner wrote there."""
    np.save(tmp_path / "x.npy", array)
    private = np.load(tmp_path / "x.npy", mmap_mode="c")
    private[3] = 7.0
    take(private, slice(None))
    list(blocks(private))
    assert (private[3] == 7.0).all()
    assert not is_mapped(private)


def test_a_clusterer_learns_the_same_from_a_map(mapped, array):
    def fitted(X):
        settings = {"network": Network(hidden=(8, 8), latent_dim=2), "training": Training(epochs=2, batch_size=4)}
        return NVISA(2, init="random", random_state=0, **settings).fit(X)

    first, second = fitted(array), fitted(mapped)
    np.testing.assert_array_equal(first.predict_proba(array), second.predict_proba(mapped))
    np.testing.assert_array_equal(first.labels_, second.predict(mapped))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_found_in_a_map(mapped, array, tmp_path, bad):
    array[11, 2] = bad
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        AEGMM(2).fit(np.load(tmp_path / "bad.npy", mmap_mode="r"))


READ_ALL = """
import sys, numpy as np
from nvisa.nets.rows import blocks, take
from nvisa.nets.units import make_rescale

def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024

X = np.load(sys.argv[1], mmap_mode="r")
make_rescale(X[:2000], "global")
before = resident()
sum(float(rows.sum()) for rows in blocks(X))
make_rescale(X, "global")
take(X, np.random.RandomState(0).permutation(len(X))[:4000])
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_map_of_480_mb_leaves_no_pages_behind(tmp_path):
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (300_000, 400)).flush()
    run = [sys.executable, "-W", "ignore", "-c", READ_ALL, str(path)]
    grown = subprocess.run(run, capture_output=True, text=True, check=True)
    assert float(grown.stdout) < 240, "MB: the pages read are still resident"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [slice(2, 5), slice(None), np.array([2, 4, 3])])
def test_a_batch_is_a_copy_in_float32_of_the_rows_that_were_asked_for(dtype, rows):
    X = np.arange(12, dtype=dtype).reshape(6, 2)
    before = X.copy()
    batch = Source(X)[rows]
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch.numpy(), X[rows])
    batch += 100
    np.testing.assert_array_equal(X, before)


def test_a_subset_has_so_many_rows_at_random_in_their_order():
    rows = subset(50, RandomState(0), 20)
    assert len(set(rows)) == 20
    assert rows.tolist() == sorted(rows)
    assert set(rows) <= set(range(50))
    assert rows.tolist() != subset(50, RandomState(1), 20).tolist()
    assert subset(5, RandomState(0), 20).tolist() == [0, 1, 2, 3, 4]


# ---- a function of every row -----------------------------------------------------------------------------------------


@pytest.fixture
def network():
    """Wide enough that a product's order of summation depends on the number of rows."""
    return build(lambda: nn.Sequential(nn.Linear(60, 300), nn.ReLU(), nn.Linear(300, 7)), torch.Generator()).eval()


@pytest.mark.parametrize("n", [1, 511, 513, 1300])
def test_of_fixed_blocks_no_row_depends_on_how_many_others_there_are(network, n):
    X = RandomState(0).randn(1300, 60).astype(np.float32)
    whole = map_blocks(network, Source(X))
    np.testing.assert_array_equal(map_blocks(network, Source(X[:n])), whole[:n])
    chosen = np.arange(1300)[::-1][:n]
    np.testing.assert_array_equal(map_blocks(network, Source(X), rows=chosen), whole[chosen])
    assert not torch.is_grad_enabled() or whole.dtype == np.float32


@pytest.mark.parametrize("rows", [None, np.array([9, 2, 2, 4999]), np.arange(4500)], ids=["all", "some", "most"])
def test_blocks_as_they_come_give_the_same_but_for_rounding(network, rows):
    X, sizes = RandomState(0).randn(5000, 60).astype(np.float32), []

    def watched(x):
        sizes.append(len(x))
        return network(x)

    chosen = X if rows is None else X[rows]
    expected = network(torch.from_numpy(chosen)).detach().numpy()
    for fixed, most in ((True, 512), (False, 4096)):
        found = map_blocks(watched, Source(X), rows=rows, fixed=fixed)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert set(sizes) == {512} if fixed else (max(sizes) <= most and sum(sizes) == len(chosen))
        sizes.clear()


# ---- far from zero ---------------------------------------------------------------------------------------------------

STEPS = 50.0 * np.arange(20_000).reshape(10_000, 2) / 20_000  # float32 at 1.7e9 steps by 128


@pytest.mark.parametrize(
    ("column", "is_far"),
    [
        (1.7e9 + STEPS[:, 0], True),
        (5.0 * STEPS[:, 0], False),
        (np.full(10_000, 1 / 3), False),  # constant: nothing to save
        (np.where(STEPS[:, 0] < 25, 0.3, 0.1 + 0.2), False),  # constant but for rounding
        ((1_700_000_000 + STEPS[:, 0]).astype(np.int64), True),
    ],
)
def test_the_origin_is_the_mean_of_columns_that_float32_would_blur(column, is_far):
    X = np.column_stack([column, STEPS[:, 1].astype(column.dtype)])
    origin = origin_of(X)
    assert (origin is not None) is is_far
    assert origin_of(X.astype(np.float32)) is None
    if origin is not None:
        assert origin.tolist() == [pytest.approx(column.mean(), rel=1e-12), 0.0]
        np.testing.assert_allclose(Source(centered(X, origin))[:].numpy() + origin, X, atol=1e-4)


def test_a_map_less_its_origin_is_a_map_in_float32(tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (9000, 2))
    X[:] = 1.7e9 + STEPS[:9000]
    moved = centered(X, origin_of(X))
    assert is_mapped(moved)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, STEPS[:9000] - STEPS[:9000].mean(0), atol=1e-5)
    np.testing.assert_allclose(Source(moved, origin=origin_of(X)).as_given(np.array([3, 4])), X[3:5], atol=1e-5)
    assert centered(X, None) is X


# ---- units -----------------------------------------------------------------------------------------------------------

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


def test_a_range_is_brought_to_minus_one_and_one():
    X = rows(9000)  # of two blocks
    made, low, high = make_rescale(X, "range"), float(X.min()), float(X.max())
    scaled = made(torch.from_numpy(X))
    assert (float(scaled.min()), float(scaled.max())) == pytest.approx((-1, 1), abs=1e-6)
    assert_close(made.inverse(torch.tensor([[-1.0] * 3, [1.0] * 3])), torch.tensor([[low] * 3, [high] * 3]))
    assert (make_rescale(np.full((5, 2), 7.0), "range").scale == 1e-6).all()


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


def test_units_that_do_not_exist_are_refused():
    with pytest.raises(SettingError, match=r"network\.scaling must be one of 'auto', 'global', 'columns', 'none', got"):
        make_rescale(rows(20), "rows")


def test_rescale_has_an_inverse_and_the_log_det_of_its_jacobian(rng):
    rescale, x = Rescale(normal(rng, 3), normal(rng, 3).exp()), normal(rng, 5, 3)
    assert_close(rescale.inverse(rescale(x)), x, **TIGHT)
    assert_close(rescale(rescale.inverse(x)), x, **TIGHT)
    jacobian = torch.autograd.functional.jacobian(rescale, x[0])
    sign, log_det = torch.linalg.slogdet(jacobian)
    assert sign == 1
    assert_close(rescale.log_det(x), log_det, **TIGHT)
    assert_close(rescale(rescale.shift), torch.zeros(3).double(), **TIGHT)


def test_rescale_is_saved_with_the_weights_and_not_trained():
    rescale = Rescale(torch.ones(2), torch.ones(2))
    assert set(rescale.state_dict()) == {"shift", "scale"}
    assert list(rescale.parameters()) == []
