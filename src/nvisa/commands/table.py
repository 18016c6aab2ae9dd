"""``nvisa table``: a table made from the records."""
# ruff: noqa: PLC0415  what reads records is imported when the command runs: --help should not wait for it

import argparse
from pathlib import Path
from typing import Any

from nvisa.commands.options import add_command, add_records
from nvisa.commands.printing import print_result

__all__ = ["add", "table"]


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "table", run, "print a table made from the records")
    parser.add_argument("table", metavar="TABLE", help="table1, features, ablation, mnist, ... (docs/benchmark.md)")
    parser.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown", help="default markdown")
    add_records(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    text = table(args.table, args.records, args.format)
    print_result(args, {"table": args.table, "format": args.format, "text": text}, lambda r: r["text"])


def table(name: str, records: str, kind: str) -> str:
    """A table from the records, as Markdown, LaTeX or CSV."""
    from nvisa.benchmark.formats import FORMATS
    from nvisa.benchmark.records import load_records
    from nvisa.benchmark.tables import NO_RECORD, TABLES, rendered

    if name not in TABLES:
        raise ValueError(f"expected a table among {', '.join(TABLES)}, got {name!r}.")
    if not Path(records).is_dir():
        raise ValueError(f"{records}: expected a folder of records, got none there. Try --records DIR, or nvisa bench.")
    text = rendered(name, load_records(Path(records)), FORMATS[kind])
    return f"No record of {name} in {records} yet; nvisa bench makes them." if text == NO_RECORD else text
