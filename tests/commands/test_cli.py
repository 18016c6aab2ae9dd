"""The program: its help, exit codes and errors."""

import inspect
import json
import os
import subprocess
import sys

import pytest

import nvisa
from nvisa.commands import choose_k, cli, fit
from nvisa.data import DataError
from nvisa.interruption import Terminated
from nvisa.settings import SettingError

FAST = ["--epochs", "1", "--init", "random"]
N = 45
COMMANDS = (
    "demo",
    "fit",
    "choose-k",
    "predict",
    "evaluate",
    "sample",
    "data",
    "features",
    "report",
    "bench",
    "table",
    "completion",
)


def test_json_is_one_document(write, capsys):
    write("csv")
    read = ["x.csv", "--label-column", "kind", "--json"]
    assert cli.main(["fit", *read, "--n-clusters", "3", "--out", "m", *FAST]) == 0
    fit = json.loads(capsys.readouterr().out)
    assert sum(fit["sizes"]) == fit["n_rows"] == N
    assert 1 <= fit["clusters_in_use"] <= len(fit["sizes"])
    assert set(fit["metrics"]) == {"accuracy", "purity", "nmi", "ari"}
    assert cli.main(["evaluate", "m", *read]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == fit["metrics"]
    assert cli.main(["predict", "m", *read, "--out", "l.csv", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["n_rows"] == N
    assert cli.main(["data", "list", "--json"]) == 0
    assert {"digits", "mnist", "fashion_mnist"} <= {entry["name"] for entry in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["predict", "nowhere", "x.csv", "--out", "l.csv"], "expected a model directory, got nothing there"),
        (["predict", "x.csv", "x.csv", "--out", "l.csv"], "x.csv: expected a model directory, got a file"),
        (["choose-k", "x.csv", "--drop-text", "--max-k", "1"], "Try a larger --max-k"),
        (["predict", "M", "x.csv", "--out", "l.xlsx"], "expected a name ending in .csv, .parquet, got '.xlsx'"),
        (["predict", "M", "x.csv", "--out", "x.csv"], "got the data themselves"),
        (["predict", "M", "x.csv", "--out", "no/l.csv"], "expected a folder that can be written to, got no"),
        (["predict", "M", "x.csv", "--out", "l.csv", "--split", "test"], "expected a data set's name with --split"),
        (["predict", "M", "x.csv", "--out", "l.csv", "--split", "train"], "expected a data set's name with --split"),
        (
            ["predict", "M", "x.csv", "--out", "l.csv", "--image-size", "28x28"],
            "expected a folder of images, got a .csv. Try without --image-size.",
        ),
        (["predict", "M", "digits", "--out", "l.csv", "--id-column", "x"], "expected a path with --id-column"),
        (["evaluate", "M", "x.csv"], "expected labels to compare the clusters with, got none. Try --label-column"),
        (["sample", "M", "--out", "s.png"], "expected a model of images for a picture"),
        (["sample", "M", "--cluster", "3", "--out", "s.npy"], "error: --cluster must be in 0..2, got 3"),
        (["sample", "M", "-n", "0", "--out", "s.npy"], "-n: expected at least 1 sample, got 0"),
    ],
)
def test_wrong_arguments(frame, trained, home, capsys, argv, message):
    frame.drop(columns="kind").to_csv("x.csv", index=False)
    before = (home / "x.csv").read_text()
    assert cli.main([str(trained) if word == "M" else word for word in argv]) == 2
    assert message in capsys.readouterr().err
    assert (home / "x.csv").read_text() == before
    assert os.listdir() == ["x.csv"]


@pytest.mark.parametrize(
    "argv", [["fit"], ["fit", "x.npy", "--n-clusters", "3"], ["sing"], ["fit", "x", "--n-clusters", "a", "--out", "m"]]
)
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(argv)
    assert raised.value.code == 2
    assert "usage: nvisa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (nvisa.DivergedError("log_p_x"), 3, "log_p_x is not finite"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 2, "No space left"),
        (TypeError("oops"), 1, "a fault of nvisa's"),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else "",
)
def test_exit_codes(write, capsys, monkeypatch, error, code, message):
    def fail(*_):
        raise error

    monkeypatch.setattr(nvisa.NVISA, "_fit_once", fail)
    argv = ["fit", *write("npy"), "--n-clusters", "3", "--out", "m"]
    assert cli.main(argv) == code
    quiet = capsys.readouterr().err
    assert message in quiet
    assert "Traceback" not in quiet
    assert cli.main([*argv, "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err
    assert not os.path.exists("m")


def test_an_interruption_while_torch_is_imported_is_one_too(capsys, monkeypatch):
    def cut_short(*_, **__):
        monkeypatch.setitem(sys.modules, "nvisa.fitting.training", None)  # as broken as torch is then
        raise KeyboardInterrupt

    monkeypatch.setattr(choose_k, "choose_k", cut_short)
    assert cli.main(["choose-k", "x.csv"]) == 130
    assert capsys.readouterr().err.startswith("interrupted: nothing was written")


def test_an_error_is_one_json_document_too(capsys):
    assert cli.main(["choose-k", "nowhere.csv", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 2
    assert "nowhere.csv: expected" in json.loads(printed.out)["error"]
    assert printed.err.startswith("error: nowhere.csv: expected")


def test_alone_it_explains_itself(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    for line in lines:
        if line.startswith("  nvisa "):
            assert line.split()[1] in COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_documents_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main([*command.split(), "--help"])
    assert raised.value.code == 0
    assert "exit codes: 0 done; 1 a fault" in " ".join(capsys.readouterr().out.split())


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"nvisa {nvisa.__version__}\n"


def test_as_a_module_it_answers_without_importing_torch():
    argv = [sys.executable, "-X", "importtime", "-m", "nvisa", "data", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "list the data sets" in done.stdout
    assert "nvisa.commands.cli" in done.stderr
    assert "torch" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_has_seen_enough_is_no_error():
    """As ``nvisa | head -1``: the other end of the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "nvisa"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_public_names():
    assert set(nvisa.__all__) <= set(dir(nvisa))
    assert all(getattr(nvisa, name) is not None for name in nvisa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nvisa'"):
        nvisa.Nvisa  # noqa: B018


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SettingError("n_clusters", "at least 2", 1), "--n-clusters must be at least 2, got 1."),
        (SettingError("training.epochs", "at least 1", 0), "--epochs must be at least 1, got 0."),
        (SettingError("network.scaling", "one of 'none'", "all"), "--scaling must be one of 'none', got 'all'."),
        (SettingError("likelihood", "so", "bernoulli", "Try it."), "--likelihood must be so, got 'bernoulli'. Try it."),
        (SettingError("n_restarts", "at least 1", 0), "--n-restarts must be at least 1, got 0."),
        (SettingError("network.hidden", "whole numbers", "a"), "network.hidden must be whole numbers, got 'a'."),
        (DataError("x: expected {1}.", "Try {drop_text}.", drop_text=True), "x: expected {1}. Try --drop-text."),
        (ValueError("n_clusters=3 is said as it stands"), "n_clusters=3 is said as it stands"),
    ],
    ids=str,
)
def test_settings_and_arguments_are_called_by_their_options(monkeypatch, capsys, error, message):
    monkeypatch.setattr(choose_k, "choose_k", lambda *_, **__: (_ for _ in ()).throw(error))
    assert cli.main(["choose-k", "x.csv"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_every_setting_that_has_an_option_is_one_of_nvisa():
    """By the name that a SettingError gives it; and the option is one of fit's."""
    words = cli.build_parser()._subparsers._group_actions[0].choices["fit"]._option_string_actions
    assert set(fit.OPTION_OF.values()) <= set(words)
    for name in fit.OPTION_OF:
        setting, _, field = name.partition(".")
        assert setting in inspect.signature(nvisa.NVISA).parameters
        assert not field or field in {"training": nvisa.Training, "network": nvisa.Conv}[setting].__dataclass_fields__


ENDS = [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")]


@pytest.mark.parametrize(("kind", "code", "word"), ENDS)
def test_a_run_of_hours_that_is_stopped_says_what_goes_on(monkeypatch, capsys, kind, code, word):
    def stopped(*_):
        raise kind

    monkeypatch.setattr("nvisa.benchmark.long_run.long_run", stopped)
    assert cli.main(["bench", "paper", "--seeds", "3"]) == code
    said = capsys.readouterr().err
    assert said.startswith(f"{word}: the same command goes on from ")
    assert said.endswith("nvisa bench paper --seeds 3\n")
