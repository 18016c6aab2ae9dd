"""Peak memory of a default fit to sparse rows, and its clusters beside k-means of their leading singular vectors.

    python benchmarks/sparse_rows.py [--rows 100000] [--epochs 1]     writes benchmarks/records/sparse

Made texts of 20 words among 20,000: each of ten subjects uses 1,500 words of its own eight times as often; TF-IDF.
Memory is the largest resident size of the process (Linux).
"""

import argparse
import json
import resource
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from nvisa import NVISA, Training
from nvisa.maths.metrics import ari

FOLDER = Path("benchmarks/records/sparse")
N_WORDS, N_SUBJECTS, LENGTH, OWN, OFTENER = 20_000, 10, 20, 1_500, 8


def texts(n: int) -> tuple[csr_array, np.ndarray]:
    """TF-IDF [n 20000] and the subject of each row."""
    rng = np.random.default_rng(0)
    subject = np.sort(rng.integers(N_SUBJECTS, size=n))
    words = []
    for size in np.bincount(subject, minlength=N_SUBJECTS):
        weight = 1.0 / np.arange(1, N_WORDS + 1) ** 0.8
        weight[rng.permutation(N_WORDS)[:OWN]] *= OFTENER
        words.append(rng.choice(N_WORDS, size=LENGTH * size, p=weight / weight.sum()))
    rows = np.repeat(np.arange(n), LENGTH)
    counts = csr_array((np.ones(len(rows), np.float32), (rows, np.concatenate(words))), shape=(n, N_WORDS))
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts).astype(np.float32), subject


def peak() -> int:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int)
    asked = parser.parse_args()
    X, subject = texts(asked.rows)
    before, started = peak(), time.process_time()
    training = None if asked.epochs is None else Training(epochs=asked.epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = NVISA(N_SUBJECTS, training=training, random_state=0).fit(X).labels_
    record = {
        "command": f"python benchmarks/sparse_rows.py --rows {asked.rows}"
        + ("" if asked.epochs is None else f" --epochs {asked.epochs}"),
        "shape": list(X.shape),
        "share_filled": X.nnz / np.prod(X.shape, dtype=float),
        "mb_before": before,
        "mb_peak": peak(),
        "cpu_seconds": round(time.process_time() - started),
        "ari": ari(subject, labels),
    }
    codes = TruncatedSVD(50, random_state=0).fit_transform(X)
    record["ari_svd_kmeans"] = ari(subject, KMeans(N_SUBJECTS, n_init=10, random_state=0).fit_predict(codes))
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = f"{asked.rows}" + ("" if asked.epochs is None else f"-epochs{asked.epochs}")
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
