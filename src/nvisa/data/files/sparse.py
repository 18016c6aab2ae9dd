"""Sparse rows: the archives of scipy.sparse.save_npz."""

from collections.abc import Container
from pathlib import Path

import numpy as np
from scipy import sparse

from nvisa.data.errors import DataError, Note, describing
from nvisa.data.files.arrays import Float32

__all__ = ["MOST_BYTES", "is_sparse", "read_sparse"]

MOST_BYTES = 1 << 30  # of the dense rows, in float32


def is_sparse(archive: Container[str]) -> bool:
    """Whether an archive has the members that scipy writes, of any of its formats."""
    return all(name in archive for name in ("format", "shape", "data"))


def read_sparse(path: Path) -> tuple[Float32, Note]:
    """(the rows, dense in float32, and how full they were); refused where they would take more than a gigabyte."""
    advice = "Write it with scipy.sparse.save_npz."
    with describing(path, "a sparse array of scipy.sparse.save_npz", advice=advice):
        rows = sparse.load_npz(path).tocsr()
    n_bytes = 4 * rows.shape[0] * rows.shape[1]
    if n_bytes > MOST_BYTES:
        raise DataError(
            f"{path}: expected sparse rows that take at most {MOST_BYTES >> 20:,} MB when dense, got {rows.shape[0]:,} "
            f"x {rows.shape[1]:,}, {n_bytes >> 20:,} MB. Try sklearn.decomposition.TruncatedSVD(100), and save those."
        )
    share = rows.nnz / max(rows.shape[0] * rows.shape[1], 1)
    note = Note(f"sparse rows, {100 * share:.2g} % of their entries not zero, made dense")
    return np.asarray(rows.toarray(), dtype=np.float32), note
