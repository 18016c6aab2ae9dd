"""Tables of the small experiments, in pages and guides, from benchmarks/records.

    python benchmarks/tables_page.py

A place is what stands between ``<!-- tables NAME -->`` and ``<!-- end tables -->``.
"""

import json
import sys
from pathlib import Path

import calibration
import missing
import mixed_tables
import mixed_weights
import n_clusters
import parquet_memory
import sparse_rows
import stream
import texts

sys.path.append(str(Path(__file__).parent / "single_cells"))
import single_cell_table

from nvisa.benchmark.formats import fill_places
from nvisa.durable_files import write_file

PAGES = [
    Path("docs", f"{name}.md")
    for name in (
        "tables-with-gaps-and-categories",
        "single-cells",
        "guides/how-many-clusters",
        "guides/is-it-any-good",
        "guides/rows-that-come-later",
    )
]


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


def parquet(root: Path = Path()) -> str:
    """A line for each folder."""
    head = "| folder, GB | rows x columns | before, MB | peak of reading | peak of the fit |"
    lines = [head, "|---|---|---|---|---|"]
    for path in sorted((root / parquet_memory.FOLDER).glob("*.json")):
        record = json.loads(path.read_text())
        rows = f"{record['shape'][0]:,} x {record['shape'][1]:,}"
        peaks = " | ".join(f"{record[name]:,}" for name in ("mb_before", "mb_peak_read", "mb_peak"))
        lines.append(f"| {record['gigabytes']} | {rows} | {peaks} |")
    return "\n".join(lines)


def rewrite(text: str, root: Path = Path()) -> str:
    """The page with every place filled."""
    made = {
        "missing": missing.page,
        "mixed": mixed_tables.page,
        "mixed_weights": mixed_weights.page,
        "sparse": sparse,
        "texts": texts.page,
        "parquet": parquet,
        "single_cells": single_cell_table.table,
        "n_clusters": n_clusters.page,
        "stream": stream.page,
        "calibration": calibration.page,
    }
    return fill_places(text, "tables", lambda name: made[name](root))


if __name__ == "__main__":
    for page in PAGES:
        write_file(page, rewrite(page.read_text()).encode())
