"""Which units the rows of a fit get: of numbers, rows with gaps, wide sparse rows, tables with categories."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.nets.conversion import temporary_map
from nvisa.nets.gaps import Fill
from nvisa.nets.rows import (
    Rescale,
    Source,
    Table,
    blocks,
    count_gaps,
    is_mapped,
    make_rescale,
    map_blocks,
    moments,
    release,
    subset,
    take,
)
from nvisa.nets.sparse import SparseRows, leading_axes
from nvisa.nets.tables import TableUnits, shares

__all__ = ["blank_units", "category_levels", "centered", "feature_view", "make_units", "origin_of"]

FACTOR_ROWS = 5_000  # that the fill of gaps is fitted to


def make_units(X: Table, scaling: str, rng: RandomState, levels: Sequence[int] = ()) -> Rescale:
    """:func:`make_rescale`, with what rows with gaps, wide sparse rows or tables with categories need besides.

    ``levels`` has the number of categories of each column, 0 for numbers; empty: no categories.
    """
    if isinstance(X, SparseRows):
        rescale = make_rescale(X, scaling)
        return Rescale(rescale.shift, rescale.scale, axes=leading_axes(X, rescale.scale, rng))
    rescale = _table_units(X, scaling, levels) if any(levels) else make_rescale(X, scaling)
    if any(levels) or count_gaps(X).any():
        some = torch.from_numpy(take(X, subset(len(X), rng, FACTOR_ROWS), np.float32))
        rescale.fill = Fill.of(rescale(some))
    return rescale


def feature_view(X: Table, rows: NDArray[np.integer], scaling: str, rng: RandomState) -> NDArray[np.floating]:
    """What distances and graphs see of these rows [n C], before any fit; see :meth:`Rescale.features`."""
    near = centered(X, origin_of(X))
    return map_blocks(make_units(near, scaling, rng).features, Source(near), rows=rows, fixed=False)


def _table_units(X: Any, scaling: str, levels: Sequence[int]) -> TableUnits:
    """Numbers by their columns, unless they are asked to be otherwise, and categories."""
    numbers = [d for d, n in enumerate(levels) if not n]
    shift, scale = torch.zeros(len(levels)), torch.ones(len(levels))
    if numbers:
        made = make_rescale(X[:, numbers], "columns" if scaling == "auto" else scaling)
        shift[numbers], scale[numbers] = made.shift, made.scale
    return TableUnits(shift, scale, levels, *shares(X, levels))


def category_levels(fitted: Mapping[str, Any]) -> list[int]:
    """Number of categories of each column, 0 for numbers, by the ``categories_`` of a clusterer."""
    known = fitted.get("categories_") or {}
    return [len(known.get(str(d), ())) for d in range(fitted["n_features_in_"])]


def blank_units(fitted: Mapping[str, Any]) -> Rescale:
    """Units of the shapes that these fitted attributes of a clusterer tell of, to be filled from a file."""
    n_features, levels = fitted["n_features_in_"], category_levels(fitted)
    if any(levels):
        return TableUnits.blank(levels)
    fill = Fill.blank(n_features) if fitted.get("fills_gaps_", False) else None
    n_axes = fitted.get("n_axes_", 0)
    axes = torch.zeros(n_features, n_axes) if n_axes else None
    return Rescale(torch.zeros(n_features), torch.ones(n_features), fill, axes)


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
    for start, rows in zip(range(0, len(X), 8192), blocks(X, 8192), strict=True):
        moved[start : start + 8192] = rows - origin
        release(moved)
    return moved
