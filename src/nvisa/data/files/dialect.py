"""How the text of a table is written: encoding, comments, separator, header. What was not said is found."""

import codecs
import csv
import io
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from nvisa.data.errors import DataError, Note
from nvisa.data.files.compressed import open_binary
from nvisa.data.files.header import first_is_names, names_above
from nvisa.data.files.numbers import MISSING, is_number

__all__ = ["BLANKS", "COMMENTS", "Dialect", "Layout", "cells_of", "find_layout", "open_table"]

SEPARATORS, BLANKS = ",;\t|", r"\s+"
COMMENTS = ("#", "%", "//")
ONE = re.compile(r"^-0,|,0\d|[eE]|^[^,]*$")  # -0,5 and 1,05 are one number, and so is 1,5 in a file with 2
EITHER = re.compile(r"[ .'\u00a0\u202f]\d{3},|,\d{3}\.")  # 1.234,5 is one number, or 1.234 and 5
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
    separator = asked.separator or hint or _separator(records, asked, path)
    is_said = asked.comment is not None
    notes = [] if separator == "," else [Note(f"cells between {NAMED.get(separator, repr(separator))}")]
    if not asked.separator and separator == "," and _lines_of_numbers(records):
        notes = [Note("two columns, not one of decimals", "else {decimal}", decimal=",")]
    rows = _without_remarks(cells_of(records, separator))
    if asked.skip_lines is None and (n_above := _n_titles(rows)):
        n_skipped, rows = _line_of(path, encoding, comment, n_skipped, n_above), rows[n_above:]
        notes.append(Note(f"{n_above} lines above the table left out", "if they are rows: {skip_lines}", skip_lines=0))
    n_cells, n_remarks = max(map(len, rows)), len(above)
    names = names_above(cells_of([above[-1].removeprefix(comment)], separator)[0] if above else [], rows)
    if names is not None and asked.header is None:
        notes.append(Note("the comment line above the rows names the columns", "if not: {header}", header=False))
        return Layout(path, encoding, separator, comment, n_skipped, names, n_cells, n_remarks - 1, notes, is_said)
    if _has_header(rows, asked, path, notes):
        n_skipped, names = _line_of(path, encoding, comment, n_skipped, 1), rows[0]
    else:
        names = None
    return Layout(path, encoding, separator, comment, n_skipped, names, n_cells, n_remarks, notes, is_said)


def _has_header(rows: list[list[str]], asked: Dialect, path: Path, notes: list[Note]) -> bool:
    """Whether the first record names the columns: said, seen, as in the other file, or refused."""
    if asked.header is not None:
        return asked.header
    verdict, numbers = first_is_names(rows)
    if verdict is None:
        verdict = asked.followed("header")
    if verdict is None:
        raise DataError(
            f"{path}: expected a first line that is told from the rows, got numbers in it ({', '.join(numbers[:5])}) "
            "that can be names of columns or a row.",
            "Try {header} (yes if they are names, no if they are a row).",
            header=None,
        )
    shown = ", ".join(numbers[:3]) + (", ..." if len(numbers) > 3 else "")
    if verdict and numbers and numbers != [str(i) for i in range(len(numbers))]:
        notes.append(Note(f"the first line names the columns ({shown})", "if it is a row: {header}", header=False))
    elif not verdict:
        notes.append(Note("the first line is a row, not names", "if it is names: {header}", header=True))
    return bool(verdict)


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


def _without_remarks(rows: list[list[str]]) -> list[list[str]]:
    """The rows less lines of one cell that begin as a remark does, where others have several."""
    return [row for row in rows if len(row) > 1 or not row[0].strip().startswith(COMMENTS)] or rows


def _ends(records: Iterable[str]) -> Iterator[str]:
    """Physical lines, as the reader wants them."""
    for record in records:
        yield from record.splitlines(keepends=True)


def _separator(records: Sequence[str], asked: Dialect, path: Path) -> str:
    """What cuts all records alike, and into whole cells and numbers; blanks, if nothing else does."""
    lines = _lines_of_numbers(records)
    is_one = bool(lines) and (asked.decimal == "," or asked.thousands == "," or any(map(ONE.search, lines)))
    if lines and not is_one and any(map(EITHER.search, lines)):
        raise DataError(
            f"{path}: expected cells that are told from decimals and thousands, got {lines[0]!r}, one number or two.",
            "Try {separator} if two, {decimal} or {thousands} if one.", separator=",", decimal=None, thousands=None,
        )  # fmt: skip
    separators = [each for each in (*SEPARATORS, BLANKS) if each not in (",", BLANKS) or not is_one]
    scores = {each: _score(_without_remarks(cells_of(records, each)), each) for each in separators}
    best = max(scores, key=lambda each: scores[each])
    if best == "," and scores[BLANKS][0] and scores[BLANKS][:4] == scores[","][:4]:
        raise DataError(
            f"{path}: expected cells that are cut in one way, got {records[-1].strip()[:40]!r}, which a comma cuts as "
            "well as blanks do.",
            "Try {separator}, or blanks for the comma.", separator=",",
        )  # fmt: skip
    return best


def _lines_of_numbers(records: Sequence[str]) -> list[str]:
    """The lines, if each is one number when its comma is a decimal one or groups thousands; else none."""
    lines = [line.strip() for line in records[not is_number(records[0].strip()) :]]
    is_name = "," not in records[0] or is_number(records[0].strip())
    is_all = all(line in MISSING or is_number(line) for line in lines)
    return lines if is_name and is_all and any("," in line for line in lines) else []


def _score(rows: list[list[str]], separator: str) -> tuple[bool, float, bool, float, bool, bool, int]:
    """(whether it cuts, share of whole cells, is even, share of numbers, is no blank, cuts the first alike, cells)."""
    body = rows[1:] or rows
    n = Counter(map(len, body)).most_common(1)[0][0]
    alike = [row for row in body if len(row) == n]
    is_cut = n > 1 and 2 * len(alike) > len(body) and (len(rows[0]) > 1 or _n_titles(rows) > 0)
    cells = [cell for row in alike for cell in row if cell.strip() not in MISSING]
    numbers = sum(map(is_number, cells)) / max(len(cells), 1)
    others = [other for other in SEPARATORS if other != separator]
    whole = sum(is_number(cell) or not any(other in cell for other in others) for cell in cells) / max(len(cells), 1)
    is_plain = separator != BLANKS
    is_listed = any(cell.endswith(",") for cell in cells)  # 1, 2, 3
    if not is_plain and (numbers == 0 or is_listed or len(alike) < len(body) or len(rows[0]) != n):
        return False, 0.0, False, 0.0, False, False, 0  # text has blanks of its own
    return is_cut, round(whole, 3), len(alike) == len(body), round(numbers, 3), is_plain, len(rows[0]) == n, n


def _n_titles(rows: list[list[str]]) -> int:
    """Records above the names of the columns that are one cell of text, where all that follow have several."""
    wide = [sum(bool(cell.strip()) for cell in row) > 1 for row in rows]
    n = wide.index(True) if True in wide else 0
    is_text = all(not is_number(row[0].strip()) and row[0].strip() for row in rows[:n])
    lengths = {len(row) for row in rows[n:]}
    return (
        n
        if n and is_text and len(lengths) == 1 and len(rows) - n > 2 and first_is_names(rows[n:])[0] is not False
        else 0
    )
