"""``nvisa report``: the page of a model, with rows if there are some, or of a benchmark's records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvisa.benchmark.page import write_records_report
from nvisa.commands.results import check_output, command, replacing
from nvisa.commands.rows import Reading, aligned, read_rows
from nvisa.data import DataError
from nvisa.methods import load
from nvisa.persistence import read_manifest
from nvisa.report import write_report

__all__ = ["report"]

Result = dict[str, Any]


def report(
    paths: Sequence[str],
    out: str,
    reading: Reading,
    *,
    data: str | None = None,
    split: str | None = None,
    maps: Sequence[str] = ("auto", "pca"),
) -> Result:
    """Write the page of a model directory, with the rows of DATA if given, or of a benchmark's records."""
    path = check_output(out, (".html",), source=paths[0])
    is_model = len(paths) == 1 and (Path(paths[0]) / "manifest.json").exists()
    if data is not None and not is_model:
        raise DataError(f"{' '.join(paths)}: expected one model directory with --data, got none. Try nvisa fit.")
    with replacing(path) as part:
        try:
            if is_model:
                _report_model(part, paths[0], out, reading, data, split, maps)
            else:
                write_records_report(paths, out=part)
        except ImportError as error:
            raise DataError(f"{out}: {error}") from error
        n_bytes = part.stat().st_size
    return {"out": out, "n_bytes": n_bytes}


def _report_model(
    part: Path, model: str, out: str, reading: Reading, data: str | None, split: str | None, maps: Sequence[str]
) -> None:
    """The page of a model: what its manifest knows, and the rows if there are some."""
    clusterer, manifest = load(model, device="auto"), read_manifest(model)
    known = manifest["extra"]
    words = ["report", model, "--out", out]
    about = {"model": model, "model_digest": manifest["sha256"], "source": known.get("source")}
    if data is None:
        about |= {"data_digest": known.get("data_digest"), "command": command(*words)}
        write_report(clusterer, out=part, feature_shape=known.get("feature_shape"), about=about)
        return
    rows = read_rows(data, reading, split=split)
    words += ["--data", data, *reading.words(), *(["--split", split] if split else []), "--maps", *maps]
    about |= {"source": rows.source, "data_digest": rows.digest, "command": command(*words)}
    write_report(
        clusterer, aligned(rows, clusterer, known.get("feature_shape")), rows.labels, out=part,
        feature_shape=rows.feature_shape or known.get("feature_shape"), names=rows.names, maps=maps, about=about,
    )  # fmt: skip
