"""A table in text: read as its dialect says, every column whose cells are numbers as numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

from nvisa.data.errors import DataError, Note
from nvisa.data.files.dialect import BLANKS, COMMENTS, Dialect, Layout, find_layout, open_table
from nvisa.data.files.numbers import MISSING, Doubt, Marks, settle, to_numbers

__all__ = ["TextTable"]

ENOUGH = 1000  # rows in which most columns show their marks


@dataclass
class TextTable:
    """A CSV file and its kin.

    Attributes
    ----------
    frame : DataFrame
        Columns whose cells are numbers under the file's marks are numbers; others are text.
    doubts : dict
        Columns whose numbers can be read in two ways, which nothing in the file settles.
    found : Dialect
        How it was read.
    """

    path: Path
    asked: Dialect
    frame: pd.DataFrame = field(init=False)
    found: Dialect = field(init=False, default_factory=Dialect)
    doubts: dict[str, Doubt] = field(init=False, default_factory=dict)
    notes: list[Note] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.layout: Layout = find_layout(self.path, self.asked)
        self.notes += self.layout.notes
        frame = self._without_blank_end(self._without_comments())
        names = self.layout.names
        if names is not None:
            frame.columns = pd.Index(
                [cell.strip() or f"Unnamed: {d}" for d, cell in enumerate(names[: frame.shape[1]])]
            )
        self._names = [str(column) for column in frame.columns]
        self.frame = self._with_numbers(frame)
        # pandas writes its index as a first column without a name; as a feature it would only rank the rows.
        if names is not None and len(names) > 1 and not names[0].strip():
            self.frame = self.frame.iloc[:, 1:].set_index(pd.Index(self.written(self._names[0])))

    def written(self, name: str) -> pd.Series:
        """A column as the file writes it: 007, NA."""
        return self._texts([name])[name]

    @property
    def has_header(self) -> bool:
        """Whether the file names its columns."""
        return self.layout.names is not None

    def _without_comments(self) -> pd.DataFrame:
        """The rows; lines among them that are a remark are passed over, and counted."""
        how = {"decimal": self.asked.decimal or ".", "low_memory": False}
        frame, n = self._read(**how)
        if not self.layout.comment and self.asked.comment is None and (mark := _remarks(frame)) is not None:
            self.layout.comment = mark
            frame, n = self._read(**how)
        if n_left := n + self.layout.n_comments:
            what = f"{n_left} lines that begin with {self.layout.comment!r} left out"
            self.notes.append(Note(what, "if they are rows: {comment} none", comment=None))
        return frame

    def _read(self, **how: Any) -> tuple[pd.DataFrame, int]:
        """(the rows below the header, comment lines passed over)."""
        with open_table(self.layout) as lines:
            frame = pd.read_csv(
                lines, sep=self.layout.separator, header=None, names=range(self.layout.n_cells), engine="c",
                skipinitialspace=self.layout.separator != BLANKS, **NA | how,
            )  # fmt: skip
            return frame, lines.n_comments

    def _texts(self, names: list[str], n_rows: int | None = None) -> pd.DataFrame:
        """Columns as they are written."""
        numbers = sorted(self._names.index(name) for name in names)
        frame, _ = self._read(usecols=numbers, dtype=str, na_filter=False, na_values=None, nrows=n_rows)
        return frame.set_axis([self._names[d] for d in numbers], axis=1)

    def _without_blank_end(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame without last columns of neither name nor value: lines that end in a separator make them."""
        names = self.layout.names
        known = frame.shape[1] if names is None else len(names)
        n = frame.shape[1]
        while n > 1 and not "".join((names or [])[n - 1 :]).strip() and frame.iloc[:, n - 1].isna().all():
            n -= 1
        if n > known:
            row = int(frame.iloc[:, known:].notna().any(axis=1).to_numpy().argmax())
            raise DataError(
                f"{self.path}: expected {known} cells in each line, as many as names in its first, got more in row "
                f"{row} (counted from 0).",
                "Try a name for each column, {separator} if cells are cut elsewhere, or {skip_lines} for lines above "
                "the table.",
                separator=None,
                skip_lines=None,
            )
        return frame.iloc[:, :n]

    # ---- numbers

    def _with_numbers(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with numbers in place of texts that are some, as all its marks together tell them."""
        frame.columns = pd.Index(self._names)
        if len(set(self._names)) < len(self._names):
            return frame  # refused by name, later
        parsed = self.asked.decimal or "."
        marks: dict[str, Marks] = {}
        open_columns = [name for name in self._names if _may_be_misread(frame[name], parsed, marks)]
        texts = self._texts_of(open_columns, parsed, marks)
        for name in self._names:
            if not is_numeric_dtype(frame[name]) and (seen := Marks.of(frame[name])) is not None:
                marks[name], texts[name] = seen, frame[name]
        asked = self.asked
        decimal, self.doubts = settle(marks, asked.decimal, asked.thousands, asked.followed("decimal"))
        changed = {}
        for name, column in texts.items():
            if name in self.doubts:
                changed[name] = column
            elif (numbers := to_numbers(column, decimal, asked.thousands)) is not None:
                changed[name] = numbers
        self._say(decimal, marks, changed)
        return frame.assign(**changed) if changed else frame

    def _texts_of(self, names: list[str], parsed: str, marks: dict[str, Marks]) -> dict[str, pd.Series]:
        """Texts of the columns whose numbers may be read wrong; the first rows settle most."""
        first = self._texts(names, ENOUGH) if names else pd.DataFrame()
        unsettled = []
        for name in names:
            seen = Marks.of(_known(first[name]))
            if seen is not None and parsed in seen.decimal:
                marks[name] = seen
            else:
                unsettled.append(name)
        texts = {}
        for start in range(0, len(unsettled), 64):
            for name, column in self._texts(unsettled[start : start + 64]).items():
                if (seen := Marks.of(_known(column))) is not None:
                    marks[str(name)] = seen
                    if seen.either or seen.grouping:
                        texts[str(name)] = column.where(~column.isin(MISSING), None)
        return texts

    def _say(self, decimal: str, marks: dict[str, Marks], changed: dict[str, Any]) -> None:
        asked, other = self.asked, "," if decimal == "." else "."
        groups = {m for seen in marks.values() for m in seen.grouping | ({other} & set(seen.either))} - {decimal}
        thousands = asked.thousands if asked.thousands is not None else "".join(sorted(groups)) or None
        if decimal != "." and asked.decimal is None and changed:
            self.notes.append(Note("decimals after ','", "else {decimal}", decimal="."))
        if groups and asked.thousands is None and changed:
            shown = " and ".join(repr(mark) for mark in sorted(groups))
            self.notes.append(Note(f"thousands grouped by {shown}", "else {thousands}", thousands=""))
        settled = decimal if any(decimal in m.decimal | set(m.either) for m in marks.values()) or groups else None
        layout = self.layout
        self.found = Dialect(
            header=self.has_header, separator=layout.separator, decimal=asked.decimal or settled, thousands=thousands,
            comment=layout.comment, encoding=asked.encoding, skip_lines=asked.skip_lines,
        )  # fmt: skip


NA = {"na_values": MISSING, "keep_default_na": False}


def _remarks(frame: pd.DataFrame) -> str | None:
    """What lines of one cell begin with, where rows have several and no row begins so."""
    first = frame.iloc[:, 0]
    if is_numeric_dtype(first) or frame.shape[1] == 1:
        return None
    for mark in COMMENTS:
        begins = first.astype(str).str.lstrip().str.startswith(mark)
        if begins.any() and frame.iloc[:, 1:][begins].isna().all(axis=None):
            return mark
    return None


def _known(column: pd.Series) -> list[str]:
    """The cells that pandas does not take for missing."""
    return [cell for cell in column if cell not in MISSING]


def _may_be_misread(column: pd.Series, parsed: str, marks: dict[str, Marks]) -> bool:
    """Whether all fractions of a column of floats have three digits, as 2.512 for 2,512 has: its text has to tell."""
    if not is_float_dtype(column) or is_bool_dtype(column):
        return False
    values = column.to_numpy()
    values = values[np.isfinite(values)]
    fractional = values[values != np.round(values)]
    size = np.abs(fractional)
    thousandths = np.round(1000 * size)
    if len(fractional) and ((size < 1) | (size >= 1000) | (np.abs(thousandths - 1000 * size) > 1e-6)).any():
        marks[str(column.name)] = Marks(decimal={parsed})
        return False
    return bool((np.abs(values) < 1000).any()) and len(values) > 0
