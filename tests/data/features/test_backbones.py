"""Images to vectors: the preprocessing, and a module that is evaluated."""

import hashlib
import io
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from made_up import Fickle, images, mean_colors
from nvisa.data import ChecksumError, features
from nvisa.data.features import backbones

FIXTURES = Path(__file__).parents[1] / "cifar10"


def test_the_preprocessing_is_what_it_says():
    X = images()
    expected = (X.astype(float).mean((1, 2)) - 127) / 128
    np.testing.assert_allclose(mean_colors()(X), expected, rtol=1e-5)
    gray = X[..., :1]
    np.testing.assert_allclose(mean_colors()(gray), np.repeat((gray.mean((1, 2)) - 127) / 128, 3, axis=1), rtol=1e-5)


def test_resizing_is_bicubic():
    X = images(1)
    resized = np.asarray(Image.fromarray(X[0]).resize((24, 24), Image.Resampling.BICUBIC), float)
    np.testing.assert_allclose(mean_colors(24)(X)[0], (resized.mean((0, 1)) - 127) / 128, rtol=1e-5)


@pytest.mark.parametrize("attribute", ["__call__", "forward"])
@pytest.mark.global_rng  # Dropout's, if it were not in evaluation mode
def test_a_module_is_evaluated_and_not_trained(attribute):
    module, X = Fickle().train(), images(4)
    function = module if attribute == "__call__" else module.forward
    backbone = features.Backbone("fickle", function, size=8)
    alone = np.concatenate([backbone(X[i : i + 1]) for i in range(4)])
    module.train()  # as its owner may between two calls
    np.testing.assert_allclose(backbone(X), alone, atol=1e-6)
    assert module.layers[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda x: (x, x), "tuple"), (lambda x: x.mean((1, 2, 3)), r"\[4\]"), (lambda x: x[1:], r"\[3, 3, 8, 8\]")],
)
def test_an_output_that_is_no_vector_an_image_is_refused(function, got):
    with pytest.raises(ValueError, match=f"of 4 images, got {got}"):
        features.Backbone("odd", function, size=8)(images(4))


class TinyResNet(nn.Module):
    """The last layers of a ResNet, as torchvision names them."""

    def __init__(self):
        super().__init__()
        self.bn1, self.avgpool, self.fc = nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.avgpool(self.bn1(x)), 1))


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """A stand-in: torchvision's wheels do not load beside a CPU build of torch, and its weights are a download."""
    first = types.SimpleNamespace(url="https://host/models/resnet50-0676ba61.pth")
    models = types.ModuleType("torchvision.models")
    models.ResNet50_Weights, models.resnet50 = types.SimpleNamespace(IMAGENET1K_V1=first), TinyResNet
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with torch.random.fork_rng():
        state = TinyResNet().state_dict() | {"bn1.weight": torch.tensor([1.0, 2.0, 3.0])}
    file = io.BytesIO()
    torch.save(state, file)
    monkeypatch.setattr(backbones, "RESNET50", hashlib.sha256(file.getvalue()).hexdigest())
    return file.getvalue()


class Planted:
    """What a pickle can do."""

    def __reduce__(self):
        return (open, ("planted", "w"))


def test_what_somebody_has_put_into_torchs_cache_is_not_opened(torchvision, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save(Planted(), tmp_path / "checkpoints" / "resnet50-0676ba61.pth")
    with pytest.raises(ChecksumError, match=r"resnet50-0676ba61.pth: expected SHA-256 .* Try removing it"):
        features.load_backbone("resnet50")
    assert not (tmp_path / "planted").exists()


def test_resnet50_is_torchvisions_first_weights_before_the_last_layer(torchvision, monkeypatch):
    def fetched(urls, path, *, sha256):
        assert (urls, sha256) == (["https://host/models/resnet50-0676ba61.pth"], backbones.RESNET50)
        path.write_bytes(torchvision)

    monkeypatch.setattr(backbones, "download", fetched)
    backbone = features.load_backbone("resnet50")
    assert backbone.weights_digest == hashlib.sha256(torchvision).hexdigest()
    X = images(3, side=224)
    normal = (X.astype(float).mean((1, 2)) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    pooled = normal * (1, 2, 3) / np.sqrt(1 + 1e-5)  # batch normalization by its running mean 0 and variance 1
    np.testing.assert_allclose(backbone(X), pooled, rtol=1e-3, atol=1e-4)


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(ValueError, match="efficientnet_lite2, resnet50"):
        features.load_backbone("vgg")
    with pytest.raises(ValueError, match=r"nvisa\[vision\]"), backbones.needed("resnet50", "vision"):
        raise ImportError("No module named 'torchvision'")


@pytest.mark.slow
def test_efficientnets_features_are_those_at_hand():
    """The features that the experiments use, from the official pixels: see tests/data/cifar10/README.md."""
    pytest.importorskip("efficientnet_lite_pytorch")
    X = np.asarray(Image.open(FIXTURES / "images.png")).reshape(100, 32, 32, 3)
    with np.load(FIXTURES / "vectors.npz") as archive:
        expected = archive["x"] * archive["scale"] + archive["offset"]
    backbone = features.load_backbone("efficientnet_lite2")
    got = np.concatenate([backbone(X[start : start + 20]) for start in range(0, 100, 20)])
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert backbone.weights_digest == "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
