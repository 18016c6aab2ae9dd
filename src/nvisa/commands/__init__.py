"""What each command does: read, call the clusterer, write. Arguments in, a dictionary of plain values out."""

import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa import data as datasets
from nvisa.commands.choosing import choose_k, choose_k_text
from nvisa.commands.pages import report
from nvisa.commands.results import check_output, command, replacing, write_arrays, write_table
from nvisa.commands.rows import Reading, Rows, aligned, as_frame, read_rows
from nvisa.commands.understanding import understand, understanding_text
from nvisa.data import DataError
from nvisa.fitting.checkpoint import where
from nvisa.fitting.consistency import Augment
from nvisa.fitting.progress import DownloadProgress
from nvisa.fitting.training import Training
from nvisa.maths import metrics
from nvisa.methods import METHODS, load
from nvisa.persistence import check_target, read_manifest
from nvisa.report import pictures

__all__ = [
    "Reading",
    "choose_k",
    "choose_k_text",
    "evaluate",
    "fetch",
    "fit",
    "list_data",
    "predict",
    "report",
    "sample",
    "understanding_text",
]

Result = dict[str, Any]
TABLES, SAMPLES = (".csv", ".parquet"), (".npy", ".npz", ".csv", ".parquet", ".png")


def fit(
    data: str,
    out: str,
    settings: Mapping[str, Any],
    reading: Reading,
    *,
    epochs: int | None = None,
    checkpoint: str | None = None,
    scaling: str | None = None,
    on_read: Callable[[Result], None] = lambda _: None,
) -> Result:
    """Fit NVISA to DATA and write the model directory; labels, if known, are looked at when it is written.

    Parameters
    ----------
    settings
        Of :class:`nvisa.NVISA`; the likelihood, if it is not among them, follows from the rows.
    epochs
        In place of the default's own choice.
    checkpoint
        Folder that lets the same command go on after a kill; removed once the fit is done.
    scaling
        As in :class:`nvisa.Network`; None: what follows from the rows.
    on_read
        Called with what was understood of the rows, before training.

    Raises
    ------
    KeyboardInterrupt
        Saying what the interruption has left.
    """
    check_target(out)
    if checkpoint is not None and Path(checkpoint).resolve() == Path(out).resolve():
        raise DataError(f"{out}: expected a folder for the model, and another for --checkpoint, got one for both.")
    rows = read_rows(data, reading, to_fit=True)
    _check_labels(rows)
    found = understand(rows, likelihood=settings.get("likelihood"), scaling=scaling)
    on_read(found)
    if settings.get("consistency") == "augment" and rows.feature_shape is not None:
        settings = {**settings, "consistency": Augment(image_shape=tuple(rows.feature_shape))}
    clusterer = METHODS["nvisa"](**{**settings, **_chosen(found, epochs)})
    started = time.perf_counter()
    try:
        clusterer.fit(as_frame(rows.X, rows.columns), checkpoint=checkpoint)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_how_to_resume(checkpoint)) from error
    seconds = time.perf_counter() - started
    clusterer.save(out, extra={"source": rows.source, "data_digest": rows.digest, "feature_shape": rows.feature_shape})
    return {
        "model": out,
        "source": rows.source,
        "n_rows": len(rows.X),
        "n_features": rows.X.shape[1],
        "data": found,
        **_sizes(clusterer.labels_, clusterer._n_found),
        "neighbor_information": getattr(clusterer, "neighbor_information_", None),
        "seconds": seconds,
        "metrics": None if rows.labels is None else metrics.evaluate(rows.labels, clusterer.labels_),
        "next": _next_commands(data, out, rows, reading),
    }


def _check_labels(rows: Rows) -> None:
    """Say before training what labels cannot be used."""
    if rows.labels is None:
        return
    if n := sum(label is None or (isinstance(label, float) and np.isnan(label)) for label in rows.labels.tolist()):
        advice = "Try removing these rows, or --drop for the column in place of --label-column."
        raise DataError(f"{rows.source}: expected a label for every row, got {n:,} without one. {advice}")
    metrics.nmi(rows.labels, rows.labels)


def _how_to_resume(checkpoint: str | None) -> str:
    if checkpoint is None:
        return "nothing was written, and what was there before still is; fit --checkpoint DIR can be resumed"
    if (place := where(checkpoint)) is None:
        return f"too early for a checkpoint in {checkpoint}: the same command starts again"
    return f"the same command goes on from {checkpoint} ({place})"


def _chosen(found: Result, epochs: int | None) -> Result:
    """The settings that follow from the rows."""
    network = replace(METHODS["nvisa"].DEFAULT_NETWORK, scaling=found["scaling"])
    chosen = {"likelihood": found["likelihood"], "network": network}
    return chosen if epochs is None else chosen | {"training": Training(epochs=epochs)}


def _next_commands(data: str, out: str, rows: Rows, reading: Reading) -> list[str]:
    read = [data, *reading.words()]
    lines: list[list[object]] = [["predict", out, *read, "--out", "labels.csv"]]
    if rows.feature_shape is not None:
        lines.append(["sample", out, "-n", 100, "--mean", "--out", "samples.png"])
    else:
        lines.append(["sample", out, "-n", 100, "--out", "samples.csv"])
    if rows.labels is not None:
        lines.append(["evaluate", out, *read])
    lines.append(["report", out, "--data", *read, "--out", "report.html"])
    return [command(*line) for line in lines]


def predict(
    model: str, data: str, out: str, reading: Reading, *, split: str | None = None, proba: bool = False
) -> Result:
    """Write the cluster of each row of DATA, and with ``proba`` q(y|x), as a table."""
    path = check_output(out, TABLES, source=data)
    clusterer = load(model, device="auto")
    rows = read_rows(data, reading, split=split)
    q = clusterer.predict_proba(aligned(rows, clusterer, _feature_shape(model)))
    columns: dict[str, Any] = {"row": rows.names or np.arange(len(q)), "cluster": q.argmax(1)}
    if proba:
        columns |= {f"p{k}": q[:, k] for k in range(q.shape[1])}
    write_table(path, columns)
    return {"out": out, "source": rows.source, "n_rows": len(q), **_sizes(columns["cluster"], q.shape[1])}


def _sizes(labels: NDArray[np.integer], n_clusters: int) -> Result:
    """Rows of every cluster, and how many clusters have enough of them."""
    sizes = np.bincount(labels, minlength=n_clusters)
    return {"sizes": sizes.tolist(), "clusters_in_use": metrics.clusters_in_use(sizes)}


def _feature_shape(model: str) -> Any:
    """Shape of one image, of a model that was fitted on images."""
    return read_manifest(model)["extra"].get("feature_shape")


def evaluate(model: str, data: str, reading: Reading, *, split: str | None = None) -> Result:
    """Agreement of the model's clusters with the labels of DATA."""
    clusterer = load(model, device="auto")
    rows = read_rows(data, reading, split=split)
    if rows.labels is None:
        raise DataError(
            f"{rows.source}: expected labels to compare the clusters with, got none. Try --label-column for a "
            "table, --labels-from-folders for images, or an array y in the .npz."
        )
    _check_labels(rows)
    labels = clusterer.predict(aligned(rows, clusterer, _feature_shape(model)))
    return {"source": rows.source, "n_rows": len(labels), "metrics": metrics.evaluate(rows.labels, labels)}


def sample(
    model: str, out: str, n: int, *, cluster: int | None = None, mean: bool = False, seed: int | None = None
) -> Result:
    """Draw rows from the model and write them: an array, a table with their cluster, or a picture."""
    path = check_output(out, SAMPLES)
    if n < 1:
        raise DataError(f"-n: expected at least 1 sample, got {n}. Try -n 100.")
    shape = _feature_shape(model)
    if path.suffix.lower() == ".png" and shape is None:
        raise DataError(f"{out}: expected a model of images for a picture, got one of columns. Try .csv or .npz.")
    clusterer = load(model, device="auto")
    if not hasattr(clusterer, "sample"):
        raise DataError(f"{model}: expected a model with a density, got {type(clusterer).__name__}, which has none.")
    if path.suffix.lower() == ".png":
        n = _draw_picture(path, clusterer, shape, n, cluster, {"noise": not mean, "random_state": seed})
        return {"out": out, "n_rows": n}
    X, y = clusterer.sample(n, cluster=cluster, noise=not mean, random_state=seed)
    if path.suffix.lower() in TABLES:
        names = getattr(clusterer, "feature_names_in_", [f"x{d}" for d in range(X.shape[1])])
        columns = {str(name): X[:, d] for d, name in enumerate(names)}
        write_table(path, columns | {_free_name("cluster", columns): y})
    else:
        write_arrays(path, {"X": X, "y": y})
    return {"out": out, "n_rows": len(X)}


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
    n_lines = -(-n // 20) if cluster is not None else min(n, clusterer._n_found)
    lengths = [len(part) for part in np.array_split(np.arange(n), n_lines)]
    names = list(range(n_lines)) if cluster is None else [cluster] * n_lines
    drawn = [clusterer.sample(sum(lengths), cluster=cluster, **how)[0]] if cluster is not None else [
        clusterer.sample(length, cluster=k, **how)[0] for k, length in zip(names, lengths, strict=True)
    ]  # fmt: skip
    X = pictures.as_images(np.concatenate(drawn), shape)
    lines: list[NDArray] = np.split(X, np.cumsum(lengths)[:-1])
    with replacing(path) as part:
        pictures.save_grid(part, [("", lines)], names=[str(name) for name in names])
    return len(X)


def list_data(data_home: str | None) -> list[Result]:
    """Every data set that has a name here."""
    return [asdict(entry) for entry in datasets.available(data_home)]


def fetch(name: str, data_home: str | None) -> Result:
    """Make sure that a data set is in the data home."""
    paths = datasets.fetch(name, data_home, progress=DownloadProgress())
    return {"name": name, "files": [str(path) for path in paths]}
