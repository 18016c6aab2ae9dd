"""Rivals: one process for one method on one data set, one JSON record for each seed, in benchmarks/records/rivals.

    python benchmarks/rivals/run.py --plan                                       what has no record yet
    python benchmarks/rivals/run.py                                              make it (many hours)
    python benchmarks/rivals/run.py --data digits --rows all --method evoc --seed 0
    python benchmarks/rivals/run.py --method nvisa --nvisa .venv/bin/python      in another environment

`make rivals` runs it in .venv-rivals. Every process has one thread and reads rows alone: the classes stay here, where
the labels come back, and of them a method is told K and nothing else. Seconds are those of the processor. The first
seed that a process fits is cold: imports count, and compiling, but for what the package itself left on disk when it
ran before. The next seeds are warm. With --first the disk holds nothing, as after an installation.
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
from datasets import LARGE, SMALL, load
from fit import METHODS

from nvisa.benchmark import RECORDS
from nvisa.benchmark.records import write_record
from nvisa.benchmark.run import processor, source_commit
from nvisa.maths.metrics import accuracy, ari, nmi

FOLDER = RECORDS / "rivals"
CACHE = Path("build/rivals")
ROWS = ("1000", "10000", "all")
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

    def left(self) -> "Job":
        """The same without the seeds that have a record."""
        return replace(self, seeds=tuple(seed for seed in self.seeds if not self.path(seed).exists()))


def plan(
    data: Sequence[str], rows: Sequence[str], methods: Sequence[str], seeds: Sequence[int] | None
) -> Iterator[Job]:
    """Every process of the comparison that is asked for; a small table has all its rows only."""
    for name in data:
        for size in rows if name in LARGE else [size for size in rows if size == "all"]:
            if size != "all" and int(size) >= LARGE[name]:
                continue
            for method in methods:
                n_seeds = min(2 if name in LARGE else 5, ONCE.get(method, 5))
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


def metrics(y: np.ndarray, labels: np.ndarray, filled: np.ndarray) -> dict[str, dict[str, float]]:
    """Noise as wrong, and for NMI and ARI a cluster of its own; and noise in the nearest cluster."""
    some = labels >= 0
    right = accuracy(y[some], labels[some]) * some.mean() if some.any() else 0.0
    return {
        "noise_wrong": {"accuracy": right, "nmi": nmi(y, labels), "ari": ari(y, labels)},
        "noise_nearest": {"accuracy": accuracy(y, filled), "nmi": nmi(y, filled), "ari": ari(y, filled)},
    }


def process(job: Job, python: str, limit: float | None) -> str:
    """Run it; what became of it, "ok" or why not."""
    path, y = rows_of(job)
    asked = [python, "-W", "ignore", str(Path(__file__).with_name("fit.py")), str(path), job.method]
    asked += [str(y.max() + 1), str(CACHE / "labels.npz"), "--seed", *map(str, job.seeds)]
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": "src"}
    with tempfile.TemporaryDirectory() as empty:
        environment |= {"NUMBA_CACHE_DIR": empty} if job.first else {}
        try:
            done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return f"longer than {limit:.0f} s"
    return "ok" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it was killed"])[-1]


def records(job: Job, status: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A record for each seed, from the labels that the process left."""
    path, y = rows_of(job)
    shape = np.load(path, mmap_mode="r").shape
    common = {
        "data": job.data, "rows": job.rows, "n_rows": shape[0], "n_features": shape[1], "n_classes": int(y.max()) + 1,
        "method": job.method, "commit": source_commit(), "processor": processor(), "threads": 1, "status": status,
    }  # fmt: skip
    if status != "ok":
        yield from ((job.path(seed), common | {"seed": seed}) for seed in job.seeds)
        return
    made, starts = np.load(CACHE / "labels.npz"), ["first" if job.first else "cold", *["warm"] * len(job.seeds)]
    for i, seed in enumerate(job.seeds):
        labels, filled, (cpu, wall) = made["labels"][i], made["filled"][i], made["times"][i]
        yield job.path(seed), common | {
            "seed": seed, "versions": json.loads(str(made["versions"])), "start": starts[i],
            "cpu_seconds": cpu, "wall_seconds": wall, "n_clusters": len(np.unique(labels[labels >= 0])),
            "noise": np.mean(labels < 0), "metrics": metrics(y, labels, filled),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=[*SMALL, *LARGE], default=[*SMALL, *LARGE])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", nargs="+", type=int, help="default: 5 on small tables, 2 on large, 1 of ClustPy")
    parser.add_argument("--nvisa", default=sys.executable, metavar="PYTHON", help="the interpreter for method nvisa")
    parser.add_argument("--limit", type=float, metavar="S", help="end a process after this many seconds of the wall")
    parser.add_argument("--first", action="store_true", help="seed 0 alone, with nothing compiled on disk")
    parser.add_argument("--again", action="store_true", help="also what has a record")
    parser.add_argument("--plan", action="store_true", help="say what would run, and run nothing")
    asked = parser.parse_args()
    jobs = plan(asked.data, asked.rows, asked.method, [0] if asked.first else asked.seed)
    jobs = (replace(job, first=asked.first) for job in jobs)
    for job in jobs if asked.again else (job.left() for job in jobs):
        if not job.seeds:
            continue
        print(job.data, job.rows, job.method, "seeds", *job.seeds, flush=True)
        if not asked.plan:
            status = process(job, asked.nvisa if job.method == "nvisa" else sys.executable, asked.limit)
            for path, record in records(job, status):
                write_record(path, record)
            print("   ", status, flush=True)


if __name__ == "__main__":
    main()
