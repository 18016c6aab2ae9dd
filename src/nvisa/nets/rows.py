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
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from nvisa.maths.shapes import Data, Float
from nvisa.settings import SettingError

__all__ = [
    "Rescale",
    "Rescaled",
    "Source",
    "blocks",
    "check_unit_interval",
    "is_mapped",
    "label",
    "make_rescale",
    "map_blocks",
    "subset",
    "take",
    "top_deviation",
    "warn_of_units",
]

Array = NDArray[np.floating]
BLOCK = 512  # rows of every inference product
FAST_BLOCK = 4096
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


@dataclass
class Source:
    """Rows of an array or a memory map as float32 tensors on a device, gathered by index."""

    X: NDArray[Any]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, rows: NDArray[np.integer] | slice) -> Data:
        return torch.from_numpy(take(self.X, rows, np.float32)).to(self.device)


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
    size = BLOCK if fixed else FAST_BLOCK
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


def label(module: Any, X: Array) -> NDArray[np.int64]:
    """``argmax_y q(y|x)`` of each row [N], by a :class:`nvisa.nets.layers.LatentNetwork`; no array of N x K."""
    return map_blocks(lambda x: module.log_q_y(x).argmax(-1), Source(X, module.rescale.shift.device))


# ---- units -----------------------------------------------------------------------------------------------------------


class Rescale(nn.Module):
    """``x -> (x - shift) / scale``, column by column, kept with the weights so that it is saved with them."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Float[Tensor, " D"], scale: Float[Tensor, " D"]) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return x in the networks' units."""
        return (x - self.shift) / self.scale

    def inverse(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return x in the user's units."""
        return x * self.scale + self.shift

    def log_det(self) -> Float[Tensor, ""]:
        """``log |d rescaled / d x|``: what a log density gains on the way back to the user's units."""
        return -self.scale.log().sum()


def make_rescale(X: Array, scaling: str) -> Rescale:
    """The affine map into the networks' units; see :class:`nvisa.nets.layers.Network` for the kinds.

    Moments are summed block by block in float64: a memory map is read once and never copied whole.
    """
    if scaling == "range":  # to [-1, 1], as images are made
        low, high = np.array([(rows.min(), -rows.max()) for rows in blocks(X)]).min(0) * (1, -1)
        ones = torch.ones(X.shape[1])
        return Rescale(float(low + high) / 2 * ones, max(float(high - low) / 2, 1e-6) * ones)
    n, total, squares = len(X), np.zeros(X.shape[1]), np.zeros(X.shape[1])
    shift = X[:512].astype(np.float64).mean(0)  # near the mean, so that the squares do not cancel
    for rows in blocks(X):
        block = rows.astype(np.float64) - shift
        total += block.sum(0)
        squares += (block * block).sum(0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0.0))
    mean += shift
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
    return Rescale(*(torch.from_numpy(a.astype(np.float32)) for a in (mean, scale)))


def _warn_lost(columns: NDArray[np.integer]) -> None:
    if columns.size:
        warnings.warn(
            f"Columns {_listed(columns)} vary by less than float32 can hold beside their mean, and are taken for "
            "constant. Subtract the mean from them, as from times in seconds.",
            UserWarning,
            stacklevel=4,
        )


def _listed(columns: NDArray[np.integer]) -> str:
    return ", ".join(map(str, columns[:5])) + (", ..." if columns.size > 5 else "")


def _warn_constant(deviation: Array) -> None:
    constant = np.flatnonzero(deviation == 0)
    if constant.size:
        shown = _listed(constant)
        message = f"{constant.size} of {deviation.size} columns are constant and tell nothing apart (columns {shown})."
        warnings.warn(message, UserWarning, stacklevel=4)


@dataclass
class Rescaled:
    """Rows of X in the networks' units, made as they are asked for."""

    X: NDArray[Any]
    rescale: Rescale

    def __len__(self) -> int:
        return len(self.X)

    @torch.inference_mode()
    def __getitem__(self, rows: NDArray[np.integer] | slice) -> Array:
        rescale = self.rescale
        x = torch.from_numpy(take(self.X, rows, np.float32)).to(rescale.shift.device)
        return rescale(x).cpu().numpy()


def warn_of_units(X: Array, rescale: Rescale) -> None:
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


def check_unit_interval(X: Array) -> None:
    """Raise a SettingError unless all numbers lie in [0, 1]."""
    low, high = np.array([(rows.min(), -rows.max()) for rows in blocks(X)]).min(0) * (1, -1)
    if low < 0 or high > 1:
        raise SettingError(
            "likelihood",
            f"another than 'bernoulli', which needs data in [0, 1], for data in {low:g} .. {high:g}",
            "bernoulli",
            "Rescale them, or use likelihood='gaussian_shared'.",
        )
