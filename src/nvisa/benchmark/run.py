"""Run recipes and write one JSON record a run; a record that exists is not made again.

    python -m nvisa.benchmark.run --recipes default --datasets mnist --seeds 0 1 2 3 4 --workers 2

Workers are processes of one thread each: on two cores two runs side by side cost little more than one. The
labels of a data set are used after the fit, for the metrics, and in recipes with a curve for a number that is
written down every epoch; the fit sees neither.
"""

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nvisa import datasets
from nvisa.benchmark.recipes import RECIPES
from nvisa.datasets import Dataset
from nvisa.metrics import accuracy, evaluate
from nvisa.training import DivergedError

__all__ = ["RECORDS", "main", "record_path", "run"]

RECORDS = Path("benchmarks/records")
PACKAGES = ("nvisa", "torch", "numpy", "scikit-learn", "umap-learn")


def record_path(folder: Path, dataset: str, recipe: str, seed: int) -> Path:
    """Where the record of this run stands."""
    method = RECIPES[recipe].method
    name = recipe.removeprefix(f"{method}/").replace("/", "-")
    return folder / dataset / f"{method}-{name}-seed{seed}.json"


def run(recipe_name: str, dataset_name: str, seed: int, data_home: str | None = None) -> dict[str, Any]:
    """Fit one recipe with one seed and return its record; a run that fails says so in ``status``."""
    recipe, data = RECIPES[recipe_name], datasets.load(dataset_name, data_home)
    clusterer, curve = recipe.build(data.n_classes, seed), []
    if recipe.curve:
        clusterer.on_epoch(lambda fitted, record: curve.append(_watch(fitted, record, data)))
    record = _describe(recipe_name, data, seed, clusterer.get_params())
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        clusterer.fit(data.X_train)
        record |= {"status": "ok", "history": clusterer.history_, **_label_free(clusterer)}
    except DivergedError as error:
        record |= {"status": "diverged", "term": error.term, "history": error.history}
    except Exception:
        record |= {"status": "crashed", "error": traceback.format_exc()}
    record["seconds"], record["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
    record["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if record["status"] == "ok":
        record["metrics"] = _metrics(clusterer, data)
    if curve:
        record["curve"] = curve
    return record


def _watch(fitted: Any, record: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """The accuracy of this epoch, for the curve only."""
    tested = data.X_test is not None and data.y_test is not None
    X, y = (data.X_test, data.y_test) if tested else (data.X_train, data.y_train)
    keys = ("stage", "epoch", "seconds", "bound", "std_floor_x", "std_floor_z", "clusters_in_use")
    labels = fitted._blocks(fitted._log_q_y, X).argmax(1)
    return {key: record[key] for key in keys if key in record} | {"accuracy": accuracy(np.asarray(y), labels)}


def _describe(recipe: str, data: Dataset, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """What is known before the fit."""
    return {
        "method": RECIPES[recipe].method,
        "recipe": recipe,
        "dataset": data.name,
        "dataset_digest": data.digest,
        "n_train": len(data.X_train),
        "n_test": 0 if data.X_test is None else len(data.X_test),
        "seed": seed,
        "params": {
            name: value if isinstance(value, (int, float, str)) else repr(value) for name, value in params.items()
        },
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "commit": _commit(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
    }


def _label_free(clusterer: Any) -> dict[str, Any]:
    """Scores that used no label."""
    names = ("neighbour_information", "start_score", "log_likelihood", "converged")
    return {name: getattr(clusterer, f"{name}_") for name in names if hasattr(clusterer, f"{name}_")}


def _metrics(clusterer: Any, data: Dataset) -> dict[str, dict[str, float]]:
    metrics = {"train": evaluate(data.y_train, clusterer.labels_)}
    if data.X_test is not None and data.y_test is not None:
        metrics["test"] = evaluate(data.y_test, clusterer.predict(data.X_test))
    return metrics


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _job(recipe: str, dataset: str, seed: int, data_home: str | None, folder: Path) -> str:
    """Run, write the record beside its final name, and rename it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path = record_path(folder, dataset, recipe, seed)
    record = run(recipe, dataset, seed, data_home)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    partial.rename(path)
    reached = {split: round(values["accuracy"], 4) for split, values in record.get("metrics", {}).items()}
    return f"{dataset} {recipe} seed {seed}: {record['status']} {reached} in {record['seconds']:.0f} s"


def _plain(value: Any) -> Any:
    """The same with Python's own numbers, and null for what is not finite: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m nvisa.benchmark.run", description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["default"], choices=list(RECIPES))
    parser.add_argument("--datasets", nargs="+", default=["mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--records", type=Path, default=RECORDS)
    asked = parser.parse_args(arguments)
    jobs = [
        (recipe, dataset, seed, asked.data_home, asked.records)
        for recipe in asked.recipes
        for seed in asked.seeds
        for dataset in asked.datasets
        if not record_path(asked.records, dataset, recipe, seed).exists()
    ]
    with ProcessPoolExecutor(asked.workers, get_context("spawn")) as pool:
        for line in pool.map(_job, *zip(*jobs, strict=True)) if jobs else []:
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
