"""Many runs side by side: what is missing is run, what dies is recorded, an interruption ends them all."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from benchmark.made_records import KEYS, reaching, record
from nvisa.benchmark import parallel, run, tables
from nvisa.benchmark.experiments import Job
from nvisa.benchmark.parallel import estimate, missing, run_all
from nvisa.benchmark.records import record_path, write_record
from nvisa.commands.cli import main


def test_what_is_there_is_not_made_again_unless_by_another_version_or_crashed(tmp_path):
    jobs = [Job("default", "digits", seed) for seed in range(5)]
    kinds = [{}, {"versions": {"nvisa": "0.0.1"}}, {"status": "crashed"}, {"status": "diverged", "metrics": {}}]
    for seed, changes in enumerate(kinds):
        write_record(record_path(tmp_path, "digits", "default", seed), record(seed=seed, **changes))
    assert missing(jobs, tmp_path) == [jobs[1], jobs[2], jobs[4]]


def test_the_estimate_rests_on_the_nearest_records():
    jobs = [Job("default", "mnist", 9), Job("default", "digits", 0), Job("bound_gradient", "mnist", 0)]
    records = [record(seconds=10.0), record(seconds=20.0, seed=1), record(seconds=60.0, recipe="selection")]
    records.append(record(seconds=1000.0, seed=2, status="crashed"))
    found = [(entry.seconds, entry.basis) for entry in estimate([*jobs, Job("dec/default", "mnist", 0)], records)]
    recipe, method = (15.0, "the same recipe on other data"), (30.0, "the same method")
    assert found == [(15.0, "the same"), recipe, method, (0.0, "nothing")]
    tree = record(method="ltvae_full", recipe="ltvae_full/bernoulli", seconds=7.0)
    (entry,) = estimate([Job("ltvae_full/default", "digits", 0)], [tree])
    assert (entry.seconds, entry.basis) == (7.0, "the same method")


def stub(monkeypatch, *programs):
    """In place of a run: this Python program for the job of seed 0, that for seed 1, ..."""
    monkeypatch.setattr(parallel, "_command", lambda job, *_: [sys.executable, "-c", programs[job.seed]])


@pytest.fixture(autouse=True)
def _an_interrupt_is_heard():
    """A shell without job control starts background jobs with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_process_that_dies_leaves_a_record_and_the_others_go_on(tmp_path, monkeypatch):
    said, jobs = [], [Job("default", "digits", seed) for seed in range(5)]
    paths = [record_path(tmp_path, "digits", "default", job.seed) for job in jobs]
    write_record(tmp_path / "made", record(seed=2))
    work = f"os.rename({str(tmp_path / 'made')!r}, {str(paths[2])!r})"
    old = [record(seed=seed, versions={"nvisa": "0.0.1"}) for seed in range(5)]
    for path, was in zip(paths, old, strict=True):
        write_record(path, was)
    stub(
        monkeypatch,
        "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)",
        f"raise SystemExit({run.NO_DATA})",
        f"import os; assert os.environ['OMP_NUM_THREADS'] == '1'; {work}; os.kill(os.getpid(), 9)",  # after its work
        "import os; os.kill(os.getpid(), 2)",
        "import os; os.kill(os.getpid(), 15)",
    )
    ends = run_all(jobs, workers=2, records=tmp_path, say=said.append)
    assert list(ends.values()) == ["crashed", "no data", "ok", "interrupted", "interrupted"]
    made, *others = [json.loads(path.read_text()) for path in paths]
    assert (made["status"], made["seed"], made["method"]) == ("crashed", 0, "nvisa")
    assert "-9\nlast words" in made["error"]
    assert set(made) >= KEYS
    assert others == [old[1], record(seed=2), *old[3:]], "what was there stays until there is something new"
    assert len(said) == 5
    assert missing(jobs, tmp_path) == [job for job in jobs if job.seed != 2]
    assert all(tables.rendered(name, [made]) for name in tables.TABLES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_runs_and_leaves_no_record(tmp_path, monkeypatch, number):
    jobs = [Job("default", "digits", seed) for seed in range(4)]
    sleep = "import os, sys, time, pathlib; (pathlib.Path({!r}) / str(os.getpid())).touch(); time.sleep(60)"
    stub(monkeypatch, *[sleep.format(str(tmp_path))] * 4)
    before = signal.getsignal(signal.SIGTERM)

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)  # to the parent alone: whoever ends the children, it is bench

    thread, started = threading.Thread(target=interrupt, daemon=True), time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        run_all(jobs, workers=2, records=tmp_path / "records", say=lambda line: None)
    thread.join()
    assert time.monotonic() - started < 50, "they have slept on to their end"
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2, "no other has started, and no record is there"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert signal.getsignal(signal.SIGTERM) == before
    assert missing(jobs, tmp_path / "records") == jobs


def test_the_exit_code_says_how_the_runs_ended(tmp_path, monkeypatch, capsys):
    words = ["bench", "digits", "--records", str(tmp_path), "--json", "--seeds"]
    stub(monkeypatch, "raise SystemExit(7)", f"raise SystemExit({run.NO_DATA})", "import os; os.kill(os.getpid(), 2)")
    assert [main([*words, seed]) for seed in "012"] == [1, 2, 130]
    assert main([*words, "0", "1"]) != 0
    assert main([*words, "0", "--plan"]) == 0
    assert '"crashed": 1' in capsys.readouterr().out
    write_record(record_path(tmp_path, "digits", "default", 0), record())
    assert main([*words, "0"]) == 0


def test_bench_and_table_from_the_shell(tmp_path, monkeypatch, capsys):
    words = ["bench", "digits", "--records", str(tmp_path), "--data-home", str(tmp_path), "--json"]
    assert main([*words, "--plan"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (len(plan["runs"]), plan["unknown"], plan["seconds"]) == (5, 5, 0)
    write_record(record_path(tmp_path, "digits", "default", 0), reaching(0.8, dataset="digits", seconds=40.0))
    assert main([*words, "--plan", "--workers", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(4 * 40 / 2)
    assert main(["table", "default", "--records", str(tmp_path), "--format", "csv"]) == 0
    assert "80.00" in capsys.readouterr().out
    assert main(["table", "nonsense", "--records", str(tmp_path)]) == 2
    assert main(["bench", "features", "--records", str(tmp_path), "--data-home", str(tmp_path), "--plan"]) == 0
    assert "cifar10_effnet_lite2: not here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "-3"], "--workers: expected at least 1, got -3"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--seeds", "0", "-1"], "--seeds: expected whole numbers of at least 0, got -1"),
        (["--datasets", "digits", "foo"], "cifar10_effnet_lite2, cifar10_resnet50,"),
        (["--datasets", "digits", "foo"], ", got foo. Try nvisa data list."),
    ],
)
def test_a_bench_that_cannot_be_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr("nvisa.benchmark.parallel.run_all", lambda *_, **__: pytest.fail("ran"))
    argv = ["bench", "digits", "--records", str(tmp_path / "none"), "--data-home", str(tmp_path), *words]
    assert main([*argv, "--plan"]) == main(argv) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_no_records_says_where_they_would_be(tmp_path, capsys):
    assert main(["table", "table1", "--records", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No record of table1 in {tmp_path} yet; nvisa bench makes them.\n"
    assert main(["table", "table1", "--records", str(tmp_path / "none")]) == 2
    assert "none: expected a folder of records, got none there" in capsys.readouterr().err
