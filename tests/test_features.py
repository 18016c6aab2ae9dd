"""Feature files: the features at hand are those of the official pixels, and a cut run goes on."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from nvisa import datasets, features
from nvisa.cli import main
from nvisa.datasets import DataError, archives, catalogue
from nvisa.features import backbones, files

FIXTURES = Path(__file__).parent / "fixtures" / "cifar10"


def images(n=7, side=8, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, side, side, 3)).astype(np.uint8)


def identity(size=8):
    """A backbone whose features are the mean colours, in the backbone's units."""
    return features.Backbone("mean", nn.Identity(), "no weights", size=size)


def test_the_preprocessing_is_what_it_says():
    X = images()
    expected = (X.astype(float).mean((1, 2)) - 127) / 128
    np.testing.assert_allclose(identity()(X), expected, rtol=1e-5)
    grey = X[..., :1]
    np.testing.assert_allclose(identity()(grey), np.repeat((grey.mean((1, 2)) - 127) / 128, 3, axis=1), rtol=1e-5)


def test_resizing_is_bicubic():
    X = images(1)
    resized = np.asarray(Image.fromarray(X[0]).resize((24, 24), Image.Resampling.BICUBIC), float)
    np.testing.assert_allclose(identity(24)(X)[0], (resized.mean((0, 1)) - 127) / 128, rtol=1e-5)


def test_a_cut_run_goes_on_and_another_job_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 3)
    X, out, seen = images(), tmp_path / "f.npz", []

    def dying(x):
        seen.append(len(x))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return x

    backbone = replace(identity(), function=dying)
    with pytest.raises(KeyboardInterrupt):
        features.extract({"X": X}, backbone, out, batch_size=2)
    assert not out.exists()
    features.extract({"X": X}, backbone, out, batch_size=2)
    assert sum(seen) == 2 + 1 + 2 + 3 + 1  # the first block of 3 once, the cut one again, the last
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["X"], identity()(X))
        assert archive["backbone"] == "mean"
    assert not (tmp_path / "f.npz.part").exists()
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        features.extract({"X": X}, backbone, out, batch_size=2)
    features.extract({"X": images(seed=1)}, backbone, out, batch_size=2)  # other images: nothing of the part is used
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["X"], identity()(images(seed=1)))


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    """One protobuf field: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def pooling_onnx(side):
    """An ONNX model of one node, GlobalAveragePool, of an input [n 3 side side]; written by hand."""

    def value(name, *dims):
        shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dims)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, "x") + field(2, "y") + field(4, "GlobalAveragePool")
    graph = field(1, node) + field(2, "g") + field(11, value("x", "n", 3, side, side))
    graph += field(12, value("y", "n", 3, 1, 1))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def test_an_onnx_file_is_a_backbone(tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "pool.onnx"
    path.write_bytes(pooling_onnx(16))
    backbone = features.load_backbone(str(path))
    assert backbone.size == 16
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_allclose(backbone(images()), identity(16)(images()), atol=1e-6)


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(ValueError, match="efficientnet_lite2, resnet50"):
        features.load_backbone("vgg")
    with pytest.raises(ValueError, match=r"nvisa\[vision\]"), backbones._needed("resnet50", "vision"):
        raise ImportError("No module named 'torchvision'")


def test_a_folder_through_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "mean", identity)
    for i, image in enumerate(images(4)):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((8 + i, 9)).save(path)
    out = tmp_path / "f.npz"
    words = ["features", str(tmp_path / "pictures"), "--backbone", "mean", "--out", str(out), "--labels-from-folders"]
    assert main([*words, "--quiet"]) == 0
    table = datasets.read_table(out)
    assert table.X.shape == (4, 3)
    assert table.labels.tolist() == ["a", "a", "b", "b"]
    assert main(["features", str(tmp_path / "pictures"), "--backbone", "mean", "--out", "x.csv", "--quiet"]) == 2


# ---- the official archives ----------------------------------------------------------------------------------------


def packed(tmp_path, spec):
    """An archive like the official one, of a few images, and its spec with the right digests."""
    rng = np.random.RandomState(0)
    contents = {}
    for name in (*spec.train, *spec.test):
        if spec.label_bytes:
            rows = rng.randint(0, 10, (4, spec.label_bytes + 3 * spec.side**2))
        else:
            rows = rng.randint(1, 11, 4) if "_y" in name else rng.randint(0, 256, (4, 3 * spec.side**2))
        contents[name] = rows.astype(np.uint8).tobytes()
    path = tmp_path / "home" / spec.folder / "official.tar.gz"  # where a download would leave it
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in contents.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    digests = {name: hashlib.md5(raw).hexdigest() for name, raw in contents.items()}
    train, test = ({name: digests[name] for name in names} for names in (spec.train, spec.test))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return replace(spec, url=path.as_uri(), md5=md5, train=train, test=test), contents


@pytest.mark.parametrize("name", list(catalogue.ARCHIVE_SETS))
def test_an_archive_is_fetched_unpacked_and_read(tmp_path, monkeypatch, name):
    spec, contents = packed(tmp_path, replace(catalogue.ARCHIVE_SETS[name], side=5))
    monkeypatch.setitem(catalogue.ARCHIVE_SETS, name, spec)
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


def test_a_damaged_file_of_an_archive_is_refused(tmp_path):
    spec, _ = packed(tmp_path, replace(catalogue.ARCHIVE_SETS["cifar10"], side=5))
    folder = tmp_path / "home" / "cifar10"
    archives.fetch_archive(folder, spec)
    file = folder / "test_batch.bin"
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with pytest.raises(DataError, match="expected MD5"):
        archives.read_images(folder, spec, "test")


@pytest.mark.slow
def test_efficientnets_features_are_those_at_hand():
    """The features that the experiments use, from the official pixels: see tests/fixtures/cifar10/README.md."""
    pytest.importorskip("efficientnet_lite_pytorch")
    X = np.asarray(Image.open(FIXTURES / "images.png")).reshape(100, 32, 32, 3)
    with np.load(FIXTURES / "vectors.npz") as archive:
        expected = archive["x"] * archive["scale"] + archive["offset"]
    backbone = features.load_backbone("efficientnet_lite2")
    got = np.concatenate([backbone(X[start : start + 20]) for start in range(0, 100, 20)])
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert backbone.weights_digest == "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
