"""Twenty benchmark runs one after the other, and over a Dask cluster of processes: are the records equal?

python benchmarks/scaling/spread.py
"""

import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import joblib
from dask.distributed import Client, LocalCluster
from scaling_common import keep_record, say

from nvisa import config
from nvisa.benchmark.experiments import Job
from nvisa.benchmark.parallel import run_all
from nvisa.benchmark.records import record_path, write_record
from nvisa.benchmark.run import run

RECIPES = ("kmeans/one_start", "kmeans/default", "gmm/default", "selection")  # the last: NVISA, 300 steps
TIMES = ("seconds", "cpu_seconds", "peak_memory_mb", "commit", "machine", "start")


def without_times(value: Any) -> Any:
    """A record, or a part of one, without what no two runs share."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def main() -> None:
    """Command line."""
    jobs = [Job(recipe, "digits", seed) for recipe, seed in product(RECIPES, range(5))]
    with config(n_threads=1):
        started = time.perf_counter()
        serial = [run(job.recipe, job.dataset, job.seed) for job in jobs]
        seconds = {"serial": time.perf_counter() - started}
    n_workers = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory() as home,
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        started = time.perf_counter()
        run_all(jobs, records=Path(home), say=say)
        seconds["dask"] = time.perf_counter() - started
        equal = 0
        for job, record in zip(jobs, serial, strict=True):
            path = record_path(Path(home), job.dataset, job.recipe, job.seed)
            write_record(path.with_suffix(".alone"), record)
            alone, spread = (json.loads(each.read_text()) for each in (path.with_suffix(".alone"), path))
            equal += without_times(alone) == without_times(spread)
    keep_record("spread", {"runs": len(jobs), "equal": equal, "workers": n_workers, "seconds": seconds})


if __name__ == "__main__":
    main()
