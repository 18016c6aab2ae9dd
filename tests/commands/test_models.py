"""Rows as a model wants them."""

import os

import numpy as np
import pytest
from PIL import Image

from nvisa.commands import cli

FAST = ["--epochs", "1", "--init", "random"]


def test_columns_are_matched_by_name(frame, trained, home, capsys):
    X = frame.drop(columns="kind")
    X[["pulse", "weight", "height", "age"]].to_csv("turned.csv", index=False)
    X.to_csv("right.csv", index=False)
    for name in ("turned", "right"):
        assert cli.main(["predict", str(trained), f"{name}.csv", "--out", f"{name}.labels.csv"]) == 0
    assert (home / "turned.labels.csv").read_text() == (home / "right.labels.csv").read_text()
    X.rename(columns={"age": "Age"}).to_csv("other.csv", index=False)
    assert cli.main(["predict", str(trained), "other.csv", "--out", "l.csv"]) == 2
    assert "no 'age' and also 'Age'" in capsys.readouterr().err
    np.save("narrow.npy", X.to_numpy()[:, :3])
    assert cli.main(["predict", str(trained), "narrow.npy", "--out", "l.csv"]) == 2
    assert "expected 4 columns, as the model was fitted on, got 3" in capsys.readouterr().err
    assert not os.path.exists("l.csv")


def test_images_of_another_shape_are_refused_though_they_have_as_many_pixels(home, capsys):
    images = np.random.RandomState(0).rand(30, 4, 9)
    for name, shape in {"x": (4, 9), "gray": (4, 9, 1), "wide": (2, 18)}.items():
        np.save(f"{name}.npy", images.reshape(30, *shape))
    assert cli.main(["fit", "x.npy", "--n-clusters", "2", "--out", "m", *FAST, "--quiet"]) == 0
    assert cli.main(["predict", "m", "gray.npy", "--out", "l.csv"]) == 0
    assert cli.main(["predict", "m", "wide.npy", "--out", "l2.csv"]) == 2
    message = "expected images of 4 x 9, as the model was fitted on, got 2 x 18. Try resizing them to 4x9."
    assert message in capsys.readouterr().err


def draw(folder, shape):
    os.makedirs(folder)
    for i in range(3):
        Image.fromarray(np.full(shape, 40 * i, dtype=np.uint8)).save(f"{folder}/{i}.png")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((8, 4), "got 8 x 4. Try --image-size 6x5."),
        ((6, 5, 3), "got 6 x 5 x 3. Try converting them to gray (Pillow: Image.convert)."),
        ((8, 4, 3), "Try --image-size 6x5 and converting them to gray (Pillow: Image.convert)."),
    ],
)
def test_images_of_another_shape_are_told_what_makes_them_fit(pictured, capsys, shape, advice):
    draw("photos", shape)
    argv = ["predict", str(pictured), "photos", "--out", "l.csv"]
    assert cli.main(argv) == 2
    assert advice in capsys.readouterr().err
    assert cli.main([*argv, "--image-size", "6x5"]) == (2 if len(shape) == 3 else 0)
