"""A fit can be followed: how many files it enters, and how often a reader has to change from one to another."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Files, switches: the slides' own fit, predict; the default is run by hand. Two files and four switches of the fit are
# its last line, which looks back at its rows for what `predict(reject=...)` compares with; two are room for a change.
# One file and two switches: who looks on at a fit, from the log to scikit-learn's callbacks. One file of predict: a
# look whether its rows are Dask's.
MOST = [(18, 60), (8, 15)]
ONLY_WHERE_NEEDED = ("conversion", "gaps", "sparse", "tables", "heads", "categories", "checkpoint", "durable_files")
ONLY_WHERE_NEEDED += ("counts", "modules")


@pytest.fixture(scope="module")
def printed():
    script = ROOT / "benchmarks" / "flow.py"
    command = [sys.executable, script, "--quick", "--list"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_a_fit_wanders_no_further_than_this(printed):
    found = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) files, \d+ functions, (\d+) switches", printed)]
    assert len(found) == len(MOST), printed
    for (files, switches), (most_files, most_switches) in zip(found, MOST, strict=True):
        assert files <= most_files, printed
        assert switches <= most_switches, printed


def test_plain_numbers_enter_no_file_of_what_else_rows_may_be(printed):
    files = set(re.findall(r"^    \w+/(\w+)\.py ", printed, re.MULTILINE))
    assert {"input", "rows", "units"} <= files
    assert not files & set(ONLY_WHERE_NEEDED)
