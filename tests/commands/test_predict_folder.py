"""`nvisa predict MODEL FOLDER --out FOLDER`: what one table holds, file by file; done once, and only if whole."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

import nvisa
from nvisa.commands import cli, predict_folder


@pytest.fixture
def folder(home, frame):
    """Two files, one of them deeper."""
    (home / "x" / "deep").mkdir(parents=True)
    named = frame.assign(name=[f"r{i}" for i in range(len(frame))])
    named[:20].to_parquet(home / "x" / "a.parquet")
    named[20:].to_parquet(home / "x" / "deep" / "b.parquet")
    return home / "x"


def predicted(trained, *more):
    assert cli.main(["predict", str(trained), "x", "--out", "y", "--json", *more]) == 0


def test_each_file_gets_its_rows_whatever_the_batches(folder, trained, frame, capsys, monkeypatch):
    monkeypatch.setattr(predict_folder, "BATCH", 7)
    predicted(trained, "--proba", "--id-column", "name")
    result = json.loads(capsys.readouterr().out)
    found = pd.concat([pd.read_parquet("y/a.parquet"), pd.read_parquet("y/deep/b.parquet")])
    model = nvisa.load(str(trained))
    X = frame[["age", "height", "weight", "pulse"]]
    assert found.row.tolist() == [f"r{i}" for i in range(len(frame))]
    np.testing.assert_array_equal(found.cluster, model.predict(X))
    np.testing.assert_array_equal(found[["p0", "p1", "p2"]], model.predict_proba(X))
    assert (result["n_rows"], result["n_refused"]) == (len(X), 0)
    assert result["sizes"] == np.bincount(model.predict(X), minlength=3).tolist()
    predicted(trained, "--reject", "0.3")
    result, found = json.loads(capsys.readouterr().out), pd.read_parquet("y/a.parquet")
    assert found.row.tolist() == list(range(20))
    np.testing.assert_array_equal(found.cluster, model.predict(X[:20], reject=0.3))
    assert result["n_refused"] == (model.predict(X, reject=0.3) == -1).sum() > 0


def test_what_is_done_is_not_done_again_unless_the_file_the_model_or_the_options_change(folder, trained, capsys):
    def times():
        return {path.name: path.stat().st_mtime_ns for path in (folder.parent / "y").rglob("*.parquet")}

    predicted(trained)
    first = times()
    (folder.parent / "y" / "deep" / "b.parquet").unlink()  # as a kill in the middle leaves it
    capsys.readouterr()
    predicted(trained)
    assert json.loads(capsys.readouterr().out)["notes"] == ["2 Parquet files, 1 of them done before"]
    second = times()
    assert second["a.parquet"] == first["a.parquet"]
    pd.read_parquet(folder / "a.parquet")[:5].to_parquet(folder / "a.parquet")
    predicted(trained)
    third = times()
    assert third["a.parquet"] != second["a.parquet"]
    assert third["b.parquet"] == second["b.parquet"]
    assert len(pd.read_parquet("y/a.parquet")) == 5
    predicted(trained, "--proba")
    assert all(times()[name] != third[name] for name in third)


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda home: None, ["--out", "x/y"], "expected a folder outside that of the data"),
        (lambda home: pd.read_parquet("x/a.parquet").drop(columns="age").to_parquet("x/a.parquet"), [], "got no 'age'"),
        (lambda home: (home / "x/a.parquet").write_bytes(b"PAR1"), [], "expected Parquet, got an unreadable"),
        (lambda home: pd.read_parquet("x/a.parquet")[:0].to_parquet("x/a.parquet"), [], "expected rows, got none"),
        (
            lambda home: pd.read_parquet("x/a.parquet").assign(age=np.inf).to_parquet("x/a.parquet"),
            [],
            "after row 0: .*infinity",
        ),
        (lambda home: None, ["--drop-missing"], "expected a file with --drop-missing"),
        (lambda home: None, ["--reject", "2"], "reject must be a number in"),
    ],
    ids=["inside", "no column", "cut", "no rows", "infinite", "drop missing", "reject"],
)  # fmt: skip
def test_what_cannot_be_predicted_is_named_and_leaves_nothing(folder, trained, capsys, change, words, message):
    change(folder.parent)
    assert cli.main(["predict", str(trained), "x", *(words if "--out" in words else ["--out", "y", *words])]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list((folder.parent / "y").rglob("a.parquet*"))


def test_a_file_of_somebody_elses_is_not_replaced(folder, trained, capsys):
    (folder.parent / "y").mkdir()
    pd.DataFrame({"z": [1]}).to_parquet(folder.parent / "y" / "a.parquet")
    assert cli.main(["predict", str(trained), "x", "--out", "y"]) == 2
    assert "expected predictions to replace, got another file" in capsys.readouterr().err
    assert parquet.read_schema("y/a.parquet").names == ["z"]
