"""How many clusters others find on the rows of benchmarks/levels.py, without being told a number or a class.

    python benchmarks/n_clusters.py [--seeds 0]     writes benchmarks/records/n_clusters; wants evoc and fast-hdbscan

``evoc``, ``hdbscan``: at their defaults, the number of clusters of their labels, noise left out. ``silhouette``: the K
whose k-means has the largest, of 2,000 rows. ``bic``: the K of the Gaussian mixture with full covariances in ten
principal components of 5,000 rows that has the least. Both try 2..12, 14, 16, 20, 25, ... 50. ``auto`` is read from
the records of levels.py.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture

from nvisa.benchmark.run import processor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "rivals")]
levels = import_module("levels")
tables = import_module("datasets")

FOLDER = Path("benchmarks/records/n_clusters")
TRIED = (*range(2, 13), 14, 16, 20, *range(25, 51, 5))


def components(X: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The first n principal components of the rows."""
    return PCA(min(n, X.shape[1]), random_state=seed).fit_transform(X).astype(np.float64)


def part(X: np.ndarray, n: int, seed: int) -> np.ndarray:
    """At most n of the rows."""
    return X[np.random.RandomState(seed).permutation(len(X))[:n]]


def silhouette(X: np.ndarray, seed: int) -> int:
    x = components(X, 30, seed)
    scores = {}
    for k in TRIED:
        labels = KMeans(k, random_state=seed).fit_predict(x)
        scores[k] = silhouette_score(x, labels, sample_size=min(2_000, len(x)), random_state=seed)
    return max(scores, key=scores.__getitem__)


def bic(X: np.ndarray, seed: int) -> int:
    x = part(components(X, 10, seed), 5_000, seed)
    found = {k: GaussianMixture(k, max_iter=50, random_state=seed).fit(x).bic(x) for k in TRIED}
    return min(found, key=found.__getitem__)


def hdbscan(X: np.ndarray, seed: int) -> int:
    from fast_hdbscan import HDBSCAN

    return int(HDBSCAN().fit_predict(components(X, 30, seed)).max()) + 1


def evoc(X: np.ndarray, seed: int) -> int:
    from evoc import EVoC

    return int(EVoC(random_state=seed).fit_predict(X.astype(np.float32)).max()) + 1


METHODS: dict[str, tuple[str, Callable[[np.ndarray, int], int]]] = {
    "evoc": ("evoc", evoc), "hdbscan": ("fast-hdbscan", hdbscan), "silhouette": ("scikit-learn", silhouette),
    "bic": ("scikit-learn", bic),
}  # fmt: skip


def record(name: str, seed: int) -> dict[str, Any]:
    """What each finds on these rows."""
    X, y = levels.rows_of(name, seed)
    found: dict[str, Any] = {}
    for method, (package, count) in METHODS.items():
        started = time.process_time()
        k = count(X, seed)
        seconds = time.process_time() - started
        found[method] = {"n_clusters": k, "cpu_seconds": seconds, "version": version(package)}
    return {
        "data": name, "seed": seed, "rows": len(X), "classes": len(np.unique(y)), "processor": processor(),
        "found": found,
    }  # fmt: skip


def page(root: Path = Path()) -> str:
    """A line for each data set: its classes, and how many clusters each finds."""
    names = ["auto", *METHODS]
    lines = [f"| rows | classes | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    off: dict[str, list[float]] = {name: [] for name in names}
    for data in levels.NAMES:
        path = root / FOLDER / f"{data}-seed0.json"
        if path.exists():
            made = json.loads(path.read_text())
            auto = json.loads((root / levels.FOLDER / path.name).read_text())
            counts = {"auto": auto["n_clusters"]} | {name: of["n_clusters"] for name, of in made["found"].items()}
            lines.append(f"| {data} | {made['classes']} | {' | '.join(str(counts[name]) for name in names)} |")
            for name in names:
                off[name].append(abs(counts[name] - made["classes"]) / made["classes"])
    near = [f"{sum(each <= 0.2 for each in off[name])} of {len(off[name])}" for name in names]
    return "\n".join([*lines, f"| within a fifth | | {' | '.join(near)} |"])


def main() -> None:
    """Write a record for each data set and seed that has none."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in levels.NAMES:
        for seed in args.seeds:
            path = FOLDER / f"{name}-seed{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(made := record(name, seed)) + "\n")
                print(name, seed, {m: of["n_clusters"] for m, of in made["found"].items()}, flush=True)


if __name__ == "__main__":
    main()
