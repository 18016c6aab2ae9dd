"""Columns from .csv and .parquet: what is numeric, what is a label, what names the rows."""

import csv
import difflib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from nvisa.datasets.arrays import Float32, as_float32
from nvisa.datasets.errors import DataError, describing

__all__ = ["numeric_block", "pop_labels", "read_frame", "row_names"]

SEPARATORS = ",;\t"
SHOWN = 10


def read_frame(path: Path) -> tuple[pd.DataFrame, bool]:
    """(the frame with its columns named by strings, whether the file named them)."""
    if path.suffix.lower() == ".parquet":
        advice = "It may be cut, or not Parquet; try writing it again (reading needs pyarrow)."
        with describing(path, "a Parquet file", advice=advice):
            frame, has_header = pd.read_parquet(path, engine="pyarrow"), True
    else:
        with describing(path, "a CSV file in UTF-8", advice="Try saving it as comma-separated UTF-8."):
            frame, has_header = _read_csv(path)
    frame.columns = pd.Index([str(column) for column in frame.columns])
    if frame.empty:
        raise DataError(f"{path}: expected rows and columns, got shape {frame.shape}. Try another file.")
    return frame, has_header


def pop_labels(frame: pd.DataFrame, column: str | int, path: Path) -> np.ndarray:
    """Remove `column` from the frame and return its values."""
    name = str(column)
    if name not in frame:
        close = difflib.get_close_matches(name, frame.columns) or list(frame.columns)
        raise DataError(f"{path}: expected a label column {name!r}, got none. Try {_listed(close)}.")
    return frame.pop(name).to_numpy()


def row_names(frame: pd.DataFrame) -> list[str] | None:
    """The index as text, where the file had one."""
    return None if isinstance(frame.index, pd.RangeIndex) else [str(name) for name in frame.index]


def numeric_block(frame: pd.DataFrame, path: Path, *, drop_text: bool) -> tuple[Float32, list[str]]:
    """(values [N D], names [D]) of the numeric columns; others are dropped or refused."""
    text = [name for name, dtype in frame.dtypes.items() if not is_numeric_dtype(dtype)]
    if text and not drop_text:
        found = _listed(f"{name!r}{_example(frame[name])}" for name in text)
        raise DataError(
            f"{path}: expected numeric columns, got {len(text)} of {frame.shape[1]} that are not: {found}. "
            "Try drop_text=True to leave them out, label_column= if one holds the labels, or encode them "
            "as numbers (pandas.get_dummies)."
        )
    numbers = frame.drop(columns=text)
    if numbers.shape[1] == 0:
        raise DataError(f"{path}: expected a numeric column, got none. Try encoding text as numbers.")
    return _values(numbers, path), list(numbers.columns)


def _values(frame: pd.DataFrame, path: Path) -> Float32:
    """Row by row in memory; what pandas marks as missing (pd.NA) becomes NaN."""
    values = np.empty(frame.shape, dtype=np.float32)
    for d, (name, column) in enumerate(frame.items()):
        is_plain = isinstance(column.dtype, np.dtype)
        numbers = column.to_numpy() if is_plain else column.to_numpy(dtype=np.float64, na_value=np.nan)
        values[:, d] = as_float32(numbers, f"{path}, column {name!r}")
    return values


def _read_csv(path: Path) -> tuple[pd.DataFrame, bool]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next((line for line in file if line.strip()), "")
    if not first:
        raise DataError(f"{path}: expected rows of values, got an empty file. Try another file.")
    separator = max(SEPARATORS, key=first.count)
    cells = next(csv.reader([first], delimiter=separator))
    has_header = _is_header(cells)
    frame = pd.read_csv(path, sep=separator, header=0 if has_header else None, encoding="utf-8-sig", low_memory=False)
    # pandas writes its index as a first column without a name; as a feature it would only rank the rows.
    if has_header and len(cells) > 1 and not cells[0].strip():
        frame = frame.set_index(frame.columns[0])
    return frame, has_header


def _is_header(cells: list[str]) -> bool:
    """Names, or the running numbers 0..D-1 that pandas writes for columns without names."""
    names = cells[1:] if not cells[0].strip() else cells
    is_range = [cell.strip() for cell in names] == [str(i) for i in range(len(names))]
    return is_range or not all(_is_number(cell) for cell in cells if cell.strip())


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _example(column: pd.Series) -> str:
    """The first entry that is not a number, as a hint: often the column is numeric but for a '?'."""
    values = ((row, value) for row, value in enumerate(column) if not _is_number(value))
    row, value = next(values, (None, None))
    return f" (dtype {column.dtype})" if row is None else f" (row {row}: {str(value)[:30]!r})"


def _listed(items: Iterable[str]) -> str:
    """At most ten, then how many more."""
    names = list(items)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
