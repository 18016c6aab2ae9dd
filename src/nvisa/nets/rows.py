"""The rows of a data set: read in bounded memory, block by block, and in the units in which the networks see them.

The pages of a file that a process has read stay resident until something hands them back, so a walk through a map of
3 GB makes a process of 3 GB although nothing was copied. Everything here reads a piece, and hands it back.
"""

import mmap
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from nvisa.maths.shapes import Data, Float
from nvisa.nets.gaps import Fill
from nvisa.nets.sparse import SparseRows
from nvisa.settings import SettingError

__all__ = [
    "Rescale",
    "Rescaled",
    "Source",
    "Table",
    "as_given",
    "blocks",
    "count_gaps",
    "is_mapped",
    "label",
    "make_rescale",
    "map_blocks",
    "numbers",
    "moments",
    "part",
    "release",
    "subset",
    "take",
    "top_deviation",
    "warn_of_units",
]

Array = NDArray[np.floating]
Table: TypeAlias = NDArray[Any] | SparseRows  # what rows are read from
BLOCK = 512  # rows of every inference product
FAST_BLOCK = 4096
FILE_BLOCK = 8192
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
    piece = 32 * PIECE if contiguous else PIECE
    for start in range(0, len(numbers), piece):
        part = slice(start, start + piece)
        taken[part] = X[numbers[part][0] : numbers[part][-1] + 1] if contiguous else X[numbers[part]]
        release(X)
    return taken


def blocks(X: Table, size: int = FILE_BLOCK) -> Iterator[NDArray[Any]]:
    """Consecutive rows of X, ``size`` at a time: a view that is valid until the next one. Fewer of wide sparse rows."""
    size = min(size, X.block_rows) if isinstance(X, SparseRows) else size
    for start in range(0, len(X), size):
        yield X[start : start + size]
        release(X)


def numbers(X: Table) -> Iterator[NDArray[Any]]:
    """All numbers of X, in pieces of two axes; of sparse rows those that are stored."""
    return iter([X.csr.data[:, None]]) if isinstance(X, SparseRows) else blocks(X)


@dataclass
class Source:
    """Rows of an array, a memory map or a sparse matrix as float32 tensors on a device, gathered by index.

    ``origin`` is what was subtracted from the user's rows to make X (:func:`nvisa.methods.input.centered`).
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
    parts = []
    for start in range(0, len(source) if rows is None else len(rows), size):
        x = source[slice(start, start + size) if rows is None else rows[start : start + size]]
        padded = torch.cat([x, x[:1].expand(size - len(x), -1)]) if fixed and len(x) < size else x
        parts.append(function(padded)[: len(x)].cpu().numpy())
    return np.concatenate(parts)


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


def label(module: Any, X: Table) -> NDArray[np.int64]:
    """``argmax_y q(y|x)`` of each row [N], by a :class:`nvisa.nets.layers.LatentNetwork`; no array of N x K."""
    return map_blocks(lambda x: module.log_q_y(x).argmax(-1), Source(X, module.rescale.shift.device))


# ---- units -----------------------------------------------------------------------------------------------------------


class Rescale(nn.Module):
    """``x -> (x - shift) / scale``, column by column, kept with the weights so that it is saved with them.

    A gap is NaN in both units; ``fill`` knows what to expect there, and is None where the fit's rows had none. ``axes``
    are those that wide sparse rows are projected on for whoever needs distances.
    """

    shift: Tensor
    scale: Tensor
    axes: Tensor | None
    has_categories = False

    def __init__(
        self,
        shift: Float[Tensor, " D"],
        scale: Float[Tensor, " D"],
        fill: Fill | None = None,
        axes: Float[Tensor, "D C"] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.register_buffer("axes", axes)  # None is not in the state
        self.fill = fill

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return x in the networks' units."""
        return (x - self.shift) / self.scale

    @property
    def width(self) -> int:
        """Columns of x in the networks' units."""
        return len(self.shift)

    @property
    def n_axes(self) -> int:
        """Of wide sparse rows; else 0."""
        return 0 if self.axes is None else self.axes.shape[1]

    def features(self, x: Data) -> Float[Tensor, "B C"]:
        """What distances, graphs and simple clusterings see of x: the networks' units, gaps filled, on few axes."""
        x = self(x) if self.fill is None else self.fill(self(x))
        return x if self.axes is None else x @ self.axes

    def inverse(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return x in the user's units."""
        return x * self.scale + self.shift

    def log_det(self, x: Data) -> Float[Tensor, "*#B"]:
        """``log |d rescaled / d x|``: what a log density gains on the way back to the user's units; not for gaps."""
        if self.fill is None:
            return -self.scale.log().sum()
        return -(~x.isnan()).to(x) @ self.scale.log()


def count_gaps(X: Table) -> NDArray[np.integer]:
    """Number of gaps of each column [D]; sparse rows have none."""
    if isinstance(X, SparseRows):
        return np.zeros(X.shape[1], dtype=int)
    return np.array([np.isnan(rows).sum(0) for rows in blocks(X)]).sum(0)


def make_rescale(X: Table, scaling: str) -> Rescale:
    """The affine map into the networks' units; see :class:`nvisa.nets.layers.Network` for the kinds.

    X are the rows as the networks get them, ``centered``.
    """
    if scaling == "range":  # to [-1, 1], as images are made
        low, high = np.array([(rows.min(), -rows.max()) for rows in blocks(X)]).min(0) * (1, -1)
        ones = torch.ones(X.shape[1])
        return Rescale(float(low + high) / 2 * ones, max(float(high - low) / 2, 1e-6) * ones)
    mean, deviation = moments(X)
    least = 1e-7 * np.maximum(np.abs(mean), 1e-30)  # float32 holds no less
    _warn_lost(np.flatnonzero((deviation < least) & (deviation > 1e-5 * least)))
    deviation[deviation < least] = 0.0
    _warn_constant(deviation)
    scale = np.ones_like(deviation)
    common = np.sqrt((deviation**2).mean()) or 1.0
    varying = deviation[deviation > 0]
    if scaling == "auto":
        scaling = "columns" if varying.size and varying.max() > 10 * np.median(varying) else "global"
    if scaling == "none":
        mean = np.zeros_like(mean)
    elif scaling == "global":
        scale[:] = common
    elif scaling == "columns":
        scale[deviation > 0] = varying
    else:
        raise SettingError("network.scaling", "one of 'auto', 'global', 'columns', 'none'", scaling)
    return Rescale(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(scale.astype(np.float32)))


def moments(X: Table) -> tuple[Array, Array]:
    """Mean and deviation of each column [D], of what is observed, summed block by block in float64."""
    if isinstance(X, SparseRows):
        return X.moments()
    first = X[:512].astype(np.float64)
    shift = np.nan_to_num(first).sum(0) / np.maximum((~np.isnan(first)).sum(0), 1)  # so that the squares do not cancel
    n, total, squares = (np.zeros(X.shape[1]) for _ in range(3))
    for rows in blocks(X):
        block = rows.astype(np.float64)
        block -= shift
        n += len(block)
        if np.isnan(block.sum()):
            n -= (gaps := np.isnan(block)).sum(0)
            block[gaps] = 0.0
        total += block.sum(0)
        squares += (block * block).sum(0)
    mean = total / np.maximum(n, 1)
    return mean + shift, np.sqrt(np.maximum(squares / np.maximum(n, 1) - mean**2, 0.0))


def _warn_lost(columns: NDArray[np.integer]) -> None:
    if columns.size:
        warnings.warn(
            f"Columns {_listed(columns)} vary by less than float32 can hold beside their mean, and are taken for "
            "constant. Subtract the mean from them, as from times in seconds.",
            UserWarning,
            stacklevel=5,
        )


def _listed(columns: NDArray[np.integer]) -> str:
    return ", ".join(map(str, columns[:5])) + (", ..." if columns.size > 5 else "")


def _warn_constant(deviation: Array) -> None:
    constant = np.flatnonzero(deviation == 0)
    if constant.size:
        shown = _listed(constant)
        message = f"{constant.size} of {deviation.size} columns are constant and tell nothing apart (columns {shown})."
        warnings.warn(message, UserWarning, stacklevel=5)


@dataclass
class Rescaled:
    """Rows of X as ``rescale.features`` shows them, made as they are asked for."""

    X: Table
    rescale: Rescale

    def __len__(self) -> int:
        return len(self.X)

    @torch.inference_mode()
    def __getitem__(self, rows: NDArray[np.integer] | slice) -> Array:
        source = Source(self.X, self.rescale.shift.device)
        if isinstance(self.X, SparseRows):
            return map_blocks(self.rescale.features, source, rows=np.arange(len(self))[rows], fixed=False)
        return self.rescale.features(source[rows]).cpu().numpy()


def warn_of_units(X: Table, rescale: Rescale) -> None:
    """Warn when rows spread thirty times as far as those that ``rescale`` was made from, or a thirtieth as far.

    Pixels from 0 to 255 given to a model of pixels from 0 to 1 are finite numbers like any others, and all in one
    cluster. Data that were fitted as they are (``shift`` 0) have no spread to compare with.
    """
    if len(X) < 20 or not rescale.shift.any():
        return
    x = Rescaled(X, rescale)[:1000].astype(np.float64)
    spread = np.sqrt(np.square(x - x.mean(0)).mean())
    if not 1 / 30 < spread < 30 and spread > 1e-6:  # equal rows say nothing
        warnings.warn(
            f"The rows spread {spread:.3g} times as far as those of the fit. Are they in its units? Pixels from 0 to 1 "
            "are not in those of pixels from 0 to 255. If so, look for outliers, here or in the rows of the fit.",
            UserWarning,
            stacklevel=4,
        )


def top_deviation(X: Rescaled, rng: RandomState) -> float:
    """Square root of the largest eigenvalue of the covariance of at most 10,000 rows."""
    x = X[subset(len(X), rng, 10_000)]
    x -= x.mean(0)
    return float(randomized_svd(x, 1, random_state=rng)[1][0] / np.sqrt(len(x)))
