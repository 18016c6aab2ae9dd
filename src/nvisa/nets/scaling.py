"""The units in which the networks see the data: made from blocks, so that a memory map is never copied whole."""

import warnings

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from nvisa.nets.layers import Rescale
from nvisa.nets.rows import blocks, take

__all__ = ["Rescaled", "make_rescale", "top_deviation", "warn_of_units"]

Array = NDArray[np.floating]


def make_rescale(X: Array, scaling: str) -> Rescale:
    """The affine map into the networks' units; see :class:`nvisa.nets.layers.Network` for the kinds.

    Moments are summed block by block in float64: a memory map is read once and never copied whole.
    """
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
        raise ValueError(f"scaling must be 'auto', 'global', 'columns' or 'none', got {scaling!r}.")
    return Rescale(*(torch.from_numpy(a.astype(np.float32)) for a in (mean, scale)))


def _warn_lost(columns: NDArray[np.integer]) -> None:
    if columns.size:
        warnings.warn(
            f"Columns {_listed(columns)} vary by less than float32 can hold beside their mean, and are taken for "
            "constant. Subtract the mean from them, as from times in seconds.",
            UserWarning,
            stacklevel=2,
        )


def _listed(columns: NDArray[np.integer]) -> str:
    return ", ".join(map(str, columns[:5])) + (", ..." if columns.size > 5 else "")


def _warn_constant(deviation: Array) -> None:
    constant = np.flatnonzero(deviation == 0)
    if constant.size:
        shown = _listed(constant)
        message = f"{constant.size} of {deviation.size} columns are constant and tell nothing apart (columns {shown})."
        warnings.warn(message, UserWarning, stacklevel=2)


class Rescaled:
    """Rows of X in the networks' units, made as they are asked for."""

    def __init__(self, X: Array, rescale: Rescale) -> None:
        self.X, self.rescale = X, rescale

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
    x = X[np.sort(rng.permutation(len(X))[:10_000])]
    x -= x.mean(0)
    return float(randomized_svd(x, 1, random_state=rng)[1][0] / np.sqrt(len(x)))
