"""``nvisa sample``: rows that the model makes up, as an array, a table or a picture."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nvisa.commands.options import add_command, add_quote_formulas
from nvisa.commands.printing import Result, print_result

__all__ = ["add", "sample"]

PICTURE, PER_LINE = ".png", 20


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "sample", run, "write rows that the model makes up")
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("-n", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--cluster", type=int, metavar="k", help="of this cluster only")
    parser.add_argument("--mean", action="store_true", help="the mean of p(x|z) instead of a draw, as for pictures")
    parser.add_argument("--seed", type=int, help="default: the model's own")
    parser.add_argument("--out", required=True, metavar="FILE", help=".npy, .npz, .csv, .parquet, or .png for images")
    add_quote_formulas(parser)


def run(args: argparse.Namespace) -> None:
    """Write the samples and print how many."""
    how = {"cluster": args.cluster, "mean": args.mean, "seed": args.seed, "quote_formulas": args.quote_formulas}
    result = sample(args.model, args.out, args.n, **how)
    print_result(args, result, lambda r: f"wrote {r['n_rows']} samples to {r['out']}")


def sample(
    model: str,
    out: str,
    n: int,
    *,
    cluster: int | None = None,
    mean: bool = False,
    seed: int | None = None,
    quote_formulas: bool = False,
) -> Result:
    """Draw rows from the model and write them: an array, a table with their cluster, or a picture."""
    from nvisa.commands.output_files import ARRAYS, TABLES, check_output, write_arrays, write_table

    path = check_output(out, (*ARRAYS, *TABLES, PICTURE))
    suffix = path.suffix.lower()
    clusterer, shape = _loaded(model, out, n, cluster, is_picture=suffix == PICTURE)
    how = {"noise": not mean, "random_state": seed}
    if suffix == PICTURE:
        return {"out": out, "n_rows": _draw_picture(path, clusterer, shape, n, cluster, how)}
    X, y = clusterer.sample(n, cluster=cluster, **how)
    if suffix in TABLES:
        names = getattr(clusterer, "feature_names_in_", [f"x{d}" for d in range(X.shape[1])])
        columns = {str(name): X[:, d] for d, name in enumerate(names)}
        write_table(path, columns | {_free_name("cluster", columns): y}, quote_formulas=quote_formulas)
    else:
        write_arrays(path, {"X": X, "y": y})
    return {"out": out, "n_rows": len(X)}


def _loaded(model: str, out: str, n: int, cluster: int | None, *, is_picture: bool) -> tuple[Any, Any]:
    """(the clusterer, the shape of its images), if it can give what is asked for."""
    from nvisa import load
    from nvisa.commands.models import feature_shape

    if n < 1:
        raise ValueError(f"-n: expected at least 1 sample, got {n}. Try -n 100.")
    shape = feature_shape(model)
    if is_picture and shape is None:
        raise ValueError(f"{out}: expected a model of images for a picture, got one of columns. Try .csv or .npz.")
    clusterer = load(model, device="auto")
    if not hasattr(clusterer, "sample"):
        raise ValueError(f"{model}: expected a model with a density, got {type(clusterer).__name__}, which has none.")
    if cluster is not None and not 0 <= cluster < clusterer._n_found:
        raise ValueError(f"--cluster must be in 0..{clusterer._n_found - 1}, got {cluster}.")
    return clusterer, shape


def _free_name(name: str, taken: Collection[str]) -> str:
    """The name, or with _ behind it if it is taken, which is said."""
    free = name
    while free in taken:
        free += "_"
    if free != name:
        warnings.warn(f"{name!r} is a feature of the model: the clusters are in the column {free!r}.", stacklevel=3)
    return free


def _draw_picture(
    path: Path, clusterer: Any, shape: list[int], n: int, cluster: int | None, how: Mapping[str, Any]
) -> int:
    """A line of images for every cluster that gets one of n, or lines of at most 20 of one; the number drawn."""
    import numpy as np

    from nvisa.report import pictures

    n_lines = -(-n // PER_LINE) if cluster is not None else min(n, clusterer._n_found)
    lengths = [len(part) for part in np.array_split(np.arange(n), n_lines)]
    names = list(range(n_lines)) if cluster is None else [cluster] * n_lines
    drawn = [clusterer.sample(sum(lengths), cluster=cluster, **how)[0]] if cluster is not None else [
        clusterer.sample(length, cluster=k, **how)[0] for k, length in zip(names, lengths, strict=True)
    ]  # fmt: skip
    X = pictures.as_images(np.concatenate(drawn), shape)
    lines = np.split(X, np.cumsum(lengths)[:-1])
    pictures.save_grid(path, [("", lines)], names=[str(name) for name in names])
    return len(X)
