"""The table of how many clusters others find is what the records say."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return import_module("n_clusters")


def test_a_line_is_what_its_record_says(made):
    lines = [line.strip("| ").split(" | ") for line in made.page(ROOT).splitlines()]
    digits = next(line for line in lines if line[0] == "digits")
    record = json.loads((ROOT / made.FOLDER / "digits-seed0.json").read_text())
    own = json.loads((ROOT / "benchmarks/records/levels/digits-seed0.json").read_text())
    found = [own["n_clusters"], *(of["n_clusters"] for of in record["found"].values())]
    assert [int(cell) for cell in digits[1:]] == [10, *found]
    rows = lines[2:-1]
    near = re.findall(r"\d+ of \d+", made.page(ROOT).splitlines()[-1])
    assert len(near) == 5
    for column, cell in enumerate(near, start=2):
        n = sum(abs(int(row[column]) - int(row[1])) <= 0.2 * int(row[1]) for row in rows)
        assert re.fullmatch(rf"{n} of {len(rows)}", cell)
