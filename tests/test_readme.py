"""What the README shows runs as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import nvisa
from nvisa.commands.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_the_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    np.testing.assert_array_equal(names["model"].predict(names["X"]), names["labels"])
    np.testing.assert_array_equal(nvisa.load("digits-model").labels_, names["labels"])
    assert names["images"].shape == (20, 64)
    assert (names["y"] == 3).all()


def test_the_shell_lines_are_commands_that_exist(tmp_path, monkeypatch, capsys):
    """The blocks on the user's own data, run on a small table; the options are the README's."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.RandomState(0).normal(size=(60, 3)) + np.repeat([[0, 0, 0], [9, 9, 9], [-9, 9, 0]], 20, axis=0)
    np.savetxt("mine.csv", rows, delimiter=",", header="a,b,c", comments="")
    shown = "".join(text for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if re.search("DATA|NEW", text))
    lines = re.sub("DATA|NEW", "mine.csv", shown).replace("--n-clusters 10", "--n-clusters 3").splitlines()
    for line in lines:
        program, *words = shlex.split(line)
        if program == "pip":
            continue  # test_documents.py reads it
        fast = ["--epochs", "2", "--init", "random", "--quiet"] if words[0] == "fit" else []
        assert main([*words, *fast]) == 0, line
    assert len(Path("labels.csv").read_text().splitlines()) == 61
    assert Path("report.html").exists()


def test_from_a_clone_to_clusters_in_at_most_three_commands():
    first = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert first
    lines = first[1].splitlines()
    assert len(lines) <= 3
    assert any("nvisa fit DATA" in line for line in lines)


def test_a_reader_decides_in_a_minute():
    """One table of at most eight rows, and a line for each limit."""
    tables = re.findall(r"<!-- table \S+ -->\n(.*?)<!-- end table -->", README, re.DOTALL)
    assert [len(table.splitlines()) - 2 <= 8 for table in tables] == [True]
    limits = re.search(r"^## Limits\n\n(.*?)\n\n", README, re.DOTALL | re.MULTILINE)
    assert limits
    assert all(line.startswith("* ") and line.endswith(".") for line in limits[1].splitlines())
    assert len(README.splitlines()) <= 110
