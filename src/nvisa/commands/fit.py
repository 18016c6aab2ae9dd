"""``nvisa fit``: cluster the rows of DATA and write a model directory."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvisa.commands.options import DATA_HELP, ReadOptions, Renamed, add_command, add_read_options
from nvisa.commands.printing import (
    SAME_COMMAND,
    Result,
    command_line,
    metrics_text,
    next_text,
    print_result,
    shown,
    sizes_text,
)

__all__ = ["OPTION_OF", "add", "fit"]

CONSISTENCY = {"vat": "vat", "augment": "augment", "none": None}
COUNTS = ("negative_binomial", "zero_inflated_negative_binomial")
LIKELIHOODS, SCALINGS = ("gaussian_shared", "gaussian", "bernoulli", *COUNTS), ("columns", "global", "cosine", "none")

OPTION_OF = {  # settings of nvisa.NVISA, as a SettingError names them
    "n_clusters": "--n-clusters",
    "random_state": "--seed",
    "training.epochs": "--epochs",
    "likelihood": "--likelihood",
    "network.scaling": "--scaling",
    "network.image_shape": "--network",
    "network": "--network",
    "inference": "--inference",
    "init": "--init",
    "n_samples": "--n-samples",
    "consistency": "--consistency",
    "n_restarts": "--n-restarts",
}


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "fit", run, "cluster the rows of DATA and write a model directory")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--n-clusters", type=int, metavar="K", help="number of clusters (nvisa choose-k DATA helps)")
    parser.add_argument("--out", required=True, metavar="DIR", help="model directory, new or to be replaced")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument("--epochs", type=int, help="passes over the data (default: by the number of rows)")
    parser.add_argument("--checkpoint", metavar="DIR", help="keep what the same command needs to go on if it is killed")
    parser.add_argument("--likelihood", choices=LIKELIHOODS, help="p(x|z) (default: by the values)")
    parser.add_argument("--scaling", choices=SCALINGS, help="units of the networks (default: by the columns)")
    parser.add_argument("--network", choices=("perceptron", "conv"), help="conv: convolutions, for images")
    parser.add_argument("--inference", choices=("vimco", "nvil", "enum_y"), help="gradient estimator")
    parser.add_argument(
        "--init", choices=("auto", "umap", "gmm", "random"), help="where training starts (default: auto)"
    )
    parser.add_argument("--n-samples", type=int, metavar="M", help="draws of (y, z) for a row")
    parser.add_argument("--consistency", choices=tuple(CONSISTENCY), help="local consistency of q(y|x)")
    restarts = "whole fits from other seeds; the best by a score without labels is kept"
    parser.add_argument("--n-restarts", type=int, metavar="R", help=restarts)
    parser.add_argument("--n-init", action=Renamed, const="--n-restarts")
    add_read_options(parser)


def run(args: argparse.Namespace) -> None:
    """Fit as the options say, and print what came of it."""
    if args.n_clusters is None:
        args.parser.error(f"expected --n-clusters K, the number of clusters. Try nvisa choose-k {args.data}")
    names = ("n_clusters", "likelihood", "inference", "init", "n_samples", "n_restarts", "network")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings |= {"random_state": args.seed, "verbose": int(not args.quiet)}
    settings |= {} if args.consistency is None else {"consistency": CONSISTENCY[args.consistency]}

    is_follower = int(os.environ.get("RANK", "0")) > 0  # torchrun's

    def print_profile(found: Result) -> None:
        from nvisa.commands.data_profile import profile_text

        if not (args.json or args.quiet or is_follower):
            print(shown(profile_text(found)), file=sys.stderr, flush=True)

    result = fit(
        args.data, args.out, settings, ReadOptions.of(args), epochs=args.epochs, checkpoint=args.checkpoint,
        scaling=args.scaling, on_read=print_profile,
    )  # fmt: skip
    if result is not None:
        print_result(args, result, fit_text)


def fit_text(result: Result) -> str:
    """Seconds, sizes, agreement with the labels if there are some, and what to type next."""
    from nvisa.fitting.diagnosis import diagnosis_text

    took = f"{result['seconds']:.0f} s ({result['stop_reason']})"
    compared = [] if result["diagnosis"] is None else [diagnosis_text(result["diagnosis"])]
    lines = [took, sizes_text(result), *compared, f"saved in {result['model']}"]
    if result["metrics"]:
        lines += ["", "agreement with the labels, which training did not see:", metrics_text(result["metrics"])]
    return "\n".join([*lines, "", next_text(result)])


def fit(
    data: str,
    out: str,
    settings: Mapping[str, Any],
    options: ReadOptions,
    *,
    epochs: int | None = None,
    checkpoint: str | None = None,
    scaling: str | None = None,
    on_read: Callable[[Result], None] = lambda _: None,
) -> Result | None:
    """Fit NVISA to DATA and write the model directory; labels, if known, are looked at when it is written.

    Under torchrun all ranks fit (:mod:`nvisa.fitting.distributed`), and rank 0 writes; the others return None.

    Parameters
    ----------
    settings
        Of :class:`nvisa.NVISA`; the likelihood, if it is not among them, follows from the rows. ``network`` is "conv"
        for convolutions.
    epochs
        In place of the default's own choice.
    checkpoint
        Folder that lets the same command go on after a kill; removed once the model is written.
    scaling
        As in :class:`nvisa.Network`; None: what follows from the rows.
    on_read
        Called with the profile of the rows, before training.

    Raises
    ------
    KeyboardInterrupt
        Saying what the interruption has left.
    """
    from nvisa.commands.data_profile import profile
    from nvisa.commands.rows import as_frame, check_labels, read_rows
    from nvisa.persistence import check_target

    check_target(out)
    if checkpoint is not None:
        _check_apart(Path(out).resolve(), Path(checkpoint).resolve())
    rows = read_rows(data, options, to_fit=True)
    check_labels(rows)
    _check_number(rows, settings.get("n_clusters", 0))
    found = profile(rows, likelihood=settings.get("likelihood"), scaling=scaling)
    on_read(found)
    clusterer = _clusterer(settings, found, epochs)
    started = time.perf_counter()
    try:
        if _fitted(clusterer, as_frame(rows.X, rows.columns), checkpoint) is None:
            return None
    except KeyboardInterrupt as error:
        raise type(error)(_how_to_resume(checkpoint)) from error
    seconds = time.perf_counter() - started
    about = {"source": rows.source, "data_digest": rows.digest, "feature_shape": rows.feature_shape}
    clusterer.save(out, extra=about | {"read": rows.as_read(options)})
    return _result(clusterer, rows, found) | {
        "model": out,
        "seconds": seconds,
        "next": _next_commands(data, out, rows, options),
    }


def _fitted(clusterer: Any, X: Any, checkpoint: str | None) -> Any:
    """The clusterer, fitted by this process, or by all ranks; None on all of these but the first."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return clusterer.fit(X, checkpoint=checkpoint)
    from nvisa.fitting.distributed import fit_on_ranks

    return fit_on_ranks(clusterer, X, checkpoint=checkpoint)


def _check_apart(out: Path, checkpoint: Path) -> None:
    """Neither may be in the other: the model replaces its folder, and the same command is typed again."""
    if out.is_relative_to(checkpoint) or checkpoint.is_relative_to(out):
        raise ValueError(f"{out}: expected a folder for the model, and another for --checkpoint, got {checkpoint}.")


def _check_number(rows: Any, n_clusters: int) -> None:
    if len(rows.X) < n_clusters:
        raise ValueError(
            f"{rows.source}: expected at least as many rows as --n-clusters {n_clusters}, got {len(rows.X)}. "
            "Try fewer clusters."
        )


def _clusterer(settings: Mapping[str, Any], found: Result, epochs: int | None) -> Any:
    """NVISA with these settings, and those that follow from the rows."""
    from nvisa import NVISA, Augment, Conv, Training

    chosen = dict(settings) | {"likelihood": found["likelihood"]}
    if chosen.get("consistency") == "augment" and found["feature_shape"] is not None:
        chosen["consistency"] = Augment(image_shape=tuple(found["feature_shape"]))
    if epochs is not None:
        chosen["training"] = Training(epochs=epochs)
    network, shape = NVISA.DEFAULT_NETWORK, found["feature_shape"]
    if chosen.pop("network", None) == "conv":
        network = Conv(image_shape=None if shape is None else tuple(shape))
    return NVISA(**chosen, network=replace(network, scaling=found["scaling"]))


def _how_to_resume(checkpoint: str | None) -> str:
    from nvisa.fitting.checkpoint import progress

    if checkpoint is None:
        return "nothing was written, and what was there before still is; fit --checkpoint DIR can be resumed"
    if (place := progress(checkpoint)) is None:
        return f"too early for a checkpoint in {checkpoint}: {SAME_COMMAND} starts again"
    return f"{SAME_COMMAND} goes on from {checkpoint} ({place})"


def _result(clusterer: Any, rows: Any, found: Result) -> Result:
    """What is known of a fit."""
    from nvisa.commands.models import cluster_sizes
    from nvisa.maths import metrics

    return {
        "source": rows.source,
        "n_rows": len(rows.X),
        "n_features": rows.X.shape[1],
        "data": found,
        **cluster_sizes(clusterer.labels_, clusterer._n_found),
        "neighbor_information": getattr(clusterer, "neighbor_information_", None),
        "diagnosis": getattr(clusterer, "diagnosis_", None),
        "stop_reason": clusterer.stop_reason_,
        "metrics": None if rows.labels is None else metrics.evaluate(rows.labels, clusterer.labels_),
    }


def _next_commands(data: str, out: str, rows: Any, options: ReadOptions) -> list[str]:
    read = [data] if options.data_home is None else [data, "--data-home", options.data_home]
    lines: list[list[object]] = [["predict", out, *read, "--out", "labels.csv"]]
    if rows.feature_shape is not None:
        lines.append(["sample", out, "-n", 100, "--mean", "--out", "samples.png"])
    else:
        lines.append(["sample", out, "-n", 100, "--out", "samples.csv"])
    if rows.labels is not None:
        lines.append(["evaluate", out, *read])
    lines.append(["report", out, "--data", *read, "--out", "report.html"])
    return [command_line(*line) for line in lines]
