"""Many runs: what is missing is run side by side, each in a process of its own; what is there is left alone.

    nvisa bench table1 --methods dec vade --datasets mnist --seeds 0 1 --plan

A process has one thread: on two cores two runs side by side cost little more than one, and threads of two runs that
spin for each other cost ten times as much. A run that dies, killed for its memory say, leaves a record that says
"crashed", and the others go on; the next call tries it again. A run that is interrupted leaves none, and a record from
before stays until there is a new one. To make a record again, remove its file.

Inside ``joblib.parallel_config("dask")`` or "ray" the processes are those of the cluster, which need nvisa and
the data; the records are written here.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from nvisa.benchmark import RECORDS
from nvisa.benchmark.current import is_current
from nvisa.benchmark.experiments import Job
from nvisa.benchmark.recipes import RECIPES
from nvisa.benchmark.records import Record, read_record, record_path, write_record
from nvisa.benchmark.run import NO_DATA, run, unfinished
from nvisa.data import DataError
from nvisa.fitting.config import in_processes, on_cluster
from nvisa.fitting.progress import clock
from nvisa.interruption import sigterm_raises

__all__ = ["Estimate", "estimate", "missing", "run_all"]

STOPPED = (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)  # return codes of a process that was told to end


def missing(jobs: Sequence[Job], records: Path = RECORDS) -> list[Job]:
    """The jobs without a current record (:func:`nvisa.benchmark.current.is_current`), crashed ones among them."""
    return [job for job in jobs if not is_current(_path(job, records), job.recipe, job.seed)]


def _path(job: Job, records: Path) -> Path:
    return record_path(records, job.dataset, job.recipe, job.seed)


@dataclass(frozen=True)
class Estimate:
    """How long a job may take, and the records that this rests on, from "the same" to "nothing"."""

    job: Job
    seconds: float
    basis: str

    def __str__(self) -> str:
        shown = "unknown" if self.basis == "nothing" else f"about {clock(self.seconds)}, from records of {self.basis}"
        return f"{self.job.dataset} {self.job.recipe} seed {self.job.seed}: {shown}"


def estimate(jobs: Sequence[Job], records: Sequence[Record]) -> list[Estimate]:
    """Seconds of each job: the mean of its recipe's records on its data, else on other data, else of its method's."""
    ended = [record for record in records if record["status"] != "crashed"]
    return [_estimate(job, ended) for job in jobs]


def _estimate(job: Job, records: Sequence[Record]) -> Estimate:
    family = [record for record in records if record["method"] == RECIPES[job.recipe].name]
    recipe = [record for record in family if record["recipe"] == job.recipe]
    same = [record for record in recipe if record["dataset"] == job.dataset]
    nearest = {"the same": same, "the same recipe on other data": recipe, "the same method": family}
    for basis, like in nearest.items():
        if like:
            return Estimate(job, mean(record["seconds"] for record in like), basis)
    return Estimate(job, 0.0, "nothing")


def run_all(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    data_home: str | None = None,
    records: Path = RECORDS,
    models: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[Job, str]:
    """Run the jobs and return the end of each: a record's status, "no data", or "interrupted".

    Parameters
    ----------
    workers
        Processes side by side; None: one a core, or all that the cluster has.
    models
        Folder that keeps the fitted models.
    say
        Told a line when a run ends.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, or on SIGTERM (:class:`nvisa.interruption.Terminated`), once the processes have ended.
    """
    if on_cluster():
        return _run_on_cluster(jobs, workers, data_home, records, models, say)
    workers = min(len(jobs) or 1, workers or os.cpu_count() or 1)
    processes = _Processes()

    def one(job: Job) -> str:
        status, line = _run_apart(job, _command(job, data_home, records, models), records, processes)
        say(line)
        return status

    with sigterm_raises(), ThreadPoolExecutor(workers) as pool:
        try:
            return dict(zip(jobs, pool.map(one, jobs), strict=True))
        except KeyboardInterrupt as error:
            processes.end()
            raise type(error)("runs that had ended have their records; the same command goes on") from None


class _Processes:
    """Processes that several threads wait for, and one can end."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[str]] = set()
        self.ending = False

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """The return code of a command with one thread, and what it wrote to stderr."""
        if self.ending:
            return -signal.SIGTERM, ""
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, env=os.environ | one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.running.add(process)
        if self.ending:  # `end` has come between, and may not have seen it
            process.terminate()
        _, errors = process.communicate()
        self.running.discard(process)
        return process.returncode, errors

    def end(self) -> None:
        """Tell those that run to end, and start no more."""
        self.ending = True
        for process in list(self.running):
            process.terminate()


def _command(job: Job, data_home: str | None, records: Path, models: Path | None) -> list[str]:
    options = {"--recipes": job.recipe, "--datasets": job.dataset, "--seeds": job.seed, "--records": records}
    options |= {"--data-home": data_home, "--models": models}
    words = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    return [sys.executable, "-m", "nvisa.benchmark.run", *words]


def _run_on_cluster(
    jobs: Sequence[Job],
    workers: int | None,
    data_home: str | None,
    records: Path,
    models: Path | None,
    say: Callable[[str], None],
) -> dict[Job, str]:
    """Run the jobs where joblib sends them; a record is written as soon as it and those before it are here."""
    calls, ends = [(job, data_home, models) for job in jobs], {}
    for job, record in zip(jobs, in_processes(_record_of, calls, workers or -1), strict=True):
        if isinstance(record, str):
            ends[job] = "no data"
            say(record)
        else:
            write_record(_path(job, records), record)
            ends[job] = record["status"]
            say(f"{job.dataset} {job.recipe} seed {job.seed}: {ends[job]} in {record['seconds']:.0f} s")
    return ends


def _record_of(job: Job, data_home: str | None, models: Path | None) -> Record | str:
    """The record of a job, or why there are no data."""
    try:
        return run(job.recipe, job.dataset, job.seed, data_home, models)
    except DataError as error:
        return str(error)


def _run_apart(job: Job, command: Sequence[str], records: Path, processes: _Processes) -> tuple[str, str]:
    """Run one job in a process; its end, and a line about it."""
    path, name, started = _path(job, records), f"{job.dataset} {job.recipe} seed {job.seed}", time.perf_counter()
    code, errors = processes.run(command)
    last = (errors.strip().splitlines() or ["no word"])[-1]
    if code == 0 or not missing([job], records):  # it may have died after its work
        return read_record(path)["status"], last
    if code in STOPPED:
        return "interrupted", f"{name}: interrupted"
    if code == NO_DATA:
        return "no data", f"{name}: {last}"
    record, error = unfinished(job.recipe, job.dataset, job.seed), f"exit code {code}\n{errors[-4000:]}"
    write_record(path, record | {"error": error, "seconds": time.perf_counter() - started})
    return "crashed", f"{name}: crashed, exit code {code}"
