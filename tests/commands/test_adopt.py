"""`nvisa adopt`: the labels of a file become a model that says them of new rows too."""

import json

import numpy as np
import pandas
import pytest

import nvisa
from nvisa.commands import cli
from nvisa.commands.adopt import read_labels


def fails(capsys, *words):
    assert cli.main(["adopt", *words, "--out", "m"]) == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("one_epoch")
def test_a_table_s_labels_are_adopted(frame, write, capsys):
    words = write("csv")
    known = frame.kind.where(np.arange(45) % 7 != 0)  # some are unknown
    pandas.DataFrame({"row": np.arange(45), "cluster": known}).to_csv("labels.csv", index=False)
    assert cli.main(["adopt", words[0], "labels.csv", *words[1:], "--out", "m", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kept"] > 0.97
    assert result["n_unknown"] == 7
    model = nvisa.load("m")
    X = frame.drop(columns="kind")
    assert (model.classes_[model.predict(X)] == frame.kind).mean() > 0.97


def test_where_the_labels_are_is_found_or_asked_for(write, capsys):
    words = write("npy")
    y = np.repeat([0, 1, 2], 15)
    np.save("y.npy", y)
    pandas.DataFrame({"row": range(45), "topic": y}).to_parquet("one.parquet")
    pandas.DataFrame({"label": y, "sure": 1.0, "other": y}).to_csv("usual.csv", index=False)
    pandas.DataFrame({"a": y, "b": y, "c": y}).to_csv("any.csv", index=False)
    for path, column in (("y.npy", None), ("one.parquet", None), ("usual.csv", None), ("any.csv", "b")):
        np.testing.assert_array_equal(read_labels(path, column)[0], y)
    assert "expected a column of labels, got 'a', 'b', 'c'. Try --column NAME." in fails(capsys, *words, "any.csv")
    np.save("short.npy", y[:4])
    assert "short.npy: expected a label for each of the 45 rows of x.npy, got 4" in fails(capsys, *words, "short.npy")
    assert "expected labels in a .csv" in fails(capsys, *words, "nothing.csv")


def test_labels_of_rows_in_another_order_are_refused(frame, capsys):
    names = [f"r{i}" for i in range(45)]
    frame.drop(columns="kind").assign(name=names).to_csv("named.csv", index=False)
    pandas.DataFrame({"row": names[::-1], "cluster": frame.kind}).to_csv("labels.csv", index=False)
    said = fails(capsys, "named.csv", "labels.csv", "--id-column", "name")
    assert "expected the rows of named.csv in their order" in said
