"""The rows of a data set, read in bounded memory, block by block; their units are in ``units.py``.

The pages of a file that a process has read stay resident until something hands them back, so a walk through a map of
3 GB makes a process of 3 GB although nothing was copied. Everything here reads a piece, and hands it back.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from nvisa.maths.shapes import Data
from nvisa.nets.sparse import SparseRows

__all__ = [
    "Source",
    "Table",
    "as_given",
    "blocks",
    "count_gaps",
    "is_mapped",
    "label",
    "map_blocks",
    "numbers",
    "part",
    "release",
    "subset",
    "take",
]

Array = NDArray[np.floating]
Table: TypeAlias = NDArray[Any] | SparseRows  # what rows are read from
BLOCK = 512  # rows of every inference product
FAST_BLOCK = 4096
FILE_BLOCK = 8192
BLOCK_NUMBERS = 1 << 25  # in float64, which sums are made in, 256 MB
PIECE = 32  # scattered rows: the system maps up to 2 MB around each; of consecutive ones 128 times as many


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


def release(X: Any) -> None:
    """Hand the pages back; the file and its cache keep them."""
    file = _file(X)
    pages = getattr(file, "_mmap", None)  # numpy has no public name for it
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def take(X: Table, rows: NDArray[np.integer] | slice, dtype: Any = None) -> NDArray[Any]:
    """``X[rows]``, always a copy, in C order, and dense."""
    if isinstance(X, SparseRows):
        return X.dense(rows, dtype)
    if not is_mapped(X):
        return np.array(X[rows], dtype=dtype, order="C")
    numbers = np.arange(len(X))[rows] if isinstance(rows, slice) else rows
    taken = np.empty((len(numbers), *X.shape[1:]), dtype or X.dtype)
    contiguous = isinstance(rows, slice) and rows.step in (None, 1)
    piece = 128 * PIECE if contiguous else PIECE
    for start in range(0, len(numbers), piece):
        part = slice(start, start + piece)
        taken[part] = X[numbers[part][0] : numbers[part][-1] + 1] if contiguous else X[numbers[part]]
        release(X)
    return taken


def blocks(X: Table, size: int = FILE_BLOCK) -> Iterator[NDArray[Any]]:
    """Consecutive rows of X, ``size`` at a time: a view that is valid until the next one. Fewer of wide rows."""
    most = X.block_rows if isinstance(X, SparseRows) else BLOCK_NUMBERS // max(int(np.prod(X.shape[1:])), 1)
    size = max(1, min(size, most))
    for start in range(0, len(X), size):
        yield X[start : start + size]
        release(X)


def numbers(X: Table) -> Iterator[NDArray[Any]]:
    """All numbers of X, in pieces of two axes; of sparse rows those that are stored."""
    return iter([X.csr.data[:, None]]) if isinstance(X, SparseRows) else blocks(X)


@dataclass
class Source:
    """Rows of an array, a memory map or a sparse matrix as float32 tensors on a device, gathered by index.

    ``origin`` is what was subtracted from the user's rows to make X (:func:`nvisa.nets.units.centered`).
    """

    X: Table
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    origin: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, rows: NDArray[np.integer] | slice) -> Data:
        return torch.from_numpy(take(self.X, rows, np.float32)).to(self.device)

    def part(self, rows: NDArray[np.integer]) -> "Source":
        """These rows alone, copied."""
        return Source(part(self.X, rows), self.device, self.origin)

    def as_given(self, rows: NDArray[np.integer]) -> Any:
        """These rows in the user's units, for an estimator that was fitted by the user."""
        X = part(self.X, rows)
        return as_given(X) if self.origin is None or isinstance(X, SparseRows) else X + self.origin


def part(X: Table, rows: NDArray[np.integer]) -> Table:
    """These rows, copied, as sparse as they were."""
    return X.part(rows) if isinstance(X, SparseRows) else take(X, rows)


def as_given(X: Table) -> Any:
    """X as other libraries take it."""
    return X.csr if isinstance(X, SparseRows) else X


def subset(n_rows: int, rng: RandomState, limit: int) -> NDArray[np.integer]:
    """At most ``limit`` random row numbers, sorted."""
    return np.sort(rng.permutation(n_rows)[:limit])


@torch.inference_mode()
def map_blocks(
    function: Callable[[Data], Tensor], source: Source, *, rows: NDArray[np.integer] | None = None, fixed: bool = True
) -> NDArray[Any]:
    """``function`` of the rows [N D], block by block, as an array: bounded memory whatever N is.

    Parameters
    ----------
    rows
        Numbers of the rows to take; None: all.
    fixed
        Every block has 512 rows, the last one padded, so that no row's result depends on how many others there are.
        False: blocks of up to 4,096 rows as they come, which is faster.
    """
    _survive_forks()
    size = BLOCK if fixed or isinstance(source.X, SparseRows) else FAST_BLOCK
    n = len(source) if rows is None else len(rows)
    found = None  # filled block by block: parts and their concatenation would be twice as much
    for start in range(0, n, size):
        x = source[slice(start, start + size) if rows is None else rows[start : start + size]]
        padded = torch.cat([x, x[:1].expand(size - len(x), -1)]) if fixed and len(x) < size else x
        values = function(padded)[: len(x)].cpu().numpy()
        found = np.empty((n, *values.shape[1:]), values.dtype) if found is None else found
        found[start : start + size] = values
    return np.empty(0) if found is None else found


@cache
def _survive_forks() -> None:
    """Let children of this process work with one thread: the others that OpenMP has made are not in them.

    A child that waits for them hangs. Asked for with the first rows, as nothing hangs before; a process that forks
    without having worked is left alone.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)


def count_gaps(X: Table) -> NDArray[np.integer]:
    """Number of gaps of each column [D]; sparse rows have none."""
    if isinstance(X, SparseRows):
        return np.zeros(X.shape[1], dtype=int)
    return np.array([np.isnan(rows).sum(0) for rows in blocks(X)]).sum(0)


def label(module: Any, X: Table) -> NDArray[np.int64]:
    """``argmax_y q(y|x)`` of each row [N], by a :class:`nvisa.nets.layers.LatentNetwork`; no array of N x K."""
    return map_blocks(lambda x: module.log_q_y(x).argmax(-1), Source(X, module.rescale.shift.device))
