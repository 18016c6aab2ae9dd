"""What a clusterer is handed, checked: as rows for its networks, or refused with what, where and what next.

numbers                 as they are
NaN                     a gap, for methods that take gaps (``nets/gaps.py``): in a fit, and after a fit that had some
infinity, too large     refused
"""

from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import validate_data

from nvisa.nets.rows import FILE_BLOCK, blocks, count_gaps, is_mapped
from nvisa.settings import SettingError

__all__ = ["Array", "check_unit_interval", "columns_with_gaps", "validated"]

Array = NDArray[np.floating]


def validated(clusterer: Any, X: Any, *, reset: bool, at_least: int = 1) -> Array:
    """Scikit-learn's checks; a memory map is looked through block by block, and not copied if it is floating.

    ``reset`` in a fit, which learns the number of columns and their names.
    """
    mapped, gaps = is_mapped(X), "allow-nan" if clusterer.TAKES_GAPS else True
    checked = validate_data(
        clusterer, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=False if mapped else gaps
    )
    for rows in blocks(checked) if mapped or checked.dtype == np.float64 else ():
        with np.errstate(over="ignore"):  # in the networks' float32 it would be infinite
            rows32 = rows.astype(np.float32, copy=False)
        name = type(clusterer).__name__
        assert_all_finite(rows32, estimator_name=name, input_name="X", allow_nan=clusterer.TAKES_GAPS)
    if clusterer.TAKES_GAPS and not reset and not getattr(clusterer, "fills_gaps_", False):
        _refuse_gaps(clusterer, checked)
    if len(checked) < at_least:
        hint = "give more rows or ask for fewer clusters."
        raise ValueError(f"n_samples={len(checked)} should be >= n_clusters={at_least}: {hint}")
    return checked


def _refuse_gaps(clusterer: Any, X: Array) -> None:
    """Raise an error that says where the first gap is."""
    for start, rows in zip(count(0, FILE_BLOCK), blocks(X), strict=False):
        if np.isnan(rows).any():
            n, d = np.argwhere(np.isnan(rows))[0]
            raise ValueError(
                f"Expected rows without gaps, as those of the fit were, got NaN in row {start + n}, column "
                f"{_name(clusterer, d)}. Fit to rows that have gaps too, or fill it in."
            )


def columns_with_gaps(clusterer: Any, X: Array) -> NDArray[np.intp]:
    """Numbers of the columns that have gaps; an error if one has nothing else."""
    n_gaps = count_gaps(X) if clusterer.TAKES_GAPS else np.zeros(X.shape[1], int)
    if empty := [_name(clusterer, d) for d in np.flatnonzero(n_gaps == len(X))]:
        raise ValueError(f"Expected numbers in every column, got gaps only in {', '.join(empty)}. Leave it out.")
    return np.flatnonzero(n_gaps)


def _name(clusterer: Any, column: np.integer) -> str:
    """The name of a column, or its number."""
    names = getattr(clusterer, "feature_names_in_", None)
    return str(column) if names is None else repr(str(names[column]))


def check_unit_interval(X: Array) -> None:
    """Raise a SettingError unless all numbers lie in [0, 1]; gaps may lie anywhere."""
    low, high = np.array([(np.nanmin(rows), -np.nanmax(rows)) for rows in blocks(X)]).min(0) * (1, -1)
    if low < 0 or high > 1:
        raise SettingError(
            "likelihood",
            f"another than 'bernoulli', which needs data in [0, 1], for data in {low:g} .. {high:g}",
            "bernoulli",
            "Rescale them, or use likelihood='gaussian_shared'.",
        )
