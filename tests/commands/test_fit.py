"""`nvisa fit`: what it writes, prints, and refuses before training."""

import json
import os
import shlex
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.exceptions import ConvergenceWarning

import nvisa
from nvisa.commands import cli
from nvisa.fitting import checkpoint
from nvisa.fitting.training import Tally

FAST = ["--epochs", "1", "--init", "random"]
N = 45


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "npz", "images"])
def test_fit_then_the_commands_that_it_prints(write, kind, capsys):
    read = write(kind)
    assert cli.main(["fit", *read, "--n-clusters", "3", "--out", "model", *FAST]) == 0
    printed = capsys.readouterr()
    assert "training 1/1" in printed.err
    has_labels = kind not in ("parquet", "npy")
    assert ("agreement with the labels, which training did not see:" in printed.out) == has_labels
    lines = printed.out.partition("next:\n")[2].splitlines()
    assert len(lines) == 3 + has_labels
    for line in lines:
        words = shlex.split(line)
        assert cli.main(words[words.index("nvisa") + 1 :] if "nvisa" in words else words[1:]) == 0
    labels = pandas.read_csv("labels.csv")
    assert list(labels.columns) == ["row", "cluster"]
    np.testing.assert_array_equal(labels.cluster, nvisa.load("model").labels_)
    if kind == "images":
        assert labels.row[0] == "a/0.png"
        with Image.open("samples.png") as image:
            assert min(image.size) > 50
    else:
        assert len(pandas.read_csv("samples.csv")) == 100


@pytest.mark.filterwarnings("default:.*columns are constant")
def test_a_data_set_by_name(home, capsys):
    argv = ["fit", "digits", "--n-clusters", "10", "--out", "m", *FAST, "--n-samples", "2", "--consistency", "none"]
    assert cli.main([*argv, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "warning: 3 of 64 columns are constant and tell nothing apart (columns 0, 32, 39).\n"
    manifest = json.loads((home / "m" / "manifest.json").read_text())
    assert manifest["extra"]["source"] == "digits, train split"
    assert manifest["extra"]["feature_shape"] == [8, 8]
    assert len(manifest["extra"]["data_digest"]) == 64
    assert manifest["params"]["consistency"] is None
    assert cli.main(["predict", "m", "digits", "--out", "l.parquet", "--proba"]) == 0
    table = pandas.read_parquet("l.parquet")
    assert table.shape == (1797, 12)
    np.testing.assert_allclose(table.filter(regex="^p").sum(axis=1), 1, rtol=1e-5)
    assert cli.main(["sample", "m", "-n", "25", "--cluster", "3", "--mean", "--out", "three.png"]) == 0
    assert cli.main(["evaluate", "m", "digits", "--split", "test"]) == 2
    assert "without one. Try --split train" in capsys.readouterr().err


def plain(params, name):
    """The setting of this name, or of this name in the network."""
    return params[name] if name in params else getattr(params["network"], name)


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")
@pytest.mark.parametrize(
    ("option", "value", "name", "expected"),
    [
        ("--scaling", "columns", "scaling", "columns"),
        ("--scaling", "none", "scaling", "none"),
        ("--likelihood", "gaussian", "likelihood", "gaussian"),
        ("--inference", "enum_y", "inference", "enum_y"),
        ("--init", "random", "init", "random"),
        ("--n-samples", "2", "n_samples", 2),
        ("--n-restarts", "2", "n_restarts", 2),
        ("--seed", "7", "random_state", 7),
        ("--consistency", "none", "consistency", None),
    ],
)
def test_an_option_of_fit_is_the_setting_of_the_model(write, option, value, name, expected):
    argv = ["fit", *write("npy"), "--n-clusters", "3", "--out", "m", "--quiet"]
    assert cli.main([*argv, *FAST, option, value]) == 0
    assert plain(nvisa.load("m").get_params(), name) == expected


def test_the_column_that_names_the_rows_is_no_feature(frame, home):
    names = [f"n{i:02}" for i in range(N)]
    frame.drop(columns="kind").assign(who=names).to_csv("x.csv", index=False)
    read = ["x.csv", "--id-column", "who"]
    assert cli.main(["fit", *read, "--n-clusters", "3", "--out", "m", "--quiet", *FAST]) == 0
    assert list(nvisa.load("m").feature_names_in_) == ["age", "height", "weight", "pulse"]
    assert cli.main(["predict", "m", *read, "--out", "l.csv"]) == 0
    assert list(pandas.read_csv("l.csv").row) == names


def test_a_column_that_may_name_the_rows_is_asked_about(frame, capsys):
    X = frame.drop(columns="kind").assign(customer_id=range(1, N + 1), day_no=np.arange(N) % 7)
    X.to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", *FAST]) == 0
    assert "used       'customer_id': if they name the rows, --id-column or --drop NAME" in capsys.readouterr().err


def test_wrong_input_is_said_before_training(write, frame, home, capsys, monkeypatch):
    def train(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(nvisa.NVISA, "_fit_once", train)
    write("csv")
    np.save("short.npy", np.zeros((2, 3)))
    holes = frame.drop(columns="kind").to_numpy().copy()
    holes[17, 2] = np.inf
    np.save("holes.npy", holes)
    pandas.DataFrame(holes, columns=list("abcd")).to_csv("holes.csv", index=False)
    pandas.DataFrame(holes, columns=list("abcd")).assign(b=np.nan, c=1.0).to_csv("hollow.csv", index=False)
    frame.assign(kind=frame.kind.where(frame.index != 7)).to_csv("some.csv", index=False)
    (home / "cut.npy").write_bytes((home / "holes.npy").read_bytes()[:-9])
    (home / "mine").mkdir()
    (home / "mine" / "thesis.txt").write_text("years of work")
    for data, more, message in [
        ("x.csv", [], "Try --drop-text to leave them out, --label-column if one holds the labels"),
        ("x.csv", ["--label-column", "Kind"], "expected a label column 'Kind'"),
        ("nowhere.csv", [], "got nothing there"),
        ("mnits", [], "mnits: expected a file, a folder or a data set's name, got none of them. Try 'mnist'"),
        ("short.npy", [], "expected at least as many rows as --n-clusters 3, got 2. Try fewer clusters"),
        ("x.csv", ["--drop-text", "--epochs", "0"], "error: --epochs must be a whole number of at least 1"),
        ("x.csv", ["--drop-text", "--n-restarts", "0"], "error: --n-restarts must be a whole number of at least 1"),
        (
            "x.csv",
            ["--drop-text", "--likelihood", "bernoulli"],
            "error: --likelihood must be another than 'bernoulli'",
        ),
        ("holes.npy", [], "expected finite numbers, got inf in row 17, column 2"),
        ("holes.csv", [], "got inf in row 17, column 'c'"),
        ("hollow.csv", ["--drop-missing"], "most are in columns 'b' (45). Try --drop COLUMN, or"),
        ("some.csv", ["--label-column", "kind"], "some.csv: expected a label for every row, got 1 without one"),
        ("cut.npy", [], "got an unreadable file"),
        ("x.csv", ["--drop-text", "--n-samples", "1"], "error: --n-samples must be at least 2 with inference='vimco'"),
        ("x.csv", ["--drop-text", "--out", "mine"], "got a folder with other files"),
        ("x.csv", ["--drop-text", "--out", "x.csv"], "got a file"),
    ]:
        assert cli.main(["fit", data, "--n-clusters", "3", "--out", "m", *FAST, *more]) == 2, data
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
    assert not os.path.exists("m")
    assert (home / "mine" / "thesis.txt").read_text() == "years of work"


def interrupting(after):
    """In place of a clusterer's progress: an interruption when so many epochs are done."""

    def report(module, records):
        if records[-1]["epoch"] > after:
            raise KeyboardInterrupt
        return False

    return lambda *args: nullcontext(report)


def test_an_interrupted_fit_says_how_to_go_on_and_the_same_command_does(write, capsys, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    argv = ["fit", *write("npy"), "--n-clusters", "3", "--init", "random", "--epochs", "4", "--quiet"]
    assert cli.main([*argv, "--out", "whole"]) == 0
    resumable = [*argv, "--out", "m", "--checkpoint", "run"]

    for n_epochs, said in [(0, "too early for a checkpoint in run: the same command starts again"),
                           (2, "the same command goes on from run (training, epoch 2)")]:  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(nvisa.NVISA, "_progress_shown", interrupting(after=n_epochs))
            assert cli.main(resumable) == 130
        assert f"interrupted: {said}" in capsys.readouterr().err
        assert not os.path.exists("m")
    assert cli.main(resumable) == 0
    whole, resumed = nvisa.load("whole"), nvisa.load("m")
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    for a, b in zip(whole.module_.parameters(), resumed.module_.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())
    assert not os.path.exists("run")


@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_a_signal_ends_the_epoch_and_the_printed_command_goes_on(write, capsys, monkeypatch, number, code, word):
    """The checkpoint is not due, and holds the epoch at whose beginning the signal came."""
    argv = ["fit", *write("npy"), "--n-clusters", "3", "--init", "random", "--epochs", "4", "--quiet"]
    assert cli.main([*argv, "--out", "whole"]) == 0
    resumable = [*argv, "--out", "m", "--checkpoint", "run"]
    with monkeypatch.context() as patch:
        signal_in_second_epoch(patch, number)
        assert cli.main(resumable) == code
    said = capsys.readouterr().err
    assert f"{word}: the same command goes on from run (training, epoch 2):\n  " in said
    assert shlex.split(said.splitlines()[-1])[-len(resumable) :] == resumable
    assert cli.main(resumable) == 0
    whole, resumed = nvisa.load("whole"), nvisa.load("m")
    for a, b in zip(whole.module_.parameters(), resumed.module_.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())
    assert not os.path.exists("run")


def signal_in_second_epoch(patch, number):
    """Send this process a signal before the first step of the second epoch."""
    begun, start = [], Tally.start

    def counting(tally):
        begun.append(1)
        if len(begun) == 3:  # one when it is made
            os.kill(os.getpid(), number)
        start(tally)

    patch.setattr(Tally, "start", counting)


def test_without_a_checkpoint_sigterm_says_so_too(write, capsys, monkeypatch):
    signal_in_second_epoch(monkeypatch, 15)
    assert (
        cli.main(["fit", *write("npy"), "--n-clusters", "3", "--out", "m", "--epochs", "4", "--init", "random"]) == 143
    )
    assert "terminated: nothing was written" in capsys.readouterr().err


def test_a_model_and_a_checkpoint_are_not_written_into_one_folder(frame, capsys):
    frame.to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", "--checkpoint", "./m/"]) == 2
    assert "another for --checkpoint, got " in capsys.readouterr().err
    assert not os.path.exists("m")


@pytest.mark.parametrize(("out", "checkpoint"), [("m", "m/run"), ("run/m", "run")])
def test_nor_one_in_the_other_where_saving_or_the_same_command_would_be_refused_after_the_training(
    frame, capsys, out, checkpoint
):
    frame.to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", out, "--checkpoint", checkpoint]) == 2
    assert "another for --checkpoint, got " in capsys.readouterr().err
    assert not os.path.exists("m")
    assert not os.path.exists("run")


def test_an_interrupted_fit_without_a_checkpoint_names_the_option(write, capsys, monkeypatch):
    monkeypatch.setattr(nvisa.NVISA, "_progress_shown", interrupting(after=0))
    assert cli.main(["fit", *write("npy"), "--n-clusters", "3", "--out", "m", *FAST]) == 130
    assert "fit --checkpoint DIR can be resumed" in capsys.readouterr().err


def test_fit_says_what_it_understood_and_does_it(capsys):
    rows = "".join(f"r{i},{i % 7},{100 * (i % 5)},ann\n" for i in range(40))
    Path("x.csv").write_text("user_id,age,income,name\n" + rows)
    argv = ["fit", "x.csv", "--n-clusters", "2", "--out", "m", "--drop-text", *FAST]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert cli.main(argv) == 0
        said = capsys.readouterr().err
        assert cli.main([*argv, "--json"]) == 0
    for line in (
        "x.csv: table, 40 rows x 2 columns",
        "columns    'age', 'income'",
        "values     0 .. 400, modeled as numbers",
        "scaling    each column by its own deviation",
        "left out   columns 'name'",
        "row names  kept",
    ):
        assert line in said
    document = json.loads(capsys.readouterr().out)["data"]
    assert (document["kind"], document["columns"], document["left_out"]) == ("table", ["age", "income"], ["name"])
    model = nvisa.load("m")
    assert (model.network.scaling, model.likelihood) == ("columns", "gaussian_shared")


def test_a_fit_without_k_says_how_to_choose_it(capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["fit", "x.csv", "--out", "m"])
    assert raised.value.code == 2
    assert "expected --n-clusters K, the number of clusters. Try nvisa choose-k x.csv" in capsys.readouterr().err
