"""Whether the first record of a table names its columns, or is a row; numbers are judged by what is below them."""

import itertools

from nvisa.data.files.numbers import BLANK_MARKS, MISSING, is_number

__all__ = ["first_is_names", "names_above"]

GROUPS = str.maketrans("", "", BLANK_MARKS)
Column = tuple[str, list[str]]  # the first cell, and those below it that are not empty


def names_above(words: list[str], rows: list[list[str]]) -> list[str] | None:
    """The words of a remark above rows of numbers, as numpy.savetxt writes them, if there are as many as cells."""
    if (
        first_is_names(rows)[0] is not False
        or len(words) != len(rows[0])
        or len(words) < 2
        or not any(map(is_number, rows[0]))
    ):
        return None
    return None if any(not word.strip() or is_number(word) for word in words) else words


def first_is_names(rows: list[list[str]]) -> tuple[bool | None, list[str]]:
    """(whether the first record names the columns, None if that cannot be told; its numbers).

    Examples
    --------
    >>> first_is_names([["age", "height"], ["30", "1.8"]])
    (True, [])
    >>> first_is_names([["1", "0"], ["0", "1"], ["1", "1"]])
    (False, ['1', '0'])
    >>> first_is_names([["2019", "2020", "2021"], ["0.5", "1.5", "0.9"]])
    (True, ['2019', '2020', '2021'])
    """
    columns = _above_numbers(rows)
    numbers = [cell for cell, _ in columns if is_number(cell) and cell]
    if len(rows) < 2 or not columns:
        return not all(is_number(cell.strip()) for cell in rows[0] if cell.strip()), []
    if any(cell and not is_number(cell) for cell, _ in columns):
        return True, []  # words above numbers
    if _recurs(rows):
        return False, numbers
    return _numbers_are_names(columns, rows), numbers


def _above_numbers(rows: list[list[str]]) -> list[Column]:
    """The columns whose cells below the first are numbers."""
    columns = [(cell.strip(), [row[d].strip() for row in rows[1:] if d < len(row)]) for d, cell in enumerate(rows[0])]
    known = [(cell, [other for other in below if other not in MISSING]) for cell, below in columns]
    return [(cell, below) for cell, below in known if below and all(map(is_number, below))]


def _recurs(rows: list[list[str]]) -> bool:
    """Whether a word of the first record is a value of its column: setosa."""
    words = ((d, cell) for d, cell in enumerate(rows[0]) if cell.strip() and not is_number(cell.strip()))
    return any(cell == row[d] for d, cell in words for row in rows[1:] if d < len(row))


def _numbers_are_names(columns: list[Column], rows: list[list[str]]) -> bool | None:
    """Whether numbers in the first record are names: yes, no, or None if it cannot be told.

    Names differ from each other. Mostly they run on (years, wavelengths), and are unlike what is below: whole numbers
    above fractions, or outside of every column's range. Two of these signs tell, or a long run; one leaves a doubt.
    """
    index = [row[0].strip() for row in rows[1:]] if not rows[0][0].strip() else []
    is_index = bool(index) and all(index)
    named = [(cell, below) for cell, below in columns if cell]
    values = [_value(cell) for cell, _ in named]
    is_gap = len(columns) - len(named) > (is_index and is_number(index[0]))
    if is_gap or None in values or len(set(values)) < len(values):
        return False
    is_even = _runs_evenly(values)
    runs = (is_even or _is_sorted(values)) and not any(
        (_runs_evenly if is_even else _is_sorted)(_below(row, rows[0])) for row in rows[1:]
    )
    fractions = [len(below) > 2 and not any(map(_is_whole, below)) for _, below in named]
    is_unlike = all(_is_whole(cell) for cell, _ in named) and 2 * sum(fractions) >= len(named)
    is_range = values == list(range(len(values)))
    is_outside = (len(rows) > 2 or is_range) and all(map(_is_outside, named))
    if is_index and (_names_rows(index) or runs or is_unlike):
        return True
    n_signs = runs + is_unlike + is_outside
    if n_signs > 1 or (runs and len(values) > 4):
        return True
    is_odd = is_index or runs or is_unlike or (is_outside and (2 / len(rows)) ** len(values) < 0.01)
    return None if is_odd and len(rows) > 2 and len(values) > 1 else False


def _names_rows(cells: list[str]) -> bool:
    """Words, or the running numbers that pandas and R write."""
    return not all(map(is_number, cells)) or cells in ([str(i + first) for i in range(len(cells))] for first in (0, 1))


def _below(row: list[str], first: list[str]) -> list[float | None]:
    """The numbers of a row below those of the first."""
    return [_value(cell.strip()) for cell, above in zip(row, first, strict=False) if above.strip()]


def _steps(row: list[float | None]) -> list[float]:
    known = [value for value in row if value is not None]
    return [round(b - a, 9) for a, b in itertools.pairwise(known)]


def _runs_evenly(row: list[float | None]) -> bool:
    """Whether numbers go on by even steps; 0, 1 are the names of two columns without names."""
    steps = _steps(row)
    return row == [0, 1] or (len(steps) > 1 and len(set(steps)) == 1 and steps[0] != 0)


def _is_sorted(row: list[float | None]) -> bool:
    """Whether many numbers go on by steps of one sign."""
    steps = _steps(row)
    return len(steps) > 3 and (min(steps) > 0 or max(steps) < 0)


def _is_outside(column: Column) -> bool:
    """Whether the first value is beyond all others of its column."""
    value, known = _value(column[0]), [other for other in map(_value, column[1]) if other is not None]
    return value is not None and bool(known) and not min(known) <= value <= max(known)


def _is_whole(cell: str) -> bool:
    return cell.lstrip("+-").isdigit()


def _value(cell: str) -> float | None:
    """The number, by the nearest reading; only to compare."""
    try:
        return float(cell.translate(GROUPS).replace(",", "."))
    except ValueError:
        return None
