"""One run of a recipe on a data set: fit, measure, and write its JSON record.

    python -m nvisa.benchmark.run --recipes default --datasets mnist --seeds 0

A record that is current is not made again; many runs, side by side, are :mod:`nvisa.benchmark.bench`'s. A recipe that
starts from another's model takes it from the models folder, or fits it and leaves it there for the next; either way the
record's times include that fit's, which ``start`` in the record tells apart; the start's settings are those in
``params`` that begin with ``pretraining__`` or ``init__``. ``peak_memory_mb`` is the most that the process has held so
far, in runs before this one too: ``nvisa bench`` gives each a process of its own. The labels of a data set are used
after the fit, for the metrics, and in recipes with a curve for a number that is written down every epoch; the fit sees
neither.
"""

import argparse
import ast
import fcntl
import json
import math
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
from nvisa import load
from nvisa.benchmark import MODELS, RECORDS
from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.data import DataError, Dataset
from nvisa.fitting.training import DivergedError
from nvisa.maths.metrics import accuracy, evaluate
from nvisa.methods import SETTINGS
from nvisa.persistence import encode, is_model, read_manifest

__all__ = [
    "NO_DATA",
    "blank",
    "is_current",
    "fitted",
    "main",
    "model_path",
    "record_path",
    "run",
    "write",
]

LONGEST_HISTORY = 60  # epochs of a history or a curve that a file keeps, evenly spaced; all 2,000 would be megabytes
PACKAGES = ("nvisa", "torch", "numpy", "scikit-learn", "umap-learn")
NO_DATA = os.EX_NOINPUT  # exit code of a run that had no data to begin with; 2 is argparse's


def record_path(folder: Path, dataset: str, recipe: str, seed: int) -> Path:
    """Where the record of this run stands."""
    method = RECIPES[recipe].name
    name = recipe.removeprefix(f"{method}/").replace("/", "-")
    return folder / dataset / f"{method}-{name}-seed{seed}.json"


def model_path(folder: Path, dataset: str, recipe: str, seed: int) -> Path:
    """Where the model of this run is kept, if it is."""
    return record_path(folder, dataset, recipe, seed).with_suffix("")


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
        with _alone(model_path(folder, dataset_name, recipe.start, seed)):
            start, cost = fitted(recipe.start, data, seed, folder)
    clusterer, watch = recipe.build(data.n_classes, seed, start), _Watch(data)
    if recipe.curve and hasattr(clusterer, "on_epoch"):
        clusterer.on_epoch(watch)
    record = blank(recipe_name, dataset_name, seed) | _describe(data, _params(clusterer))
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
            _keep(clusterer, model_path(models, dataset_name, recipe_name, seed), data, record)
    if watch.curve:
        record["curve"] = _thinned(watch.curve)
    return record


COST = ("seconds", "cpu_seconds", "commit")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is at this model: of rows side by side the first fits it, and the others take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, or the process ends however it does
        yield


def fitted(recipe: str, data: Dataset, seed: int, models: Path) -> tuple[Any, dict[str, Any]]:
    """The clusterer of a recipe without a start, and what its fit cost, whenever that was.

    It is the one that is kept in ``models`` if its settings, data and version are today's, else fitted now and kept.
    """
    path, fresh = model_path(models, data.name, recipe, seed), RECIPES[recipe].build(data.n_classes, seed)
    if is_model(path):
        manifest = read_manifest(path)
        extra, ours = manifest["extra"], manifest["versions"]["nvisa"] == version("nvisa")
        if ours and extra.get("dataset_digest") == data.digest and set(COST) <= set(extra):
            there = load(path)
            if _encoded(there) == _encoded(fresh):  # a setting younger than the model has its default there
                return there, {key: extra[key] for key in COST}
    wall, cpu = time.perf_counter(), time.process_time()
    fresh.fit(data.X_train)
    times = time.perf_counter() - wall, time.process_time() - cpu
    cost = dict(zip(COST, (*times, _commit()), strict=True))
    _keep(fresh, path, data, cost)
    return fresh, cost


def _encoded(clusterer: Any) -> dict[str, Any]:
    """The settings as a manifest holds them."""
    return {name: encode(value, name, {}) for name, value in clusterer.get_params(deep=False).items()}


def _keep(clusterer: Any, path: Path, data: Dataset, cost: dict[str, Any]) -> None:
    """Save a model with what a figure, or a recipe that starts from it, will ask for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"feature_shape": data.feature_shape, "dataset_digest": data.digest, **{key: cost[key] for key in COST}}
    clusterer.save(path, extra=extra)


class _Watch:
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
        labels = fitted._labels(self.X)
        point = {key: record[key] for key in self.KEYS if key in record}
        self.curve.append(point | {"elapsed": elapsed[0], "accuracy": accuracy(np.asarray(self.y), labels)})
        self.zero += self.elapsed() - elapsed


def blank(recipe: str, dataset: str, seed: int) -> dict[str, Any]:
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
        "commit": _commit(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "status": "crashed",
        "metrics": {},
        "history": [],
        "seconds": 0.0,
        "peak_memory_mb": None,
    }


def _describe(data: Dataset, params: dict[str, Any]) -> dict[str, Any]:
    """What is known before the fit."""
    return {
        "dataset_digest": data.digest,
        "n_train": len(data.X_train),
        "n_test": 0 if data.X_test is None else len(data.X_test),
        "params": {name: _written(value) for name, value in params.items()},
    }


def _params(clusterer: Any) -> dict[str, Any]:
    """``get_params``, which looks into a clusterer as ``init``, and not into a tuple of starts that holds one."""
    params = clusterer.get_params()
    starts = params["init"] if isinstance(params.get("init"), tuple) else ()
    inside = [start.get_params() for start in starts if hasattr(start, "get_params")]
    return params | {f"init__{name}": value for found in inside for name, value in found.items()}


def _written(value: Any) -> Any:
    """A setting as a record holds it."""
    return value if isinstance(value, (int, float, str)) else repr(value)


# ---- what is there already ----------------------------------------------------------------------------------------


def is_current(path: Path, recipe: str, seed: int) -> bool:
    """Whether the record is there and would come out the same today: this version's, with the recipe's settings.

    A crashed run is to be tried again; one that diverged has ended. A setting that is younger than the record has its
    default there. The settings of what the recipe starts from count as its own.
    """
    if not path.exists():
        return False
    record, asked = json.loads(path.read_text()), RECIPES[recipe]
    if record["status"] == "crashed" or record["versions"]["nvisa"] != version("nvisa"):
        return False
    if record.get("start", {}).get("recipe", "") != asked.start:
        return False
    start, there = RECIPES.get(asked.start), record["params"]
    defaults = _settings(Recipe(asked.method), start and Recipe(start.method), seed)
    there = {name: _written(value) for name, value in defaults.items()} | there
    return all(_same(there.get(name), value) for name, value in _settings(asked, start, seed).items())


def _settings(recipe: Recipe, start: Recipe | None, seed: int) -> dict[str, Any]:
    """What ``params`` hold of a recipe, but for the start itself and what differs with K, which is the data's."""
    built = [_params(recipe.build(k, seed, start and start.build(k, seed))) for k in (2, 3)]
    return {name: value for name, value in built[0].items() if value == built[1][name]}


def _same(there: Any, today: Any) -> bool:
    """Whether what a record holds is today's value, once what its text leaves out has its default."""
    if there == _plain(_written(today)):
        return True
    try:
        return isinstance(there, str) and bool(_read(ast.parse(there, mode="eval").body) == today)
    except (KeyError, SyntaxError, TypeError, ValueError):  # not a setting of ours, or not one of today's
        return False


def _read(node: ast.expr) -> Any:
    """The value whose ``repr`` this is; nothing but our settings' constructors is called."""
    match node:
        case ast.Call(func=ast.Name(id=name), keywords=words):
            return SETTINGS[name](**{str(word.arg): _read(word.value) for word in words})
        case ast.Tuple(elts=parts):
            return tuple(_read(part) for part in parts)
        case ast.Name(id="inf"):
            return math.inf
    return ast.literal_eval(node)


# ---- writing ------------------------------------------------------------------------------------------------------


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


def _commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record beside its final name, and rename it: it is whole, or it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    partial.rename(path)


def _plain(value: Any) -> Any:
    """The same with Python's own numbers, eight digits of each, and null for what is not finite: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value


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
        write(path, record)
        reached = {split: round(values["accuracy"], 4) for split, values in record["metrics"].items()}
        line = f"{dataset} {recipe} seed {seed}: {record['status']} {reached} in {record['seconds']:.0f} s"
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
