"""The rows that DATA stands for: of a file, a folder of images, or a data set with a name; read and checked."""

import difflib
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from nvisa import data as datasets
from nvisa.commands.options import OF_COLUMNS, OF_IMAGES, OF_TEXT, ReadOptions, option
from nvisa.commands.printing import listed
from nvisa.commands.progress import DownloadProgress
from nvisa.data import DataError, Dialect, column_names
from nvisa.data.files.compressed import plain_suffix
from nvisa.maths import metrics
from nvisa.nets.rows import Table, as_given, blocks
from nvisa.nets.sparse import SparseRows

__all__ = ["Remembered", "Rows", "as_frame", "check_labels", "read_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows [N D] without infinities, and what is known about them."""

    X: Table
    source: str
    digest: str
    labels: NDArray[Any] | None = None
    columns: list[str] | None = None
    feature_shape: tuple[int, ...] | None = None
    names: list[str] | None = None
    split: str | None = None
    left_out: tuple[str, ...] = ()
    n_incomplete: int = 0  # rows left out for their gaps
    n_with_gaps: int = 0  # rows kept with theirs
    n_gaps: int = 0
    notes: tuple[str, ...] = ()  # what was understood without being said, and what was passed over
    dialect: Dialect | None = None

    def as_read(self, options: ReadOptions) -> dict[str, Any]:
        """How they were read, for a model's manifest: what was typed, and what was found in the file."""
        return {"said": options.said(), "found": {} if self.dialect is None else self.dialect.said()}


@dataclass(frozen=True)
class Remembered:
    """How the rows of a model's fit were read: what was typed is followed, what was found decides doubts."""

    said: ReadOptions
    found: Dialect

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> "Remembered | None":
        """What the ``extra`` of a manifest keeps of it."""
        if (kept := extra.get("read")) is None:
            return None
        found = {name: kept["found"].get(name) for name in OF_TEXT}
        return cls(ReadOptions.remembered(kept["said"]), Dialect(**found))


def read_rows(
    data: str,
    options: ReadOptions,
    *,
    split: str | None = None,
    to_fit: bool = False,
    like: Remembered | None = None,
) -> Rows:
    """Read DATA.

    Parameters
    ----------
    data
        A data set's name, or the path of a file or folder. A name wins over a path: write ``./mnist`` for a path.
    split
        "train" or "test" of a data set; None: train to fit, else test, where one was published.
    to_fit
        Whether a model is fitted to the rows.
    like
        How the rows of a model were read; followed where the options say nothing.

    Raises
    ------
    DataError
        If it is unreadable, holds infinities, or has nothing that an option could apply to.
    """
    is_name = not Path(data).suffix and Path(data).name == data
    known = {entry.name for entry in datasets.available(options.data_home)} if is_name else set()
    if is_name and data not in known and not Path(data).exists():
        close = listed(difflib.get_close_matches(data, known) or sorted(known))
        raise DataError(f"{data}: expected a file, a folder or a data set's name, got none of them. Try {close}.")
    if data in known:
        if Path(data).exists():
            warnings.warn(f"{data} is read as the data set of that name; write ./{data} for the path.", stacklevel=2)
        rows = _from_data_set(data, options, "train" if to_fit else split)
    elif split is not None:
        raise DataError(f"{data}: expected a data set's name with --split, got a path. Try without --split.")
    else:
        options = options if like is None else _following(data, options, like)
        rows = _from_path(data, options, like)
    return _checked(rows, drop_missing=options.drop_missing)


def _from_data_set(name: str, options: ReadOptions, split: str | None) -> Rows:
    asked = replace(options, drop_text=False, drop_missing=False, data_home=None).words()
    if wrong := [word for word in asked if word.startswith("--")]:
        raise DataError(f"{name}: expected a path with {', '.join(wrong)}, got a data set's name. Try without it.")
    dataset = datasets.load(name, options.data_home, progress=DownloadProgress())
    if split == "test" and dataset.X_test is None:
        raise DataError(f"{name}: expected a test split, got a data set without one. Try --split train.")
    is_test = split == "test" or (split is None and dataset.X_test is not None)
    X, labels = (dataset.X_test, dataset.y_test) if is_test else (dataset.X_train, dataset.y_train)
    assert X is not None
    split = "test" if is_test else "train"
    shape = dataset.feature_shape if len(dataset.feature_shape) > 1 else None
    return Rows(X, f"{name}, {split} split", dataset.digest, labels, feature_shape=shape, split=split)


def _following(data: str, options: ReadOptions, like: Remembered) -> ReadOptions:
    """The options, and those of the fit that this kind of data can have; columns that are not there need no option."""
    path = Path(data).expanduser()
    if path.is_dir():
        return options.over(like.said, OF_IMAGES)
    written = options.over(like.said, OF_TEXT)
    names = column_names(path, _dialect(written, like))
    if names is None:
        return options.over(like.said, ("drop_missing",))
    options = options if plain_suffix(path) == ".parquet" else written
    kept = replace(like.said, drop=tuple(name for name in like.said.drop if name in names))
    missing = [name for name in ("label_column", "id_column") if getattr(kept, name) not in names]
    return options.over(kept, tuple(name for name in OF_COLUMNS if name not in missing))


def _dialect(options: ReadOptions, like: Remembered | None) -> Dialect | None:
    said = {name: value for name, value in options.said().items() if name in OF_TEXT}
    return Dialect(**said, like=None if like is None else like.found) if said or like is not None else None


def _from_path(data: str, options: ReadOptions, like: Remembered | None) -> Rows:
    table = datasets.read_table(
        data,
        label_column=options.label_column,
        id_column=options.id_column,
        drop=options.drop,
        drop_text=options.drop_text,
        dialect=_dialect(options, like),
        image_size=options.image_size,
        background=options.background,
        labels_from_folders=options.labels_from_folders,
    )
    X = SparseRows(table.X) if issparse(table.X) else table.X
    digest = _digest(Path(data).expanduser(), X)
    return Rows(
        X, table.source, digest, table.labels, table.columns, table.feature_shape, table.row_names,
        left_out=table.left_out, notes=tuple(note.told(option) for note in table.notes), dialect=table.dialect,
    )  # fmt: skip


def _digest(path: Path, X: Table) -> str:
    """SHA-256 of the file, or of the numbers in a folder."""
    if path.is_dir():
        digest = hashlib.sha256()
        for block in blocks(X):
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(rows: Rows, *, drop_missing: bool) -> Rows:
    """The rows without infinities; those with gaps are counted, or left out if that was asked for."""
    if isinstance(rows.X, SparseRows):
        _refuse_infinite(rows, ~np.isfinite(rows.X.csr.data))
        return rows
    gaps, infinite = [], []
    for block in blocks(rows.X):
        gaps.append(np.isnan(block).sum(1))
        infinite.append(np.isinf(block).any(1))
    n_gaps = np.concatenate(gaps)
    _refuse_infinite(rows, np.concatenate(infinite))
    if not n_gaps.any():
        return rows
    if not drop_missing:
        return replace(rows, n_with_gaps=int((n_gaps > 0).sum()), n_gaps=int(n_gaps.sum()))
    is_whole = n_gaps == 0
    if not is_whole.any():
        raise DataError(_all_gaps_text(rows))
    names = rows.names or list(map(str, range(len(rows.X))))
    return replace(
        rows,
        X=rows.X[is_whole],
        labels=None if rows.labels is None else rows.labels[is_whole],
        names=[name for name, keep in zip(names, is_whole, strict=True) if keep],
        n_incomplete=int((~is_whole).sum()),
    )


def _refuse_infinite(rows: Rows, is_wrong: NDArray[np.bool_]) -> None:
    if not is_wrong.any():
        return
    if isinstance(rows.X, SparseRows):
        raise DataError(f"{rows.source}: expected finite numbers, got some that are not. Try filling them in.")
    n = int(np.argmax(is_wrong))
    d = int(np.argmax(np.isinf(rows.X[n])))
    name = repr(rows.columns[d]) if rows.columns is not None else d
    advice = "--drop COLUMN, " if rows.columns is not None else ""
    raise DataError(
        f"{rows.source}: expected finite numbers, got {rows.X[n, d]} in row {n}, column {name} (counted from 0), in "
        f"all {is_wrong.sum():,} of {len(is_wrong):,} rows. Try {advice}or a gap (an empty cell, NaN) in its place."
    )


def _all_gaps_text(rows: Rows) -> str:
    """That no row is whole, and which columns have most of the gaps."""
    n_gaps = np.array([np.isnan(block).sum(0) for block in blocks(rows.X)]).sum(0)
    names = list(map(repr, rows.columns)) if rows.columns is not None else list(map(str, range(len(n_gaps))))
    worst = ", ".join(f"{names[k]} ({n_gaps[k]:,})" for k in np.argsort(-n_gaps, kind="stable")[:5] if n_gaps[k])
    advice = "--drop COLUMN, or " if rows.columns is not None else ""
    return (
        f"{rows.source}: expected a row without gaps for --drop-missing, got none; most are in columns {worst}. "
        f"Try {advice}without --drop-missing: gaps are modeled as not observed."
    )


def as_frame(X: Table, columns: Sequence[str] | None) -> Any:
    """A data frame, so that the clusterer learns the columns' names; the array itself where there are none."""
    if columns is None:
        return as_given(X)
    import pandas as pd  # noqa: PLC0415  slow, and only here

    return pd.DataFrame(X, columns=list(columns), copy=False)


def check_labels(rows: Rows) -> None:
    """Say which labels cannot be used, before anything is trained or predicted."""
    if rows.labels is None:
        return
    if n := sum(label is None or (isinstance(label, float) and np.isnan(label)) for label in rows.labels.tolist()):
        advice = "Try removing these rows, or --drop for the column in place of --label-column."
        raise DataError(f"{rows.source}: expected a label for every row, got {n:,} without one. {advice}")
    metrics.nmi(rows.labels, rows.labels)
