"""One reader for the user's own data: .npy, .npz, .csv, .parquet, or a folder of images -> `Table`."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from nvisa.data.errors import DataError, Note, describing, extra_needed
from nvisa.data.files.arrays import Floats, as_floats, dequantized, open_npz, scale_images
from nvisa.data.files.compressed import SUFFIXES, open_binary, plain_suffix
from nvisa.data.files.dialect import Dialect
from nvisa.data.files.other_kinds import conversion
from nvisa.data.files.sparse import is_sparse, read_sparse

__all__ = ["Table", "column_names", "read_table"]

X_KEYS = ("X", "x", "X_train", "x_train", "data")
Y_KEYS = ("y", "y_train", "labels")
TEXTS = (".csv", ".tsv", ".tab", ".txt", ".data")


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows to cluster, as read from one source.

    Attributes
    ----------
    X : float32 or float64 array of shape (N, D)
        Float32 if that holds every number of the file, or all that they had there; a read-only memory map for an .npy
        file of floats; a scipy CSR array for sparse rows. May hold NaN: the clusterer judges that.
    columns : list of str, or None
        Names of the D columns, where the file has them.
    feature_shape : tuple of int, or None
        Shape of one image before flattening.
    labels : array of shape (N,), or None
    source : str
        Path, with the member for archives: "data.npz[x_train]".
    row_names : list of str, or None
        Image paths below the folder, or a table's index.
    left_out : tuple of str
        Columns that are no features: asked for, or text.
    notes : tuple of Note
        What was understood without being said, and what was passed over.
    dialect : Dialect or None
        How the text of a table is written.
    """

    X: Any
    columns: list[str] | None
    feature_shape: tuple[int, ...] | None
    labels: np.ndarray | None
    source: str
    row_names: list[str] | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    dialect: Dialect | None = None

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else "with labels"
        return f"Table({self.source!r}, shape={self.X.shape}, feature_shape={self.feature_shape}, {labels})"


def read_table(  # noqa: PLR0913  an argument an option
    path: str | Path,
    *,
    label_column: str | int | None = None,
    id_column: str | None = None,
    drop: Sequence[str] = (),
    drop_text: bool = False,
    dialect: Dialect | None = None,
    image_size: int | tuple[int, int] | None = None,
    labels_from_folders: bool = False,
    background: str | None = None,
) -> Table:
    """Read rows to cluster from a file or a folder.

    - .npy: [N D] as it is, mapped and not copied when it is floating; [N H W] or [N H W C] flattened, with
      uint8 pixels scaled to [0, 1].
    - .npz: the same for its array X, x, X_train, x_train or data, or its only array; labels from y, y_train
      or labels. A feature file's 8-bit columns are restored by its scale and offset. Of scipy.sparse.save_npz: its
      rows.
    - .csv, .tsv, .tab, .txt, .data, .parquet: the numeric columns; a column of vectors (a list, JSON) becomes a column
      for each entry. Separator, decimal mark, thousands, header, remarks and encoding are found, or asked for where
      the file leaves them open (:class:`Dialect`). A first column without a name, or called id or the like and never
      repeating, names the rows.
    - a folder with .parquet files: their numeric columns, in batches, so that a large one needs no memory.
    - a folder: its images, all kinds that Pillow reads, recursively, sorted by path, as pixels in [0, 1].

    A .csv, .npy or .parquet may be compressed (.gz, .bz2, .xz, .zst).

    Parameters
    ----------
    path : path
    label_column : str or int, optional
        .csv, .parquet: column that holds labels, not a feature (its position, if there is no header).
    id_column : str, optional
        .csv, .parquet: column that names the rows, not a feature.
    drop : sequence of str
        .csv, .parquet: columns to leave out.
    drop_text : bool
        .csv, .parquet: leave out columns that are not numeric instead of refusing them.
    dialect : Dialect, optional
        Text: how it is written; what it does not say is found.
    image_size : int or (height, width), optional
        Folder: resize every image to this.
    labels_from_folders : bool
        Folder: take the names of the immediate subfolders as labels.
    background : str, optional
        Folder: the color below transparent pixels, "white" by default.

    Raises
    ------
    DataError
        If the source is missing, unreadable, cut, empty or not numeric, or an argument is for another kind of source.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path}: expected a file or a folder of images, got nothing there. Check the path.")
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: expected a file, which is read more than once, got a pipe or a device. Try a copy.")
    suffix = plain_suffix(path)
    is_text = suffix in TEXTS and not path.is_dir()
    if path.is_dir() and _has_parquet(path):
        asked = {
            "label_column": label_column,
            "id_column": id_column,
            "image_size": image_size,
            "background": background,
        }
        _refuse(path, {name: value is not None for name, value in asked.items()}, "one .parquet file")
        return _read_parquet_folder(path, drop, drop_text=drop_text)
    if not is_text and (suffix != ".parquet" or path.is_dir()):
        by_name = {"label_column": label_column is not None, "id_column": id_column is not None, "drop": bool(drop)}
        _refuse(path, by_name, "a .csv or .parquet to find columns by name")
    if not is_text and dialect is not None:
        _refuse(path, dict.fromkeys(dialect.said(), True), "a table in text")
    if path.is_dir():
        return _read_folder(path, image_size, background, labels_from_folders=labels_from_folders)
    of_images = {"image_size": image_size, "labels_from_folders": labels_from_folders, "background": background}
    _refuse(path, {name: value not in (None, False) for name, value in of_images.items()}, "a folder of images")
    if is_text or suffix == ".parquet":
        return _read_columns(path, dialect, label_column, id_column, drop, drop_text=drop_text)
    reader = READERS.get(suffix)
    if reader is None:
        raise DataError(
            f"{path}: expected .npy, .npz, .csv, .parquet or a folder of images, got {path.suffix!r}. "
            f"Try {conversion(path)}."
        )
    return reader(path)


def column_names(path: str | Path, dialect: Dialect | None = None) -> list[str] | None:
    """The names of a table's columns, as positions where it has none; None of what is no table.

    Examples
    --------
    >>> from nvisa.data import column_names
    >>> column_names("no-such-file.npy") is None
    True
    """
    path = Path(path).expanduser()
    suffix = plain_suffix(path)
    if not path.is_file() or suffix not in (*TEXTS, ".parquet"):
        return None
    with extra_needed(path):
        from nvisa.data.files import columns as tables  # noqa: PLC0415
    return tables.names_in(path, dialect, is_parquet=suffix == ".parquet")


def _refuse(path: Path, asked: dict[str, bool], kind: str) -> None:
    """Raise a DataError if anything was asked for that only another kind of source has."""
    if wrong := [name for name, is_asked in asked.items() if is_asked]:
        got = "a folder" if path.is_dir() else f"a {path.suffix}"
        named = ", ".join(f"{{{name}}}" for name in wrong)
        raise DataError(f"{path}: expected {kind}, got {got}.", f"Try without {named}.", **dict.fromkeys(wrong))


def _read_npy(path: Path) -> Table:
    advice = "It may be cut, or hold objects, which are refused; write it with numpy.save."
    with describing(path, "a .npy array of numbers", advice=advice):
        array = _mapped(path)
        if not isinstance(array, np.ndarray):
            array.close()
            raise DataError(f"{path}: expected one array, got an archive. Try the suffix .npz.")
        X, feature_shape = _as_rows(array, path)
    return Table(X, None, feature_shape, None, str(path))


def _mapped(path: Path) -> Any:
    """What numpy.load gives: a map, or an array of a file that has to be decompressed."""
    if path.suffix.lower() not in SUFFIXES:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with open_binary(path) as file:
        return np.load(io.BytesIO(file.read()), allow_pickle=False)


def _read_npz(path: Path) -> Table:
    with open_npz(path) as archive:
        if is_sparse(archive):
            X, note = read_sparse(path)  # labels have no place in such an archive
            return Table(X, None, None, None, str(path), notes=(note,))
        key = _data_key(archive, path)
        source = f"{path}[{key}]"
        X, feature_shape = _as_rows(dequantized(archive, key, source) if "scale" in archive else archive[key], source)
        label_key = next((name for name in Y_KEYS if name in archive and name != key), None)
        labels = None if label_key is None else archive[label_key]
        names = archive["names"] if "names" in archive else np.empty(0, dtype=str)  # of images, by `nvisa features`
    if labels is not None and labels.shape != (len(X),):
        raise DataError(
            f"{path}: expected {label_key} of shape ({len(X)},) to go with {key}, got {labels.shape}. "
            "Try saving one label per row, or no labels."
        )
    row_names = names.tolist() if names.dtype.kind == "U" and names.shape == (len(X),) else None
    return Table(X, None, feature_shape, labels, source, row_names)


def _read_columns(
    path: Path,
    dialect: Dialect | None,
    label_column: str | int | None,
    id_column: str | None,
    drop: Sequence[str],
    *,
    drop_text: bool,
) -> Table:
    with extra_needed(path):
        from nvisa.data.files import columns as tables  # noqa: PLC0415
    read = tables.read_frame(path, dialect, is_parquet=plain_suffix(path) == ".parquet")
    frame = read.frame
    for name in drop:
        tables.pop_column(frame, name, path, role="a column to leave out,")
    labels = None if label_column is None else tables.pop_column(frame, label_column, path)
    if read.has_header or id_column is not None:
        frame = tables.name_rows(frame, id_column, path, read.written)
    X, columns, text = tables.numeric_block(frame, path, drop_text=drop_text, doubts=read.doubts)
    return Table(
        X, columns if read.has_header else None, None, labels, str(path), tables.row_names(frame), (*drop, *text),
        tuple(read.notes), read.dialect,
    )  # fmt: skip


def _has_parquet(folder: Path) -> bool:
    return next(folder.rglob("*.parquet"), None) is not None


def _read_parquet_folder(folder: Path, drop: Sequence[str], *, drop_text: bool) -> Table:
    with extra_needed(folder):
        from nvisa.data.files.parquet_folder import read_parquet_folder  # noqa: PLC0415
    X, names, left_out, notes = read_parquet_folder(folder, set(drop), drop_text=drop_text)
    return Table(X, names, None, None, str(folder), None, tuple(left_out), tuple(notes))


def _read_folder(
    folder: Path, image_size: int | tuple[int, int] | None, background: str | None, *, labels_from_folders: bool
) -> Table:
    with extra_needed(folder):
        from nvisa.data.files import images  # noqa: PLC0415
    found = images.list_images(folder)
    labels = images.folder_labels(found.paths, folder) if labels_from_folders else None
    X, shape, notes = images.read_images(found.paths, folder, image_size, background)
    names = [path.relative_to(folder).as_posix() for path in found.paths]
    return Table(X, None, shape, labels, str(folder), names, notes=(*found.notes, *notes))


READERS: dict[str, Callable[[Path], Table]] = {".npy": _read_npy, ".npz": _read_npz}


def _as_rows(array: np.ndarray, source: str | Path) -> tuple[Floats, tuple[int, ...] | None]:
    """(X [N D], shape of one image or None). Rows of floats pass through uncopied."""
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise DataError(
            f"{source}: expected rows [N D] or images [N H W] or [N H W C], none of them empty, got shape "
            f"{array.shape}. {_as_two_axes(array)}"
        )
    if array.ndim == 2:
        return as_floats(array, source), None
    X = array.reshape(len(array), -1)
    return scale_images(X) if X.dtype == np.uint8 else as_floats(X, source), array.shape[1:]


def _as_two_axes(array: np.ndarray) -> str:
    """What to try with an array that is no rows."""
    if array.dtype.names:
        return "Of a structured array, try numpy.lib.recfunctions.structured_to_unstructured."
    return "Try X.reshape(len(X), -1)." if array.ndim > 4 else "For a single column, try X.reshape(-1, 1)."


def _data_key(archive: NpzFile, path: Path) -> str:
    """Name of the array to cluster."""
    if key := next((name for name in X_KEYS if name in archive), None):
        return key
    others = [name for name in archive.files if name not in Y_KEYS]
    if len(others) != 1:
        raise DataError(
            f"{path}: expected an array named {', '.join(X_KEYS)}, or only one, got "
            f"{', '.join(archive.files) or 'none'}. Try numpy.savez(path, X=...)."
        )
    return others[0]
