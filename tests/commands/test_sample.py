"""`nvisa sample`: arrays, tables and pictures."""

import numpy as np
import pandas
import pytest

import nvisa
from nvisa.commands import cli

FAST = ["--epochs", "1", "--init", "random"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_samples_have_the_clusters_asked_for(trained, suffix):
    out = f"s{suffix}"
    assert cli.main(["sample", str(trained), "-n", "7", "--cluster", "1", "--seed", "3", "--out", out]) == 0
    X, y = nvisa.load(trained).sample(7, cluster=1, random_state=3)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(out), X)
    elif suffix == ".npz":
        np.testing.assert_array_equal(np.load(out)["X"], X)
        np.testing.assert_array_equal(np.load(out)["y"], y)
    else:
        table = pandas.read_csv(out) if suffix == ".csv" else pandas.read_parquet(out)
        assert list(table.columns) == ["age", "height", "weight", "pulse", "cluster"]
        np.testing.assert_allclose(table.iloc[:, :4], X, rtol=1e-5)
    assert cli.main(["predict", str(trained), out, "--out", "l.csv"]) == (2 if suffix in (".csv", ".parquet") else 0)


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.parametrize("cluster", [[], ["--cluster", "1"]])
def test_a_picture_has_as_many_samples_as_asked_for(pictured, monkeypatch, capsys, n, cluster):
    drawn = []
    drawing = "nvisa.report.pictures.save_grid"
    monkeypatch.setattr(drawing, lambda path, blocks, **_: drawn.extend(blocks) or path.touch())
    assert cli.main(["sample", str(pictured), "-n", str(n), *cluster, "--out", "s.png"]) == 0
    assert capsys.readouterr().out == f"wrote {n} samples to s.png\n"
    ((_, lines),) = drawn
    assert [len(line) for line in lines] == ([n] if cluster else {2: [1, 1], 7: [3, 2, 2]}[n])


@pytest.mark.filterwarnings("default:'cluster' is a feature of the model")
def test_a_feature_called_cluster_is_not_overwritten_by_the_clusters(frame, capsys):
    frame.drop(columns="kind").rename(columns={"age": "cluster"}).to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", *FAST, "--quiet"]) == 0
    assert cli.main(["sample", "m", "-n", "6", "--seed", "3", "--out", "s.csv"]) == 0
    assert "warning: 'cluster' is a feature of the model: the clusters are in" in capsys.readouterr().err
    X, y = nvisa.load("m").sample(6, random_state=3)
    table = pandas.read_csv("s.csv")
    assert list(table.columns) == ["cluster", "height", "weight", "pulse", "cluster_"]
    np.testing.assert_allclose(table.cluster, X[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(table.cluster_, y)
