"""The units in which the networks see rows, column by column, and what else they see of rows with gaps or sparse ones.

Those of tables with categories are in ``tables.py``.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.sparse.linalg import norm as sparse_norm
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from torch.nn import functional as F

from nvisa.maths.shapes import Data, Float
from nvisa.nets.conversion import temporary_map
from nvisa.nets.gaps import Fill
from nvisa.nets.rows import Source, Table, blocks, count_gaps, is_mapped, map_blocks, part, release, subset, take
from nvisa.nets.sparse import SparseRows, leading_axes
from nvisa.settings import SettingError

__all__ = [
    "Directions",
    "Rescale",
    "Rescaled",
    "centered",
    "feature_view",
    "fill_for",
    "has_unit_rows",
    "make_rescale",
    "make_units",
    "moments",
    "origin_of",
    "top_deviation",
    "warn_of_units",
]

Array = NDArray[np.floating]
DIRECTION_ROWS = 20_000  # whose mean and scale are those of all
FACTOR_ROWS = 5_000  # that the fill of gaps is fitted to


class Rescale(nn.Module):
    """``x -> (x - shift) / scale``, column by column, kept with the weights so that it is saved with them.

    A gap is NaN in both units; ``fill`` knows what to expect there, and is None where the fit's rows had none. ``axes``
    are those that wide sparse rows are projected on for whoever needs distances.
    """

    shift: Tensor
    scale: Tensor
    axes: Tensor | None
    has_categories = has_counts = False

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
        self.width = len(shift)  # columns of x in the networks' units

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return x in the networks' units."""
        return (x - self.shift) / self.scale

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


class Directions(Rescale):
    """The same of ``x / ||x||``: squared distances are ``2 - 2 cos``, in one scale. Back come unit vectors."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return x in the networks' units; rows of zeros have no direction, and stay zeros."""
        return super().forward(F.normalize(x, dim=-1))

    @classmethod
    def of(cls, X: Table, rng: RandomState) -> "Directions":
        """Of at most 20,000 rows.

        Raises
        ------
        SettingError
            For rows with gaps, whose length nobody knows.
        """
        if count_gaps(X).any():
            raise SettingError("network.scaling", "another than 'cosine' for rows with gaps", "cosine")
        rows = part(X, subset(len(X), rng, DIRECTION_ROWS))
        of_one = SparseRows(normalize(rows.csr)) if isinstance(rows, SparseRows) else normalize(rows)
        made = make_rescale(of_one, "global")
        axes = leading_axes(of_one, made.scale, rng) if isinstance(of_one, SparseRows) else None
        return cls(made.shift, made.scale, axes=axes)


def has_unit_rows(X: Table) -> bool:
    """Whether the rows are unit vectors, by a thousand spread over them: what was compared by cosines."""
    if X.shape[1] < 2:
        return False
    some = part(X, np.unique(np.linspace(0, len(X) - 1, min(len(X), 1_000)).astype(int)))
    lengths = sparse_norm(some.csr, axis=1) if isinstance(some, SparseRows) else np.linalg.norm(some, axis=1)
    return bool(np.abs(lengths - 1.0).max() < 1e-3)


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


def make_units(X: Table, scaling: str, rng: RandomState) -> Rescale:
    """:func:`make_rescale`, with what rows with gaps and wide sparse rows need besides."""
    if scaling == "cosine":
        return Directions.of(X, rng)
    rescale = make_rescale(X, scaling)
    if isinstance(X, SparseRows):
        rescale.axes = leading_axes(X, rescale.scale, rng)
    elif count_gaps(X).any():
        rescale.fill = fill_for(X, rescale, rng)
    return rescale


def fill_for(X: Table, rescale: Rescale, rng: RandomState) -> Fill:
    """What to expect in the gaps of these rows."""
    return Fill.of(rescale(torch.from_numpy(take(X, subset(len(X), rng, FACTOR_ROWS), np.float32))))


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
        uneven = varying.size and varying.max() > 10 * np.median(varying)
        scaling = "columns" if uneven and not has_unit_rows(X) else "global"
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
        block *= block
        squares += block.sum(0)
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


def feature_view(X: Table, rows: NDArray[np.integer], scaling: str, rng: RandomState) -> NDArray[np.floating]:
    """What distances and graphs see of these rows [n C], before any fit; see :meth:`Rescale.features`."""
    near = centered(X, origin_of(X))
    return map_blocks(make_units(near, scaling, rng).features, Source(near), rows=rows, fixed=False)


# ---- columns far from zero beside their spread -----------------------------------------------------------------------

FAR = 1e3  # deviations from zero: float32 leaves such a column 1 / 16,000 of a deviation
NOISE = 1e-13  # of the mean: a constant, summed up in another order, varies by less


def origin_of(X: Table) -> NDArray[np.float64] | None:
    """The mean of each column that float32 would blur, 0 for the others [D]; None if there is no such column.

    Times in seconds since 1970 that differ by a minute are one value of float32; less their mean they are not. Rows
    that are float32 already have nothing left to save.
    """
    if isinstance(X, SparseRows) or X.dtype == np.float32:
        return None
    mean, deviation = moments(X)
    is_far = (np.abs(mean) > FAR * deviation) & (deviation > NOISE * np.abs(mean))
    return np.where(is_far, mean, 0.0) if is_far.any() else None


def centered(X: Table, origin: NDArray[np.float64] | None) -> Table:
    """``X - origin``, subtracted in float64; X itself without an origin.

    Of a memory map it is one again, in float32, of a file that vanishes with it.
    """
    if origin is None or isinstance(X, SparseRows):
        return X
    if not is_mapped(X):
        return X - origin
    moved = temporary_map(X.shape, np.float32)
    start = 0
    for rows in blocks(X):
        moved[start : start + len(rows)] = rows - origin
        start += len(rows)
        release(moved)
    return moved
