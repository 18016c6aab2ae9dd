"""A fit can be followed: how many files it enters, and how often a reader has to change from one to another."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Files, switches: the slides' own fit, predict; the default is run by hand. Three files and five switches of the fit
# are its last line, which looks back at its rows for what `predict(reject=...)` compares with. Four files and ten are
# what is handed in, what it comes as, and the units that it gets: it may have gaps, categories, be sparse.
MOST = [(22, 66), (9, 16)]


def test_a_fit_wanders_no_further_than_this():
    script = ROOT / "benchmarks" / "flow.py"
    printed = subprocess.run(
        [sys.executable, script, "--quick"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    found = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) files, \d+ functions, (\d+) switches", printed)]
    assert len(found) == len(MOST), printed
    for (files, switches), (most_files, most_switches) in zip(found, MOST, strict=True):
        assert files <= most_files, printed
        assert switches <= most_switches, printed
