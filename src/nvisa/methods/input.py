"""What a clusterer is handed, checked: as rows for its networks, or refused with what, where and what next.

* numbers as they are; infinity, and what float32 cannot hold, is refused
* NaN is a gap for methods that take gaps (``nets/gaps.py``): in a fit, and after a fit to rows that had some
* text, booleans and pandas' categories are categories for methods that take them (``categories.py``)
* scipy's sparse matrices stay sparse, and are dense for a batch at a time (``nets/sparse.py``)
"""

from itertools import count
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import validate_data

from nvisa.methods.categories import encoded, has_categories
from nvisa.nets.conversion import as_rows
from nvisa.nets.rows import FILE_BLOCK, Table, blocks, count_gaps, is_mapped, numbers
from nvisa.nets.sparse import SparseRows
from nvisa.nets.units import centered, origin_of
from nvisa.settings import SettingError

__all__ = ["check_unit_interval", "validated"]


def validated(clusterer: Any, X: Any, *, reset: bool, at_least: int = 1) -> Table:
    """Scikit-learn's checks, and less the fit's origin: what float32 would blur is moved near zero in float64.

    A memory map is looked through block by block, and not copied if it is floating, and near zero.

    ``reset`` in a fit, which learns the number of columns and their names.
    """
    X = _numbered(clusterer, as_rows(X), reset=reset)
    mapped, gaps = is_mapped(X), "allow-nan" if clusterer.TAKES_GAPS and not issparse(X) else True
    checked = validate_data(
        clusterer,
        X,
        dtype=[np.float64, np.float32],
        reset=reset,
        ensure_all_finite=False if mapped else gaps,
        accept_sparse="csr" if clusterer.TAKES_SPARSE else False,
    )
    checked = SparseRows(checked) if issparse(checked) else checked
    for rows in numbers(checked) if mapped or checked.dtype == np.float64 else ():
        with np.errstate(over="ignore"):  # in the networks' float32 it would be infinite
            rows32 = rows.astype(np.float32, copy=False)
        name = type(clusterer).__name__
        assert_all_finite(rows32, estimator_name=name, input_name="X", allow_nan=clusterer.TAKES_GAPS)
    if clusterer.TAKES_GAPS and reset and (empty := np.flatnonzero(count_gaps(checked) == len(checked))).size:
        names = ", ".join(_name(clusterer, d) for d in empty)
        raise ValueError(f"Expected numbers in every column, got gaps only in {names}. Leave it out.")
    if clusterer.TAKES_GAPS and not reset and not getattr(clusterer, "fills_gaps_", False):
        _refuse_gaps(clusterer, checked)
    if len(checked) < at_least:
        hint = "give more rows or ask for fewer clusters."
        raise ValueError(f"n_samples={len(checked)} should be >= n_clusters={at_least}: {hint}")
    if reset:
        clusterer.__dict__.pop("origin_", None)
        if (origin := origin_of(checked)) is not None:
            origin[[int(d) for d in clusterer.categories_]] = 0.0  # codes stay codes
            clusterer.origin_ = origin
    return centered(checked, getattr(clusterer, "origin_", None))


def _numbered(clusterer: Any, X: Any, *, reset: bool) -> Any:
    """X with numbers in place of its categories, which a fit learns."""
    known = {} if reset else getattr(clusterer, "categories_", {})
    if clusterer.TAKES_CATEGORIES and (known or (hasattr(X, "select_dtypes") and has_categories(X))):
        if not reset and not hasattr(X, "select_dtypes"):
            raise ValueError(f"Expected a data frame, as that of the fit was, got {type(X).__name__}.")
        if reset:
            X, known = encoded(X)
        elif list(X.columns) == list(clusterer.feature_names_in_):  # else scikit-learn says what is wrong
            X, _ = encoded(X, known)
    clusterer.categories_ = known
    return X


def _refuse_gaps(clusterer: Any, X: Table) -> None:
    """Raise an error that says where the first gap is; sparse rows have none."""
    for start, rows in zip(count(0, FILE_BLOCK), () if isinstance(X, SparseRows) else blocks(X), strict=False):
        if np.isnan(rows).any():
            n, d = np.argwhere(np.isnan(rows))[0]
            raise ValueError(
                f"Expected rows without gaps, as those of the fit were, got NaN in row {start + n}, column "
                f"{_name(clusterer, d)}. Fit to rows that have gaps too, or fill it in."
            )


def _name(clusterer: Any, column: np.integer) -> str:
    """The name of a column, or its number."""
    names = getattr(clusterer, "feature_names_in_", None)
    return str(column) if names is None else repr(str(names[column]))


def check_unit_interval(X: Table) -> None:
    """Raise a SettingError unless all numbers lie in [0, 1]; gaps may lie anywhere."""
    low, high = np.nanmin([(np.nanmin(rows), -np.nanmax(rows)) for rows in blocks(X)], 0) * (1, -1)
    if low < 0 or high > 1:
        raise SettingError(
            "likelihood",
            f"another than 'bernoulli', which needs data in [0, 1], for data in {low:g} .. {high:g}",
            "bernoulli",
            "Rescale them, or use likelihood='gaussian_shared'.",
        )
