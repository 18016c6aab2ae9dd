"""Tables of the performance records, which benchmarks/perf/run.py writes: a row of a record is a row of its table.

python -m nvisa.benchmark.performance     writes them into docs/performance.md and docs/report.md
"""

import re
from pathlib import Path
from statistics import median

from nvisa.benchmark import RECORDS
from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.benchmark.records import Record, read_record
from nvisa.benchmark.tables import SPEED
from nvisa.durable_files import write_file

__all__ = ["load_records", "main", "rewrite", "table"]

NO_RECORD = "No record yet; `make perf` makes them."


def load_records(folder: Path = RECORDS / "performance") -> list[Record]:
    """Every performance record."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def number(value: float | int) -> str:
    """Three digits, or a whole number."""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def cell(value: object) -> str:
    """A text, a number, or the median of several with their range."""
    if isinstance(value, list):
        return f"{number(median(value))} ({number(min(value))}-{number(max(value))})"
    return number(value) if isinstance(value, (int, float)) else str(value)


def size(record: Record) -> int:
    """The number at the end of a section's name."""
    return int(re.sub(r"\D", "", record["section"]) or 0)


def middle(rows: list[Record]) -> Record:
    """The median of every column that has numbers only, under the word "median"."""
    name, *others = rows[0]
    whole = [column for column in others if all(isinstance(row.get(column), (int, float)) for row in rows)]
    return {name: "median", **{column: median(row[column] for row in rows) for column in whole}}


def table(section: str, records: list[Record]) -> str:
    """The table of a section; sections that differ in ``_<number>`` share one. Below it, how it was made."""
    mine = sorted((r for r in records if r["section"].rstrip("0123456789") in (section, f"{section}_")), key=size)
    if not mine:
        return NO_RECORD
    rows = [row for record in mine for row in record["rows"]]
    rows += [middle(rows)] if len(rows) > 1 and mine[0].get("median") else []
    head = tuple(dict.fromkeys(name for row in rows for name in row))
    grid = Grid(head, tuple(tuple(cell(row.get(name, "")) for name in head) for row in rows))
    machine = mine[0]["machine"]
    threads = f"{machine['threads']} thread" + ("s" if machine["threads"] > 1 else "")
    clock = "processor time" if machine["clock"] == "process_time" else "wall-clock time"
    return f"{markdown(grid)}\n\n{mine[0]['note']} {threads}, {clock}, torch {mine[0]['versions']['torch']}."


def rewrite(text: str, records: list[Record]) -> str:
    """The document with every marked place filled from the records."""
    return fill_places(text, "table", lambda name: table(name, records))


def main() -> None:
    """Command line."""
    for document in map(Path, SPEED):
        write_file(document, rewrite(document.read_text(), load_records()).encode())


if __name__ == "__main__":
    main()
