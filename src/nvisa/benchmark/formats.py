"""A table as head and rows of text, and its three renderings: Markdown, LaTeX, CSV. Knows nothing of records."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FORMATS", "Grid", "as_csv", "fill_places", "latex", "markdown"]

LATEX = str.maketrans({"±": r"$\pm$", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "*": r"$^*$", "|": "$|$"})


@dataclass(frozen=True)
class Grid:
    """Column names, and rows of as many cells."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown(grid: Grid) -> str:
    """Bars between the cells, as the documents have them; one inside a cell is escaped."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (grid.head, *grid.rows)]
    head, *rows = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(grid.head), *rows])


def latex(grid: Grid) -> str:
    """A ``tabular`` with booktabs' rules: a column of names on the left, the rest on the right."""
    lines = (" & ".join(cell.translate(LATEX) for cell in line) + r" \\" for line in (grid.head, *grid.rows))
    head, *rows = lines
    begin = r"\begin{tabular}{l" + "r" * (len(grid.head) - 1) + "}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"])


def as_csv(grid: Grid) -> str:
    """Comma-separated values, quoted where they must be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([grid.head, *grid.rows])
    return text.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Grid], str]] = {"markdown": markdown, "latex": latex, "csv": as_csv}


def fill_places(text: str, kind: str, make: Callable[[str], str]) -> str:
    """The document with ``make(NAME)`` between every ``<!-- kind NAME -->`` and the ``<!-- end kind -->`` after it."""
    place = re.compile(rf"(<!-- {kind} (\S+) -->\n).*?(<!-- end {kind} -->)", re.DOTALL)
    return place.sub(lambda found: f"{found[1]}{make(found[2])}\n{found[3]}", text)
