"""``nvisa predict MODEL FOLDER --out FOLDER``: a folder of Parquet, file by file, in batches of bounded memory.

Every file gets one of its own, at the same place below OUT, which appears when it is whole. What is there already, made
by the same model from the same file, is not made again: the same command goes on where it was stopped.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from nvisa.commands.options import OF_COLUMNS, ReadOptions
from nvisa.commands.printing import Result, listed
from nvisa.commands.rows import Remembered
from nvisa.data import DataError
from nvisa.data.errors import describing
from nvisa.durable_files import replacing_file
from nvisa.fitting.training import clusters_in_use
from nvisa.methods import load
from nvisa.persistence import read_manifest
from nvisa.settings import SettingError

__all__ = ["predict_folder"]

BATCH = 65_536  # rows
MADE = b"nvisa.predicted"  # key of a file's metadata: by which model, from which file


def predict_folder(
    model: str, folder: str, out: str, options: ReadOptions, *, proba: bool = False, reject: float | None = None
) -> Result:
    """Write the cluster of each row of the Parquet files in ``folder`` to files of the same names in ``out``.

    Raises
    ------
    DataError
        If ``out`` is the folder of the data or in it, a file there is none of ours, or columns are missing.
    """
    source, target = Path(folder).expanduser().resolve(), Path(out).expanduser().resolve()
    if target.is_relative_to(source):
        raise DataError(f"{out}: expected a folder outside that of the data, got {source}. Choose another.")
    if options.drop_missing:
        raise DataError(f"{out}: expected a file with --drop-missing, got a folder. Try --out labels.parquet.")
    clusterer, manifest = load(model, device="auto"), read_manifest(model)
    like = Remembered.of(manifest["extra"])
    options = options if like is None else options.over(like.said, OF_COLUMNS)
    how = {"sha256": manifest["sha256"], "proba": proba, "reject": reject, "id": options.id_column}
    counts, files, n_kept = np.zeros(clusterer.n_clusters_ + 1, np.int64), sorted(source.rglob("*.parquet")), 0
    for path in files:
        goal, about = target / path.relative_to(source), path.stat()
        made = json.dumps(how | {"from": [about.st_size, about.st_mtime_ns]})
        if is_done(goal, made):
            n_kept += 1
        else:
            goal.parent.mkdir(parents=True, exist_ok=True)
            with replacing_file(goal) as part:
                _write(_predictions(clusterer, path, options, proba=proba, reject=reject), part, made)
        counts += _sizes(goal, len(counts))
    return {
        "out": out,
        "source": str(source),
        "n_rows": int(counts.sum()),
        "n_refused": int(counts[-1]),
        "notes": [f"{len(files)} Parquet files" + (f", {n_kept} of them done before" if n_kept else "")],
        "sizes": counts[:-1].tolist(),
        "clusters_in_use": clusters_in_use(counts[:-1]),
    }


def is_done(path: Path, made: str) -> bool:
    """Whether the file is there and was made so.

    Raises
    ------
    DataError
        If it was made by something else.
    """
    if not path.exists():
        return False
    with describing(path, "a file of predictions to replace", advice="Choose another folder."):
        found = parquet.read_schema(path).metadata or {}
    if MADE not in found:
        raise DataError(f"{path}: expected predictions to replace, got another file. Choose another folder.")
    return found[MADE].decode() == made


def _write(tables: Iterator[pyarrow.Table], part: Path, made: str) -> None:
    """Write tables, of which there is one at least, into a file that says how they were made."""
    first = next(tables).replace_schema_metadata({MADE: made.encode()})
    with parquet.ParquetWriter(part, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table.replace_schema_metadata(first.schema.metadata))


def _predictions(
    clusterer: Any, path: Path, options: ReadOptions, *, proba: bool, reject: float | None
) -> Iterator[pyarrow.Table]:
    """What is written of a file, batch by batch."""
    n, named = 0, [] if options.id_column is None else [options.id_column]
    for batch in _batches(clusterer, path, options, named):
        names = batch.column(named[0]) if named else pyarrow.array(np.arange(n, n + len(batch)))
        X = batch.select([name for name in batch.schema.names if name not in named]).to_pandas()
        X = X if hasattr(clusterer, "feature_names_in_") else X.to_numpy(np.float64)
        try:
            q = clusterer.predict_proba(X)
            cluster = q.argmax(1) if reject is None else clusterer.predict(X, reject=reject)
        except SettingError:
            raise
        except ValueError as error:
            raise DataError(f"{path}, after row {n:,}: {error}") from error
        columns = {"row": names, "cluster": cluster.astype(np.int32)}
        yield pyarrow.table(columns | ({f"p{k}": q[:, k] for k in range(q.shape[1])} if proba else {}))
        n += len(batch)
    if n == 0:
        raise DataError(f"{path}: expected rows, got none. Remove the file.")


def _batches(clusterer: Any, path: Path, options: ReadOptions, named: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """The model's columns of a file, and the one that names its rows."""
    with describing(path, "Parquet", advice="It may be cut; try writing it again."):
        file = parquet.ParquetFile(path)
        columns = _columns(clusterer, file.schema_arrow, path, options)
        yield from (batch for batch in file.iter_batches(BATCH, columns=[*columns, *named]) if len(batch))


def _columns(clusterer: Any, schema: pyarrow.Schema, path: Path, options: ReadOptions) -> list[str]:
    """The model's columns in its order; of one that was fitted on an array all numbers, as many as it has."""
    if (known := getattr(clusterer, "feature_names_in_", None)) is not None:
        columns = [str(name) for name in known]
        if missing := [name for name in columns if name not in schema.names]:
            raise DataError(f"{path}: expected the columns that the model was fitted on, got no {listed(missing)}.")
        return columns
    left_out = {options.label_column, options.id_column, *options.drop}
    columns = [name for name in schema.names if name not in left_out]
    if len(columns) != clusterer.n_features_in_:
        raise DataError(
            f"{path}: expected {clusterer.n_features_in_} columns, as the model was fitted on, got {len(columns)}. "
            "Try --label-column, --id-column or --drop."
        )
    return columns


def _sizes(path: Path, n: int) -> NDArray[np.int64]:
    """Rows of each cluster [n]; those that were refused are the last."""
    sizes = np.zeros(n, np.int64)
    for batch in parquet.ParquetFile(path).iter_batches(BATCH, columns=["cluster"]):
        sizes += np.bincount(batch.column(0).to_numpy() % n, minlength=n)  # -1 is n - 1
    return sizes
