"""``nvisa predict``: the cluster of each row of DATA, as a table."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from pathlib import Path
from typing import Any

from nvisa.commands.options import ReadOptions, add_command, add_model_and_data, add_quote_formulas
from nvisa.commands.printing import Result, print_result, read_text, sizes_text

__all__ = ["add", "predict"]


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "predict", run, "write the cluster of each row of DATA")
    add_model_and_data(parser)
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="a .csv or .parquet; for a folder of Parquet also a folder"
    )
    parser.add_argument(
        "--reject", type=float, metavar="SHARE", help="-1 for rows less likely than this share, as 0.01"
    )
    parser.add_argument("--proba", action="store_true", help="also q(y|x), in columns p0, p1, ...")
    add_quote_formulas(parser)


def run(args: argparse.Namespace) -> None:
    """Write the clusters and print their sizes."""
    how = {
        "split": args.split,
        "proba": args.proba,
        "reject": args.reject,
        "quote_formulas": args.quote_formulas,
    }
    result = predict(args.model, args.data, args.out, ReadOptions.of(args), **how)
    print_result(args, result, lambda r: f"{read_text(r)}\n{sizes_text(r)}\nwrote {r['out']}")


def predict(
    model: str,
    data: str,
    out: str,
    options: ReadOptions,
    *,
    split: str | None = None,
    proba: bool = False,
    quote_formulas: bool = False,
    reject: float | None = None,
) -> Result:
    """Write the cluster of each row of DATA, with ``proba`` q(y|x), as a table; -1 for rows that ``reject`` refuses.

    A folder of Parquet with a folder to write to goes file by file (:mod:`nvisa.commands.predict_folder`).
    """
    import numpy as np

    if Path(out).suffix == "" and any(Path(data).expanduser().rglob("*.parquet")):
        from nvisa.commands.predict_folder import predict_folder

        return predict_folder(model, data, out, options, proba=proba, reject=reject)
    from nvisa.commands.models import cluster_sizes, load_with_rows
    from nvisa.commands.output_files import TABLES, check_output, write_table

    path = check_output(out, TABLES, source=data)
    clusterer, rows, X = load_with_rows(model, data, options, split)
    q = clusterer.predict_proba(X)
    columns: dict[str, Any] = {"row": rows.names or np.arange(len(q)), "cluster": q.argmax(1)}
    found = columns["cluster"]
    if reject is not None:
        columns["cluster"] = clusterer.predict(X, reject=reject)
        found = columns["cluster"][columns["cluster"] >= 0]
    if proba:
        columns |= {f"p{k}": q[:, k] for k in range(q.shape[1])}
    write_table(path, columns, quote_formulas=quote_formulas)
    return {
        "out": out,
        "source": rows.source,
        "n_rows": len(q),
        "n_refused": len(q) - len(found),
        "notes": list(rows.notes),
        **cluster_sizes(found, q.shape[1]),
    }
