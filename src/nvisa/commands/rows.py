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

from nvisa import data as datasets
from nvisa.commands.options import OF_COLUMNS, OF_IMAGES, OF_TEXT, ReadOptions, option
from nvisa.commands.printing import listed
from nvisa.commands.progress import DownloadProgress
from nvisa.data import DataError, Dialect, column_names
from nvisa.maths import metrics
from nvisa.nets.rows import blocks

__all__ = ["Remembered", "Rows", "as_frame", "check_labels", "read_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Finite rows [N D], and what is known about them."""

    X: NDArray[np.floating]
    source: str
    digest: str
    labels: NDArray[Any] | None = None
    columns: list[str] | None = None
    feature_shape: tuple[int, ...] | None = None
    names: list[str] | None = None
    split: str | None = None
    left_out: tuple[str, ...] = ()
    n_incomplete: int = 0  # rows left out for their gaps
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
        If it is unreadable, holds numbers that are not finite, or has nothing that an option could apply to.
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
    return _without_gaps(rows, drop_missing=options.drop_missing)


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
    options = options.over(like.said, OF_TEXT)
    names = column_names(path, _dialect(options, like))
    if names is None:
        return options.over(like.said, ("drop_missing",))
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
    digest = _digest(Path(data).expanduser(), table.X)
    return Rows(
        table.X, table.source, digest, table.labels, table.columns, table.feature_shape, table.row_names,
        left_out=table.left_out, notes=tuple(note.told(option) for note in table.notes), dialect=table.dialect,
    )  # fmt: skip


def _digest(path: Path, X: NDArray[np.floating]) -> str:
    """SHA-256 of the file, or of the pixels of a folder."""
    if path.is_dir():
        return hashlib.sha256(np.ascontiguousarray(X).tobytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_gaps(rows: Rows, *, drop_missing: bool) -> Rows:
    """The rows whose numbers are all finite; others are left out if that was asked for, else refused."""
    n_gaps, whole = np.zeros(rows.X.shape[1], dtype=int), []
    for block in blocks(rows.X):
        wrong = ~np.isfinite(block)
        n_gaps += wrong.sum(0)
        whole.append(~wrong.any(1))
    is_whole = np.concatenate(whole)
    if is_whole.all():
        return rows
    if not drop_missing or not is_whole.any():
        raise DataError(_gaps_text(rows, n_gaps, is_whole))
    names = rows.names or list(map(str, range(len(rows.X))))
    return replace(
        rows,
        X=rows.X[is_whole],
        labels=None if rows.labels is None else rows.labels[is_whole],
        names=[name for name, keep in zip(names, is_whole, strict=True) if keep],
        n_incomplete=int((~is_whole).sum()),
    )


def _gaps_text(rows: Rows, n_gaps: NDArray[np.integer], is_whole: NDArray[np.bool_]) -> str:
    """Where the first gap is, how many there are in which columns, and what to do."""
    names = list(map(repr, rows.columns)) if rows.columns is not None else list(map(str, range(len(n_gaps))))
    n = int(np.argmin(is_whole))
    d = int(np.argmin(np.isfinite(rows.X[n])))
    worst = [k for k in np.argsort(-n_gaps, kind="stable")[:5] if n_gaps[k]]
    where = ", ".join(f"{names[k]} ({n_gaps[k]:,})" for k in worst)
    advice = "--drop-missing to leave these rows out, " if is_whole.any() else ""
    advice += "--drop COLUMN, " if rows.columns is not None else ""
    return (
        f"{rows.source}: expected finite numbers, got {rows.X[n, d]} in row {n}, column {names[d]} (counted from 0), "
        f"in all {(~is_whole).sum():,} of {len(is_whole):,} rows with gaps, most in columns {where}. "
        f"Try {advice}or filling in what is missing."
    )


def as_frame(X: NDArray[np.floating], columns: Sequence[str] | None) -> Any:
    """A data frame, so that the clusterer learns the columns' names; the array itself where there are none."""
    if columns is None:
        return X
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
