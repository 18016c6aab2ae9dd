"""What reaches a terminal and a spreadsheet: names of columns and rows are data, and nothing else."""

import numpy as np
import pandas
import pytest

from nvisa.commands import cli
from nvisa.commands.output_files import write_table
from nvisa.commands.printing import shown

ESCAPE = "age\x1b]0;owned\x07\x1b[2J"


def test_control_characters_are_shown_as_they_are_written_and_letters_stay():
    assert shown("a\x1b[2J\x07\u202eb") == "a\\x1b[2J\\x07\\u202eb"
    assert shown("größe 年\n\tx") == "größe 年\n\tx"


@pytest.mark.parametrize("fault", ["none", "gap", "text"])
def test_an_escape_in_the_name_of_a_column_does_not_reach_the_terminal(frame, capfd, fault):
    X = frame.drop(columns="kind").rename(columns={"age": ESCAPE})
    if fault == "gap":
        X.iloc[3, 0] = np.nan
    elif fault == "text":
        X[ESCAPE] = X[ESCAPE].astype(str) + "\x1b[31m"
    X.to_csv("x.csv", index=False)
    argv = ["fit", "x.csv", "--n-clusters", "3", "--out", "m", "--epochs", "1", "--init", "random"]
    assert cli.main(argv) == (2 if fault == "text" else 0)
    printed = capfd.readouterr()
    assert "\\x1b]0;owned\\x07" in printed.out + printed.err
    assert "\x1b" not in printed.out + printed.err
    assert "\x07" not in printed.out + printed.err


def test_formulas_are_quoted_if_that_is_asked_for(home):
    names = ["=1+2", "+x", "-y", "@z", "\tt", "a=b", ""]
    columns = {"row": names, "=cluster": np.arange(7)}
    write_table(home / "plain.csv", columns)
    write_table(home / "quoted.csv", columns, quote_formulas=True)
    plain, quoted = (pandas.read_csv(home / f"{name}.csv", na_filter=False) for name in ("plain", "quoted"))
    assert plain.row.tolist() == names
    assert quoted.row.tolist() == ["'=1+2", "'+x", "'-y", "'@z", "'\tt", "a=b", ""]
    assert list(quoted.columns) == ["row", "'=cluster"]
    assert quoted["'=cluster"].tolist() == list(range(7))


def test_predict_and_sample_have_the_option(frame, home):
    X = frame.drop(columns="kind").rename(columns={"age": "=age"}).assign(id=[f"=r{i}" for i in range(len(frame))])
    X.to_csv("x.csv", index=False)
    read = ["x.csv", "--id-column", "id"]
    fit = ["fit", *read, "--n-clusters", "3", "--out", "m", "--epochs", "1", "--init", "random", "--quiet"]
    assert cli.main(fit) == 0
    assert cli.main(["predict", "m", *read, "--out", "l.csv", "--quote-formulas"]) == 0
    assert pandas.read_csv("l.csv").row[0] == "'=r0"
    assert cli.main(["sample", "m", "-n", "3", "--out", "s.csv", "--quote-formulas"]) == 0
    assert pandas.read_csv("s.csv").columns[0] == "'=age"


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 8 GiB"), RuntimeError("can't allocate memory: 8 GiB")]
)
def test_memory_that_runs_out_is_called_so_and_is_no_fault_of_ours(monkeypatch, capsys, error):
    def run(*_, **__):
        raise error

    monkeypatch.setattr("nvisa.commands.fit.fit", run)
    assert cli.main(["fit", "x.csv", "--n-clusters", "3", "--out", "m"]) == 2
    said = capsys.readouterr().err
    assert "error: MemoryError: " in said
    assert "8 GiB. Try fewer rows" in said
