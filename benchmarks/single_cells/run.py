"""Clusters of single cells: NVISA on counts beside scVI with Leiden and k-means, and k-means on logarithms.

    python benchmarks/single_cells/run.py METHOD ... [--datasets baron zeisel cite_seq] [--seeds 0 1 2 3 4]

writes benchmarks/records/single_cells. All methods see the same counts, and K but for `scvi_leiden` and `leiden`:
their resolution is scanpy's default; `scvi_leiden_k` looks for the one that gives K. No label is seen. scVI has the
defaults of scvi-tools: ten latent dimensions, 400 epochs below 20,000 cells. Methods of scVI and Leiden ask for
the packages of requirements.txt, the others for nvisa; so there are two environments.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from cells import load, log_normalized
from single_cell_table import FOLDER, NAMES
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

Counts = Any  # CSR [N D]


def components(X: Counts, seed: int) -> np.ndarray:
    """50 principal components of log-normalized counts, the usual start."""
    return PCA(50, random_state=seed).fit_transform(log_normalized(X.toarray()))


def kmeans(X: Counts, k: int, seed: int) -> np.ndarray:
    """Of ten starts, on components."""
    return KMeans(k, n_init=10, random_state=seed).fit_predict(components(X, seed))


def leiden_of(z: np.ndarray, seed: int, resolution: float = 1.0) -> np.ndarray:
    """scanpy's Leiden on its graph of 15 neighbors."""
    anndata, scanpy = import_module("anndata"), import_module("scanpy")
    adata = anndata.AnnData(z)
    scanpy.pp.neighbors(adata, use_rep="X", random_state=seed)
    scanpy.tl.leiden(adata, resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    return adata.obs["leiden"].astype(int).to_numpy()


def leiden_with(z: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The same at a resolution that gives K clusters, or nearly: by bisection."""
    low, high, found = 0.0, 4.0, np.zeros(len(z), int)
    for _ in range(20):
        middle = 0.5 * (low + high)
        found = leiden_of(z, seed, middle)
        if (n := found.max() + 1) == k:
            break
        low, high = (middle, high) if n < k else (low, middle)
    return found


@cache
def scvi_codes(name: str, seed: int) -> tuple[np.ndarray, float]:
    """scVI's latent means, with its defaults, and the CPU seconds that they took: three clusterings share them."""
    started = time.process_time()
    anndata, scvi = import_module("anndata"), import_module("scvi")
    scvi.settings.seed = seed
    adata = anndata.AnnData(load(name)[0])
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model.get_latent_representation(), time.process_time() - started


def nvisa(X: Counts, k: int, seed: int, **settings: Any) -> np.ndarray:
    """As it comes, on counts."""
    return import_module("nvisa").NVISA(k, random_state=seed, **settings).fit(X).labels_


METHODS: dict[str, tuple[str, Callable[..., np.ndarray]]] = {  # package, (counts, or codes of scVI, k, seed) -> labels
    "nvisa": ("nvisa", lambda X, k, s: nvisa(X, k, s, likelihood="negative_binomial")),
    "nvisa_zero_inflated": ("nvisa", lambda X, k, s: nvisa(X, k, s, likelihood="zero_inflated_negative_binomial")),
    "nvisa_logs": ("nvisa", lambda X, k, s: nvisa(components(X, s), k, s)),
    "kmeans": ("scikit-learn", kmeans),
    "leiden": ("scanpy", lambda X, k, s: leiden_of(components(X, s), s)),
    "leiden_k": ("scanpy", lambda X, k, s: leiden_with(components(X, s), k, s)),
    "scvi_leiden": ("scvi-tools", lambda z, k, s: leiden_of(z, s)),
    "scvi_leiden_k": ("scvi-tools", leiden_with),
    "scvi_kmeans": ("scvi-tools", lambda z, k, s: KMeans(k, n_init=10, random_state=s).fit_predict(z)),
}


def run(method: str, name: str, seed: int) -> None:
    """One record."""
    X, y = load(name)
    package, cluster = METHODS[method]
    rows, before = scvi_codes(name, seed) if package == "scvi-tools" else (X, 0.0)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = cluster(rows, int(y.max()) + 1, seed)
    record = {"data_set": name, "method": method, "seed": seed, "n_rows": X.shape[0], "n_genes": X.shape[1]}
    record |= {"k": int(y.max()) + 1, "clusters": len(np.unique(labels))}
    record |= {"ari": adjusted_rand_score(y, labels), "nmi": normalized_mutual_info_score(y, labels)}
    record |= {"cpu_seconds": round(time.process_time() - started + before, 1), "versions": {package: version(package)}}
    record |= {"machine": "AMD Zen 4, 2 vCPU, beside other work"}
    record["command"] = f"python benchmarks/single_cells/run.py {method} --datasets {name} --seeds {seed}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}-{method}-seed{seed}.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Run what has no record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=METHODS)
    parser.add_argument("--datasets", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    asked = parser.parse_args()
    for seed in asked.seeds:
        for name in asked.datasets:
            for method in asked.methods:
                if not (FOLDER / f"{name}-{method}-seed{seed}.json").exists():
                    run(method, name, seed)


if __name__ == "__main__":
    main()
