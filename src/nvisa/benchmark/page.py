"""The records of a benchmark as a page: tables beside the slides', curves against time, the ablation, samples."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from nvisa.benchmark.experiments import BEYOND, ROWS
from nvisa.benchmark.records import Record, read_record
from nvisa.benchmark.tables import ablation_cell, accuracy_cell, cell, slides_cell, values
from nvisa.durable_files import write_file
from nvisa.methods import load
from nvisa.persistence import read_manifest
from nvisa.report.curves import chart, charts_of_history
from nvisa.report.encoding import one_line
from nvisa.report.pictures import brightness
from nvisa.report.render import render
from nvisa.report.thumbnails import Thumbnails, gallery_sprite

__all__ = ["read_records", "write_records_report"]

ROW_OF = {recipe: row for row in ROWS for recipe in (row.pixels, row.features)}
LABELS = {recipe: row.label for row in (*ROWS, *BEYOND) for recipe in (row.pixels, row.features)}
ABLATION = "ablation"
PER_CLUSTER, MAX_CLUSTERS, MAX_GRIDS = 8, 20, 24  # of the samples


def read_records(paths: Sequence[str | Path]) -> list[Record]:
    """The records of runs in the files, and below the folders.

    Raises
    ------
    ValueError
        If a file is not a record, or there is none.
    """
    if missing := [str(path) for path in paths if not Path(path).exists()]:
        raise ValueError(f"{', '.join(missing)}: expected records or a model directory, got nothing. Try nvisa fit.")
    files = [file for path in map(Path, paths) for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    records = [record for file in files if "recipe" in (record := read_record(file))]  # the others measure speed
    if not records:
        raise ValueError(f"{', '.join(map(str, paths))}: expected records of runs, got none. Try benchmarks/records.")
    return sorted(records, key=lambda record: (record["dataset"], record["recipe"], record["seed"]))


def write_records_report(paths: Sequence[str | Path], *, out: str | Path = "report.html") -> Path:
    """Write the page of these records.

    Parameters
    ----------
    paths
        Records, or folders of records; models of images beside them or below give their samples.
    out
        The file.
    """
    records = read_records(paths)
    datasets = [_data_set(name, list(mine)) for name, mine in groupby(records, lambda record: record["dataset"])]
    charts = [made for data in datasets for made in data.pop("charts")]
    payload = {"charts": charts, "n_clusters": 0}
    context = {"datasets": datasets, "records": records, "one_line": one_line, "grids": _grids(paths)}
    path = Path(out).expanduser()
    write_file(path, render("records.html", payload, package="nvisa.benchmark", **context).encode())
    return path


def _grids(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Samples of the models below the folders, a line a cluster, where their rows are images."""
    found = sorted({file.parent for path in map(Path, paths) for file in path.rglob("manifest.json")})
    return [grid for folder in found[:MAX_GRIDS] if (grid := _grid(folder)) is not None]


def _grid(folder: Path) -> dict[str, Any] | None:
    """Means of p(x|z) for z drawn from every cluster."""
    shape, model = read_manifest(folder)["extra"].get("feature_shape") or (), load(folder)
    if len(shape) < 2 or not hasattr(model, "sample"):
        return None
    drawn = [model.sample(PER_CLUSTER, cluster=k, noise=False, random_state=k)[0]
             for k in range(min(model._n_found, MAX_CLUSTERS))]  # fmt: skip
    X = np.concatenate(drawn)
    low, high = brightness(X)
    edges = ((0, 0), (1, 1), (1, 1), *[(0, 0)] * (len(shape) - 2))  # a dark line around each image
    framed = np.pad(X.reshape(-1, *shape), edges, constant_values=low)
    draw = Thumbnails(framed.shape[1:], (low, high))
    return {
        "name": one_line(folder.name),
        "sprite": gallery_sprite(framed.reshape(len(X), -1), draw, columns=PER_CLUSTER),
    }


def _data_set(name: str, records: list[Record]) -> dict[str, Any]:
    """Everything about one data set."""
    cells = [(recipe, list(mine)) for recipe, mine in groupby(records, lambda record: record["recipe"])]
    rows = [_row(name, recipe, mine) for recipe, mine in cells]
    return {
        "name": one_line(name),
        "rows": [row for row in rows if not row["recipe"].startswith(ABLATION)],
        "ablation": [row for row in rows if row["recipe"].startswith(ABLATION)],
        "charts": _charts(name, cells),
    }


def _row(dataset: str, recipe: str, records: list[Record]) -> dict[str, Any]:
    """A cell of the benchmark: its mean over seeds, and the slides' beside it."""
    accuracy = values(records)
    seconds = [record["seconds"] for record in records if "seconds" in record]
    return {
        "recipe": one_line(recipe),
        "method": LABELS.get(recipe) or one_line(records[0].get("method", "")),
        "accuracy": accuracy_cell(records),
        "best": f"{max(accuracy):.2f}" if accuracy else "-",
        "nmi": cell(values(records, "nmi")),
        "ari": cell(values(records, "ari")),
        "seeds": ", ".join(str(record["seed"]) for record in records),
        "seconds": f"{mean(seconds):.0f}" if seconds else "-",
        "slides": _slides(dataset, recipe),
        "commits": ", ".join(sorted({one_line(record.get("commit", "")) for record in records})),
    }


def _slides(dataset: str, recipe: str) -> str:
    """The slides' cell of this recipe on this data set, with their marks; of the ablation their MNIST's."""
    if recipe.startswith(ABLATION):
        return ablation_cell(recipe.partition("/")[2])
    return (recipe in ROW_OF and slides_cell(ROW_OF[recipe], dataset)) or "-"


def _charts(name: str, cells: list[tuple[str, list[Record]]]) -> list[dict[str, Any]]:
    """Accuracy against time, and the bound of every run that has a history."""
    time = [line for recipe, mine in cells if (line := _against_time(recipe, mine))]
    drawn = [chart(f"{name}: accuracy against time", "accuracy %", time, x_title="seconds")] if time else []
    bounds = []
    for recipe, mine in cells:
        for record in mine[:1]:
            curves = [made for made in charts_of_history(record.get("history", [])) if "Bound" in made["title"]]
            bounds += [
                series | {"name": f"{recipe}, seed {record['seed']}"} for made in curves for series in made["series"]
            ]
    return drawn + ([chart(f"{name}: bound on log p(x)", "nats a row", bounds)] if bounds else [])


def _against_time(recipe: str, records: list[Record]) -> dict[str, Any] | None:
    """The curve of the first run that has one; without, where each run ended."""
    for record in records:
        if points := [point for point in record.get("curve", []) if "accuracy" in point and "elapsed" in point]:
            before = record.get("start", {}).get("seconds", 0.0)
            x, y = [before + point["elapsed"] for point in points], [100 * point["accuracy"] for point in points]
            return {"name": f"{recipe}, seed {record['seed']}", "x": x, "y": y}
    ended = [record for record in records if record["status"] == "ok"]
    if not ended:
        return None
    return {
        "name": f"{recipe}, the end of each run",
        "x": [r["seconds"] for r in ended],
        "y": values(ended),
        "ends": True,
    }
