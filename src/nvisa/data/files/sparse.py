"""Sparse rows: the archives of scipy.sparse.save_npz."""

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from nvisa.data.errors import DataError, Note, describing
from nvisa.data.limits import check_memory

__all__ = ["is_sparse", "read_sparse"]


def is_sparse(archive: Container[str]) -> bool:
    """Whether an archive has the members that scipy writes, of any of its formats."""
    return all(name in archive for name in ("format", "shape", "data"))


def read_sparse(path: Path) -> tuple[Any, Note]:
    """(the rows as a scipy CSR array of floats, how full they are).

    Rows stored in blocks are refused: nothing in the archive says whether a block is an item of its own.
    """
    advice = "Write it with scipy.sparse.save_npz."
    with describing(path, "a sparse array of scipy.sparse.save_npz", advice=advice):
        stored = sparse.load_npz(path)
        if hasattr(stored, "check_format"):  # csr, csc, bsr: else an index beyond the shape reads and writes anywhere
            stored.check_format(full_check=True)
        n, d = map(int, stored.shape)
        check_memory(path, f"{n:,} sparse rows of {d:,} columns", 8 * n + 64 * d, advice)  # what has no entry costs too
        rows = stored.tocsr()
    if stored.format == "bsr":
        blocks = " x ".join(map(str, stored.blocksize))
        raise DataError(
            f"{path}: expected sparse rows, got a sparse array of blocks of {blocks} (bsr). If its rows are to be "
            "clustered, write matrix.tocsr() with scipy.sparse.save_npz; if its blocks, write them as a dense array."
        )
    if rows.dtype.kind not in "fiub" or min(rows.shape) == 0:
        raise DataError(f"{path}: expected sparse rows of numbers, got {rows.dtype} of shape {rows.shape}.")
    rows.eliminate_zeros()
    share = rows.nnz / (rows.shape[0] * rows.shape[1])
    kept = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float32)
    return sparse.csr_array(kept), Note(f"sparse rows, {100 * share:.2g} % of their entries not zero")
