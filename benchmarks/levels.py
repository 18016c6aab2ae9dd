"""How many clusters `nvisa.select_n_clusters` finds, and whether its levels hold the classes.

    python benchmarks/levels.py [--seeds 0 1 2 3 4]     writes benchmarks/records/levels

Real data, at most 10,000 rows, another random part for each seed; mixtures of 2 to 50 Gaussians in ten columns, centers
six deviations apart at least, of equal sizes or of sizes from 1 to 20. ``ari``: of the level of as many clusters as
there are classes; ``best_ari``: of the best level. The limit of the rule was set on seed 0 of most of these.
"""

import argparse
import json
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np

from nvisa import select_n_clusters
from nvisa.maths.metrics import ari

sys.path.append(str(Path(__file__).parent / "rivals"))
tables = import_module("datasets")

FOLDER = Path("benchmarks/records/levels")
REAL = ("digits", "mnist", "fashion_mnist", "cifar10_effnet_lite2")
MIXTURES = tuple(f"mixture_{k}_{ratio}" for k in (2, 5, 10, 20, 35, 50) for ratio in (1, 20))
NAMES = (*REAL, *MIXTURES)
N_ROWS, APART = 10_000, 6.0


def mixture(k: int, ratio: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """5,000 rows of k Gaussians of unit variance, the largest with ``ratio`` times the rows of the smallest."""
    rng, sizes, centers = np.random.RandomState(seed), np.geomspace(1, ratio, k), []
    while len(centers) < k:
        near = 0.75 * APART * rng.randn(10)
        if all(np.linalg.norm(near - other) > APART for other in centers):
            centers.append(near)
    y = np.repeat(np.arange(k), np.maximum(np.round(5_000 * sizes / sizes.sum()).astype(int), 8))
    return (np.array(centers)[y] + rng.randn(len(y), 10)).astype(np.float32), y


def rows_of(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and classes that a seed stands for."""
    if name not in REAL:
        return mixture(*map(int, name.split("_")[1:]), seed)
    X, y = tables.load(name)
    rows = np.sort(np.random.RandomState(seed).permutation(len(X))[:N_ROWS])
    return X[rows], y[rows]


def main() -> None:
    """Write a record for each data set and seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        for seed in args.seeds if name in REAL else args.seeds[:2]:
            X, y = rows_of(name, seed)
            started = time.process_time()
            levels = select_n_clusters(X, random_state=seed)
            seconds = time.process_time() - started
            scores = [ari(y, levels.labels(k + 1)) for k in range(len(levels.cut))]
            true = len(np.unique(y))
            record = {
                "data": name, "seed": seed, "rows": len(X), "classes": true, "n_clusters": levels.n_clusters,
                "is_clear": levels.is_clear, "ari": scores[true - 1], "best_ari": max(scores), "cpu_seconds": seconds,
                "table": levels.table(),
            }  # fmt: skip
            print({key: value for key, value in record.items() if key != "table"}, flush=True)
            (FOLDER / f"{name}-seed{seed}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
