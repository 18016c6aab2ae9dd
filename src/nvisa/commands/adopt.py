"""``nvisa adopt``: a model of the clusters that another method or a person has given to the rows of DATA."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from pathlib import Path
from typing import Any

from nvisa.commands.fit import fit, fit_text
from nvisa.commands.options import DATA_HELP, ReadOptions, add_command, add_read_options
from nvisa.commands.printing import Result, listed, print_result

__all__ = ["add", "adopt", "read_labels"]

USUAL = ("cluster", "label", "labels", "class")  # columns that are taken if no other is named


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "adopt", run, "make a model of clusters that DATA already have")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("labels", metavar="LABELS", help="a .csv, .parquet or .npy, one a row; -1, gap: unknown")
    parser.add_argument("--column", metavar="NAME", help="of LABELS (default: the only one, or cluster, or label)")
    parser.add_argument("--out", required=True, metavar="DIR", help="model directory, new or to be replaced")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    add_read_options(parser)


def run(args: argparse.Namespace) -> None:
    """Fit, and print what came of it."""
    settings = {"random_state": args.seed, "verbose": int(not args.quiet)}
    result = adopt(args.data, args.labels, args.out, ReadOptions.of(args), column=args.column, settings=settings)
    if result is not None:
        print_result(args, result, _text)


def _text(result: Result) -> str:
    return f"{result['kept']:.1%} of the labels are kept\n{fit_text(result)}".replace("%", " %", 1)


def adopt(
    data: str, labels: str, out: str, options: ReadOptions, *, column: str | None = None, settings: Result | None = None
) -> Result | None:
    """Fit NVISA to DATA with the clusters of LABELS, and write the model directory."""
    import numpy as np

    from nvisa.commands.rows import read_rows
    from nvisa.data import DataError
    from nvisa.fitting.supervision import Supervision, given
    from nvisa.methods import load

    found, names = read_labels(labels, column)
    rows = read_rows(data, options, to_fit=True)
    if len(found) != len(rows.X):
        raise DataError(
            f"{labels}: expected a label for each of the {len(rows.X):,} rows of {data}, got {len(found):,}."
        )
    if names is not None and rows.names is not None and names != list(map(str, rows.names)):
        raise DataError(f"{labels}: expected the rows of {data} in their order in the column 'row', got others.")
    result = fit(data, out, {**(settings or {}), "init": found}, options)
    if result is None:  # another process writes the model
        return None
    known = given(Supervision(found), len(found)).known
    kept = load(out).labels_ == known
    return result | {"labels": labels, "kept": float(kept[known >= 0].mean()), "n_unknown": int(np.sum(known < 0))}


def read_labels(path: str, column: str | None = None) -> tuple[Any, list[str] | None]:
    """The labels of a file [N], and what its column "row" says, as `nvisa predict` writes it.

    Raises
    ------
    DataError
        If it is unreadable, or does not say which column holds the labels.
    """
    import numpy as np

    from nvisa.data import DataError
    from nvisa.data.errors import describing, extra_needed

    kind = Path(path).suffix.lower()
    with describing(path, "labels in a .csv, .parquet or .npy", advice="Check the path and its ending."):
        if kind == ".npy":
            return np.load(Path(path).expanduser(), allow_pickle=False), None
        with extra_needed(path):
            import pandas as pd
        frame = pd.read_parquet(path) if kind == ".parquet" else pd.read_csv(path)
    columns = [str(name) for name in frame.columns]
    one = [name for name in columns if name != "row"] if len(columns) <= 2 else []
    chosen = column or next((name for name in (*USUAL, *one) if name in columns), None)
    if chosen not in columns:
        raise DataError(f"{path}: expected a column of labels, got {listed(columns)}.", "Try {column}.", column="NAME")
    names = frame["row"].astype(str).tolist() if "row" in columns and chosen != "row" else None
    return frame[chosen].to_numpy(), names
