"""The official archives of CIFAR and STL-10."""

from dataclasses import replace

import numpy as np
import pytest

from made_up import packed_archive
from nvisa import data as datasets
from nvisa.data import DataError
from nvisa.data.datasets import archives, catalog


@pytest.mark.parametrize("name", list(catalog.ARCHIVE_SETS))
def test_an_archive_is_fetched_unpacked_and_read(tmp_path, monkeypatch, name):
    spec, contents = packed_archive(tmp_path, replace(catalog.ARCHIVE_SETS[name], side=5))
    monkeypatch.setitem(catalog.ARCHIVE_SETS, name, spec)
    home = tmp_path / "home"
    data = datasets.load(name, home)
    assert not (home / spec.folder / "official.tar.gz").exists()
    first = np.frombuffer(contents[next(iter(spec.train))], np.uint8)
    offset = spec.label_bytes
    row, column, channel = 1, 3, 2  # the format's own words: planes one after the other, by rows (STL-10: by columns)
    within = column * 5 + row if name == "stl10" else row * 5 + column
    pixel = data.X_train.reshape(-1, 5, 5, 3)[0, row, column, channel]
    assert pixel == np.float32(first[offset + channel * 25 + within]) / np.float32(255)
    label = {"cifar10": first[0], "cifar100": first[1], "cifar100_coarse": first[0]}.get(name)
    if name == "stl10":
        label = np.frombuffer(contents["train_y.bin"], np.uint8)[0] - 1
    assert data.y_train[0] == label
    assert data.feature_shape == (5, 5, 3)


def test_an_archive_that_is_not_the_published_one_is_not_unpacked(tmp_path):
    """Whoever has put it there; and its address has no https."""
    spec, _ = packed_archive(tmp_path, replace(catalog.ARCHIVE_SETS["cifar10"], side=5))
    folder = tmp_path / "home" / "cifar10"
    (folder / "official.tar.gz").write_bytes(b"another")
    with pytest.raises(DataError, match="expected a mirror with https, got file:.*Try insecure=True"):
        archives.fetch_archive(folder, spec)
    assert not (folder / "test_batch.bin").exists()


def test_a_damaged_file_of_an_archive_is_refused(tmp_path):
    spec, _ = packed_archive(tmp_path, replace(catalog.ARCHIVE_SETS["cifar10"], side=5))
    folder = tmp_path / "home" / "cifar10"
    archives.fetch_archive(folder, spec)
    file = folder / "test_batch.bin"
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with pytest.raises(DataError, match="expected MD5"):
        archives.read_images(folder, spec, "test")
