"""A fit can be followed: how many files it enters, and how often a reader has to change from one to another."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST = [(14, 50), (12, 35), (8, 10)]  # files, switches: the default fit, the slides' own fit, predict


@pytest.mark.slow
def test_a_fit_wanders_no_further_than_this():
    script = ROOT / "benchmarks" / "flow.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    found = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) files, \d+ functions, (\d+) switches", printed)]
    assert len(found) == len(MOST), printed
    assert all(files <= most[0] and switches <= most[1] for (files, switches), most in zip(found, MOST, strict=True)), (
        printed
    )
