"""Reading a memory map of any size in bounded memory.

The pages of a file that a process has read stay resident until something hands them back, so a walk through a map of
3 GB makes a process of 3 GB although nothing was copied. Everything here reads a piece, and hands it back.
A leaf on numpy.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks", "is_mapped", "take"]

PIECE = 128  # scattered rows: the system maps up to some hundred KB around each; of consecutive ones 32 times as many


def _file(X: Any) -> np.memmap | None:
    """The shared map of a file below X; None for arrays in memory, and for mode "c", whose changes would be lost."""
    while isinstance(X, np.ndarray):
        if isinstance(X, np.memmap) and X.mode in ("r", "r+", "w+"):
            return X
        X = X.base
    return None


def is_mapped(X: Any) -> bool:
    """Whether X is a view of a file."""
    return _file(X) is not None


def _release(X: Any) -> None:
    """Hand the pages back; the file and its cache keep them."""
    file = _file(X)
    pages = getattr(file, "_mmap", None)  # numpy has no public name for it
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def take(X: NDArray[Any], rows: NDArray[np.integer] | slice, dtype: Any = None) -> NDArray[Any]:
    """``X[rows]``, always a copy, in C order."""
    if not is_mapped(X):
        return np.array(X[rows], dtype=dtype, order="C")
    numbers = np.arange(len(X))[rows] if isinstance(rows, slice) else rows
    taken = np.empty((len(numbers), *X.shape[1:]), dtype or X.dtype)
    contiguous = isinstance(rows, slice) and rows.step in (None, 1)
    piece = 32 * PIECE if contiguous else PIECE
    for start in range(0, len(numbers), piece):
        part = slice(start, start + piece)
        taken[part] = X[numbers[part][0] : numbers[part][-1] + 1] if contiguous else X[numbers[part]]
        _release(X)
    return taken


def blocks(X: NDArray[Any], size: int = 8192) -> Iterator[NDArray[Any]]:
    """Consecutive rows of X, ``size`` at a time: a view that is valid until the next one."""
    for start in range(0, len(X), size):
        yield X[start : start + size]
        _release(X)
