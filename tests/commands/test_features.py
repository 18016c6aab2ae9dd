"""`nvisa features`: folders, and networks of the user's own."""

import numpy as np
import pytest
from PIL import Image

from made_up import images, mean_colors, own_module
from nvisa import data as datasets
from nvisa.commands import features as command
from nvisa.commands.cli import main
from nvisa.data import features
from nvisa.data.features import backbones


@pytest.fixture
def own(tmp_path, monkeypatch):
    with own_module(tmp_path, monkeypatch) as name:
        yield name


def test_a_network_of_ones_own_through_the_command_line(own, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(images(1)[0]).save(tmp_path / "pictures" / "a.png")
    words = ["features", "pictures", "--backbone", f"{own}:Pool", "--out", "f.npz", "--quiet"]
    assert main([*words, "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25", "--size", "8"]) == 0
    np.testing.assert_allclose(datasets.read_table("f.npz").X, images(1).mean((1, 2)) / 255 * 4 - 2, atol=1e-5)
    assert main(["features", "pictures", "--backbone", f"{own}:Pool", "--quiet"]) == 2  # of a folder: --out


@pytest.mark.parametrize(("option", "sizes"), [([], [5]), (["--batch-size", "2"], [2, 2, 1])])
def test_the_network_sees_as_many_images_at_a_time_as_the_command_line_says(own, tmp_path, monkeypatch, option, sizes):
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(images(5)):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    seen, call = [], features.Backbone.__call__
    monkeypatch.setattr(features.Backbone, "__call__", lambda self, X: seen.append(len(X)) or call(self, X))
    words = ["features", "pictures", "--backbone", f"{own}:Pool", "--out", "f.npz", "--size", "8", "--quiet"]
    assert main([*words, *option]) == 0
    assert seen == sizes


def test_a_folder_through_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "mean", mean_colors)
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


def test_an_image_beside_the_folders_has_no_label(tmp_path, monkeypatch, capsys):
    """As in fit: its own name is no label."""
    monkeypatch.setitem(backbones.BACKBONES, "mean", mean_colors)
    for name in ("cat/1.png", "loose.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images(1)[0]).save(path)
    words = ["features", str(tmp_path / "pictures"), "--backbone", "mean", "--out", str(tmp_path / "f.npz"), "--quiet"]
    assert main([*words, "--labels-from-folders"]) == 2
    assert "got 1 beside them, such as 'loose.png'. Try moving them, or without" in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()
    assert main(words) == 0


def test_a_file_of_a_data_set_that_is_there_is_not_made_again_unless_a_kill_left_its_blocks(tmp_path):
    """Between the last two steps the file is there, and so is the folder of its blocks: the same command ends it."""
    out = {"source": "cifar10", "backbone": "resnet50", "data_home": str(tmp_path), "is_folder": False}
    path = tmp_path / "features" / "cifar10_resnet50.npz"
    assert command._default_out(**out) == path
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="expected no file there yet"):
        command._default_out(**out)
    path.with_name(f"{path.name}.part").mkdir()
    assert command._default_out(**out) == path
