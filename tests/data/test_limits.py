"""A small file that asks for much memory is refused before anything is allocated."""

import gzip
import os
import zipfile

import numpy as np
import pandas
import pytest
from PIL import Image
from scipy import sparse

import nvisa
from nvisa import data as datasets
from nvisa import reading
from nvisa.commands.output_files import check_output
from nvisa.data import DataError, limits
from nvisa.data.errors import describing
from nvisa.data.features import folder_images

FREE = 100_000  # bytes


@pytest.fixture
def little(monkeypatch):
    for module in ("files.arrays", "files.images", "features.images", "limits"):
        monkeypatch.setattr(f"nvisa.data.{module}.check_memory", limits.check_memory)
    monkeypatch.setattr(limits, "available_memory", lambda: FREE)


def test_an_npz_that_expands_beyond_the_memory_is_refused_unread(tmp_path, little, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", X=np.zeros((200, 200), np.float32))
    assert (tmp_path / "x.npz").stat().st_size < FREE / 100
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"fits into the free memory, 0\.0 GB, got an array, 0\.0 GB\. Try fewer rows"):
        datasets.read_table(tmp_path / "x.npz")


def test_an_npz_that_fits_is_read(tmp_path, little):
    np.savez_compressed(tmp_path / "x.npz", X=np.zeros((20, 20), np.float32))
    assert datasets.read_table(tmp_path / "x.npz").X.shape == (20, 20)


def test_a_parquet_file_whose_rows_take_no_room_is_refused_unread(tmp_path, monkeypatch):
    pandas.DataFrame({"a": np.zeros(50_000), "b": np.ones(50_000)}).to_parquet(tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < FREE
    monkeypatch.setattr(limits, "available_memory", lambda: FREE)
    with pytest.raises(DataError, match="got 50,000 rows of 2 columns, 0.0 GB"):
        datasets.read_table(tmp_path / "x.parquet")


def test_an_image_that_expands_beyond_the_memory_is_refused_undecoded(tmp_path, little, monkeypatch):
    Image.new("L", (200, 200)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < FREE / 100
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    for read in (datasets.read_table, lambda folder: folder_images(folder)[0]):
        with pytest.raises(DataError, match=r"a\.png: expected what fits into the free memory.* an image of 200 x 200"):
            read(tmp_path)


def test_images_that_fit_one_by_one_and_not_together_are_refused(tmp_path, little):
    for i in range(10):
        Image.new("L", (100, 100)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match="10 images of 100 x 100.*Try a smaller image_size"):
        datasets.read_table(tmp_path)
    assert datasets.read_table(tmp_path, image_size=10).X.shape == (10, 100)


def test_the_free_memory_is_the_systems_or_its_containers(tmp_path, monkeypatch):
    assert 0 < reading.available_memory() < 1 << 62
    monkeypatch.setattr(reading, "CGROUP", tmp_path)
    whole = reading.available_memory()
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert reading.available_memory() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert reading.available_memory() == pytest.approx(whole, rel=0.5)
    monkeypatch.setattr(reading, "MEMINFO", tmp_path / "none")
    assert reading.available_memory() > 1 << 20


def test_memory_that_runs_out_while_a_file_is_read_is_called_so():
    with (
        pytest.raises(
            DataError, match=r"x\.csv: expected a table that fits into memory, got none left \(MemoryError\)"
        ),
        describing("x.csv", "a table", advice=""),
    ):
        raise MemoryError


@pytest.mark.parametrize("name", ["x.csv.gz", "x.npy.gz", "x.parquet.gz"])
def test_what_expands_beyond_the_memory_is_not_decompressed_to_its_end(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(gzip.compress(b"1,2\n" * 200_000, 9))
    assert (tmp_path / name).stat().st_size < FREE
    monkeypatch.setattr("nvisa.data.files.compressed.CHECKED", 1 << 16)
    monkeypatch.setattr(limits, "available_memory", lambda: FREE)
    with pytest.raises(DataError, match=r"fits into the free memory, 0\.0 GB, got more than that, once decompressed"):
        datasets.read_table(tmp_path / name)


ROWS = sparse.random_array((30, 8), density=0.5, format="csr", rng=np.random.default_rng(0))
WRONG = {
    "indices beyond": {"indices": np.where(np.arange(ROWS.nnz) % 3, ROWS.indices, 10**8)},
    "indices below": {"indices": np.where(np.arange(ROWS.nnz) % 3, ROWS.indices, -(10**7))},
    "rows that end before they begin": {"indptr": np.r_[0, 10**8, ROWS.indptr[2:]]},
}


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize("name", WRONG)
def test_a_sparse_archive_whose_indices_leave_its_shape_is_refused(tmp_path, name, kind):
    """SciPy takes them, and reads and writes outside of its arrays: at best the process dies."""
    parts = {"indices": ROWS.indices, "indptr": ROWS.indptr, "data": ROWS.data} | WRONG[name]
    shape = ROWS.shape if kind == "csr" else ROWS.shape[::-1]
    np.savez(tmp_path / "x.npz", format=np.array(kind.encode()), shape=np.array(shape), **parts)
    with pytest.raises(DataError, match=r"x\.npz: expected a sparse array of scipy.sparse.save_npz, got an unreadable"):
        datasets.read_table(tmp_path / "x.npz")


def test_empty_sparse_rows_that_only_their_shape_makes_large_are_refused(tmp_path, monkeypatch):
    sparse.save_npz(tmp_path / "x.npz", sparse.coo_array((2**40, 3)))
    with pytest.raises(DataError, match="1,099,511,627,776 sparse rows of 3 columns"):
        datasets.read_table(tmp_path / "x.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_a_pipe_is_refused_where_reading_would_never_end_or_its_name_would_be_a_files(tmp_path):
    for name in ("x.csv", "x.npy", "manifest.json"):
        os.mkfifo(tmp_path / name)
    for name in ("x.csv", "x.npy"):
        with pytest.raises(DataError, match="expected a file, which is read more than once, got a pipe or a device"):
            datasets.read_table(tmp_path / name)
    with pytest.raises(DataError, match="expected a file of its own for the result, got a pipe or a device"):
        check_output(tmp_path / "x.csv", (".csv",))
    with pytest.raises(OSError, match="expected a file, got a folder, a pipe or a device"):
        reading.read_file(tmp_path / "manifest.json")
    with pytest.raises(nvisa.ModelError, match="got a folder, a pipe or a device|for manifest.json"):
        nvisa.load(tmp_path)


def test_a_file_larger_than_the_memory_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"12345")
    assert reading.read_file(tmp_path / "x") == b"12345"
    monkeypatch.setattr(reading, "available_memory", lambda: 4)
    with pytest.raises(OSError, match="expected what fits into the free memory"):
        reading.read_file(tmp_path / "x")
