"""How the text of a table is written: encoding, comments, separator, header. What was not said is found."""

import codecs
import csv
import io
import itertools
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from nvisa.data.errors import DataError, Note
from nvisa.data.files.compressed import open_binary
from nvisa.data.files.numbers import MISSING, is_number

__all__ = ["BLANKS", "COMMENTS", "Dialect", "Layout", "cells_of", "find_layout", "open_table"]

SEPARATORS, BLANKS = ",;\t|", r"\s+"
COMMENTS = ("#", "%", "//")
SNIFFED = 200  # records that tell how a file is written
NAMED = {"\t": "tabs", BLANKS: "blanks", ",": "','"}


@dataclass(frozen=True)
class Dialect:
    r"""How the text of a table is written; None: find out, and say what was found.

    Parameters
    ----------
    header
        Whether the first line names the columns.
    separator
        Between cells; ``r"\s+"``: blanks.
    decimal
        The decimal mark, "." or ",".
    thousands
        What groups digits; "": nothing does.
    comment
        What a line that is no row begins with; "": nothing does.
    encoding
        As Python calls it.
    skip_lines
        Lines above the table that are no part of it.
    like
        Of another file: followed where this one leaves it open.

    Examples
    --------
    >>> from nvisa.data import Dialect
    >>> Dialect(decimal=",", thousands=".").thousands
    '.'
    """

    header: bool | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    comment: str | None = None
    encoding: str | None = None
    skip_lines: int | None = None
    like: "Dialect | None" = None

    def said(self) -> dict[str, Any]:
        """What was asked for."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "like"}
        return {name: value for name, value in values.items() if value is not None}

    def followed(self, name: str) -> Any:
        """What the other file has, where this one leaves it open."""
        return None if self.like is None else getattr(self.like, name)


@dataclass
class Layout:
    """Where the rows of a text are, and what was found on the way.

    Attributes
    ----------
    names : list of str, or None
        Of the columns, as the file writes them.
    first : int
        Lines above the first row.
    n_cells : int
        Of the longest of the first records.
    n_comments : int
        Remarks above the first line of the table.
    """

    path: Path
    encoding: str
    separator: str
    comment: str
    first: int
    names: list[str] | None
    n_cells: int
    n_comments: int
    notes: list[Note] = field(default_factory=list)
    is_comment_said: bool = False


def find_layout(path: Path, asked: Dialect) -> Layout:
    """How the file is written: what was asked for, else what its first records show.

    Raises
    ------
    DataError
        If it has no rows, or nothing tells whether its first line is one.
    """
    encoding = asked.encoding or _encoding(path)
    above, comment, n_skipped, hint = _above(path, encoding, asked)
    records = _Lines(path, encoding, comment, n_skipped).first(SNIFFED)
    if not any(line.strip() for line in records):
        raise DataError(f"{path}: expected rows of values, got an empty file. Try another file.")
    separator = asked.separator or hint or _separator(records)
    is_said = asked.comment is not None
    notes = [] if separator == "," else [Note(f"cells between {NAMED.get(separator, repr(separator))}")]
    rows = cells_of(records, separator)
    if asked.skip_lines is None and (n_above := _n_titles(rows)):
        n_skipped, rows = _line_of(path, encoding, comment, n_skipped, n_above), rows[n_above:]
        notes.append(Note(f"{n_above} lines above the table left out", "if they are rows: {skip_lines}", skip_lines=0))
    n_cells, n_remarks = max(map(len, rows)), len(above)
    names = _names_above(above, comment, separator, rows) if asked.header is None else None
    if names is not None:
        notes.append(Note("the comment line above the rows names the columns", "if not: {header}", header=False))
        return Layout(path, encoding, separator, comment, n_skipped, names, n_cells, n_remarks - 1, notes, is_said)
    if _has_header(rows, asked, path, notes):
        n_skipped, names = _line_of(path, encoding, comment, n_skipped, 1), rows[0]
    return Layout(path, encoding, separator, comment, n_skipped, names, n_cells, n_remarks, notes, is_said)


# ---- lines -----------------------------------------------------------------------------------------------------------


class _Lines(io.TextIOBase):
    """The lines of a file that are not comments, as a file to read from. Quoted cells keep theirs."""

    def __init__(self, path: Path, encoding: str, comment: str, n_skipped: int, cut: tuple[str, int] = ("", 0)) -> None:
        self.file = _text(path, encoding)
        self.path, self.comment, self.cut, self.n_comments, self.rest = path, comment, cut, 0, ""
        for _ in itertools.islice(self.file, n_skipped):
            pass

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # typeshed has bytes
        """One line after the other."""
        if not self.comment:
            yield from self.file
            return
        is_quoted = False
        for line in self.file:
            if not is_quoted and line.lstrip().startswith(self.comment):
                self._pass_over(line)
                continue
            is_quoted ^= bool(line.count('"') & 1)
            yield line

    def _pass_over(self, line: str) -> None:
        """Count a remark; one with as many cells as a row is not left out on a guess."""
        separator, n_cells = self.cut
        if n_cells > 1 and line.count(separator) >= n_cells - 1:
            raise DataError(
                f"{self.path}: expected remarks in lines that begin with {self.comment!r}, got one with as many cells "
                f"as a row: {line.strip()[:40]!r}.",
                f"Try {{comment}} {self.comment!r} to leave such lines out, {{comment}} none if they are rows.",
                comment=None,
            )
        self.n_comments += 1

    def read(self, size: int | None = None) -> str:
        """So many characters, or the rest."""
        size = -1 if size is None else size
        if not self.comment:
            return self.file.read(size)
        parts, n = [self.rest], len(self.rest)
        if not hasattr(self, "lines"):
            self.lines = iter(self)
        while size < 0 or n < size:
            if (line := next(self.lines, None)) is None:
                break
            parts.append(line)
            n += len(line)
        text = "".join(parts)
        cut = n if size < 0 else size
        self.rest = text[cut:]
        return text[:cut]

    def readable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """And the file below."""
        self.file.close()
        super().close()

    def first(self, n_records: int) -> list[str]:
        """The first records, each with its line ends; blank ones are left out."""
        records: list[str] = []
        open_quote = False
        with self:
            for line in self:
                if open_quote:
                    records[-1] += line
                elif line.strip():
                    if len(records) == n_records:
                        break
                    records.append(line)
                open_quote ^= bool(line.count('"') & 1)
        return records


def open_table(layout: Layout) -> _Lines:
    """The rows as text; ``n_comments`` counts the lines passed over."""
    cut = ("", 0) if layout.is_comment_said else (layout.separator, layout.n_cells)
    return _Lines(layout.path, layout.encoding, layout.comment, layout.first, cut)


def _text(path: Path, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(cast("Any", open_binary(path)), encoding, newline="")


def _encoding(path: Path) -> str:
    """UTF-8, or UTF-16 by its mark, or Windows-1252 (which Excel writes in western Europe), and then it is said."""
    with open_binary(path) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    try:
        with _text(path, "utf-8-sig") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        warnings.warn(f"{path} is not UTF-8; it is read as Windows-1252 (cp1252).", stacklevel=2)
        return "cp1252"
    return "utf-8-sig"


def _above(path: Path, encoding: str, asked: Dialect) -> tuple[list[str], str, int, str | None]:
    """(comment lines on top, what they begin with, lines to skip, the separator that Excel's ``sep=;`` names)."""
    with _Lines(path, encoding, "", asked.skip_lines or 0) as lines:
        n_skipped, comments, hint = asked.skip_lines or 0, [], None
        marks = COMMENTS if asked.comment is None else (asked.comment,) if asked.comment else ()
        for line in lines:
            text = line.strip()
            if text.lower().startswith("sep=") and len(text) == 5 and hint is None:
                hint = text[-1]
            elif text and text.startswith(marks):
                comments.append(text)
            elif text:
                break
            n_skipped += 1
    mark = asked.comment
    if mark is None:
        mark = next((m for m in COMMENTS if comments and comments[0].startswith(m)), "")
    return comments, mark, n_skipped, hint


def _line_of(path: Path, encoding: str, comment: str, n_skipped: int, n_records: int) -> int:
    """How many lines stand above the row after so many records."""
    lines = _Lines(path, encoding, "", n_skipped)
    found, open_quote, n = 0, False, n_skipped
    with lines:
        for line in lines:
            starts = not open_quote and bool(line.strip()) and not (comment and line.lstrip().startswith(comment))
            if starts and found == n_records:
                break
            found += starts
            if starts or open_quote:
                open_quote ^= bool(line.count('"') & 1)
            n += 1
    return n


# ---- cells -----------------------------------------------------------------------------------------------------------


def cells_of(records: Sequence[str], separator: str) -> list[list[str]]:
    """The cells of each record."""
    before = csv.field_size_limit(2**31 - 1)  # a vector as text is longer than the module's limit
    try:
        if separator == BLANKS:
            return list(csv.reader((" ".join(record.split()) for record in records), delimiter=" "))
        return [row for row in csv.reader(_ends(records), delimiter=separator, skipinitialspace=True) if row]
    finally:
        csv.field_size_limit(before)


def _ends(records: Iterable[str]) -> Iterator[str]:
    """Physical lines, as the reader wants them."""
    for record in records:
        yield from record.splitlines(keepends=True)


def _separator(records: Sequence[str]) -> str:
    """What cuts all records alike, and into numbers; blanks, if nothing else does."""
    scores = {separator: _score(cells_of(records, separator), separator) for separator in (*SEPARATORS, BLANKS)}
    return max(scores, key=lambda separator: scores[separator])


def _score(rows: list[list[str]], separator: str) -> tuple[bool, float, bool, bool, int]:
    """(whether it cuts, the share of numbers in the records, whether the first is cut alike, whether it is no blank, cells)."""
    body = rows[1:] or rows
    n = Counter(map(len, body)).most_common(1)[0][0]
    alike = [row for row in body if len(row) == n]
    is_cut = n > 1 and 2 * len(alike) > len(body) and (len(rows[0]) > 1 or len(rows) > 2)
    cells = [cell for row in alike for cell in row if cell.strip() not in MISSING]
    numbers = sum(map(is_number, cells)) / max(len(cells), 1)
    is_plain = separator != BLANKS
    if not is_plain and (numbers < 1 or len(alike) < len(body) or len(rows[0]) != n):
        return False, 0.0, False, False, 0  # text has blanks of its own
    return is_cut, round(numbers, 3), len(rows[0]) == n, is_plain, n


def _n_titles(rows: list[list[str]]) -> int:
    """Records above the table that are one cell of text, where all that follow have several."""
    wide = [sum(bool(cell.strip()) for cell in row) > 1 for row in rows]
    n = wide.index(True) if True in wide else 0
    is_text = all(not is_number(row[0].strip()) and row[0].strip() for row in rows[:n])
    lengths = {len(row) for row in rows[n:]}
    return n if n and is_text and len(lengths) == 1 and len(rows) - n > 2 else 0


# ---- the first line --------------------------------------------------------------------------------------------------


def _names_above(above: list[str], comment: str, separator: str, rows: list[list[str]]) -> list[str] | None:
    """Names in the last comment line, as numpy.savetxt writes them: as many words as the rows have numbers."""
    if not above or not comment or not any(is_number(cell) for cell in rows[0]) or _is_named(rows):
        return None
    text = above[-1].removeprefix(comment).strip()
    names = cells_of([text], separator)[0] if text else []
    is_text = all(name.strip() and not is_number(name) for name in names)
    return names if len(names) == len(rows[0]) > 1 and is_text else None


def _is_named(rows: list[list[str]]) -> bool:
    """Whether the first record has words above numbers."""
    return any(cell.strip() and not is_number(cell) for cell, _ in _above_numbers(rows))


def _above_numbers(rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    """(first cell, the others) of each column whose others are numbers."""
    columns = [(cell, [row[d].strip() for row in rows[1:] if d < len(row)]) for d, cell in enumerate(rows[0])]
    return [
        (cell, [other for other in others if other])
        for cell, others in columns
        if any(others) and all(is_number(other) for other in others if other)
    ]


def _has_header(rows: list[list[str]], asked: Dialect, path: Path, notes: list[Note]) -> bool:
    """Whether the first record names the columns; numbers are judged by what is below them."""
    if asked.header is not None:
        return asked.header
    numeric = _above_numbers(rows)
    numbers = [cell for cell, _ in numeric if cell.strip()]
    if len(rows) < 2 or not numeric:
        return not all(is_number(cell) for cell in rows[0] if cell.strip())
    if any(not is_number(cell) for cell in numbers):
        return True  # words above numbers
    recurs = any(not is_number(cell) and any(cell == row[d] for row in rows[1:] if d < len(row))
                 for d, cell in enumerate(rows[0]))  # fmt: skip
    verdict = _numbers_are_names(numeric, rows, recurs=recurs)
    if verdict is None:
        verdict = asked.followed("header")
    if verdict is None:
        raise DataError(
            f"{path}: expected a first line that is told from the rows, got numbers in it ({', '.join(numbers[:5])}) "
            "that can be names of columns or a row.",
            "Try {header} yes if they are names, {header} no if they are a row.",
            header=None,
        )
    shown = ", ".join(numbers[:3]) + (", ..." if len(numbers) > 3 else "")
    if verdict and [cell.strip() for cell in numbers] != [str(i) for i in range(len(numbers))]:
        notes.append(Note(f"the first line names the columns ({shown})", "if it is a row: {header}", header=False))
    elif not verdict:
        notes.append(Note("the first line is a row, not names", "if it is names: {header}", header=True))
    return verdict


def _numbers_are_names(numeric: list[tuple[str, list[str]]], rows: list[list[str]], *, recurs: bool) -> bool | None:
    """Whether numbers in the first record are names: yes, no, or None if it cannot be told.

    Names differ from each other. Mostly they run on evenly (years, wavelengths), and are unlike what is below: whole
    numbers above fractions, or outside of every column's range. One of these signs alone leaves a doubt.
    """
    is_index = not rows[0][0].strip() and all(row[0].strip() for row in rows[1:])
    pairs = [(_value(cell), below) for cell, below in numeric if cell.strip()]
    values = [value for value, _ in pairs]
    n_blank = len(numeric) - len(pairs) - (is_index and is_number(rows[1][0].strip()))
    if recurs or n_blank or None in values or len(set(values)) < len(values):
        return False
    others = [[_value(row[d].strip()) for d in range(len(row)) if rows[0][d : d + 1] and rows[0][d].strip()] for row in rows[1:]]
    runs = _runs(values) and not any(map(_runs, others))
    is_unlike = all(_is_whole(cell) for cell, _ in numeric if cell.strip()) and not any(
        _is_whole(other) for cell, below in numeric if cell.strip() for other in below
    )
    is_outside = all(_is_outside(value, below) for value, below in pairs)
    is_range = values == list(range(len(values)))
    if is_index and (_names_rows([row[0].strip() for row in rows[1:]]) or runs or is_unlike):
        return True
    n_signs = runs + is_unlike + is_outside + (is_range and runs)
    if n_signs > 1 or (runs and len(values) > 4):
        return True
    is_odd = is_index or runs or is_range or is_unlike or (is_outside and len(values) > 2)
    return None if is_odd and len(rows) > 2 and len(values) > 1 else False


def _names_rows(cells: list[str]) -> bool:
    """Words, or the running numbers that pandas and R write."""
    return not all(map(is_number, cells)) or cells in ([str(i + first) for i in range(len(cells))] for first in (0, 1))


def _is_outside(value: float | None, below: list[str]) -> bool:
    """Whether a value is beyond all others of its column."""
    known = [other for other in map(_value, below) if other is not None]
    return value is not None and bool(known) and not min(known) <= value <= max(known)


def _runs(row: list[float | None]) -> bool:
    """Whether numbers go on by even steps, or by steps of one sign where there are many."""
    values = [value for value in row if value is not None]
    steps = [round(b - a, 9) for a, b in itertools.pairwise(values)]
    is_even = len(set(steps)) == 1 and steps[0] != 0 and len(values) > 2
    return is_even or values == [0, 1] or (len(values) > 4 and (min(steps) > 0 or max(steps) < 0))


def _is_whole(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdigit()


def _value(cell: str) -> float | None:
    """The number, by the nearest reading; only to compare."""
    try:
        return float(cell.strip().replace(",", "."))
    except ValueError:
        return None
