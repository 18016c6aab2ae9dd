"""A run that outlives the machine: the slides' recipe at full length, hours at a time, on one machine after the other.

    <folder>/start/        the model that the fit starts from, where the recipe has one: the best of three
    <folder>/starts.json   neighbor information of the three
    <folder>/checkpoint/   what the fit needs to go on, written every half minute, the newest only
    <folder>/curve.json    accuracy on test, bound, floors and entropies of q(y|x), every ``EVERY`` epochs
    <folder>/model/        once it is done

The folder is committed: whoever has it goes on after the last whole epoch, by the same command. Labels are looked at
for the curve, and for nothing else.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState

import nvisa
from nvisa import data as datasets
from nvisa.benchmark.current import as_text, params_of
from nvisa.benchmark.recipes import RECIPES
from nvisa.benchmark.run import processor, source_commit
from nvisa.data import Dataset
from nvisa.durable_files import write_file
from nvisa.fitting.checkpoint import remove_checkpoint
from nvisa.fitting.graph import nearest, neighbor_information, principal_components
from nvisa.json_values import parse
from nvisa.maths.metrics import accuracy
from nvisa.maths.products import training_factors

__all__ = ["Curve", "long_run"]

EVERY = 5  # epochs
N_STARTS = 3
KEYS = ("epoch", "n_epochs", "bound", "std_floor_x", "std_floor_z", "clusters_in_use", "label_change")
Point = dict[str, Any]


class Curve:
    """Called after every epoch: looks at the test rows and writes what it sees into a file.

    A point that a killed fit had written after its last checkpoint is written again.
    """

    def __init__(self, path: Path, data: Dataset, about: Point) -> None:
        self.path, self.X, self.y = path, data.X_test, np.asarray(data.y_test)
        before = parse(path.read_bytes()) if path.exists() else {}
        self.points: list[Point] = before.pop("points", [])
        self.about = before | about
        self.spent = self.points[-1]["cpu_seconds"] if self.points else 0.0
        self.zero = time.process_time()

    def __call__(self, fitted: Any, record: Point) -> None:
        """Note an epoch, if it is one of those that are noted."""
        if record["epoch"] % EVERY and record["epoch"] not in (1, record["n_epochs"]):
            return
        proba = fitted.predict_proba(self.X).astype(np.float64)
        point = {key: record[key] for key in KEYS if key in record}
        point |= {"accuracy": accuracy(self.y, proba.argmax(1)), "entropy": float(_entropy(proba).mean())}
        point |= {"entropy_of_mean": float(_entropy(proba.mean(0))), "cpu_seconds": self.spent + self._elapsed()}
        self.points = [old for old in self.points if old["epoch"] < record["epoch"]] + [point]
        self.write()

    def _elapsed(self) -> float:
        return time.process_time() - self.zero

    def write(self) -> None:
        """The file, whole at any time."""
        lines = ",\n".join(json.dumps(point) for point in self.points)
        head = json.dumps(self.about, indent=1).removesuffix("\n}")
        write_file(self.path, f'{head},\n "points": [\n{lines}\n]}}\n'.encode())


def _entropy(proba: Any) -> Any:
    """``-sum_y p_y log p_y`` in nats over the last axis."""
    return -(proba * np.log(np.maximum(proba, 1e-300))).sum(-1)


def long_run(recipe: str, dataset: str, seed: int, folder: Path, data_home: str | None = None) -> Path:
    """Fit a recipe with a seed, or go on with it; the folder ``<recipe>-<seed>`` holds all there is of it.

    Of another data set than MNIST, its name comes between the two.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    if recipe not in RECIPES:
        known = ", ".join(name for name in RECIPES if name.startswith("slides/"))
        msg = f"expected a recipe of full length, {known}; got {recipe!r}."
        raise ValueError(msg)
    parts = (recipe.rsplit("/", maxsplit=1)[-1], *([] if dataset == "mnist" else [dataset]), str(seed))
    data, home = datasets.load(dataset, data_home), folder / "-".join(parts)
    if (home / "model").exists():
        remove_checkpoint(home / "checkpoint")  # a kill may have come between
        return home
    home.mkdir(parents=True, exist_ok=True)
    start = RECIPES[recipe].start and _started(RECIPES[recipe].start, data, seed, home / "start")
    clusterer = RECIPES[recipe].build(data.n_classes, seed, start or None)
    about = {
        "recipe": recipe, "dataset": dataset, "seed": seed, "dataset_digest": data.digest, "commit": source_commit(),
        "cpu": processor(), "products": str(training_factors(torch.device("cpu"))).removeprefix("torch."),
        "params": {name: as_text(value) for name, value in params_of(clusterer).items()},
    }  # fmt: skip
    curve = Curve(home / "curve.json", data, about)
    clusterer.on_epoch(curve).fit(data.X_train, checkpoint=home / "checkpoint")
    clusterer.save(home / "model")
    return home


def _started(recipe: str, data: Dataset, seed: int, path: Path) -> Any:
    """The model that a run starts from: on every machine that which the first has fitted.

    Of ``N_STARTS`` fits, from the seeds ``seed``, ``seed + 100``, ..., the one with the largest neighbor information.
    An autoencoder's codes join two classes now and then, which the bound does not undo. No label is seen.
    """
    if not path.exists():
        fits = {seed + 100 * i: path.with_name(f"start-{seed + 100 * i}") for i in range(N_STARTS)}
        for of, folder in fits.items():
            if not folder.exists():
                RECIPES[recipe].build(data.n_classes, of).fit(data.X_train).save(folder)
        scores = _neighbor_information([nvisa.load(folder) for folder in fits.values()], data.X_train, seed)
        found = dict(zip(fits, scores, strict=True))
        write_file(path.with_name("starts.json"), f"{json.dumps({'neighbor_information': found}, indent=1)}\n".encode())
        nvisa.load(fits[max(found, key=found.__getitem__)]).save(path)
    for other in path.parent.glob("start-*"):
        shutil.rmtree(other)  # a kill may have come before
    return nvisa.load(path)


def _neighbor_information(models: list[Any], X: Any, seed: int) -> list[float]:
    """What each model's clusters tell of those of the neighbors of a row, in nats."""
    rng = RandomState(seed)
    rows = np.sort(rng.permutation(len(X))[:10_000])
    graph = nearest(principal_components(X[rows].reshape(len(rows), -1), rng), 10)[0]
    return [neighbor_information(model.predict_proba(X[rows]), graph) for model in models]
