"""docs/tables-with-gaps-and-categories.md from benchmarks/records: missing, mixed and sparse.

    python benchmarks/tables_page.py

A place is what stands between ``<!-- tables NAME -->`` and ``<!-- end tables -->``.
"""

import json
from pathlib import Path

import missing
import mixed_tables
import sparse_rows

from nvisa.benchmark.formats import fill_places
from nvisa.durable_files import write_file

PAGE = Path("docs/tables-with-gaps-and-categories.md")


def sparse(root: Path = Path()) -> str:
    """A line for each measurement."""
    lines = ["| rows x words | filled | epochs | peak, MB | before the fit, MB |", "|---|---|---|---|---|"]
    for path in sorted((root / sparse_rows.FOLDER).glob("*.json")):
        record = json.loads(path.read_text())
        epochs = record["command"].partition("--epochs ")[2] or "default"
        rows = f"{record['shape'][0]:,} x {record['shape'][1]:,}"
        lines.append(
            f"| {rows} | {record['share_filled']:.2%} | {epochs} | {record['mb_peak']:,} | {record['mb_before']:,} |"
        )
    return "\n".join(lines)


def rewrite(text: str, root: Path = Path()) -> str:
    """The page with every place filled."""
    made = {"missing": missing.page, "mixed": mixed_tables.page, "sparse": sparse}
    return fill_places(text, "tables", lambda name: made[name](root))


if __name__ == "__main__":
    write_file(PAGE, rewrite(PAGE.read_text()).encode())
