"""Networks of the user's own: ONNX, TorchScript, a module by import."""

import hashlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from made_up import Fickle, images, mean_colors, own_module
from nvisa.data import DataError, features
from nvisa.data.features import backbones


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


def pooling_onnx(*given):
    """An ONNX model of one node, GlobalAveragePool, of an input of this shape; written by hand."""

    def value(name, *dims):
        shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dims)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, "x") + field(2, "y") + field(4, "GlobalAveragePool")
    graph = field(1, node) + field(2, "g") + field(11, value("x", *given))
    graph += field(12, value("y", given[0], given[1], 1, 1))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


@pytest.fixture
def pool(tmp_path):
    """Writes an .onnx that takes the mean over an input of the given shape."""
    pytest.importorskip("onnxruntime")
    path = tmp_path / "pool.onnx"

    def write(*shape):
        path.write_bytes(pooling_onnx(*shape))
        return path

    return write


def test_an_onnx_file_is_a_backbone(pool):
    path = pool("n", 3, 16, 16)
    backbone = features.load_backbone(str(path))
    assert backbone.size == 16
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_allclose(backbone(images()), mean_colors(16)(images()), atol=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_size_that_an_onnx_file_fixes_is_kept_to(pool, n):
    backbone = features.load_backbone(str(pool(n, 3, 8, 8)))
    np.testing.assert_allclose(backbone(images()), mean_colors()(images()), atol=1e-6)


def test_an_onnx_file_that_takes_no_such_images_is_refused(pool, tmp_path):
    for shape in ((1, 8, 8, 3), ("n", 3, 8, 16), ("n", 3, 8)):
        with pytest.raises(ValueError, match=r"expected an input \[B 3 H W\]"):
            features.load_backbone(str(pool(*shape)))
    with pytest.raises(ValueError, match="H = W = 9, got"):
        features.load_backbone(str(pool("n", 3, 8, 8)), size=9)
    (tmp_path / "no.onnx").write_bytes(b"abc")
    with pytest.raises(ValueError, match="expected an ONNX model"):
        features.load_backbone(str(tmp_path / "no.onnx"))


def test_mean_std_and_size_are_torchvisions(pool):
    X, mean, std = images(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    backbone = features.load_backbone(str(pool("n", 3, "h", "w")), mean=mean, std=std, size=8)
    expected = (X.astype(float).mean((1, 2)) / 255 - mean) / std  # what ToTensor and Normalize do
    np.testing.assert_allclose(backbone(X), expected, rtol=1e-4)
    assert "8 x 8" in backbone.preprocessing
    assert "123.675" in backbone.preprocessing
    plain = features.load_backbone(str(pool("n", 3, "h", "w")))
    assert (plain.size, plain.preprocessing) == (224, mean_colors(224).preprocessing)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "pixels in 0..1"),
        ({"std": (0.2, 0.0, 0.2)}, "pixels in 0..1"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"size": 0}, "at least one pixel"),
    ],
)
def test_a_preprocessing_that_cannot_be_meant_is_refused(pool, chosen, message):
    with pytest.raises(ValueError, match=message):
        features.load_backbone(str(pool("n", 3, "h", "w")), **chosen)


def test_the_preprocessing_of_published_weights_is_not_a_choice(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "mean", mean_colors)
    with pytest.raises(ValueError, match="its own preprocessing, got std, size"):
        features.load_backbone("mean", std=(0.2, 0.2, 0.2), size=32)


@pytest.fixture
def own(tmp_path, monkeypatch):
    with own_module(tmp_path, monkeypatch) as name:
        yield name


def test_a_torch_module_is_a_backbone_by_its_import(own):
    before = list(sys.path)
    by_class, ready, louder = (features.load_backbone(f"{own}:{what}", size=8) for what in ("Pool", "ready", "louder"))
    X = images()
    np.testing.assert_allclose(by_class(X), mean_colors()(X), atol=1e-6)
    np.testing.assert_array_equal(ready(X), by_class(X))
    np.testing.assert_allclose(louder(X), 2 * by_class(X), atol=1e-6)
    assert by_class.weights_digest == ready.weights_digest != louder.weights_digest
    assert (by_class.name, features.load_backbone(f"{own}:Pool").size) == (f"{own}:Pool", 224)
    assert sys.path == before
    features.load_backbone(f"{own}:drawn")  # conftest.py watches the global generator


@pytest.mark.parametrize(
    ("attribute", "got"),
    [("Missing", "AttributeError"), ("broken", "RuntimeError: no weights here"), ("number", "got int")],
)
def test_a_factory_that_makes_no_module_is_told(own, attribute, got):
    with pytest.raises(ValueError, match=got):
        features.load_backbone(f"{own}:{attribute}")
    with pytest.raises(ValueError, match="ModuleNotFoundError"):
        features.load_backbone("not_there:thing")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of what writes the file; reading must not warn
def test_a_torchscript_file_is_a_backbone_and_a_pickle_is_not(tmp_path):
    path, module, X = tmp_path / "fickle.pt", Fickle(), images(4)
    torch.jit.trace(module.eval(), torch.zeros(1, 3, 8, 8)).save(path)
    with pytest.raises(DataError, match=r"expected a file that runs no code.*try trust=True; else ask for an \.onnx"):
        features.load_backbone(str(path), size=8)
    backbone = features.load_backbone(str(path), size=8, mean=(0.5, 0.5, 0.5), trust=True)
    expected = replace(mean_colors(), function=module, shift=(127.5,) * 3)(X)
    np.testing.assert_allclose(backbone(X), expected, atol=1e-6)
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    torch.save(module, tmp_path / "pickle.pth")
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    for name in ("pickle.pth", "weights.pth"):
        with pytest.raises(ValueError, match=r"expected a TorchScript file.*package\.module:factory"):
            features.load_backbone(str(tmp_path / name), trust=True)
    with pytest.raises(ValueError, match="nothing there"):
        features.load_backbone(str(tmp_path / "absent.pt"))
