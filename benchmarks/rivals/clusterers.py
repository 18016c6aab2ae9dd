"""Fit one method to files of rows, seed after seed, in this process and nothing else: run.py starts it.

    python clusterers.py METHOD WORK.json ...

The clock starts when the rows are read and stops at the labels. The first fit imports and compiles what it needs: it is
cold. A fit after another of the same rows is warm. The first of other rows is between: something may be compiled yet.
Nothing here knows a class; K is all that a method is told, if it asks.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

Array = np.ndarray
# Of a clusterer: labels [N], -1 for noise, and the rows [N Z] in which it looked at what is near.
Clustered = tuple[Array, Array]
# UMAP's defaults, two dimensions with space inside, are for looking: its page on clustering asks for these neighbors
# and this distance. Ten dimensions are ours, as many as the start of NVISA has.
EMBEDDING = {"n_neighbors": 30, "min_dist": 0.0, "n_components": 10, "n_jobs": 1}


def k_means(X: Array, K: int, seed: int) -> Clustered:
    from sklearn.cluster import KMeans

    return KMeans(K, random_state=seed).fit_predict(X), X


def gmm(X: Array, K: int, seed: int) -> Clustered:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(K, random_state=seed).fit_predict(X), X


def fast_hdbscan(X: Array, K: int, seed: int) -> Clustered:
    from fast_hdbscan import HDBSCAN

    return HDBSCAN().fit_predict(X), X


def umap_hdbscan(X: Array, K: int, seed: int) -> Clustered:
    from fast_hdbscan import HDBSCAN
    from umap import UMAP

    z = UMAP(**EMBEDDING, random_state=seed).fit_transform(X)
    return HDBSCAN().fit_predict(z), z


def umap_gmm(X: Array, K: int, seed: int) -> Clustered:
    from sklearn.mixture import GaussianMixture
    from umap import UMAP

    z = UMAP(**EMBEDDING, random_state=seed).fit_transform(X)
    return GaussianMixture(K, random_state=seed).fit_predict(z), z


def evoc(X: Array, K: int | None, seed: int) -> Clustered:
    from evoc import EVoC

    labels = EVoC(approx_n_clusters=K, random_state=seed).fit_predict(X)
    return labels, X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)  # it compares directions


def clustpy(name: str) -> Callable[[Array, int, int], Clustered]:
    """A deep method of ClustPy, on this processor."""

    def fit(X: Array, K: int, seed: int) -> Clustered:
        import torch
        from sklearn.preprocessing import MinMaxScaler

        try:
            import torchvision  # noqa: F401
        except RuntimeError:  # its build for CUDA beside torch's for CPU: two operators, unused here, are not there
            for operator in ("nms", "qnms"):
                scheme = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", scheme)
        import clustpy.deep

        if name == "VaDE":  # its default likelihood is Bernoulli's and refuses anything else
            X = MinMaxScaler(clip=True).fit_transform(X)
        clusterer = getattr(clustpy.deep, name)(K, device=torch.device("cpu"), random_state=seed)
        return clusterer.fit(X).labels_, X

    return fit


def nvisa(X: Array, K: int, seed: int) -> Clustered:
    from nvisa import NVISA

    return NVISA(K, random_state=seed).fit(X).labels_, X


METHODS: dict[str, tuple[str, Callable[[Array, int, int], Clustered]]] = {  # the package whose version counts
    "kmeans": ("scikit-learn", k_means),
    "gmm": ("scikit-learn", gmm),
    "fast_hdbscan": ("fast-hdbscan", fast_hdbscan),
    "umap_hdbscan": ("umap-learn", umap_hdbscan),
    "umap_gmm": ("umap-learn", umap_gmm),
    "evoc": ("evoc", lambda X, K, seed: evoc(X, None, seed)),
    "evoc_k": ("evoc", evoc),
    "dec": ("clustpy", clustpy("DEC")),
    "idec": ("clustpy", clustpy("IDEC")),
    "vade": ("clustpy", clustpy("VaDE")),
    "nvisa": ("nvisa", nvisa),
}


def nearest(labels: Array, z: Array) -> Array:
    """Labels without noise: a row of it gets the cluster of the clustered row that is nearest in ``z`` [N Z]."""
    noise = labels < 0
    if not noise.any() or noise.all():
        return np.maximum(labels, 0)
    from sklearn.neighbors import KNeighborsClassifier

    filled = labels.copy()
    filled[noise] = KNeighborsClassifier(1).fit(z[~noise], labels[~noise]).predict(z[noise])
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("work", type=Path, nargs="+", help="a .json of: rows, a .npy; n_clusters; seeds; out, a .json")
    asked = parser.parse_args()
    package, fit = METHODS[asked.method]
    for number, work in enumerate(json.loads(path.read_text()) for path in asked.work):
        X, starts, fits = np.load(work["rows"]), ["between" if number else "cold"], []
        for seed in work["seeds"]:
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                found, z = fit(X, work["n_clusters"], seed)
            except Exception as error:
                fits.append({"status": f"{type(error).__name__}: {error}"})
                continue
            times = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
            labels = np.asarray(found, dtype=np.int64)
            fits.append({"status": "ok", "start": starts[-1], "versions": {package: version(package)}, **times,
                         "labels": labels.tolist(), "filled": nearest(labels, z).tolist()})  # fmt: skip
            starts.append("warm")
        Path(work["out"]).write_text(json.dumps(fits))


if __name__ == "__main__":
    main()
