"""Data sets by name: IDX, mirrors, digests, cache. No network: the server is on 127.0.0.1."""

import gzip
import hashlib
import os
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nvisa import data as datasets
from nvisa.data import ChecksumError, DataError, DownloadError, catalog
from nvisa.data import loading as loading_module
from nvisa.data.datasets.catalog import IdxFile, IdxSet
from nvisa.data.datasets.download import download
from nvisa.data.datasets.idx import DTYPES, parse_idx

REAL_HOME = Path(os.environ.get("NVISA_DATA_HOME") or Path(__file__).parents[3] / "shared" / "data")
CODES = {np.dtype(name): code for code, name in DTYPES.items()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_idx(array):
    """The oracle of `parse_idx`, written from the format's definition."""
    big = array.astype(array.dtype.newbyteorder(">"))
    return struct.pack(f">HBB{array.ndim}I", 0, CODES[big.dtype], array.ndim, *array.shape) + big.tobytes()


# A server that can misbehave --------------------------------------------------------------------------


class Mirror(ThreadingHTTPServer):
    """Serves `files`; `cut[name]` hangs up after so many bytes, once; `requests` remembers (name, Range)."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.requests, self.ranges = dict(files), {}, [], True
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.server.requests.append((name, wanted))
        body = self.server.files.get(name)
        if body is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.server.cut.pop(name, None)])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror():
    servers = []

    def start(files=None):
        server = Mirror(files or {})
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


BODY = np.random.default_rng(0).bytes(700_000)  # more than two chunks
DIGEST = sha256(BODY)


def get(target, *servers, **settings):
    urls = [f"{server.url}{target.name}" for server in servers]
    return download(urls, target, **{"sha256": DIGEST, "pause": 0.0, "timeout": 5.0} | settings)


def test_a_download_is_the_published_bytes_and_reports_progress(mirror, tmp_path):
    seen = []
    path = get(tmp_path / "a.gz", mirror({"a.gz": BODY}), progress=lambda *state: seen.append(state))
    assert path.read_bytes() == BODY
    assert os.listdir(tmp_path) == ["a.gz"]
    assert seen[-1] == ("a.gz", len(BODY), len(BODY))
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_a_cut_connection_is_resumed_where_it_was_cut(mirror, tmp_path):
    server = mirror({"a.gz": BODY})
    server.cut["a.gz"] = 300_000
    assert get(tmp_path / "a.gz", server).read_bytes() == BODY
    assert server.requests == [("a.gz", None), ("a.gz", "bytes=300000-")]


def test_another_mirror_continues_what_the_first_began(mirror, tmp_path):
    first, second = mirror({"a.gz": BODY}), mirror({"a.gz": BODY})
    first.cut["a.gz"] = 300_000
    get(tmp_path / "a.gz", first, second)
    assert second.requests == [("a.gz", "bytes=300000-")]


def test_a_part_survives_a_failure_for_the_next_call(mirror, tmp_path):
    server, seen = mirror({"a.gz": BODY}), []
    server.cut["a.gz"] = 300_000
    with pytest.raises(DownloadError, match="cut after 300000 of 700000 bytes"):
        get(tmp_path / "a.gz", server, rounds=1)
    assert os.listdir(tmp_path) == ["a.gz.part"]
    get(tmp_path / "a.gz", server, rounds=1, progress=lambda _, done, total: seen.append((done, total)))
    assert server.requests[-1] == ("a.gz", "bytes=300000-")
    assert seen[0][0] > 300_000
    assert seen[-1] == (700_000, 700_000)


def test_a_server_without_ranges_starts_over(mirror, tmp_path):
    server = mirror({"a.gz": BODY})
    server.ranges, seen = False, []
    (tmp_path / "a.gz.part").write_bytes(BODY[:300_000])
    report = lambda _, done, total: seen.append((done, total))  # noqa: E731
    assert get(tmp_path / "a.gz", server, rounds=1, progress=report).read_bytes() == BODY
    assert server.requests == [("a.gz", "bytes=300000-")]
    assert seen[-1] == (700_000, 700_000)


def test_a_whole_part_needs_only_its_name(mirror, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(BODY)
    assert get(tmp_path / "a.gz", mirror({"a.gz": BODY})).read_bytes() == BODY


@pytest.mark.parametrize("size", [10, 700_000, 800_000])
def test_a_rotten_part_is_thrown_away_and_fetched_anew(mirror, tmp_path, size):
    (tmp_path / "a.gz.part").write_bytes(b"?" * size)
    assert get(tmp_path / "a.gz", mirror({"a.gz": BODY})).read_bytes() == BODY


def test_the_next_mirror_helps_when_one_is_empty_lying_or_dead(mirror, tmp_path):
    empty, lying, dead, good = (
        mirror(),
        mirror({"a.gz": b"<html>log in</html>"}),
        mirror(),
        mirror({"a.gz": BODY}),
    )
    dead.shutdown()
    dead.server_close()
    assert get(tmp_path / "a.gz", empty, lying, dead, good, rounds=1).read_bytes() == BODY


def test_wrong_bytes_are_named_and_not_kept(mirror, tmp_path):
    wrong = b"<html>log in</html>"
    with pytest.raises(ChecksumError) as caught:
        get(tmp_path / "a.gz", mirror({"a.gz": wrong}))
    for part in ("a.gz", DIGEST, sha256(wrong), "by hand"):
        assert part in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_no_mirror_is_a_download_error_that_lists_them(mirror, tmp_path):
    first, second = mirror(), mirror()
    with pytest.raises(DownloadError, match="404") as caught:
        get(tmp_path / "a.gz", first, second, rounds=2)
    assert first.url in str(caught.value)
    assert second.url in str(caught.value)
    assert len(first.requests) == len(second.requests) == 2
    assert issubclass(DownloadError, DataError)


# IDX --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.dtype(name) for name in DTYPES.values()])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3)])
def test_idx_round_trip(dtype, shape):
    array = np.random.default_rng(2).integers(0, 127, size=shape).astype(dtype)
    parsed = parse_idx(write_idx(array))
    assert parsed.dtype == dtype
    np.testing.assert_array_equal(parsed, array, strict=True)


IDX = write_idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    "raw", [b"", IDX[:2], IDX[:7], IDX[:-1], IDX + b"\0", b"\x1f\x8b" + IDX, b"\0\0\x07\1" + IDX[4:]]
)
def test_damaged_idx_is_refused(raw):
    with pytest.raises(DataError, match=r"train\.idx: expected .*(got|cut)"):
        parse_idx(raw, source="train.idx")


# A small "MNIST" on a small mirror --------------------------------------------------------------------

rng_ = np.random.default_rng(3)
ARRAYS = {
    "X_train": rng_.integers(0, 256, size=(6, 4, 5), dtype=np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
    "X_test": rng_.integers(0, 256, size=(3, 4, 5), dtype=np.uint8),
    "y_test": np.array([2, 1, 0], dtype=np.uint8),
}
ARRAYS["X_train"][0, 0, :2] = 0, 255
RAW = {f"{role}-idx": write_idx(array) for role, array in ARRAYS.items()}
PACKED = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in RAW.items()}


@pytest.fixture
def toy(mirror, monkeypatch):
    """A server with the four files, and a catalog in which they are "toy"."""
    server = mirror(PACKED)
    files = tuple(
        IdxFile(
            role,
            f"{role}-idx",
            len(PACKED[f"{role}-idx.gz"]),
            sha256(PACKED[f"{role}-idx.gz"]),
            sha256(RAW[f"{role}-idx"]),
        )
        for role in ARRAYS
    )
    spec = IdxSet((server.url,), files, classes=("a", "b", "c"), n_train=6, n_test=3)
    monkeypatch.setitem(catalog.IDX_SETS, "toy", spec)
    quick = lambda urls, target, **settings: download(urls, target, **settings, pause=0.0, rounds=2)  # noqa: E731
    monkeypatch.setattr(loading_module, "download", quick)
    return server


def check_toy(data):
    np.testing.assert_array_equal(data.X_train * 255, ARRAYS["X_train"].reshape(6, 20))
    np.testing.assert_array_equal(data.X_test * 255, ARRAYS["X_test"].reshape(3, 20))
    np.testing.assert_array_equal(data.y_train, ARRAYS["y_train"])
    np.testing.assert_array_equal(data.y_test, ARRAYS["y_test"])
    assert data.X_train.dtype == data.X_test.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.X_train[0, :2].tolist() == [0.0, 1.0]
    assert (data.feature_shape, data.classes, data.n_classes) == ((4, 5), ("a", "b", "c"), 3)


def test_load_fetches_once_then_reads_the_cache(toy, tmp_path):
    check_toy(datasets.load("toy", tmp_path))
    check_toy(datasets.load("toy", tmp_path, download=False))
    assert len(toy.requests) == 4
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {*PACKED, ".lock"}


@pytest.mark.parametrize("form", ["recompressed", "unpacked"])
def test_copies_of_the_same_bytes_are_as_good(toy, tmp_path, form):
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, raw in RAW.items():
        if form == "unpacked":
            (folder / name).write_bytes(raw)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw, compresslevel=1, mtime=7))
    assert len(datasets.fetch("toy", tmp_path)) == 4
    check_toy(datasets.load("toy", tmp_path))
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
    check_toy(datasets.load("toy", tmp_path))
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
    assert os.listdir(tmp_path / "toy") == [".lock"]


def test_two_at_once_do_not_spoil_each_other(toy, tmp_path):
    threads = [threading.Thread(target=datasets.fetch, args=("toy", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(toy.requests) == 4
    check_toy(datasets.load("toy", tmp_path))


def test_a_home_that_is_a_file_is_named(toy, tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(DataError, match="home.*NVISA_DATA_HOME"):
        datasets.fetch("toy", tmp_path / "home")


def test_digest_is_that_of_the_sha256sum_listing(toy, tmp_path):
    listing = "".join(f"{sha256(raw)}  {name}\n" for name, raw in RAW.items())
    assert datasets.load("toy", tmp_path).digest == sha256(listing.encode())


def test_available_tells_rows_presence_and_bytes(toy, tmp_path):
    packed = sum(map(len, PACKED.values()))
    for present in (False, True):
        (line,) = (line for line in datasets.available(tmp_path) if line.name == "toy")
        assert (line.n_train, line.n_test, line.present, line.fetchable) == (6, 3, present, True)
        assert line.n_bytes == packed
        datasets.fetch("toy", tmp_path)


# Where the home is ------------------------------------------------------------------------------------


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


def test_the_published_catalog_is_well_formed():
    for spec in (catalog.IDX_SETS["mnist"], catalog.IDX_SETS["fashion_mnist"]):
        assert [file.role for file in spec.files] == ["X_train", "y_train", "X_test", "y_test"]
        assert spec.mirrors[0].startswith("https://")
        assert all(mirror.endswith("/") for mirror in spec.mirrors)
        digests = [digest for file in spec.files for digest in (file.gz_sha256, file.raw_sha256)]
        assert len({*digests}) == 8
        assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
        assert len(spec.classes) == 10


# Feature files ----------------------------------------------------------------------------------------


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


# Digits and the real thing ----------------------------------------------------------------------------


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


def test_an_md5_guards_a_download_where_nothing_better_was_published(mirror, tmp_path):
    server = mirror({"a.bin": b"published"})
    right, wrong = hashlib.md5(b"published").hexdigest(), hashlib.md5(b"other").hexdigest()
    with pytest.raises(ChecksumError, match=f"expected MD5 {wrong}, got {right}"):
        download([server.url + "a.bin"], tmp_path / "a.bin", md5=wrong, rounds=1)
    assert not (tmp_path / "a.bin").exists()
    assert download([server.url + "a.bin"], tmp_path / "a.bin", md5=right).read_bytes() == b"published"
