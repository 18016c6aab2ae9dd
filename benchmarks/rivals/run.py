"""Rivals: one process for one method on one data set, one JSON record for each seed, in benchmarks/records/rivals.

    python benchmarks/rivals/run.py --plan                                       what has no record yet
    python benchmarks/rivals/run.py                                              make it (many hours)
    python benchmarks/rivals/run.py --data digits --rows all --method evoc --seed 0
    python benchmarks/rivals/run.py --method nvisa --nvisa .venv/bin/python      in another environment

`make rivals` runs it in .venv-rivals. Every process has one thread and reads rows alone: the classes stay here, where
the labels come back, and of them a method is told K and nothing else. Seconds are those of the processor. The first
seed that a process fits is cold: imports count, and compiling, but for what the package itself left on disk when it
ran before. The next seeds are warm. With --first the disk holds nothing, as after an installation. With --together one
process of a method does all its data sets: quick, and cold only once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from clusterers import METHODS
from datasets import LARGE, SMALL, load
from scores import scores

from nvisa.benchmark import RECORDS
from nvisa.benchmark.records import write_record
from nvisa.benchmark.run import processor, source_commit

FOLDER = RECORDS / "rivals"
CACHE = Path("build/rivals")
ROWS = ("1000", "10000", "all")
MANY = 5_000  # rows; two seeds instead of five
N_ROWS = {**LARGE, "letter": 20_000}
DEEP = ("dec", "idec", "vade")
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
ONCE = {"fast_hdbscan": 2, **dict.fromkeys(DEEP, 1)}  # no random number, but a warm fit; hours


@dataclass(frozen=True)
class Job:
    """What one process does."""

    data: str
    rows: str
    method: str
    seeds: tuple[int, ...]
    first: bool = False  # nothing compiled is on disk

    def path(self, seed: int) -> Path:
        """Of the record of this seed."""
        name = "first" if self.first else f"seed{seed}"
        return FOLDER / self.data / self.rows / f"{self.method}-{name}.json"

    @property
    def out(self) -> Path:
        """Where the process leaves its labels."""
        return CACHE / f"{self.data}-{self.rows}-{self.method}.json"

    def left(self) -> "Job":
        """The same without the seeds that have a record."""
        return replace(self, seeds=tuple(seed for seed in self.seeds if not self.path(seed).exists()))


def plan(
    data: Sequence[str], rows: Sequence[str], methods: Sequence[str], seeds: Sequence[int] | None
) -> Iterator[Job]:
    """Every process of the comparison that is asked for; a small table has all its rows only."""
    for name in data:
        for size in rows if name in LARGE else [size for size in rows if size == "all"]:
            n_rows = N_ROWS.get(name, 0) if size == "all" else int(size)
            if size != "all" and n_rows >= N_ROWS[name]:
                continue
            for method in methods:
                n_seeds = min(2 if n_rows > MANY else 5, ONCE.get(method, 5))
                yield Job(name, size, method, tuple(range(n_seeds) if seeds is None else seeds))


def rows_of(job: Job) -> tuple[Path, np.ndarray]:
    """The file of the rows, written once, and their classes."""
    path, classes = (CACHE / f"{job.data}-{job.rows}{end}.npy" for end in ("", "-y"))
    if not classes.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        X, y = load(job.data, None if job.rows == "all" else int(job.rows))
        np.save(path, X)
        np.save(classes, y)
    return path, np.load(classes)


def process(jobs: Sequence[Job], python: str, limit: float | None) -> str:
    """Do the jobs of one method in one process of its own; how it ended, "ok" or why not."""
    asked = [python, "-W", "ignore", str(Path(__file__).with_name("clusterers.py")), jobs[0].method]
    for number, job in enumerate(jobs):
        path, y = rows_of(job)
        job.out.unlink(missing_ok=True)
        work = {"rows": str(path), "n_clusters": int(y.max()) + 1, "seeds": job.seeds, "out": str(job.out)}
        asked.append(f"{CACHE}/{job.method}-{number}.json")
        Path(asked[-1]).write_text(json.dumps(work))
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": "src"}
    with tempfile.TemporaryDirectory() as empty:
        environment |= {"NUMBA_CACHE_DIR": empty} if jobs[0].first else {}
        try:
            done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return f"longer than {limit:.0f} s"
    said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
    return "ok" if done.returncode == 0 else said[-1]


def records(job: Job, status: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A record for each seed, from the labels that the process left."""
    path, y = rows_of(job)
    shape = np.load(path, mmap_mode="r").shape
    common = {
        "data": job.data, "rows": job.rows, "n_rows": shape[0], "n_features": shape[1], "n_classes": int(y.max()) + 1,
        "method": job.method, "commit": source_commit(), "processor": processor(), "threads": 1,
    }  # fmt: skip
    fits = json.loads(job.out.read_text()) if job.out.exists() else [{"status": status}] * len(job.seeds)
    for seed, fit in zip(job.seeds, fits, strict=True):
        record = common | {"seed": seed} | fit
        if fit["status"] == "ok":
            labels, filled = (np.array(record.pop(name)) for name in ("labels", "filled"))
            record |= {
                "start": "first" if job.first else fit["start"], "n_clusters": len(np.unique(labels[labels >= 0])),
                "noise": np.mean(labels < 0), "metrics": scores(y, labels, filled),
            }  # fmt: skip
        yield job.path(seed), record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=[*SMALL, *LARGE], default=[*SMALL, *LARGE])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", nargs="+", type=int, help="default: 5, of many rows 2, of ClustPy 1")
    parser.add_argument("--nvisa", default=sys.executable, metavar="PYTHON", help="the interpreter for method nvisa")
    parser.add_argument("--limit", type=float, metavar="S", help="end a process after this many seconds of the wall")
    parser.add_argument("--first", action="store_true", help="seed 0 alone, with nothing compiled on disk")
    parser.add_argument("--together", action="store_true", help="one process a method: it compiles once")
    parser.add_argument("--again", action="store_true", help="also what has a record")
    parser.add_argument("--plan", action="store_true", help="say what would run, and run nothing")
    asked = parser.parse_args()
    planned = plan(asked.data, asked.rows, asked.method, [0] if asked.first else asked.seed)
    jobs = [replace(job, first=asked.first) for job in planned]
    jobs = [job for job in (jobs if asked.again else (job.left() for job in jobs)) if job.seeds]
    together = [[job for job in jobs if job.method == name] for name in asked.method]
    for batch in together if asked.together else [[job] for job in jobs]:
        for job in batch:
            print(job.data, job.rows, job.method, "seeds", *job.seeds, flush=True)
        if batch and not asked.plan:
            status = process(batch, asked.nvisa if batch[0].method == "nvisa" else sys.executable, asked.limit)
            begun = [job for job in batch if len(batch) == 1 or job.out.exists()]
            for path, record in (made for job in begun for made in records(job, status)):
                write_record(path, record)
            print("   ", status, flush=True)


if __name__ == "__main__":
    main()
