"""Which number that sees no label says which of several clusterings is best: pools of them, and what each is given.

    python benchmarks/criteria.py [NAME ...] [--seeds 0 1 2 3 4]     writes benchmarks/records/criteria

One record for a data set and a seed: clusterings with K given, made in different ways; of each the criteria, and, to
judge them by, its agreement with the classes. Beside them what nvisa's own start chooses. Every criterion is larger
where a clustering is better. DBCV needs the package hdbscan, and is left out where it is not installed.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_score
from sklearn.neighbors import kneighbors_graph

from nvisa.durable_files import write_file
from nvisa.fitting.candidates import best_candidate, held_out_density, kmeans
from nvisa.fitting.graph import (
    joint_of_labels,
    merged_microclusters,
    mutual_information,
    nearest,
    principal_components,
)
from nvisa.fitting.layout import graph_layout
from nvisa.fitting.normalized_cut import merge_by_cut, normalized_cut, refine_by_cut
from nvisa.maths.metrics import accuracy, ari
from nvisa.maths.mixtures import fit_mixture
from nvisa.nets.units import make_rescale

sys.path.append(str(Path(__file__).parent / "rivals"))
tables = import_module("datasets")

FOLDER = Path("benchmarks/records/criteria")
N_ROWS = 3_000
EXTRA = ("penbased", "optdigits", "satimage", "texture")  # of KEEL
LARGE = ("mnist", "fashion_mnist", "cifar10_effnet_lite2")
NAMES = (*tables.MADE, *tables.REAL, "digits", *EXTRA, *LARGE)
DEVELOPED_ON = {*tables.MADE, "iris", "wine", "breast_cancer", "digits", "penbased", "satimage", "texture"}
SHARE = 0.7  # of the rows in a resampled fit
DISTURBED = 3


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """At most 3,000 rows in the networks' units and their classes: the first of images, else random ones."""
    X, y = tables.keel(name) if name in EXTRA else tables.load(name, N_ROWS if name in LARGE else None)
    rows = np.sort(RandomState(0).permutation(len(X))[:N_ROWS])
    X, y = np.ascontiguousarray(X[rows], dtype=np.float32), np.unique(y[rows], return_inverse=True)[1]
    rescale = make_rescale(X, "auto")
    return (X - rescale.shift.numpy()) / rescale.scale.numpy(), y


# ---- clusterings -----------------------------------------------------------------------------------------------------


@dataclass
class Rows:
    """Principal components [n C], ten neighbors of each row [n 10], and the layout of the graph."""

    x: np.ndarray
    graph: np.ndarray
    points: np.ndarray


def rows_of(x: np.ndarray, rng: RandomState) -> Rows:
    """As nvisa's start makes them."""
    near, distances = nearest(x, 20)
    return Rows(x, near[:, :10], graph_layout(near, distances, min(10, x.shape[1]), rng))


def by_cut(rows: Rows, k: int, rng: RandomState) -> np.ndarray:
    """Micro-clusters of the layout, merged and refined by the normalized cut; the best of three."""
    found = []
    for _ in range(3):
        micro = kmeans(rows.points, min(max(10 * k, 50), len(rows.x) // 5), rng, n_init=1)
        merged = merge_by_cut(joint_of_labels(micro, rows.graph, micro.max() + 1), k)[micro]
        found.append(refine_by_cut(merged, rows.graph, k))
    return min(found, key=lambda labels: normalized_cut(joint_of_labels(labels, rows.graph, k)))


def average(rows: Rows, k: int, rng: RandomState) -> np.ndarray:
    """Average linkage along the edges of the graph."""
    edges = kneighbors_graph(rows.x, 10)
    return AgglomerativeClustering(k, linkage="average", connectivity=edges).fit(rows.x).labels_


def gaussians(x: np.ndarray, k: int, rng: RandomState) -> np.ndarray:
    """Labels of a full Gaussian mixture."""
    return fit_mixture(x, k, rng, n_init=3).predict(x)


ALGORITHMS: dict[str, Callable[[Rows, int, RandomState], np.ndarray]] = {
    "kmeans": lambda rows, k, rng: kmeans(rows.x, k, rng),
    "mixture": lambda rows, k, rng: gaussians(rows.x, k, rng),
    "cut": by_cut,
    "information": lambda rows, k, rng: merged_microclusters(rows.points, rows.graph, k, rng)[0].argmax(1),
    "layout_kmeans": lambda rows, k, rng: kmeans(rows.points, k, rng),
    "layout_mixture": lambda rows, k, rng: gaussians(rows.points, k, rng),
    "average": average,
}


def disturbed(rows: Rows, k: int, rng: RandomState) -> np.ndarray:
    """k-means from K rows drawn once."""
    return KMeans(k, init="random", n_init=1, random_state=rng).fit(rows.x).labels_


# ---- criteria --------------------------------------------------------------------------------------------------------


def within(x: np.ndarray, labels: np.ndarray) -> float:
    """Minus the mean squared distance of a row to the mean of its cluster: k-means' objective."""
    return -float(sum(np.square(x[labels == a] - x[labels == a].mean(0)).sum() for a in np.unique(labels)) / len(x))


def silhouette(x: np.ndarray, labels: np.ndarray) -> float | None:
    """None where all rows are in one cluster."""
    return float(silhouette_score(x, labels)) if len(np.unique(labels)) > 1 else None


def dbcv(x: np.ndarray, labels: np.ndarray) -> float | None:
    """Density-based validity; None where it cannot be computed: densities overflow, clusters of a row or two."""
    try:
        found = import_module("hdbscan.validity").validity_index(x.astype(np.float64), labels)
    except (ImportError, ValueError, IndexError, ZeroDivisionError):
        return None
    return float(found) if np.isfinite(found) else None


def criteria(rows: Rows, labels: np.ndarray, k: int, seed: int) -> dict[str, float | None]:
    """What one clustering is given, but for its stability. The same rows are held out for every clustering."""
    joint = joint_of_labels(labels, rows.graph, k)
    size = joint.sum(1)[joint.sum(1) > 0]
    information, entropy = mutual_information(joint), -float(size @ np.log(size))
    folds = RandomState(seed).randint(3, size=len(labels))
    return {
        "information": information,
        "information_rate": information / max(entropy, 1e-9),
        "cut": -normalized_cut(joint) / k,
        "density": held_out_density(rows.x[:, :10], labels, k, folds, RandomState(seed)),
        "silhouette": silhouette(rows.x, labels),
        "silhouette_layout": silhouette(rows.points, labels),
        "within": within(rows.x, labels),
        "dbcv": dbcv(rows.x, labels),
    }


def stabilities(x: np.ndarray, k: int, rng: RandomState) -> dict[str, float]:
    """Adjusted Rand index of two fits to 70 % of the rows each, on the rows that both have."""
    drawn = [np.sort(rng.permutation(len(x))[: int(SHARE * len(x))]) for _ in range(2)]
    parts = [rows_of(x[chosen], rng) for chosen in drawn]
    _, first, second = np.intersect1d(*drawn, return_indices=True)
    return {name: ari(fit(parts[0], k, rng)[first], fit(parts[1], k, rng)[second]) for name, fit in ALGORITHMS.items()}


# ---- a record --------------------------------------------------------------------------------------------------------


def pool(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, Any]:
    """The clusterings of some rows and a seed, judged and measured, and nvisa's own choice, judged."""
    k, rng = int(y.max()) + 1, RandomState(seed)
    rows = rows_of(principal_components(x, rng), rng)
    found = {name: fit(rows, k, rng) for name, fit in ALGORITHMS.items()}
    found |= {f"start_{number}": disturbed(rows, k, rng) for number in range(DISTURBED)}
    stable = stabilities(rows.x, k, rng)
    members = {
        name: judged(y, labels) | criteria(rows, labels, k, seed) | {"stability": stable.get(name)}
        for name, labels in found.items()
    }
    chosen = best_candidate(rows.x, rows.points, rows.graph, k, rng)
    rule = judged(y, chosen.proba.argmax(1)) | {"kind": chosen.kind, "gap": chosen.gap, "cuts": chosen.cuts}
    return {"k": k, "pool": members, "rule": rule}


def judged(y: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """By the classes, which nothing else here sees."""
    return {"ari": ari(y, labels), "accuracy": accuracy(y, labels)}


def rounded(value: Any) -> Any:
    """Five digits of every number."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def write(name: str, seed: int) -> None:
    """One record."""
    (x, y), started = load(name), time.process_time()
    found = {"data": name, "seed": seed, "rows": len(x), "columns": x.shape[1]} | pool(x, y, seed)
    found["cpu_seconds"] = time.process_time() - started
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_file(FOLDER / f"{name}-seed{seed}.json", (json.dumps(rounded(found)) + "\n").encode())
    print(f"{name} {seed}: {found['cpu_seconds']:.0f} s, rule {found['rule']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(5)])
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # graphs in several parts, more clusters than distinct rows
    for seed in args.seeds:
        for name in args.names:
            if not (FOLDER / f"{name}-seed{seed}.json").exists():
                write(name, seed)


if __name__ == "__main__":
    main()
