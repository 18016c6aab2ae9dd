"""Cluster embeddings from a .npy file that is mapped, not read, and find the members that speak for each cluster."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from nvisa import NVISA


def some_embeddings(path: Path) -> None:
    """Unit vectors around five directions, in place of a network's."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 64))[np.repeat(np.arange(5), 120)] + 0.5 * rng.normal(size=(600, 64))
    np.save(path, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


def main(path: Path, n_clusters: int, epochs: int | None) -> None:
    X = np.load(path, mmap_mode="r")
    training = None if epochs is None else replace(NVISA.DEFAULT_TRAINING, epochs=epochs)
    model = NVISA(n_clusters, training=training, random_state=0).fit(X)
    z, proba = model.transform(X), model.predict_proba(X)
    print(f"{len(X)} vectors of {X.shape[1]} numbers -> {z.shape[1]} numbers and a cluster")
    for k in range(n_clusters):
        print(f"cluster {k}: {np.sum(model.labels_ == k)} rows; surest are {np.argsort(-proba[:, k])[:5].tolist()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", help="a .npy [N D]; default: made up")
    parser.add_argument("--n-clusters", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="fewer, to see that it runs (default: by the number of rows)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.path is None:
            args.path = Path(folder) / "embeddings.npy"
            some_embeddings(args.path)
        main(args.path, args.n_clusters, args.epochs)
