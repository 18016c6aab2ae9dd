"""Clusterings of others, adopted: do the networks keep the labels, and do they carry them to new rows?

    python benchmarks/adoption.py digits mnist cifar10_effnet_lite2     writes benchmarks/records/adoption

Of at most 10,000 rows, a seventh is held out. The labels of all of them come from one method: HDBSCAN of the neighbor
graph's layout, Ward's linkage, Leiden on the neighbor graph (needs the package igraph). ``nvisa.adopt`` sees the labels
of the others. ``kept``: the share of their known labels that it predicts; ``held_out``: the same of the rows that it
has not seen, beside that of their five nearest neighbors. No class of the data is looked at.
"""

import argparse
import json
import sys
import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

import nvisa
from nvisa.fitting.graph import nearest
from nvisa.fitting.layout import graph_layout

sys.path.append(str(Path(__file__).parent / "rivals"))
tables = import_module("datasets")

FOLDER = Path("benchmarks/records/adoption")
N_ROWS = 10_000


def leiden(x: np.ndarray) -> np.ndarray:
    """Communities of the graph of 15 neighbors, by modularity."""
    import igraph

    sources, targets = kneighbors_graph(x, 15).nonzero()
    graph = igraph.Graph(n=len(x), edges=np.column_stack([sources, targets])).simplify()
    return np.array(graph.community_leiden("modularity", n_iterations=-1).membership)


def hdbscan(x: np.ndarray) -> np.ndarray:
    """HDBSCAN of the layout, as it is used after UMAP."""
    points = graph_layout(*nearest(x, 20), 5, np.random.RandomState(0))
    return HDBSCAN(min_cluster_size=max(15, len(x) // 200), copy=True).fit_predict(points)


METHODS = {
    "hdbscan": hdbscan,
    "ward": lambda x: AgglomerativeClustering(15).fit_predict(x),
    "leiden": leiden,
}


def run(name: str, method: str, seed: int) -> dict[str, Any]:
    """The record of one clustering of one data set."""
    X, _ = tables.load(name, N_ROWS)
    x = PCA(min(50, X.shape[1]), random_state=0).fit_transform(X)
    labels = METHODS[method](x)
    held_out = np.random.RandomState(seed).permutation(len(X))[: len(X) // 7]
    seen = np.setdiff1d(np.arange(len(X)), held_out)
    started = time.process_time()
    model = nvisa.adopt(X[seen], labels[seen], random_state=seed)
    fitted = time.process_time()
    predicted = model.classes_[model.predict(X)]
    done = time.process_time()
    known = seen[labels[seen] != -1]
    asked = held_out[np.isin(labels[held_out], model.classes_)]
    near = KNeighborsClassifier(5).fit(X[known], labels[known]).predict(X[asked])
    return {
        "data": name, "method": method, "seed": seed, "rows": len(seen), "columns": X.shape[1],
        "clusters": len(model.classes_), "unknown": float((labels[seen] == -1).mean()),
        "kept": float((predicted[known] == labels[known]).mean()),
        "held_out_rows": len(asked), "held_out": float((predicted[asked] == labels[asked]).mean()),
        "neighbors": float((near == labels[asked]).mean()),
        "cpu_seconds": fitted - started, "rows_per_cpu_second": len(X) / (done - fitted),
    }  # fmt: skip


def main() -> None:
    """Write a record for each data set, method and seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=["digits", "mnist", "cifar10_effnet_lite2"])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        for method in args.methods:
            if method == "leiden" and find_spec("igraph") is None:
                continue
            for seed in args.seeds:
                record = run(name, method, seed)
                print(json.dumps(record), flush=True)
                (FOLDER / f"{name}-{method}-seed{seed}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
