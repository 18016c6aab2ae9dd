"""A memory map gives what the array gives, and reading it leaves no pages behind."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from nvisa import NVISA, Network, Training
from nvisa.fitting.training import Source
from nvisa.nets.rows import blocks, is_mapped, take

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
    assert torch.equal(Source(mapped, torch.device("cpu"))[rows], torch.from_numpy(array[rows]))


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
        NVISA(2).fit(np.load(tmp_path / "bad.npy", mmap_mode="r"))


READ_ALL = """
import sys, numpy as np
from nvisa.nets.rows import blocks, take
from nvisa.nets.scaling import make_rescale

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
