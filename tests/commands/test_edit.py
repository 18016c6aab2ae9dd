"""`nvisa edit`: steps are done in the order in which they are typed."""

import json
import shutil

import numpy as np
import pytest

import nvisa
from nvisa.commands import cli


@pytest.fixture
def model(trained):
    shutil.copytree(trained, "m")
    return "m"


def test_steps_are_done_in_their_order_and_recorded(model, frame, capsys):
    before = nvisa.load(model).labels_
    X = frame[frame.columns[:4]]
    X.to_csv("rows.csv", index=False)
    words = ["--split", "0", "--merge", "1", "2", "--name", "1", "the rest", "--order", "1", "0", "2"]
    assert cli.main(["edit", model, *words, "--data", "rows.csv", "--out", "new", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    edited = nvisa.load("new")
    assert result["names"] == ["the rest", "", ""] == edited.cluster_names_
    assert [next(iter(edit)) for edit in edited.edits_] == ["split", "merge", "order"]
    np.testing.assert_array_equal(edited.predict(X), edited.labels_)
    np.testing.assert_array_equal(edited.labels_ == 0, before > 0)
    assert sum(result["sizes"]) == len(X)
    assert cli.main(["edit", "new", "--name", "2", "b", "--quiet"]) == 0
    assert nvisa.load("new").cluster_names_ == ["the rest", "", "b"]


def test_what_cannot_be_done_is_said_and_nothing_written(model, capsys):
    for words, message in (
        ([], "expected --merge, --split, --remove, --order or --name"),
        (["--split", "0"], "--data must be the rows of the fit with --split"),
        (["--merge", "0", "x"], "--merge: expected numbers of clusters, got 'x'"),
        (["--merge", "0", "7"], "j must be a cluster in 0..2, got 7"),
    ):
        assert cli.main(["edit", model, *words, "--out", "new"]) == 2
        assert message in capsys.readouterr().err
        assert cli.main(["predict", "new", "x.npy", "--out", "l.csv"]) == 2
        capsys.readouterr()
