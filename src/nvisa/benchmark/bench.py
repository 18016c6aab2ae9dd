"""Many runs: what is missing is run side by side, each in a process of its own; what is there is left alone.

    nvisa bench table1 --methods dec vade --datasets mnist --seeds 0 1 --plan

A process has one thread: on two cores two runs side by side cost little more than one, and threads of two runs that
spin for each other cost ten times as much. A run that dies, killed for its memory say, leaves a record that says
"crashed", and the others go on. To make a record again, remove its file.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from nvisa.benchmark.experiments import Job
from nvisa.benchmark.recipes import RECIPES
from nvisa.benchmark.run import RECORDS, record_path, write
from nvisa.progress import clock

__all__ = ["Estimate", "bench", "estimate", "missing"]

Record = dict[str, Any]
WRONG_DATA = 2  # exit code of a run that had no data to begin with


def missing(jobs: Sequence[Job], records: Path = RECORDS) -> list[Job]:
    """The jobs without a record by this version of nvisa."""
    paths = {job: record_path(records, job.dataset, job.recipe, job.seed) for job in jobs}
    made = {job: json.loads(path.read_text())["versions"]["nvisa"] for job, path in paths.items() if path.exists()}
    return [job for job in jobs if made.get(job) != version("nvisa")]


@dataclass(frozen=True)
class Estimate:
    """How long a job may take, and what that rests on: "the same", "the same method", or "nothing"."""

    job: Job
    seconds: float
    basis: str

    def __str__(self) -> str:
        shown = "unknown" if self.basis == "nothing" else f"about {clock(self.seconds)}, from records of {self.basis}"
        return f"{self.job.dataset} {self.job.recipe} seed {self.job.seed}: {shown}"


def estimate(jobs: Sequence[Job], records: Sequence[Record]) -> list[Estimate]:
    """Seconds of each job: the mean of its recipe's records on its data, else of its method's records anywhere."""
    return [_estimate(job, records) for job in jobs]


def _estimate(job: Job, records: Sequence[Record]) -> Estimate:
    method = RECIPES[job.recipe].name
    family = [record for record in records if record["method"] == method]
    same = [r["seconds"] for r in family if (r["recipe"], r["dataset"]) == (job.recipe, job.dataset)]
    if same:
        return Estimate(job, mean(same), "the same")
    if family:
        return Estimate(job, mean(record["seconds"] for record in family), "the same method")
    return Estimate(job, 0.0, "nothing")


def bench(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    data_home: str | None = None,
    records: Path = RECORDS,
    models: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[Job, str]:
    """Run the jobs and return the end of each: a record's status, or "no data".

    Parameters
    ----------
    workers
        Processes side by side; None: one a core.
    models
        Folder that keeps the fitted models.
    say
        Told a line when a run ends.
    """
    workers = min(len(jobs) or 1, workers or os.cpu_count() or 1)

    def one(job: Job) -> str:
        status, line = _run_apart(job, data_home, records, models)
        say(line)
        return status

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(jobs, pool.map(one, jobs), strict=True))


def _run_apart(job: Job, data_home: str | None, records: Path, models: Path | None) -> tuple[str, str]:
    """Run one job in a process; its end, and a line about it."""
    path = record_path(records, job.dataset, job.recipe, job.seed)
    path.unlink(missing_ok=True)  # of another version, or there would be no job
    options = {"--recipes": job.recipe, "--datasets": job.dataset, "--seeds": job.seed, "--records": records}
    options |= {"--data-home": data_home, "--models": models}
    words = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "nvisa.benchmark.run", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
    if path.exists():
        return json.loads(path.read_text())["status"], last
    if ended.returncode == WRONG_DATA:
        return "no data", f"{job.dataset} {job.recipe} seed {job.seed}: {last}"
    write(path, _crashed(job, time.perf_counter() - started, f"exit code {ended.returncode}\n{ended.stderr[-4000:]}"))
    return "crashed", f"{job.dataset} {job.recipe} seed {job.seed}: crashed, exit code {ended.returncode}"


def _crashed(job: Job, seconds: float, error: str) -> Record:
    """The record of a run whose process died before it could write one."""
    return {
        "method": RECIPES[job.recipe].name, "recipe": job.recipe, "dataset": job.dataset, "seed": job.seed,
        "status": "crashed", "error": error, "seconds": seconds, "versions": {"nvisa": version("nvisa")},
    }  # fmt: skip
