"""Columns from .csv and .parquet: what is numeric, what is a label, what names the rows."""

import codecs
import csv
import difflib
import itertools
import re
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_numeric_dtype

from nvisa.data.errors import DataError, describing
from nvisa.data.files.arrays import Float32, as_float32
from nvisa.data.limits import check_parquet

__all__ = ["IDENTIFIER", "name_rows", "numeric_block", "pop_column", "read_frame", "row_names"]

SEPARATORS, BLANKS = ",;\t|", r"\s+"
SHOWN, SNIFFED = 10, 50  # names in a message; lines that tell how a file is written
IDENTIFIER = re.compile(r"(?i:(^|[\s_.-])(id|index|idx|nr|no|row)$)|[a-z]I[Dd]$")  # customer_id, CustomerID; not paid
Written = Callable[[str], pd.Series]  # a column by its name, as the file writes it: 007, NA


def read_frame(path: Path) -> tuple[pd.DataFrame, bool, Written | None]:
    """(the frame with its columns named by strings, whether the file named them, how to read one as it is written)."""
    if path.suffix.lower() == ".parquet":
        advice = "It may be cut, or not Parquet; try writing it again (reading needs pyarrow)."
        with describing(path, "a Parquet file", advice=advice):
            check_parquet(path)
            frame, has_header, written = pd.read_parquet(path, engine="pyarrow"), True, None
    else:
        with describing(
            path,
            "a CSV file in UTF-8",
            advice="Try saving it as comma-separated UTF-8, with as many cells in each line as in the first.",
        ):
            frame, has_header, written = _read_csv(path)
    frame.columns = pd.Index([str(column).strip() for column in frame.columns])
    if twice := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise DataError(f"{path}: expected a name of its own for each column, got {_listed(twice)} more than once.")
    if frame.empty:
        raise DataError(f"{path}: expected rows and columns, got shape {frame.shape}. Try another file.")
    return frame, has_header, written


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
    is_named = bool(IDENTIFIER.search(first)) and not is_float_dtype(frame[first])
    if not is_named or frame.shape[1] == 1 or row_names(frame) is not None:
        return frame
    names = frame[first] if written is None else written(first)
    return frame.drop(columns=first).set_index(pd.Index(names)) if names.is_unique else frame


def numeric_block(frame: pd.DataFrame, path: Path, *, drop_text: bool) -> tuple[Float32, list[str], list[str]]:
    """(values [N D], names [D], names left out): the numeric columns; others are dropped or refused."""
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


def _values(frame: pd.DataFrame, path: Path) -> Float32:
    """Row by row in memory; what pandas marks as missing (pd.NA) becomes NaN."""
    values = np.empty(frame.shape, dtype=np.float32)
    for d, (name, column) in enumerate(frame.items()):
        is_plain = isinstance(column.dtype, np.dtype)
        numbers = column.to_numpy() if is_plain else column.to_numpy(dtype=np.float64, na_value=np.nan)
        values[:, d] = as_float32(numbers, f"{path}, column {name!r}")
    return values


def _read_csv(path: Path) -> tuple[pd.DataFrame, bool, Written]:
    encoding = _encoding(path)
    lines, n_skipped = _first_lines(path, encoding)
    if not lines:
        raise DataError(f"{path}: expected rows of values, got an empty file. Try another file.")
    separator = _separator(lines)
    rows = _cells(lines, separator)
    has_header = _is_header(rows[0] if separator == "," else _points(rows[0]))
    _warn_of_numbers(rows[0], path, has_header=has_header)
    read = partial(
        pd.read_csv,
        path,
        sep=separator,
        header=0 if has_header else None,
        names=range(max(map(len, rows))) if has_header else None,  # else a cell too many were the name of its row
        skiprows=n_skipped,
        encoding=encoding,
        skipinitialspace=separator != BLANKS,
    )
    decimal = "," if _has_decimal_commas(rows[has_header:], separator) else "."
    frame = _without_blank_end(read(decimal=decimal, low_memory=False), rows[0], path)
    if has_header:
        frame.columns = pd.Index([cell.strip() or f"Unnamed: {d}" for d, cell in enumerate(rows[0][: frame.shape[1]])])
    names = list(map(str, frame.columns))

    def written(name: str) -> pd.Series:
        return read(usecols=[names.index(name)], dtype=str, na_filter=False).iloc[:, 0]

    # pandas writes its index as a first column without a name; as a feature it would only rank the rows.
    if has_header and len(rows[0]) > 1 and not rows[0][0].strip():
        frame = frame.iloc[:, 1:].set_index(pd.Index(written(names[0])))
    return frame, has_header, written


def _warn_of_numbers(first: list[str], path: Path, *, has_header: bool) -> None:
    numbers = [cell.strip() for cell in first if _is_number(cell)]
    if has_header and numbers != [str(i) for i in range(len(numbers))]:
        warnings.warn(
            f"{path}: the first line is read as the names of the columns, though it has numbers ({_listed(numbers)}). "
            "If it is a row, put a line of names above it.",
            stacklevel=2,
        )


def _without_blank_end(frame: pd.DataFrame, first: list[str], path: Path) -> pd.DataFrame:
    """The frame without last columns that have neither a name nor a value: lines that end in a separator make them."""
    n = frame.shape[1]
    while n > 1 and not "".join(first[n - 1 :]).strip() and frame.iloc[:, n - 1].isna().all():
        n -= 1
    if n > len(first):
        row = int(frame.iloc[:, len(first) :].notna().any(axis=1).to_numpy().argmax())
        raise DataError(
            f"{path}: expected {len(first)} cells in each line, as many as names in its first, got more in row {row} "
            "(counted from 0). Try a name for each column."
        )
    return frame.iloc[:, :n]


def _encoding(path: Path) -> str:
    """UTF-8, or UTF-16 by its mark, or Windows-1252 (which Excel writes in western Europe), and then it is said."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    try:
        with path.open(encoding="utf-8-sig") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        warnings.warn(f"{path} is not UTF-8; it is read as Windows-1252 (cp1252).", stacklevel=2)
        return "cp1252"
    return "utf-8-sig"


def _first_lines(path: Path, encoding: str) -> tuple[list[str], int]:
    """(the first lines that are not blank, how many lines Excel's ``sep=;`` takes before them)."""
    with path.open(encoding=encoding, newline="") as file:
        lines = list(itertools.islice((line for line in file if line.strip()), SNIFFED + 1))
    n_skipped = int(bool(lines) and lines[0].lower().startswith("sep="))
    return lines[n_skipped:], n_skipped


def _separator(lines: list[str]) -> str:
    """What cuts the lines into most cells, counted on the line that it cuts least; blanks, if nothing else does.

    A comma is a decimal one where another separator leaves numbers: 1,5;2,5 has two cells.
    """
    counts = {separator: min(map(len, _cells(lines, separator))) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    if best == ",":
        last = {separator: _cells(lines[-1:], separator)[0] for separator, n in counts.items() if n > 1}
        numeric = [s for s, cells in last.items() if all(_is_number(c) for c in _points(cells) if c.strip())]
        best = next((s for s in numeric if s != ","), best)
    words = lines[-1].split()
    is_blank = counts[best] == 1 and len(words) > 1 and all(map(_is_number, words))
    return BLANKS if is_blank else best


def _cells(lines: list[str], separator: str) -> list[list[str]]:
    if separator == BLANKS:
        return list(csv.reader((" ".join(line.split()) for line in lines), delimiter=" "))
    return list(csv.reader(lines, delimiter=separator, skipinitialspace=True))


def _points(cells: list[str]) -> list[str]:
    """The cells with 1.5 for 1,5."""
    return [cell.replace(",", ".", 1) for cell in cells]


def _has_decimal_commas(rows: list[list[str]], separator: str) -> bool:
    """Whether numbers are written 1,5: some cells are, and none is written 1.5."""
    cells = [cell.strip() for row in rows for cell in row]
    commas = separator != "," and any(re.fullmatch(r"[-+]?\d+,\d+", cell) for cell in cells)
    return commas and not any(re.fullmatch(r"[-+]?\d+\.\d+", cell) for cell in cells)


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
