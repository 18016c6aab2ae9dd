"""Fill docs/scaling.md from the records of scaling.

python benchmarks/scaling/page.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.durable_files import write_file

ROOT = Path(__file__).parents[2]
PAGE, RECORDS = ROOT / "docs" / "scaling.md", ROOT / "benchmarks" / "records" / "scaling"
WIRE, LATENCY = 1.25e9, 1e-4  # bytes a second of 10 Gbit Ethernet, seconds of a message: assumed, not measured


def spread(record: dict[str, Any]) -> str:
    """A sentence."""
    return f"{record['equal']} of {record['runs']} records of a Dask cluster are equal to those of one process."


def predict_parquet(record: dict[str, Any]) -> str:
    """A line each of the first call and of the second."""
    rows = [
        (name, f"{record['rows']:,}", f"{c['peak_memory_mb']:,.0f}", f"{c['cpu_seconds']:.0f}", f"{c['seconds']:.0f}")
        for name, c in (("predicted", record["first"]), ("again, all done", record["again"]))
    ]
    return markdown(Grid(("", "rows", "MB resident", "CPU seconds", "seconds of wall"), tuple(rows)))


def cost(record: dict[str, Any]) -> tuple[float, float]:
    """(a, b) of ``CPU seconds of a step = a + b R``, through one rank and two."""
    one, two = (run["cpu_seconds"] for run in record["runs"][:2])
    return 2 * one - two, two - one


def ranks(record: dict[str, Any]) -> str:
    """A line a number of ranks: measured, and what the line through the first two says."""
    a, b = cost(record)
    one, rows = record["runs"][0]["cpu_seconds"], []
    for run in record["runs"]:
        n, spent = run["ranks"], run["cpu_seconds"]
        rows.append((str(n), f"{1e3 * spent:.0f}", f"{1e3 * (a + b * n):.0f}", f"{n * one / spent:.2f}"))
    return markdown(Grid(("ranks", "CPU ms a step", "a + b R", "rows a second, times one rank's"), tuple(rows)))


def step_seconds(record: dict[str, Any], n_ranks: int) -> float:
    """Of a step of so many ranks, a core each: the work, and the ring that sums the gradients."""
    a, b = cost(record)
    ring = 2 * (n_ranks - 1) / n_ranks * 4 * record["runs"][0]["parameters"] / WIRE + 2 * n_ranks * LATENCY
    return a + b * n_ranks + (ring if n_ranks > 1 else 0.0)


def paper(record: dict[str, Any]) -> str:
    """Hours of one pass over 1e9 rows."""
    rows = []
    for n in (1, 8, 64):
        steps = 1e9 / (n * record["rows_a_rank"])
        seconds = step_seconds(record, n)
        batch, hours = n * record["rows_a_rank"], steps * seconds / 3600
        rows.append((str(n), f"{batch:,}", f"{1e3 * seconds:.0f}", f"{hours:,.0f}"))
    return markdown(Grid(("ranks of one core", "rows a batch", "ms a step", "hours a pass over 1e9 rows"), tuple(rows)))


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "spread": ("spread", spread), "predict": ("predict_parquet", predict_parquet), "ranks": ("ranks", ranks),
    "paper": ("ranks", paper),
}  # fmt: skip


def table(name: str) -> str:
    """The table, and what it was measured on; a sentence where there is no record."""
    file, make = TABLES[name]
    path = RECORDS / f"{file}.json"
    if not path.exists():
        return f"No record yet: `python benchmarks/scaling/{file}.py` makes it."
    record = json.loads(path.read_text())
    machine = record["machine"]
    about = f"`{record['command']}`, {machine['cpu']}, {machine['cores']} cores, beside {machine['beside']}."
    return f"{make(record)}\n\n{about}"


def rewrite(text: str) -> str:
    """The page with every place filled."""
    return fill_places(text, "scaling", table)


def main() -> None:
    """Command line."""
    write_file(PAGE, rewrite(PAGE.read_text()).encode())


if __name__ == "__main__":
    main()
