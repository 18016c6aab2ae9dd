"""What a command's DATA stands for: a file, a folder of images, or a data set's name, as rows that were checked."""

import difflib
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa import data as datasets
from nvisa.data import DataError
from nvisa.fitting.progress import DownloadProgress
from nvisa.nets.rows import blocks

__all__ = ["Reading", "Rows", "aligned", "as_frame", "read_rows", "shown"]


@dataclass(frozen=True)
class Reading:
    """How DATA is read; every field is an option of the command line."""

    label_column: str | None = None
    id_column: str | None = None
    drop: tuple[str, ...] = ()
    drop_text: bool = False
    drop_missing: bool = False
    image_size: tuple[int, int] | None = None
    labels_from_folders: bool = False
    data_home: str | None = None

    def words(self) -> list[str]:
        """The options as they are typed."""
        size = None if self.image_size is None else "{}x{}".format(*self.image_size)
        valued = {
            "--label-column": self.label_column,
            "--id-column": self.id_column,
            "--image-size": size,
            "--data-home": self.data_home,
        }
        flags = {
            "--drop-text": self.drop_text,
            "--drop-missing": self.drop_missing,
            "--labels-from-folders": self.labels_from_folders,
        }
        words = [word for option, value in valued.items() if value is not None for word in (option, value)]
        words += [word for name in self.drop for word in ("--drop", name)]
        return words + [option for option, is_on in flags.items() if is_on]


@dataclass(frozen=True, eq=False)
class Rows:
    """Finite rows [N D], and what is known about them."""

    X: NDArray[np.float32]
    source: str
    digest: str
    labels: NDArray[Any] | None = None
    columns: list[str] | None = None
    feature_shape: tuple[int, ...] | None = None
    names: list[str] | None = None
    split: str | None = None
    left_out: tuple[str, ...] = ()
    n_incomplete: int = 0  # rows left out for their gaps


def read_rows(data: str, reading: Reading, *, split: str | None = None, to_fit: bool = False) -> Rows:
    """Read DATA.

    Parameters
    ----------
    data
        A data set's name, or the path of a file or folder. A name wins over a path: write ``./mnist`` for a path.
    split
        "train" or "test" of a data set; None: train to fit, else test, where one was published.
    to_fit
        Whether a model is fitted to the rows.

    Raises
    ------
    DataError
        If it is unreadable, holds numbers that are not finite, or has nothing that an option could apply to.
    """
    is_name = not Path(data).suffix and Path(data).name == data
    known = {entry.name for entry in datasets.available(reading.data_home)} if is_name else set()
    if is_name and data not in known and not Path(data).exists():
        close = shown(difflib.get_close_matches(data, known) or sorted(known))
        raise DataError(f"{data}: expected a file, a folder or a data set's name, got none of them. Try {close}.")
    if data in known:
        if Path(data).exists():
            warnings.warn(f"{data} is read as the data set of that name; write ./{data} for the path.", stacklevel=2)
        rows = _from_data_set(data, reading, "train" if to_fit else split)
    elif split is not None:
        raise DataError(f"{data}: expected a data set's name with --split, got a path. Try without --split.")
    else:
        rows = _from_path(data, reading)
    return _without_gaps(rows, drop_missing=reading.drop_missing)


def _from_data_set(name: str, reading: Reading, split: str | None) -> Rows:
    asked = replace(reading, drop_text=False, drop_missing=False, data_home=None).words()
    if options := [word for word in asked if word.startswith("--")]:
        raise DataError(f"{name}: expected a path with {', '.join(options)}, got a data set's name. Try without it.")
    dataset = datasets.load(name, reading.data_home, progress=DownloadProgress())
    if split == "test" and dataset.X_test is None:
        raise DataError(f"{name}: expected a test split, got a data set without one. Try --split train.")
    is_test = split == "test" or (split is None and dataset.X_test is not None)
    X, labels = (dataset.X_test, dataset.y_test) if is_test else (dataset.X_train, dataset.y_train)
    assert X is not None
    split = "test" if is_test else "train"
    shape = dataset.feature_shape if len(dataset.feature_shape) > 1 else None
    return Rows(X, f"{name}, {split} split", dataset.digest, labels, feature_shape=shape, split=split)


def _from_path(data: str, reading: Reading) -> Rows:
    table = datasets.read_table(
        data,
        label_column=reading.label_column,
        id_column=reading.id_column,
        drop=reading.drop,
        drop_text=reading.drop_text,
        image_size=reading.image_size,
        labels_from_folders=reading.labels_from_folders,
    )
    digest = _digest(Path(data).expanduser(), table.X)
    return Rows(
        table.X, table.source, digest, table.labels, table.columns, table.feature_shape, table.row_names,
        left_out=table.left_out,
    )  # fmt: skip


def _digest(path: Path, X: NDArray[np.float32]) -> str:
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


def aligned(rows: Rows, model: Any, shape: Sequence[int] | None = None) -> Any:
    """The rows as the model wants them: its columns in its order, or as many columns as it has.

    Raises
    ------
    DataError
        If columns are missing or unknown, their number is another, or images have another ``shape`` than the model's.
    """
    if shape is not None and rows.feature_shape is not None and _plain(shape) != _plain(rows.feature_shape):
        want, got = (" x ".join(map(str, each)) for each in (shape, rows.feature_shape))
        advice = _way_to_shape(_plain(shape), _plain(rows.feature_shape), is_folder=Path(rows.source).is_dir())
        raise DataError(
            f"{rows.source}: expected images of {want}, as the model was fitted on, got {got}. Try {advice}."
        )
    names = None if (known := getattr(model, "feature_names_in_", None)) is None else [str(name) for name in known]
    if names is not None and rows.columns is not None:
        missing = [name for name in names if name not in rows.columns]
        unknown = [name for name in rows.columns if name not in names]
        if missing or unknown:
            problems = [f"{what} {shown(which)}" for what, which in (("no", missing), ("also", unknown)) if which]
            raise DataError(
                f"{rows.source}: expected the columns that the model was fitted on, {shown(names)}; got "
                f"{' and '.join(problems)}. Try --label-column, --id-column, --drop or --drop-text as for fit."
            )
        order = [rows.columns.index(name) for name in names]
        return as_frame(rows.X[:, order], names)
    if rows.X.shape[1] != model.n_features_in_:
        raise DataError(
            f"{rows.source}: expected {model.n_features_in_} columns, as the model was fitted on, got "
            f"{rows.X.shape[1]}. Try the kind of data that it was fitted on."
        )
    return rows.X if names is None else as_frame(rows.X, names)


def _way_to_shape(want: tuple[int, ...], got: tuple[int, ...], *, is_folder: bool) -> str:
    """What makes images of one shape images of the other; only folders are resized here, and none is recolored."""
    size = f"{want[0]}x{want[1]}"
    resize = f"--image-size {size}" if is_folder else f"resizing them to {size}"
    convert = "converting them to " + ("color" if want[2:] == (3,) else "gray" if len(want) == 2 else "its channels")
    convert += " (Pillow: Image.convert)"
    return " and ".join([resize] * (want[:2] != got[:2]) + [convert] * (want[2:] != got[2:]))


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an image, without the one channel of a gray one."""
    return tuple(shape[:2]) if len(shape) == 3 and shape[2] == 1 else tuple(shape)


def as_frame(X: NDArray[np.float32], columns: Sequence[str] | None) -> Any:
    """A data frame, so that the clusterer learns the columns' names; the array itself where there are none."""
    if columns is None:
        return X
    import pandas as pd  # noqa: PLC0415  slow, and only here

    return pd.DataFrame(X, columns=list(columns), copy=False)


def shown(names: Sequence[str], limit: int = 8) -> str:
    """At most eight names, then how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
