"""Fill docs/faults.md from the records of the faults.

python benchmarks/faults/faults_page.py
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.durable_files import write_file

ROOT = Path(__file__).parents[2]
PAGE, RECORDS = ROOT / "docs" / "faults.md", ROOT / "benchmarks" / "records" / "faults"
WRONG = ("lost", "refused", "unequal", "leftovers", "repeated")


def injection(record: dict[str, Any]) -> Grid:
    """A line a scenario, and their sum."""
    lines = [(s["scenario"], s["points"], s["wrong"]) for s in record["scenarios"]]
    lines.append(("in all", record["points"], record["wrong"]))
    rows = [(name, f"{n:,}", *(str(wrong.get(what, 0)) for what in WRONG)) for name, n, wrong in lines]
    return Grid(("what ran", "points", *WRONG), tuple(rows))


def kills(record: dict[str, Any]) -> Grid:
    """A line a method, and their sum."""
    rows = [(m["method"], m["kills"], m["fits"], m["wrong"]) for m in record["methods"]]
    rows.append(("in all", record["kills"], sum(m["fits"] for m in record["methods"]), record["wrong"]))
    made = [(name, str(n), str(f), str(w.get("refused", 0)), str(w.get("unequal", 0))) for name, n, f, w in rows]
    return Grid(("method", "kills", "fits", "refused", "unequal"), tuple(made))


def mutations(record: dict[str, Any]) -> Grid:
    """A line a reader."""
    ends = ("read", "own error", "other error")
    rows = [(r["reader"], f"{r['mutations']:,}", *(f"{r[end]:,}" for end in ends)) for r in record["readers"]]
    return Grid(("file", "changed", *ends), tuple(rows))


def pairs(record: dict[str, Any]) -> Grid:
    """A line a kind of pair; ends are those of processes."""
    ends = ("done", "refused in its own words", "another error")
    rows = [
        (k["pair"], str(k["pairs"]), *(str(Counter(k["ends"])[end]) for end in ends), str(k["bad ends"]))
        for k in record["kinds"]
    ]
    return Grid(("side by side", "times", *ends, "bad ends"), tuple(rows))


TABLES: dict[str, Callable[[dict[str, Any]], Grid]] = {
    "injection": injection, "kills": kills, "mutations": mutations, "pairs": pairs,
}  # fmt: skip


def table(name: str) -> str:
    """The table, and what it was counted on; a sentence where there is no record."""
    path = RECORDS / f"{name}.json"
    if not path.exists():
        return f"No record yet: `python benchmarks/faults/{name}.py` makes it."
    record = json.loads(path.read_text())
    about = f"`{record['command']}`, {record['cpu_seconds']:,} CPU seconds, commit {record['commit']}, {record['cpu']}."
    return f"{markdown(TABLES[name](record))}\n\n{about}"


def rewrite(text: str) -> str:
    """The page with every place filled."""
    return fill_places(text, "faults", table)


def main() -> None:
    """Command line."""
    write_file(PAGE, rewrite(PAGE.read_text()).encode())


if __name__ == "__main__":
    main()
