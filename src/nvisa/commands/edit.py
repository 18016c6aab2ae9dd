"""``nvisa edit``: join, part, drop, renumber and name the clusters of a model."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from collections.abc import Sequence
from typing import Any

from nvisa.commands.options import DATA_HELP, ReadOptions, add_command, add_read_options
from nvisa.commands.printing import Result, print_result, sizes_text

__all__ = ["add", "edit"]

Step = tuple[str, list[str]]


class _Step(argparse.Action):
    """Appends (option, values) to ``steps``: the order in which they were typed is that in which they are done."""

    def __call__(
        self, _parser: object, args: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        args.steps = [*args.steps, (str(option_string).removeprefix("--"), values)]


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(
        commands, "edit", run, "join, part, drop, renumber and name clusters of a model, in this order"
    )
    parser.add_argument("model", metavar="MODEL", help="model directory, replaced unless --out names another")
    parser.add_argument("--merge", nargs=2, metavar=("I", "J"), action=_Step, help="make one cluster of two")
    parser.add_argument("--split", nargs=1, metavar="I", action=_Step, help="part a cluster in two, by --data")
    parser.add_argument("--remove", nargs=1, metavar="I", action=_Step, help="take a cluster away, its rows elsewhere")
    parser.add_argument("--order", nargs="+", metavar="K", action=_Step, help="new cluster k is the k-th of these")
    parser.add_argument("--name", nargs=2, metavar=("I", "TEXT"), action=_Step, help="call a cluster so")
    parser.add_argument("--data", metavar="DATA", help=DATA_HELP + "; for --split and --remove the rows of the fit")
    parser.add_argument("--out", metavar="DIR", help="model directory to write (default: MODEL)")
    parser.set_defaults(steps=[])
    add_read_options(parser)


def run(args: argparse.Namespace) -> None:
    """Edit, and print the sizes of the clusters."""
    result = edit(args.model, args.out or args.model, args.steps, ReadOptions.of(args), data=args.data)
    print_result(args, result, edit_text)


def edit_text(result: Result) -> str:
    """The clusters' sizes, and their names if they have some."""
    named = [f"{k}: {name}" for k, name in enumerate(result["names"]) if name]
    return "\n".join([sizes_text(result), *named, f"saved in {result['model']}"])


def _rows(model: str, data: str, options: ReadOptions) -> Any:
    """The rows of DATA, read as those of the model's fit were."""
    from nvisa.commands.rows import Remembered, read_rows
    from nvisa.persistence import read_manifest

    return read_rows(data, options, to_fit=True, like=Remembered.of(read_manifest(model)["extra"]))


def edit(model: str, out: str, steps: Sequence[Step], options: ReadOptions, *, data: str | None = None) -> Result:
    """Do the steps one after the other, each in the numbers that the one before has left, and write the model."""
    from nvisa.commands.models import aligned, cluster_sizes, feature_shape
    from nvisa.methods import load
    from nvisa.persistence import check_target, read_manifest
    from nvisa.settings import SettingError

    if not steps:
        raise ValueError("expected --merge, --split, --remove, --order or --name, got none of them.")
    if any(step == "split" for step, _ in steps) and data is None:
        raise SettingError("--data", "the rows of the fit with --split", None)
    check_target(out)
    clusterer = load(model)
    X = None if data is None else aligned(_rows(model, data, options), clusterer, feature_shape(model))
    for step, values in steps:
        numbers = [_number(step, value) for value in (values[:1] if step == "name" else values)]
        if step == "merge":
            clusterer.merge(*numbers)
        elif step == "split":
            clusterer.split(*numbers, X)
        elif step == "remove":  # --drop is that of columns
            clusterer.drop(*numbers, X)
        elif step == "order":
            clusterer.relabel(numbers)
        else:
            clusterer.name(numbers[0], values[1])
    clusterer.save(out, extra=read_manifest(model)["extra"])
    return {"model": out, "names": clusterer._names, **cluster_sizes(clusterer.labels_, clusterer.n_clusters_)}


def _number(step: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--{step}: expected numbers of clusters, got {text!r}.")
    return int(text)
