"""Clusters of tables with gaps: NVISA on the gaps beside imputation followed by simple clusterings.

    python benchmarks/missing.py [--seeds 0 1 2 3 4]     writes benchmarks/records/missing

Gaps are made in whole tables. MCAR: each number with the same probability. MAR: three columns of ten stay whole, and a
logistic function of them says where the others have gaps (as in Muzellec et al., "Missing data imputation using optimal
transport", ICML 2020, app.). The rate is the share of gaps among the columns that can have some. Every method is given
the same K and no label.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.cluster import KMeans
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.mixture import GaussianMixture
from small_experiments import agreement, run_missing, timed

from nvisa import NVISA

sys.path.append(str(Path(__file__).parent / "rivals"))

FOLDER = Path("benchmarks/records/missing")
NAMES = ("iris", "wine", "penguins", "breast_cancer")
RATES = (0.1, 0.3, 0.5)
WHOLE = 0.3  # of the columns, under MAR


def mcar(X: np.ndarray, rate: float, rng: RandomState) -> np.ndarray:
    """Where the gaps are, each number alike."""
    return rng.uniform(size=X.shape) < rate


def mar(X: np.ndarray, rate: float, rng: RandomState) -> np.ndarray:
    """Where the gaps are, by the columns that have none."""
    columns = rng.permutation(X.shape[1])
    n_whole = max(1, round(WHOLE * X.shape[1]))
    causes, others = columns[:n_whole], columns[n_whole:]
    weight = rng.normal(size=(n_whole, len(others)))
    logits = X[:, causes] @ weight
    logits /= logits.std(0)
    gaps = np.zeros(X.shape, dtype=bool)
    for d, logit in zip(others, logits.T, strict=True):
        shift = brentq(lambda b, logit=logit: expit(logit + b).mean() - rate, -50, 50)
        gaps[:, d] = rng.uniform(size=len(X)) < expit(logit + shift)
    return gaps


def standardized(X: np.ndarray) -> np.ndarray:
    """By what is observed."""
    return (X - np.nanmean(X, 0)) / np.nanstd(X, 0)


def masked(X: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """NVISA on the gaps: labels, and the rows that it imputes."""
    model = NVISA(k, random_state=seed).fit(X)
    return model.labels_, model.impute(X)


def mean_imputed(X: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """NVISA on column means."""
    filled = SimpleImputer().fit_transform(X)
    return NVISA(k, random_state=seed).fit(filled).labels_, filled


def iterative_mixture(X: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Chained regressions, then a full Gaussian mixture of ten starts."""
    filled = IterativeImputer(random_state=seed).fit_transform(X)
    mixture = GaussianMixture(k, n_init=10, reg_covar=1e-3, random_state=seed)
    return mixture.fit_predict(filled), filled


def neighbors_kmeans(X: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five neighbors, then k-means of ten starts."""
    filled = KNNImputer().fit_transform(X)
    return KMeans(k, n_init=10, random_state=seed).fit_predict(filled), filled


METHODS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "nvisa": masked,
    "mean_nvisa": mean_imputed,
    "iterative_gmm": iterative_mixture,
    "knn_kmeans": neighbors_kmeans,
}
TITLES = {
    "nvisa": "NVISA, gaps as they are",
    "mean_nvisa": "column means, NVISA",
    "iterative_gmm": "IterativeImputer, Gaussian mixture",
    "knn_kmeans": "KNNImputer, k-means",
}


def run(name: str, seed: int) -> None:
    """One record: all mechanisms, rates and methods of a data set and a seed."""
    X, y = import_module("datasets").load(name)
    X, y = X.astype(np.float64), np.unique(y, return_inverse=True)[1]
    found: list[dict[str, Any]] = []
    for mechanism, make in (("mcar", mcar), ("mar", mar)):
        for rate in RATES:
            gaps = make(X, rate, RandomState(seed))
            holes = standardized(np.where(gaps, np.nan, X))
            truth = (X - np.nanmean(np.where(gaps, np.nan, X), 0)) / np.nanstd(np.where(gaps, np.nan, X), 0)
            for method, cluster in METHODS.items():
                (labels, filled), seconds = timed(partial(cluster, holes, int(y.max()) + 1, seed))
                error = float(np.sqrt(np.square(filled - truth)[gaps].mean()))
                about = {"mechanism": mechanism, "rate": rate, "method": method, "cpu_seconds": seconds}
                found.append(about | agreement(y, labels) | {"rmse": error})
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/missing.py {name} --seeds {seed}"
    record = {"data_set": name, "seed": seed, "command": command, "runs": found}
    (FOLDER / f"{name}-seed{seed}.json").write_text(json.dumps(record, indent=1) + "\n")


def page(root: Path = Path()) -> str:
    """Mean ARI and RMSE over data sets and seeds, and ARI of each data set."""
    runs = [
        one | {"data_set": record["data_set"]}
        for path in sorted((root / FOLDER).glob("*.json"))
        for record in [json.loads(path.read_text())]
        for one in record["runs"]
    ]

    def mean(what: str, **where: Any) -> float:
        return float(np.mean([one[what] for one in runs if all(one[key] == value for key, value in where.items())]))

    columns = [(mechanism, rate) for mechanism in ("mcar", "mar") for rate in RATES]
    head = " | ".join(f"{mechanism.upper()} {rate:.0%}" for mechanism, rate in columns)
    lines: list[str] = []
    for what, title in (("ari", "Adjusted Rand index"), ("rmse", "RMSE of what is filled in, in deviations")):
        lines += [f"{title}, mean", "", f"| method | {head} | mean |", "|---" * (len(columns) + 2) + "|"]
        for method in METHODS:
            each = [mean(what, mechanism=m, rate=r, method=method) for m, r in columns]
            cells = " | ".join(f"{value:.3f}" for value in [*each, float(np.mean(each))])
            lines.append(f"| {TITLES[method]} | {cells} |")
        lines.append("")
    lines += ["Adjusted Rand index of each data set, mean over gaps and seeds", "", f"| method | {' | '.join(NAMES)} |"]
    lines.append("|---" * (len(NAMES) + 1) + "|")
    for method in METHODS:
        cells = " | ".join(f"{mean('ari', data_set=name, method=method):.3f}" for name in NAMES)
        lines.append(f"| {TITLES[method]} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Run what has no record."""
    run_missing(run, NAMES, FOLDER, __doc__)


if __name__ == "__main__":
    main()
