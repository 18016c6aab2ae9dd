"""Columns whose cells are vectors: lists of Parquet, and JSON or array text in a CSV; one column for each entry."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nvisa.data.errors import DataError

__all__ = ["expanded", "vectors_of"]

BRACKETED = re.compile(r"\s*[\[({].*[\])}]\s*", re.DOTALL)


def expanded(frame: pd.DataFrame, path: object) -> tuple[pd.DataFrame, dict[str, int]]:
    """(the frame with one column for each entry of a vector, the length of each column of vectors).

    Entries are called ``name_0``, ``name_1``, ..., those of JSON objects by their keys.

    Raises
    ------
    DataError
        If vectors of one column have other lengths.
    """
    parts, lengths = [], {}
    for name, column in frame.items():
        found = None if column.dtype.kind in "biufcmM" else vectors_of(column, f"{path}, column {name!r}")
        if found is None:
            parts.append(column.to_frame())
            continue
        keys, values = found
        lengths[str(name)] = len(keys)
        parts.append(pd.DataFrame(values, index=frame.index, columns=[f"{name}_{key}" for key in keys], copy=False))
    return (pd.concat(parts, axis=1), lengths) if lengths else (frame, {})


def vectors_of(column: pd.Series, source: str) -> tuple[Sequence[Any], NDArray[np.floating]] | None:
    """(names of the entries, values [N L]) of a column of vectors; None if it is something else."""
    cells = column.tolist() if column.dtype == object or _begins_as_vector(column) else []
    first = next((cell for cell in cells if not _is_missing(cell)), None)
    if isinstance(first, str):
        if not BRACKETED.fullmatch(first):
            return None
        cells = [None if _is_missing(cell) else _parsed(cell) for cell in cells]
        first = next((cell for cell in cells if cell is not None), None)
    if isinstance(first, dict):
        return _of_objects(cells)
    if not isinstance(first, (list, tuple, np.ndarray)) or np.ndim(first) != 1 or len(first) == 0:
        return None
    return _of_lists(cells, len(first), source)


def _begins_as_vector(column: pd.Series) -> bool:
    known = column.dropna()
    return len(known) > 0 and isinstance(known.iloc[0], str) and BRACKETED.fullmatch(known.iloc[0]) is not None


def _is_missing(cell: object) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell))


def _parsed(cell: str) -> Any:
    """A list or an object of JSON; also [0.1 0.2], as numpy writes it, and {0.1,0.2}, as PostgreSQL does."""
    text = cell.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return [
                float("nan" if word in ("None", "null", "NULL") else word)
                for word in re.split(r"[\s,]+", text[1:-1].strip())
            ]
        except ValueError:
            return text


def _of_lists(cells: list[Any], length: int, source: str) -> tuple[Sequence[Any], NDArray[np.floating]] | None:
    lengths = {len(cell) for cell in cells if isinstance(cell, (list, tuple, np.ndarray))}
    odd = next((n for n, c in enumerate(cells) if not _is_missing(c) and (np.ndim(c) != 1 or len(c) != length)), None)
    if odd is not None and not lengths <= {length}:
        raise DataError(
            f"{source}: expected vectors of one length, got {length} numbers in the first and {np.size(cells[odd])} in "
            f"row {odd} (counted from 0).",
            "Try {drop} for the column, or mend its rows.",
            drop=None,
        )
    if odd is not None:
        return None
    kinds = {getattr(cell, "dtype", None) for cell in cells if not _is_missing(cell)}
    values = np.full((len(cells), length), np.nan, np.float32 if kinds == {np.dtype(np.float32)} else np.float64)
    try:
        for n, cell in enumerate(cells):
            if not _is_missing(cell):
                values[n] = (
                    [np.nan if entry is None else entry for entry in cell] if isinstance(cell, (list, tuple)) else cell
                )
    except (TypeError, ValueError, OverflowError):
        return None  # of words, or of numbers that no float holds
    return range(length), values


def _of_objects(cells: Iterable[Any]) -> tuple[Sequence[Any], NDArray[np.floating]] | None:
    """Of JSON objects with the same keys, and numbers for values."""
    rows = list(cells)
    keys = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    numbers = [[_number(row.get(key)) if isinstance(row, dict) else np.nan for key in keys] for row in rows]
    if any(value is None for row in numbers for value in row):
        return None
    return keys, np.array(numbers, dtype=np.float64)


def _number(value: object) -> float | None:
    if value is None:
        return float("nan")
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:
        return None
