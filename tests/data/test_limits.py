"""A small file that asks for much memory is refused before anything is allocated."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from nvisa import data as datasets
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
    assert 0 < limits.available_memory() < 1 << 62
    monkeypatch.setattr(limits, "CGROUP", tmp_path)
    whole = limits.available_memory()
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert limits.available_memory() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert limits.available_memory() == pytest.approx(whole, rel=0.5)
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "none")
    assert limits.available_memory() > 1 << 20


def test_memory_that_runs_out_while_a_file_is_read_is_called_so():
    with (
        pytest.raises(
            DataError, match=r"x\.csv: expected a table that fits into memory, got none left \(MemoryError\)"
        ),
        describing("x.csv", "a table", advice=""),
    ):
        raise MemoryError
