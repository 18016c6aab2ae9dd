"""The page of faults says what its records say; and a few of the faults, killed, filled and broken."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from nvisa.fitting import checkpoint

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "benchmarks" / "faults"
RECORDS = sorted((ROOT / "benchmarks" / "records" / "faults").glob("*.json"))
READERS = ["model, manifest.json", "checkpoint, a state", "record and its page", ".npz", ".png"]


def loaded(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FAULTS)
        return import_module(name)


def test_the_page_says_what_the_records_say():
    spec = loaded("faults_page")
    assert spec.PAGE.read_text() == spec.rewrite(spec.PAGE.read_text())


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_nothing_was_lost_in_a_record(path):
    record = json.loads(path.read_text())
    assert record.get("wrong", {}) == {}
    assert sum(reader["other error"] for reader in record.get("readers", ())) == 0
    assert sum(kind["bad ends"] for kind in record.get("kinds", ())) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="LD_PRELOAD, and a C compiler")
def test_faults_at_some_of_the_calls_lose_nothing():
    """Each scenario at full length is `python benchmarks/faults/injection.py`."""
    words = ["--every", "4", "--only", "save in place of a model", "features"]
    run = subprocess.run(
        [sys.executable, FAULTS / "injection.py", *words],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert int(run.stdout.splitlines()[-1].split()[1]) > 20


@pytest.mark.parametrize("reader", READERS)
def test_changed_files_are_read_or_refused_in_our_own_words(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)  # the script sets it too; here it is put back
    if reader.startswith("record"):
        pytest.importorskip("plotly")
    found = loaded("mutations").mutate(reader, 25, 7, tmp_path / "home")
    assert found["other error"] == 0
    assert found["own error"] > 5
