"""``nvisa evaluate``: how well the clusters of DATA agree with its labels."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from typing import Any

from nvisa.commands.options import ReadOptions, add_command, add_model_and_data
from nvisa.commands.printing import Result, metrics_text, print_result, read_text

__all__ = ["add", "evaluate"]


def add(commands: Any) -> None:
    """Options of the command."""
    add_model_and_data(add_command(commands, "evaluate", run, "compare the clusters of DATA with its labels"))


def run(args: argparse.Namespace) -> None:
    """Compare, and print the metrics."""
    result = evaluate(args.model, args.data, ReadOptions.of(args), split=args.split)
    print_result(args, result, lambda r: f"{read_text(r)}\n{metrics_text(r['metrics'])}")


def evaluate(model: str, data: str, options: ReadOptions, *, split: str | None = None) -> Result:
    """Agreement of the model's clusters with the labels of DATA."""
    from nvisa.commands.models import load_with_rows
    from nvisa.commands.rows import check_labels
    from nvisa.maths import metrics

    clusterer, rows, X = load_with_rows(model, data, options, split)
    if rows.labels is None:
        raise ValueError(
            f"{rows.source}: expected labels to compare the clusters with, got none. Try --label-column for a "
            "table, --labels-from-folders for images, or an array y in the .npz."
        )
    check_labels(rows)
    labels = clusterer.predict(X)
    notes = list(rows.notes)
    return {
        "source": rows.source,
        "n_rows": len(labels),
        "notes": notes,
        "metrics": metrics.evaluate(rows.labels, labels),
    }
