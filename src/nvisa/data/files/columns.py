"""Columns from .csv and .parquet: what is numeric, what is a label, what names the rows."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow
from pandas.api.types import is_float_dtype, is_numeric_dtype
from pyarrow import parquet

from nvisa.data.errors import DataError, Note, describing
from nvisa.data.files.arrays import Floats, as_floats
from nvisa.data.files.compressed import open_binary
from nvisa.data.files.dialect import Dialect, find_layout
from nvisa.data.files.numbers import Doubt
from nvisa.data.files.text_table import TextTable
from nvisa.data.files.vectors import expanded
from nvisa.data.limits import check_parquet

__all__ = ["IDENTIFIER", "Read", "name_rows", "names_in", "numeric_block", "pop_column", "read_frame", "row_names"]

SHOWN = 10  # names in a message
IDENTIFIER = re.compile(r"(?i:(^|[\s_.-])(id|index|idx|nr|no|row)$)|[a-z]I[Dd]$")  # customer_id, CustomerID; not paid
Written = Callable[[str], pd.Series]  # a column by its name, as the file writes it: 007, NA


@dataclass
class Read:
    """A file's columns, and what was found out about it.

    Attributes
    ----------
    frame : DataFrame
        Its columns named by strings.
    has_header : bool
        Whether the file named them.
    written : callable, or None
        Gives a column as the file writes it.
    doubts : dict
        Columns whose numbers can be read in two ways.
    """

    frame: pd.DataFrame
    has_header: bool = True
    written: Written | None = None
    doubts: dict[str, Doubt] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    dialect: Dialect = field(default_factory=Dialect)


def read_frame(path: Path, dialect: Dialect | None = None, *, is_parquet: bool) -> Read:
    """The columns of the file; vectors in a column have become columns."""
    if is_parquet:
        advice = "It may be cut, or not Parquet; try writing it again (reading needs pyarrow)."
        with describing(path, "a Parquet file", advice=advice):
            read = Read(_read_parquet(path))
    else:
        advice = (
            "Try saving it as comma-separated UTF-8, with as many cells in each line as in the first; "
            "Dialect(skip_lines=..., comment=...) passes over what is no row."
        )
        with describing(path, "a CSV file in UTF-8", advice=advice):
            text = TextTable(path, dialect or Dialect())
        read = Read(text.frame, text.has_header, text.written, text.doubts, text.notes, text.found)
    read.frame.columns = pd.Index([str(column).strip() for column in read.frame.columns])
    _check_names(read.frame, path)
    frame, lengths = expanded(read.frame, path)
    _check_names(frame, path)
    said = [Note(f"{name!r} holds vectors of {n} numbers, a column each") for name, n in lengths.items()]
    return replace(read, frame=frame, notes=[*read.notes, *said])


def names_in(path: Path, dialect: Dialect | None, *, is_parquet: bool) -> list[str]:
    """The names of the columns, or their positions, without reading the rows."""
    if is_parquet:
        with describing(path, "a Parquet file", advice="It may be cut, or not Parquet; try writing it again."):
            return [str(name).strip() for name in _open_parquet(path).schema_arrow.names]
    with describing(path, "a table in text", advice="Try saving it as comma-separated UTF-8."):
        layout = find_layout(path, dialect or Dialect())
    return [str(d) for d in range(layout.n_cells)] if layout.names is None else [name.strip() for name in layout.names]


def _check_names(frame: pd.DataFrame, path: Path) -> None:
    if twice := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise DataError(
            f"{path}: expected a name of its own for each column, got {_listed(twice)} more than once. Try calling one "
            "of them otherwise, where the file names its columns."
        )
    if frame.empty:
        raise DataError(f"{path}: expected rows and columns, got shape {frame.shape}. Try another file.")


def _read_parquet(path: Path) -> pd.DataFrame:
    """The file as a frame; a DECIMAL of a database is a number."""
    file = _open_parquet(path)
    check_parquet(path, file.metadata)
    table = file.read()
    for d, kind in enumerate(table.schema.types):
        if pyarrow.types.is_decimal(kind):
            table = table.set_column(d, table.schema.names[d], table.column(d).cast(pyarrow.float64()))
    return table.to_pandas()


def _open_parquet(path: Path) -> parquet.ParquetFile:
    is_plain = path.suffix.lower() == ".parquet"
    return parquet.ParquetFile(path if is_plain else pyarrow.BufferReader(open_binary(path).read()))


def pop_column(frame: pd.DataFrame, column: str | int, path: Path, *, role: str = "a label column") -> np.ndarray:
    """Remove `column` from the frame and return its values."""
    name = str(column)
    if name not in frame:
        close = difflib.get_close_matches(name, frame.columns) or list(frame.columns)
        raise DataError(f"{path}: expected {role} {name!r}, got none. Try {_listed(close)}.")
    return frame.pop(name).to_numpy()


def row_names(frame: pd.DataFrame) -> list[str] | None:
    """The index as text, unless it counts 0, 1, ...; of 1, 2, ... pandas makes a range too, and those are names."""
    if frame.index.equals(pd.RangeIndex(len(frame))):
        return None
    names = [str(name) for name in frame.index]
    return None if names == list(map(str, range(len(names)))) else names


def name_rows(frame: pd.DataFrame, column: str | None, path: Path, written: Written | None = None) -> pd.DataFrame:
    """The frame with ``column`` as its index; None: its first column, if it is called id or the like and never repeats.

    A running number as a feature would only rank the rows. Names are taken as they are ``written``.
    """
    if column is not None:
        values = pop_column(frame, column, path, role="a column of row names")
        return frame.set_index(pd.Index(values if written is None else written(column)))
    first = frame.columns[0]
    is_named = bool(IDENTIFIER.search(first)) and not _has_fractions(frame[first])
    if not is_named or frame.shape[1] == 1 or row_names(frame) is not None:
        return frame
    names = frame[first] if written is None else written(first)
    return frame.drop(columns=first).set_index(pd.Index(names)) if names.is_unique else frame


def _has_fractions(column: pd.Series) -> bool:
    return is_float_dtype(column) and not bool((column == column.round()).all())


def numeric_block(
    frame: pd.DataFrame, path: Path, *, drop_text: bool, doubts: Mapping[str, Doubt] = MappingProxyType({})
) -> tuple[Floats, list[str], list[str]]:
    """(values [N D], names [D], names left out): the numeric columns; others are dropped or refused."""
    _refuse_doubts(frame, path, doubts)
    text = [name for name, dtype in frame.dtypes.items() if not is_numeric_dtype(dtype)]
    if text and not drop_text:
        found = _listed(f"{name!r}{_example(frame[name])}" for name in text)
        raise DataError(
            f"{path}: expected numeric columns, got {len(text)} of {frame.shape[1]} that are not: {found}.",
            "Try {drop_text} to leave them out, {label_column} if one holds the labels, {id_column} if one names "
            "the rows, or encode them as numbers (pandas.get_dummies; a date as its days since another).",
            drop_text=True,
            label_column=None,
            id_column=None,
        )
    numbers = frame.drop(columns=text)
    if numbers.shape[1] == 0:
        raise DataError(f"{path}: expected a numeric column, got none. Try encoding text as numbers.")
    return _values(numbers, path), list(numbers.columns), text


def _refuse_doubts(frame: pd.DataFrame, path: Path, doubts: Mapping[str, Doubt]) -> None:
    """Raise a DataError for the first column that is used though its numbers can be read in two ways."""
    open_columns = [name for name in frame.columns if name in doubts]
    if not open_columns:
        return
    doubt = doubts[open_columns[0]]
    whole = doubt.cell.replace(doubt.mark, "")
    fraction = doubt.cell.replace(",", ".")
    raise DataError(
        f"{path}: expected numbers that can be read in one way, got {doubt.cell!r} in row {doubt.row}, column "
        f"{open_columns[0]!r} (counted from 0), which is {whole} with thousands grouped by {doubt.mark!r}, or "
        f"{fraction} with {doubt.mark!r} for the decimal mark; nothing in the file tells which"
        f"{f', nor for {len(open_columns) - 1} more columns' if len(open_columns) > 1 else ''}.",
        "Try {thousands} or {decimal} to say it.",
        thousands=doubt.mark,
        decimal=doubt.mark,
    )


def _values(frame: pd.DataFrame, path: Path) -> Floats:
    """Row by row in memory, in float32 if that holds every column exactly; what pandas marks as missing is NaN."""
    columns = [_numbers(column, f"{path}, column {name!r}") for name, column in frame.items()]
    values = np.empty(frame.shape, dtype=np.result_type(*{column.dtype for column in columns}))
    for d, column in enumerate(columns):
        values[:, d] = column
    return values


def _numbers(column: pd.Series, source: str) -> Floats:
    is_plain = isinstance(column.dtype, np.dtype)
    return as_floats(column.to_numpy() if is_plain else column.to_numpy(dtype=np.float64, na_value=np.nan), source)


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
