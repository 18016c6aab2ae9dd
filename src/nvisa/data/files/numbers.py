"""Numbers as text: which mark is the decimal one and which groups thousands, told by what all cells of a file have.

``2.512`` is 2.512 or 2,512; ``0.5``, ``2.51`` or ``1234.5`` settle that a point is decimal, ``1.234.567`` or
``1.234,5`` that it groups. What nothing settles is refused, with the option that says it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

__all__ = ["BLANK_MARKS", "MISSING", "Doubt", "Marks", "is_number", "settle", "to_numbers"]

BLANK_MARKS = " \u00a0\u202f\u2009'\u2019_"  # they group thousands, and nothing else
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
MINUS = str.maketrans({"\u2212": "-"})
_SIGN, _EXPONENT = r"[-+]?", r"(?:[eE][-+]?\d+)?"
_PLAIN = re.compile(rf"{_SIGN}\d+{_EXPONENT}")
_DECIMAL = {mark: re.compile(rf"{_SIGN}(?:\d+[{mark}]\d*|[{mark}]\d+){_EXPONENT}") for mark in ".,"}
_EITHER = {mark: re.compile(rf"{_SIGN}[1-9]\d{{0,2}}[{mark}]\d{{3}}") for mark in ".,"}
_SPECIAL = {"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}


def _grouped(mark: str, decimal: str, least: int = 1) -> re.Pattern[str]:
    """1.234.567,8 with ``mark`` between groups; also the Indian 12,34,567."""
    m, groups = re.escape(mark), f"{{{least},}}"
    indian = rf"|[1-9]\d?(?:{m}\d{{2}})+{m}\d{{3}}"
    return re.compile(rf"{_SIGN}(?:[1-9]\d{{0,2}}(?:{m}\d{{3}}){groups}{indian})(?:[{decimal}]\d*)?")


_TWICE = {mark: _grouped(mark, other, 2) for mark, other in ((".", ","), (",", "."))}
_ONCE = {mark: _grouped(mark, other) for mark, other in ((".", ","), (",", "."))}
_BLANK = {mark: _grouped(mark, ".,") for mark in BLANK_MARKS}


@dataclass
class Marks:
    """What the cells of one column show of the marks in them.

    Attributes
    ----------
    decimal, grouping : set of str
        Marks that can only be decimal, or can only group thousands.
    either : dict
        Of each mark, the first (row, cell) that is a number both ways.
    short, long : bool
        Whether there is a cell of at most three digits, or of more, without a mark.
    """

    decimal: set[str] = field(default_factory=set)
    grouping: set[str] = field(default_factory=set)
    either: dict[str, tuple[int, str]] = field(default_factory=dict)
    short: bool = False
    long: bool = False

    @classmethod
    def of(cls, cells: Iterable[object]) -> "Marks | None":
        """Of text cells, missing ones passed over; None if one of them is no number."""
        marks = cls()
        for row, cell in enumerate(cells):
            text = _text(cell)
            if text is None or (text and not marks._saw(row, text)):
                return None
        return marks

    def _saw(self, row: int, text: str) -> bool:
        if _PLAIN.fullmatch(text):
            digits = text.lstrip("+-")
            self.short |= len(digits) <= 3
            self.long |= len(digits) > 3 and digits.isdigit()
            return True
        for mark, other in ((".", ","), (",", ".")):
            if _EITHER[mark].fullmatch(text):
                self.either.setdefault(mark, (row, text))
                return True
            if _DECIMAL[mark].fullmatch(text):
                self.decimal.add(mark)
                return True
            if _TWICE[mark].fullmatch(text) or (other in text and _ONCE[mark].fullmatch(text)):
                self.grouping.add(mark)
                self.decimal |= {other} & set(text)
                return True
        blank = next((mark for mark in BLANK_MARKS if mark in text), None)
        if blank is not None and _BLANK[blank].fullmatch(text):
            self.grouping.add(blank)
            self.decimal |= {".", ","} & set(text)
            return True
        return text.lower() in _SPECIAL


def _text(cell: object) -> str | None:
    """The cell as it is compared with the forms of numbers, "" if it is missing; None if it is no text."""
    if isinstance(cell, str):
        return cell.strip().translate(MINUS)
    return "" if cell is None or cell is pd.NA or cell is pd.NaT or _is_nan(cell) else None


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def is_number(text: str) -> bool:
    """Whether a cell is a number under some reading of its marks."""
    return Marks.of([text]) is not None


@dataclass(frozen=True)
class Doubt:
    """A cell that is a number in two ways, and nothing in its file says which."""

    row: int
    cell: str
    mark: str


def settle(
    columns: Mapping[str, Marks], decimal: str | None, thousands: str | None, like: str | None
) -> tuple[str, dict[str, Doubt]]:
    """(the decimal mark, the columns that stay in doubt).

    Parameters
    ----------
    columns
        What the cells of each column show.
    decimal, thousands
        What was asked for; ``thousands=""``: none.
    like
        The decimal mark of another file, which decides where nothing else does.
    """
    grouping = {m for m in ".," if any(m in marks.grouping for marks in columns.values())}
    proven = {m for m in ".," if any(m in marks.decimal for marks in columns.values())}
    # 2512 beside 2.512: a program that groups would have written 2.512 for both
    proven |= {m for m in ".," if m not in grouping and any(m in c.either and c.long for c in columns.values())}
    seen = {m for marks in columns.values() for m in marks.either} | proven
    said = decimal or _decimal_beside(thousands, seen)
    found = said or _only(proven) or ("." if proven else _other(_only(grouping))) or like
    if found is None:
        return ".", {name: _doubt(marks) for name, marks in columns.items() if marks.either}
    if said or not proven:
        return found, {}
    return found, {name: _doubt(marks, found) for name, marks in columns.items() if _is_odd(marks, found)}


def _decimal_beside(thousands: str | None, seen: set[str]) -> str | None:
    """The decimal mark that follows from what groups thousands: of . and , the other; else the one that is there."""
    return None if thousands is None else _other(thousands) or _only(seen)


def _other(mark: str | None) -> str | None:
    return {".": ",", ",": "."}.get(mark or "")


def _only(marks: set[str]) -> str | None:
    return next(iter(marks)) if len(marks) == 1 else None


def _is_odd(marks: Marks, decimal: str) -> bool:
    """300 beside 2.512, and no 2.5: who writes decimals writes others too."""
    return decimal in marks.either and marks.short and not marks.long and decimal not in marks.decimal


def _doubt(marks: Marks, mark: str | None = None) -> Doubt:
    mark = mark or next(iter(marks.either))
    return Doubt(*marks.either[mark], mark)


def to_numbers(cells: Iterable[object], decimal: str, thousands: str | None = None) -> np.ndarray | None:
    """The cells as numbers, missing ones NaN; None if one is no number by these marks.

    Examples
    --------
    >>> to_numbers(["1.234,5", None, "7"], decimal=",")
    array([1234.5,    nan,    7. ])
    """
    allowed = [m for m in (*".,", *BLANK_MARKS) if m != decimal] if thousands is None else list(thousands)
    group = {mark: _grouped(mark, decimal) for mark in allowed}
    plain = [None if (text := _text(cell)) is None else _plain(text, decimal, group) for cell in cells]
    if any(text is None for text in plain):
        return None
    numbers = pd.to_numeric(pd.Series([text or np.nan for text in plain], dtype=object)).to_numpy()
    return None if numbers.dtype == object else numbers  # beyond 64 bits: a name


def _plain(text: str, decimal: str, group: dict[str, re.Pattern[str]]) -> str | None:
    if not text or text.lower() in _SPECIAL or _PLAIN.fullmatch(text):
        return text
    if _DECIMAL[decimal].fullmatch(text):
        return text.replace(decimal, ".")
    mark = next((m for m in group if m in text), None)
    if mark is None or not group[mark].fullmatch(text):
        return None
    return text.replace(mark, "").replace(decimal, ".")
