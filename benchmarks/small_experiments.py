"""The command line of an experiment whose records are ``<name>-seed<k>.json``."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["run_missing"]


def run_missing(run: Callable[[str, int], object], names: Sequence[str], folder: Path, about: str | None) -> None:
    """Call ``run(name, seed)`` for the names and seeds asked for that have no record in the folder."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=names)
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    asked = parser.parse_args()
    for seed in asked.seeds:
        for name in asked.names:
            if not (folder / f"{name}-seed{seed}.json").exists():
                run(name, seed)
