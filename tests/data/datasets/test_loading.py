"""Data sets by name: fetched once, verified, read from the cache."""

import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from made_up import sha256
from nvisa import data as datasets
from nvisa.data import ChecksumError, DataError

REAL_HOME = Path(os.environ.get("NVISA_DATA_HOME") or Path(__file__).parents[4] / "shared" / "data")


def check_toy(data, toy):
    np.testing.assert_array_equal(data.X_train * 255, toy.arrays["X_train"].reshape(6, 20))
    np.testing.assert_array_equal(data.X_test * 255, toy.arrays["X_test"].reshape(3, 20))
    np.testing.assert_array_equal(data.y_train, toy.arrays["y_train"])
    np.testing.assert_array_equal(data.y_test, toy.arrays["y_test"])
    assert data.X_train.dtype == data.X_test.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.X_train[0, :2].tolist() == [0.0, 1.0]
    assert (data.feature_shape, data.classes, data.n_classes) == ((4, 5), ("a", "b", "c"), 3)


def test_load_fetches_once_then_reads_the_cache(toy, tmp_path):
    check_toy(datasets.load("toy", tmp_path), toy)
    check_toy(datasets.load("toy", tmp_path, download=False), toy)
    assert len(toy.requests) == 4
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {*toy.files}


@pytest.mark.parametrize("form", ["recompressed", "unpacked"])
def test_copies_of_the_same_bytes_are_as_good(toy, tmp_path, form):
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, raw in toy.raw.items():
        if form == "unpacked":
            (folder / name).write_bytes(raw)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw, compresslevel=1, mtime=7))
    assert len(datasets.fetch("toy", tmp_path)) == 4
    check_toy(datasets.load("toy", tmp_path), toy)
    assert toy.requests == []


def damage(path, how):
    body = path.read_bytes()
    changed = gzip.compress(gzip.decompress(body)[:-1] + b"\x09")
    path.write_bytes({"cut": body[:-9], "changed": changed, "empty": b"", "not gzip": b"hello"}[how])


@pytest.mark.parametrize("how", ["cut", "changed", "empty", "not gzip"])
def test_damage_in_the_cache_is_refused_by_load_and_repaired_by_fetch(toy, tmp_path, how):
    datasets.fetch("toy", tmp_path)
    path = tmp_path / "toy" / "y_test-idx.gz"
    damage(path, how)
    with pytest.raises(DataError, match=r"y_test-idx\.gz: expected .* got .*nvisa data fetch toy"):
        datasets.load("toy", tmp_path)
    datasets.fetch("toy", tmp_path)
    check_toy(datasets.load("toy", tmp_path), toy)
    assert [name for name, _ in toy.requests[4:]] == ["y_test-idx.gz"]


def test_load_without_download_says_what_is_missing(toy, tmp_path):
    datasets.fetch("toy", tmp_path)
    (tmp_path / "toy" / "X_test-idx.gz").unlink()
    with pytest.raises(DataError, match=r"all but X_test-idx\..*nvisa data fetch toy"):
        datasets.load("toy", tmp_path, download=False)
    assert len(toy.requests) == 4


def test_a_lying_mirror_leaves_the_cache_empty(toy, tmp_path):
    toy.files["X_train-idx.gz"] = gzip.compress(b"something else")
    with pytest.raises(ChecksumError, match=r"X_train-idx\.gz"):
        datasets.load("toy", tmp_path)
    assert os.listdir(tmp_path / "toy") == []


def test_two_at_once_do_not_spoil_each_other(toy, tmp_path):
    threads = [threading.Thread(target=datasets.fetch, args=("toy", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(toy.requests) == 4
    check_toy(datasets.load("toy", tmp_path), toy)


def test_a_home_that_is_a_file_is_named(toy, tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(DataError, match="home.*NVISA_DATA_HOME"):
        datasets.fetch("toy", tmp_path / "home")


def test_digest_is_that_of_the_sha256sum_listing(toy, tmp_path):
    listing = "".join(f"{sha256(raw)}  {name}\n" for name, raw in toy.raw.items())
    assert datasets.load("toy", tmp_path).digest == sha256(listing.encode())


def test_available_tells_rows_presence_and_bytes(toy, tmp_path):
    packed = sum(map(len, toy.files.values()))
    for present in (False, True):
        (line,) = (line for line in datasets.available(tmp_path) if line.name == "toy")
        assert (line.n_train, line.n_test, line.present, line.fetchable) == (6, 3, present, True)
        assert line.n_bytes == packed
        datasets.fetch("toy", tmp_path)


def test_data_home_in_order_of_precedence(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NVISA_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert datasets.data_home() == tmp_path / ".cache" / "nvisa"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert datasets.data_home() == tmp_path / ".cache" / "nvisa"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert datasets.data_home() == Path("/xdg/nvisa")
    monkeypatch.setenv("NVISA_DATA_HOME", "~/data")
    assert datasets.data_home() == tmp_path / "data"
    assert datasets.data_home("/mine") == Path("/mine")


def feature_arrays(n_train=5, n_test=4):
    rng = np.random.default_rng(4)
    return {
        "x_train": rng.integers(0, 256, size=(n_train, 3), dtype=np.uint8),
        "x_test": rng.integers(0, 256, size=(n_test, 3), dtype=np.uint8),
        "scale": np.array([0.5, 1.0, 2.0], dtype=np.float32),
        "offset": np.array([0.0, -1.0, 10.0], dtype=np.float32),
        "y_train": np.arange(n_train, dtype=np.uint8) % 4,
        "y_test": np.arange(n_test, dtype=np.uint8) % 4,
        "coarse_train": np.arange(n_train, dtype=np.uint8) % 2,
        "coarse_test": np.arange(n_test, dtype=np.uint8) % 2,
    }


def write_features(home, name, arrays):
    (home / "features").mkdir(exist_ok=True)
    np.savez(home / "features" / f"{name}.npz", **arrays)


def test_features_are_restored_by_scale_and_offset(tmp_path):
    arrays = feature_arrays()
    write_features(tmp_path, "mine", arrays)
    data = datasets.load("mine", tmp_path)
    for X, x in ((data.X_train, arrays["x_train"]), (data.X_test, arrays["x_test"])):
        np.testing.assert_array_equal(X, x * arrays["scale"].astype(float) + arrays["offset"])
        assert X.dtype == np.float32
    assert (data.feature_shape, data.classes) == ((3,), ("0", "1", "2", "3"))
    assert data.digest == sha256((tmp_path / "features" / "mine.npz").read_bytes())
    assert [line.present for line in datasets.available(tmp_path) if line.name == "mine"] == [True]


def test_coarse_labels_are_a_name_of_their_own(tmp_path):
    arrays = feature_arrays() | {"fine_names": np.array(list("abcd")), "coarse_names": np.array(["x", "y"])}
    write_features(tmp_path, "cifar100_effnet_lite2", arrays)
    fine = datasets.load("cifar100_effnet_lite2", tmp_path)
    coarse = datasets.load("cifar100_coarse_effnet_lite2", tmp_path)
    np.testing.assert_array_equal(fine.X_train, coarse.X_train)
    np.testing.assert_array_equal(fine.y_test, arrays["y_test"])
    np.testing.assert_array_equal(coarse.y_test, arrays["coarse_test"])
    assert (fine.classes, coarse.classes) == (("a", "b", "c", "d"), ("x", "y"))


def test_float_features_need_no_scale(tmp_path):
    arrays = feature_arrays()
    x = {key: arrays[key].astype(np.float16) / 7 for key in ("x_train", "x_test")}
    write_features(tmp_path, "mine", {"y_train": arrays["y_train"], "y_test": arrays["y_test"]} | x)
    np.testing.assert_array_equal(datasets.load("mine", tmp_path).X_train, x["x_train"].astype(np.float32))


class Harmless:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y_test": None}, "without y_test"),
        ({"y_train": np.zeros(3)}, "train split"),
        ({"x_test": np.zeros((4, 2))}, "test split"),
        ({"scale": np.ones(2)}, "scale of shape"),
        ({"y_train": np.array([Harmless()] * 5, dtype=object)}, "object arrays are refused"),
    ],
)
def test_bad_feature_files_are_named(tmp_path, change, match):
    arrays = {key: value for key, value in (feature_arrays() | change).items() if value is not None}
    write_features(tmp_path, "mine", arrays)
    with pytest.raises(DataError, match=rf"mine\.npz: expected .*{match}"):
        datasets.load("mine", tmp_path)


def test_a_cut_feature_file_is_named(tmp_path):
    write_features(tmp_path, "mine", feature_arrays())
    path = tmp_path / "features" / "mine.npz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"mine\.npz: expected an \.npz archive"):
        datasets.load("mine", tmp_path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("mnits", "Try mnist"),
        ("../features/mine", "name of a data set"),
        ("cifar10_effnet_lite2", "nvisa features"),
    ],
)
def test_unknown_and_absent_names(tmp_path, name, match):
    write_features(tmp_path, "mine", feature_arrays())
    for call in (datasets.load, datasets.fetch):
        with pytest.raises(DataError, match=match):
            call(name, tmp_path)


def test_digits_ship_with_scikit_learn():
    data = datasets.load("digits")
    assert data.X_train.shape == (1797, 64)
    assert (data.X_train.min(), data.X_train.max()) == (0, 1)
    assert data.X_test is data.y_test is None
    assert np.bincount(data.y_train).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # A row drawn as a picture is the digit it is labeled: the zero's center is empty, the one's is not.
    pictures = data.X_train.reshape(-1, *data.feature_shape)
    assert pictures[data.y_train == 0, 3:5, 3:5].mean() < 0.2 < pictures[data.y_train == 1, 3:5, 3:5].mean()
    assert repr(data) == "Dataset('digits', train=1797, test=0, feature_shape=(8, 8), n_classes=10)"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files(name):
    lines = {line.name: line for line in datasets.available(REAL_HOME)}
    if not lines[name].present:
        pytest.skip(f"{name} is not in {REAL_HOME}; set NVISA_DATA_HOME to a folder that has it")
    data = datasets.load(name, REAL_HOME, download=False)
    assert data.X_train.shape == (60_000, 784)
    assert data.X_test.shape == (10_000, 784)
    assert (data.X_train.min(), data.X_train.max()) == (0, 1)
    if name == "mnist":
        assert data.X_train.mean() == pytest.approx(0.1307, abs=1e-4)  # the constants everybody normalizes by
        assert data.X_train.std() == pytest.approx(0.3081, abs=1e-4)
        assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    else:
        assert np.bincount(data.y_train).tolist() == [6000] * 10
