"""A clean folder to work in, rows in three groups, and models of them."""

import os

import numpy as np
import pandas
import pytest
from PIL import Image

from nvisa.commands import cli

FAST = ["--epochs", "1", "--init", "random"]
N = 45


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A clean folder to work in, and no data sets but digits."""
    monkeypatch.setenv("NVISA_DATA_HOME", str(tmp_path / "no-data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def frame():
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.randn(N // 3, 4) + 5 * k for k in range(3)])
    return pandas.DataFrame(X, columns=["age", "height", "weight", "pulse"]).assign(kind=np.repeat(["a", "b", "c"], 15))


@pytest.fixture(scope="module")
def trained(frame, tmp_path_factory):
    """A model of the four columns."""
    folder = tmp_path_factory.mktemp("trained")
    frame.to_csv(folder / "x.csv", index=False)
    argv = ["fit", str(folder / "x.csv"), "--n-clusters", "3", "--out", str(folder / "m"), *FAST]
    assert cli.main([*argv, "--label-column", "kind", "--quiet"]) == 0
    return folder / "m"


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """A model of gray images of 6 x 5 in three clusters."""
    folder = tmp_path_factory.mktemp("pictured")
    np.save(folder / "x.npy", np.random.RandomState(0).rand(N, 6, 5))
    argv = ["fit", str(folder / "x.npy"), "--n-clusters", "3", "--out", str(folder / "m"), *FAST, "--quiet"]
    assert cli.main(argv) == 0
    return folder / "m"


@pytest.fixture
def write(frame):
    """Writes the frame as a file of this kind; the words by which a command reads it."""

    def csv():
        frame.to_csv("x.csv", index=False)
        return ["x.csv", "--label-column", "kind"]

    def parquet():
        frame.to_parquet("x.parquet")
        return ["x.parquet", "--drop-text"]

    def npy():
        np.save("x.npy", frame.drop(columns="kind").to_numpy())
        return ["x.npy"]

    def npz():
        np.savez("x.npz", X=frame.drop(columns="kind").to_numpy(), y=frame.kind.to_numpy().astype("U1"))
        return ["x.npz"]

    def images():
        rng = np.random.RandomState(0)
        for i, kind in enumerate(frame.kind):
            os.makedirs(f"photos/{kind}", exist_ok=True)
            Image.fromarray(rng.randint(0, 256, (6, 5), dtype=np.uint8)).save(f"photos/{kind}/{i}.png")
        return ["photos", "--labels-from-folders"]

    return lambda kind: {"csv": csv, "parquet": parquet, "npy": npy, "npz": npz, "images": images}[kind]()
