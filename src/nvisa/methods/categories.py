"""Data frames with categories: codes in, categories out.

What a column is, is what pandas says of it: numbers are numbers; ``category``, text and booleans are categories. So it
can be said: ``frame.astype({"zip": "category"})``, ``frame.astype({"is_member": float})``. The order of an ordered
category is not used.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decoded", "encoded", "has_categories"]

MANY = 20  # different values, from which half as many as rows are names of the rows


def has_categories(X: Any) -> bool:
    """Whether a data frame has a column that is not of numbers."""
    return any(_is_category(X.iloc[:, d]) for d in range(X.shape[1]))


def _is_category(column: Any) -> bool:
    """Whether pandas says so; numbers kept as objects or as text are numbers."""
    kind = getattr(column.dtype, "name", "")
    if kind in ("category", "bool", "boolean"):
        return True
    if kind not in ("object", "str", "string"):
        return False
    try:
        column.astype(float)
    except (TypeError, ValueError):
        return True
    return all(isinstance(value, bool) for value in column.dropna())


def encoded(X: Any, categories: dict[str, list[Any]] | None = None) -> tuple[Any, dict[str, list[Any]]]:
    """The frame with a code for each category, NaN for a gap; and the categories of each such column, by its number.

    With ``categories`` those of a fit: a value that it has not seen is a gap, and warned of.
    """
    known = {str(d): _values(X, d) for d in range(X.shape[1]) if _is_category(X.iloc[:, d])}
    known = known if categories is None else categories
    columns = {}
    for d, name in enumerate(X.columns):
        column = X.iloc[:, d]
        columns[d] = _codes(column, known[str(d)], name) if str(d) in known else column
    made = type(X)(columns, index=X.index)
    made.columns = X.columns
    return made, known


def _values(X: Any, d: int) -> list[Any]:
    """The categories of a column, sorted, as JSON can hold them."""
    column, name = X.iloc[:, d], X.columns[d]
    if hasattr(column, "cat"):
        values = [value for value in column.cat.categories.tolist() if (column == value).any()]
    else:
        values = sorted(column.dropna().unique().tolist(), key=str)
        if len(values) > MANY and 2 * len(values) > len(column):
            raise ValueError(
                f"Expected categories in column {str(name)!r}, got {len(values):,} different values in {len(column):,} "
                "rows, as names have. Leave it out, or say that it is one: X.astype({...: 'category'})."
            )
    if not values:
        raise ValueError(f"Expected values in every column, got gaps only in {str(name)!r}. Leave it out.")
    strange = [value for value in values if not isinstance(value, (str, int, float, bool))]
    if strange:
        raise ValueError(
            f"Expected text, numbers or booleans as categories of column {str(name)!r}, got {strange[0]!r} "
            f"({type(strange[0]).__name__}). Turn it into text or numbers."
        )
    return values


def _codes(column: Any, values: list[Any], name: Any) -> NDArray[np.float64]:
    """Position of each value among ``values``; NaN for a gap, and for others, which are warned of."""
    place = {value: float(code) for code, value in enumerate(values)}
    found = np.array([place.get(value, np.nan) for value in column.astype(object)])
    unseen = column[np.isnan(found) & ~column.isna().to_numpy()]
    if len(unseen):
        shown = ", ".join(map(repr, unseen.unique().tolist()[:3]))
        warnings.warn(
            f"Column {str(name)!r} has {len(unseen)} values that the fit has not seen ({shown}): taken as gaps.",
            UserWarning,
            stacklevel=5,
        )
    return found


def decoded(x: NDArray[Any], clusterer: Any) -> Any:
    """Rows with codes as the data frame that they stand for; rows without categories as they are."""
    if not getattr(clusterer, "categories_", None):
        return x
    import pandas as pd  # noqa: PLC0415  whoever fitted a data frame has it

    frame = pd.DataFrame(x, columns=clusterer.feature_names_in_)
    for d, values in clusterer.categories_.items():
        codes = frame.iloc[:, int(d)]
        frame.isetitem(int(d), pd.Categorical.from_codes(codes.fillna(-1).astype(int), categories=values))
    return frame
