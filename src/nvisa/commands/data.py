"""``nvisa data list`` and ``nvisa data fetch``: the data sets that have names."""
# ruff: noqa: PLC0415  what reads data is imported when the command runs: --help should not wait for it

import argparse
from dataclasses import asdict
from typing import Any

from nvisa.commands import exit_codes
from nvisa.commands.options import add_command, add_data_home
from nvisa.commands.printing import Result, print_result
from nvisa.commands.progress import DownloadProgress

__all__ = ["add", "fetch", "list_data"]


def add(commands: Any) -> None:
    """Options of both."""
    text = "list or fetch the data sets that have names"
    parser = commands.add_parser("data", help=text, epilog=exit_codes.TEXT)
    parser.set_defaults(run=run_list, debug=False, json=False, quiet=False, data_home=None)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    add_data_home(add_command(actions, "list", run_list, "list the data sets that have names"))
    fetching = add_command(actions, "fetch", run_fetch, "download a data set from its official mirrors")
    fetching.add_argument("name", metavar="NAME", help="such as mnist")
    text = "ask mirrors without https too; the SHA-256 is checked all the same"
    fetching.add_argument("--insecure", action="store_true", help=text)
    add_data_home(fetching)


def run_list(args: argparse.Namespace) -> None:
    """Print a line a data set."""
    print_result(args, list_data(args.data_home), lambda entries: "\n".join(map(_line, entries)))


def run_fetch(args: argparse.Namespace) -> None:
    """Fetch, and print the files."""
    result = fetch(args.name, args.data_home, insecure=args.insecure)
    print_result(args, result, lambda r: "\n".join(r["files"]) or f"{r['name']} comes with nvisa: nothing to fetch")


def _line(entry: Result) -> str:
    rows = " + ".join(f"{n:,}" for n in (entry["n_train"], entry["n_test"]) if n)
    size = "" if not entry["n_bytes"] else f"{entry['n_bytes'] / 1e6:.0f} MB"
    absent = "nvisa data fetch " + entry["name"] if entry["fetchable"] else "not here, has to be built"
    return f"{entry['name']:<30} {rows:>16} {size:>8}   {'here' if entry['present'] else absent}"


def list_data(data_home: str | None) -> list[Result]:
    """Every data set that has a name here."""
    from nvisa.data import available

    return [asdict(entry) for entry in available(data_home)]


def fetch(name: str, data_home: str | None, *, insecure: bool = False) -> Result:
    """Make sure that a data set is in the data home."""
    from nvisa import data

    paths = data.fetch(name, data_home, progress=DownloadProgress(), insecure=insecure)
    return {"name": name, "files": [str(path) for path in paths]}
