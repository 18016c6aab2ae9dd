"""What the rows hold: their kind, range, scale and gaps, and the likelihood and scaling that follow from them.

A fit says it before training. No label is looked at.
"""

import re
import warnings

import numpy as np

from nvisa.commands.printing import Result, listed, notes_lines
from nvisa.commands.rows import Rows
from nvisa.nets.rows import as_given, blocks
from nvisa.nets.sparse import SparseRows
from nvisa.nets.units import centered, has_unit_rows, make_rescale, origin_of

__all__ = ["profile", "profile_text"]


def profile(rows: Rows, *, likelihood: str | None = None, scaling: str | None = None) -> Result:
    """What the rows are, as plain values, and the likelihood and scaling that follow from it or were asked for."""
    low, high, is_binary = _ranges(rows)
    likelihood = likelihood or ("bernoulli" if is_binary else "gaussian_shared")
    if likelihood == "bernoulli":
        scaling, why = "none", "probabilities have no scale"
    elif likelihood.endswith("negative_binomial"):
        scaling, why = (scaling, "as asked for") if scaling else ("global", "logarithms of counts have one unit")
    else:
        scaling, why = (scaling, "as asked for") if scaling else _scaling(rows)
    return {
        "kind": _kind(rows),
        "source": rows.source,
        "n_rows": len(rows.X),
        "n_features": rows.X.shape[1],
        "feature_shape": rows.feature_shape,
        "columns": rows.columns,
        "range": [float(low.min()), float(high.max())],
        "n_constant": int((low == high).sum()),
        "notes": list(rows.notes),
        "left_out": list(rows.left_out),
        "perhaps_names": _perhaps_names(rows),
        "n_gaps": rows.n_gaps,
        "n_with_gaps": rows.n_with_gaps,
        "n_incomplete": rows.n_incomplete,
        "rows_are_named": rows.names is not None and not rows.n_incomplete,
        "has_labels": rows.labels is not None,
        "likelihood": likelihood,
        "scaling": scaling,
        "why_scaling": why,
    }


def _kind(rows: Rows) -> str:
    if rows.feature_shape is not None:
        return "images"
    if isinstance(rows.X, SparseRows):
        return "sparse rows"
    return "array" if rows.columns is None else "table"


def _perhaps_names(rows: Rows) -> list[str]:
    """Columns called id or the like, of whole numbers that seldom repeat: features, unless somebody says otherwise."""
    if rows.columns is None:
        return []
    from nvisa.data.files.columns import IDENTIFIER  # noqa: PLC0415  pandas, which has read the columns

    named = {name: as_given(rows.X)[:, d] for d, name in enumerate(rows.columns) if IDENTIFIER.search(name)}
    return [n for n, x in named.items() if (x == np.round(x)).all() and 2 * len(np.unique(x)) > len(x) > 1]


def _ranges(rows: Rows) -> tuple[np.ndarray, np.ndarray, bool]:
    """(least [D], largest [D], whether every value is 0 or 1), block by block; gaps have no part in it."""
    if isinstance(rows.X, SparseRows):
        csr = rows.X.csr
        return csr.min(axis=0).toarray(), csr.max(axis=0).toarray(), bool((csr.data == 1).all())
    low, high, is_binary = rows.X[0], rows.X[0], True
    for block in blocks(rows.X):
        low, high = np.fmin(low, np.fmin.reduce(block)), np.fmax(high, np.fmax.reduce(block))
        is_binary = is_binary and bool(((block == 0) | (block == 1) | np.isnan(block)).all())
    low, high = np.nan_to_num(low), np.nan_to_num(high)
    return low, high, is_binary and bool(high.max() > low.min())


def _scaling(rows: Rows) -> tuple[str, str]:
    """("columns" or "global", why): columns with names of their own have units of their own.

    Columns that only count on (pixel0, pixel1, ...) are one vector, and the library's own rule decides.
    """
    if not rows.n_gaps and has_unit_rows(rows.X):
        return "global", "the rows are unit vectors, so that distances go by cosines"
    if rows.columns is not None and len({re.sub(r"[\W\d_]+$", "", name) for name in rows.columns}) > 1:
        return "columns", "columns with names of their own have units of their own"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant columns, which the fit will say
        scale = make_rescale(centered(rows.X, origin_of(rows.X)), "auto").scale.numpy()
    if (scale == scale[0]).all():
        return "global", "the columns vary alike"
    return "columns", "some columns vary ten times as much as others"


SCALES = {
    "auto": "decided by the columns' deviations",
    "columns": "each column by its own deviation",
    "global": "one scale for all columns",
    "cosine": "rows by their length, then one scale for all columns",
    "none": "none",
}
LIKELIHOODS = {
    "bernoulli": "a probability each (bernoulli)",
    "gaussian": "numbers whose deviations depend on z (gaussian)",
    "gaussian_shared": "numbers with one deviation a column (gaussian_shared)",
    "negative_binomial": "counts beside the sum of their row (negative_binomial)",
    "zero_inflated_negative_binomial": "counts with additional zeros (zero_inflated_negative_binomial)",
}


def profile_text(found: Result) -> str:
    """The same for people, a few lines."""
    low, high = found["range"]
    shape = "" if found["feature_shape"] is None else " of " + " x ".join(map(str, found["feature_shape"]))
    lines = [f"{found['source']}: {found['kind']}{shape}, {found['n_rows']:,} rows x {found['n_features']:,} columns"]
    lines += notes_lines(found["notes"])
    if found["columns"] is not None:
        lines.append(f"  columns    {listed(found['columns'])}")
    lines.append(f"  values     {low:g} .. {high:g}, modeled as {LIKELIHOODS[found['likelihood']]}")
    lines.append(f"  scaling    {SCALES[found['scaling']]}: {found['why_scaling']}")
    if found["left_out"]:
        lines.append(f"  left out   columns {listed(found['left_out'])}")
    if found["perhaps_names"]:
        lines.append(
            f"  used       {listed(found['perhaps_names'])}: if they name the rows, --id-column or --drop NAME"
        )
    if found["n_gaps"]:
        rows = f"{found['n_with_gaps']:,} rows have gaps ({found['n_gaps']:,} in all)"
        lines.append(f"  gaps       {rows}, modeled as not observed; --drop-missing leaves these rows out")
    if found["n_incomplete"]:
        lines.append(f"  left out   {found['n_incomplete']:,} rows with gaps")
    if found["rows_are_named"]:
        lines.append("  row names  kept for the result, not used")
    if found["has_labels"]:
        lines.append("  labels     kept aside for the comparison at the end, not used")
    return "\n".join(lines)
