"""`nvisa predict` and `nvisa evaluate`: the splits and columns that they take."""

import json

import numpy as np

import nvisa
from nvisa.commands import cli

FAST = ["--epochs", "1", "--init", "random"]


def test_a_data_set_is_fitted_on_its_train_split_and_judged_on_its_test_split(home, capsys):
    folder = home.parent / "no-data" / "features"
    folder.mkdir(parents=True)
    rng = np.random.RandomState(0)
    y = {split: np.arange(n) % 2 for split, n in (("train", 40), ("test", 12))}
    X = {f"x_{split}": rng.randn(len(labels), 3) + 6 * labels[:, None] for split, labels in y.items()}
    np.savez(folder / "toy.npz", **X, y_train=y["train"], y_test=y["test"])
    assert cli.main(["fit", "toy", "--n-clusters", "2", "--out", "m", *FAST, "--quiet"]) == 0
    assert len(nvisa.load("m").labels_) == 40
    for command, n_rows in (
        (["choose-k", "toy", "--max-k", "3"], 40),
        (["predict", "m", "toy", "--out", "l.csv"], 12),
        (["evaluate", "m", "toy"], 12),
        (["evaluate", "m", "toy", "--split", "train"], 40),
    ):
        capsys.readouterr()
        assert cli.main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["n_rows"] == n_rows


def test_a_cluster_of_a_few_rows_is_not_in_use(trained, capsys, monkeypatch):
    """As in the warning of a fit."""
    sizes = [300, 300, 9, 1, 1, 1]
    np.save("x.npy", np.zeros((sum(sizes), 4)))
    monkeypatch.setattr(nvisa.NVISA, "predict_proba", lambda self, X: np.eye(6)[np.repeat(range(6), sizes)])
    assert cli.main(["predict", str(trained), "x.npy", "--out", "l.csv"]) == 0
    assert "2 of 6 clusters in use, of sizes 300, 300, 9, 1, 1, 1\n" in capsys.readouterr().out


def test_rows_that_are_refused_have_no_cluster(trained, frame, capsys):
    X = frame.drop(columns="kind").to_numpy()
    np.save("x.npy", X)
    assert cli.main(["predict", str(trained), "x.npy", "--out", "l.csv", "--reject", "0.2", "--json"]) == 0
    clusters = np.loadtxt("l.csv", delimiter=",", skiprows=1, dtype=int)[:, 1]
    np.testing.assert_array_equal(clusters, nvisa.load(str(trained)).predict(frame[frame.columns[:4]], reject=0.2))
    assert json.loads(capsys.readouterr().out)["n_refused"] == (clusters == -1).sum() > 0
    assert cli.main(["predict", str(trained), "x.npy", "--out", "l.csv", "--reject", "2"]) == 2
    assert "reject must be a number in (0, 0.5], got 2.0" in capsys.readouterr().err
