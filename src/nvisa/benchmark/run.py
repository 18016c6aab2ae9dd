"""One run of a recipe on a data set: fit, measure, and write its JSON record.

    python -m nvisa.benchmark.run --recipes default --datasets mnist --seeds 0

A record that is current is not made again; many runs, side by side: :mod:`nvisa.benchmark.parallel`. A recipe that
starts from another's model takes it from the models folder, or fits it and leaves it there for the next; either way the
record's times include that fit's, which ``start`` in the record tells apart; the start's settings are those in
``params`` that begin with ``pretraining__`` or ``init__``. ``peak_memory_mb`` is the most that the process has held so
far, in runs before this one too: ``nvisa bench`` gives each a process of its own. The labels of a data set are used
after the fit, for the metrics, and in recipes with a curve for a number that is written down every epoch; the fit sees
neither.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nvisa import data as datasets
from nvisa.benchmark import MODELS, RECORDS
from nvisa.benchmark.current import as_text, is_current, params_of, same_results
from nvisa.benchmark.recipes import RECIPES
from nvisa.benchmark.records import model_path, record_path, write_record
from nvisa.data import DataError, Dataset
from nvisa.durable_files import locked
from nvisa.fitting.run import DivergedError
from nvisa.json_values import encode
from nvisa.maths.metrics import accuracy, evaluate
from nvisa.methods import load
from nvisa.persistence import is_model, read_manifest

__all__ = ["NO_DATA", "fitted", "main", "processor", "run", "source_commit", "unfinished"]

LONGEST_HISTORY = 60  # epochs of a history or a curve that a file keeps, evenly spaced; all 2,000 would be megabytes
PACKAGES = ("nvisa", "torch", "numpy", "scikit-learn")
NO_DATA = os.EX_NOINPUT  # exit code of a run that had no data to begin with; 2 is argparse's


def run(
    recipe_name: str, dataset_name: str, seed: int, data_home: str | None = None, models: Path | None = None
) -> dict[str, Any]:
    """Fit one recipe with one seed and return its record; a run that fails says so in ``status``.

    ``models`` is the folder that keeps the model, if it is one of ours.
    """
    recipe, data = RECIPES[recipe_name], datasets.load(dataset_name, data_home)
    start, cost = None, {"seconds": 0.0, "cpu_seconds": 0.0}
    if recipe.start:
        folder = MODELS if models is None else models
        with _locked(model_path(folder, dataset_name, recipe.start, seed)):
            start, cost = fitted(recipe.start, data, seed, folder)
    clusterer, watch = recipe.build(data.n_classes, seed, start), _Curve(data)
    if recipe.curve and hasattr(clusterer, "on_epoch"):
        clusterer.on_epoch(watch)
    record = unfinished(recipe_name, dataset_name, seed) | _described(data, clusterer)
    watch.start()
    try:
        clusterer.fit(data.X_train)
        record |= {"status": "ok", "history": _thinned(getattr(clusterer, "history_", [])), **_label_free(clusterer)}
    except DivergedError as error:
        record |= {"status": "diverged", "term": error.term, "history": _thinned(error.history)}
    except Exception:
        record |= {"status": "crashed", "error": traceback.format_exc()}
    if recipe.start:
        record["start"] = {"recipe": recipe.start, **cost}
    seconds, cpu_seconds = watch.elapsed()
    record["seconds"], record["cpu_seconds"] = cost["seconds"] + seconds, cost["cpu_seconds"] + cpu_seconds
    record["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if record["status"] == "ok":
        record["metrics"] = _metrics(clusterer, data)
        if models is not None and hasattr(clusterer, "save"):
            _save(clusterer, model_path(models, dataset_name, recipe_name, seed), data, record)
    if watch.curve:
        record["curve"] = _thinned(watch.curve)
    return record


COST = ("seconds", "cpu_seconds", "commit")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process is at this model: of rows side by side the first fits it, and the others take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), wait=True):
        yield


def fitted(recipe: str, data: Dataset, seed: int, models: Path) -> tuple[Any, dict[str, Any]]:
    """The clusterer of a recipe without a start, and what its fit cost, whenever that was.

    It is the one that is kept in ``models`` if its settings, its data and its version's results are today's, else it
    is fitted now and kept.
    """
    path, fresh = model_path(models, data.name, recipe, seed), RECIPES[recipe].build(data.n_classes, seed)
    if is_model(path):
        manifest = read_manifest(path)
        extra, ours = manifest["extra"], same_results(manifest["versions"]["nvisa"])
        if ours and extra.get("dataset_digest") == data.digest and set(COST) <= set(extra):
            there = load(path)
            if _encoded(there) == _encoded(fresh):  # a setting younger than the model has its default there
                return there, {key: extra[key] for key in COST}
    wall, cpu = time.perf_counter(), time.process_time()
    fresh.fit(data.X_train)
    times = time.perf_counter() - wall, time.process_time() - cpu
    cost = dict(zip(COST, (*times, source_commit()), strict=True))
    _save(fresh, path, data, cost)
    return fresh, cost


def _encoded(clusterer: Any) -> dict[str, Any]:
    """The settings as a manifest holds them."""
    return {name: encode(value, name, {}) for name, value in clusterer.get_params(deep=False).items()}


def _save(clusterer: Any, path: Path, data: Dataset, cost: dict[str, Any]) -> None:
    """Save a model with what a figure, or a recipe that starts from it, will ask for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"feature_shape": data.feature_shape, "dataset_digest": data.digest, **{key: cost[key] for key in COST}}
    clusterer.save(path, extra=extra)


class _Curve:
    """The accuracy after every epoch, for the curve only, and a clock that stands still while it is computed."""

    KEYS = ("stage", "epoch", "seconds", "bound", "std_floor_x", "std_floor_z", "clusters_in_use")

    def __init__(self, data: Dataset) -> None:
        tested = data.X_test is not None and data.y_test is not None
        self.X, self.y = (data.X_test, data.y_test) if tested else (data.X_train, data.y_train)
        self.curve: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """Set the clock to zero."""
        self.zero = np.array([time.perf_counter(), time.process_time()])

    def elapsed(self) -> NDArray[np.float64]:
        """Seconds of the wall and of the processor since the start, without those of looking."""
        return np.array([time.perf_counter(), time.process_time()]) - self.zero

    def __call__(self, fitted: Any, record: dict[str, Any]) -> None:
        """Note an epoch."""
        elapsed = self.elapsed()
        labels = fitted.predict(self.X)
        point = {key: record[key] for key in self.KEYS if key in record}
        self.curve.append(point | {"elapsed": elapsed[0], "accuracy": accuracy(np.asarray(self.y), labels)})
        self.zero += self.elapsed() - elapsed


def unfinished(recipe: str, dataset: str, seed: int) -> dict[str, Any]:
    """Every key of a record, with what is known before there are data: 0, null or nothing is for unknown."""
    return {
        "method": RECIPES[recipe].name,
        "recipe": recipe,
        "dataset": dataset,
        "dataset_digest": None,
        "n_train": 0,
        "n_test": 0,
        "seed": seed,
        "params": {},
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "commit": source_commit(),
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "status": "crashed",
        "metrics": {},
        "history": [],
        "seconds": 0.0,
        "peak_memory_mb": None,
    }


def _described(data: Dataset, clusterer: Any) -> dict[str, Any]:
    """What is known before the fit."""
    return {
        "dataset_digest": data.digest,
        "n_train": len(data.X_train),
        "n_test": 0 if data.X_test is None else len(data.X_test),
        "params": {name: as_text(value) for name, value in params_of(clusterer).items()},
    }


def _thinned(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first, the last, and evenly spaced epochs between."""
    if len(history) <= LONGEST_HISTORY:
        return history
    return [history[round(i)] for i in np.linspace(0, len(history) - 1, LONGEST_HISTORY)]


def _label_free(clusterer: Any) -> dict[str, Any]:
    """Scores that used no label."""
    names = (
        "neighbor_information",
        "restarts",
        "start_score",
        "log_likelihood",
        "converged",
        "information",
        "structure",
        "moves",
    )
    return {name: getattr(clusterer, f"{name}_") for name in names if hasattr(clusterer, f"{name}_")}


def _metrics(clusterer: Any, data: Dataset) -> dict[str, dict[str, float]]:
    metrics = {"train": evaluate(data.y_train, clusterer.predict(data.X_train))}
    if data.X_test is not None and data.y_test is not None:
        metrics["test"] = evaluate(data.y_test, clusterer.predict(data.X_test))
    return metrics


def source_commit() -> str:
    """The commit of the code that runs, "unknown" outside a clone."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def processor() -> str:
    """The processor's name, for the record: Linux tells it in a file, other systems when asked."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m nvisa.benchmark.run", description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["default"], choices=list(RECIPES))
    parser.add_argument("--datasets", nargs="+", default=["mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--models", type=Path, help="folder that keeps the models")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for recipe, seed, dataset in product(asked.recipes, asked.seeds, asked.datasets):
        path = record_path(asked.records, dataset, recipe, seed)
        if is_current(path, recipe, seed):
            continue
        try:
            record = run(recipe, dataset, seed, asked.data_home, asked.models)
        except DataError as error:  # nothing has run: no record
            parser.exit(NO_DATA, f"{error}\n".replace("\n", " ") + "\n")
        write_record(path, record)
        reached = {split: round(values["accuracy"], 4) for split, values in record["metrics"].items()}
        line = f"{dataset} {recipe} seed {seed}: {record['status']} {reached} in {record['seconds']:.0f} s"
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
