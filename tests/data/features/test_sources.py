"""The images and labels of a data set go into its feature file."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from made_up import images, mean_colors, packed_archive
from nvisa import data as datasets
from nvisa.commands.features import features as features_command
from nvisa.data.datasets import catalog
from nvisa.data.features import backbones


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home with a made-up CIFAR-100; the published backbones are mean colors."""
    spec, _ = packed_archive(tmp_path, replace(catalog.ARCHIVE_SETS["cifar100"], side=5))
    coarse = replace(spec, label=0, classes_file="coarse_label_names.txt")
    for name, kind in (("cifar100", spec), ("cifar100_coarse", coarse)):
        monkeypatch.setitem(catalog.ARCHIVE_SETS, name, kind)
        words = "\n".join(f"{name} {k}".replace(" ", "_") for k in range(10))
        (tmp_path / "home" / "cifar100" / kind.classes_file).write_text(words)
    for name in ("efficientnet_lite2", "resnet50"):
        monkeypatch.setitem(backbones.BACKBONES, name, mean_colors)
    return tmp_path / "home"


@pytest.mark.parametrize("source", ["cifar100", "cifar100_coarse"])
def test_a_file_of_cifar100_holds_the_superclasses_too(home, source):
    result = features_command(source, "efficientnet_lite2", None, str(home), quiet=True)
    assert result["out"] == str(home / "features" / "cifar100_effnet_lite2.npz")
    for name in ("cifar100", "cifar100_coarse"):
        pixels, vectors = datasets.load(name, home), datasets.load(f"{name}_effnet_lite2", home)
        assert vectors.X_train.shape == (4, 3)
        np.testing.assert_array_equal(vectors.y_train, pixels.y_train)
        np.testing.assert_array_equal(vectors.y_test, pixels.y_test)
        assert vectors.classes == pixels.classes == tuple(f"{name}_{k}" for k in range(10))


def test_without_a_place_a_file_goes_where_it_is_looked_for(home, tmp_path):
    features_command("cifar100", "resnet50", None, str(home), quiet=True)
    assert datasets.load("cifar100_resnet50", home).classes[0] == "cifar100_0"
    with pytest.raises(ValueError, match="expected no file there yet"):
        features_command("cifar100", "resnet50", None, str(home), quiet=True)
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a folder of images.*--out"):
        features_command(str(tmp_path), "resnet50", None, str(home), quiet=True)
