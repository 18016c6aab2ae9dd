"""Data sets by name: found in the data home, fetched from the official mirrors, verified, as float32 rows.

data home = the argument, else $NVISA_DATA_HOME, else $XDG_CACHE_HOME/nvisa, else ~/.cache/nvisa
<home>/mnist/train-images-idx3-ubyte.gz ...   <home>/cifar10/data_batch_1.bin ...   <home>/features/<name>.npz
"""

import difflib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nvisa.data.datasets import archives
from nvisa.data.datasets.catalog import ARCHIVE_SETS, FEATURE_SETS, IDX_SETS, FeatureSet, IdxFile
from nvisa.data.datasets.download import Progress, download
from nvisa.data.datasets.idx import parse_idx, read_verified
from nvisa.data.errors import DataError
from nvisa.data.files.arrays import Float32, dequantized, open_npz, scale_images
from nvisa.durable_files import locked

__all__ = ["Availability", "Dataset", "available", "data_home", "fetch", "load"]

Labels = npt.NDArray[np.int64]
DIGITS_ROWS = 1797


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows with known classes, for experiments: clusterers never see the labels.

    Attributes
    ----------
    name : str
    X_train, X_test : float32 arrays of shape (N, D)
        Pixels lie in [0, 1]. X_test is None where no split was published.
    y_train, y_test : int64 arrays of shape (N,)
        Indices into `classes`.
    feature_shape : tuple of int
        Shape of one row before flattening: (28, 28), or (D,).
    classes : tuple of str
    digest : str
        SHA-256 of the source. IDX sets: of the listing `sha256sum` prints for the four unpacked files, in
        the order X_train, y_train, X_test, y_test; archives: of `md5sum`'s for theirs, train then test;
        feature files: of the file; digits: of X then y.
    """

    name: str
    X_train: Float32
    y_train: Labels
    X_test: Float32 | None
    y_test: Labels | None
    feature_shape: tuple[int, ...]
    classes: tuple[str, ...]
    digest: str

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def __repr__(self) -> str:
        n_test = 0 if self.X_test is None else len(self.X_test)
        return (
            f"Dataset({self.name!r}, train={len(self.X_train)}, test={n_test}, "
            f"feature_shape={self.feature_shape}, n_classes={self.n_classes})"
        )


@dataclass(frozen=True)
class Availability:
    """A line of `available()`.

    `n_bytes` is the size on disk if `present`, else the size to download (None: unknown). Sets that are
    neither `present` nor `fetchable` have to be built or copied. Rows are None where only a file tells.
    """

    name: str
    n_train: int | None
    n_test: int | None
    present: bool
    fetchable: bool
    n_bytes: int | None


def data_home(path: str | Path | None = None) -> Path:
    """The folder of data sets: `path`, else $NVISA_DATA_HOME, else the user's cache."""
    if path := path or os.environ.get("NVISA_DATA_HOME"):
        return Path(path).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification tells readers to ignore relative paths.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "nvisa"


def load(
    name: str,
    data_home: str | Path | None = None,
    *,
    download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """The data set called `name`, verified against its published digests.

    Parameters
    ----------
    name : str
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "cifar100_coarse", "stl10", or the name of a file
        in <data home>/features.
    data_home : path, optional
        Default: $NVISA_DATA_HOME, else $XDG_CACHE_HOME/nvisa, else ~/.cache/nvisa. Only read from when
        the files are there.
    download : bool
        Whether missing files may be fetched.
    progress : callable, optional
        As in `fetch`.

    Raises
    ------
    DataError
        If it is unknown, absent, damaged, or not what was published (`ChecksumError`).
    """
    home = _home(data_home)
    if name == "digits":
        return _load_digits()
    if name in IDX_SETS:
        if download and _missing(home, name):
            fetch(name, home, progress=progress)
        return _load_idx(home, name)
    if name in ARCHIVE_SETS:
        if download:
            fetch(name, home, progress=progress)
        return _load_archive(home, name)
    return _load_features(home, name)


def fetch(
    name: str,
    data_home: str | Path | None = None,
    *,
    progress: Progress | None = None,
    insecure: bool = False,
) -> tuple[Path, ...]:
    """Make sure that the files of `name` are in the data home, complete and right; return them.

    Right files are left alone, damaged ones replaced, half-loaded ones continued.

    Parameters
    ----------
    progress : callable, optional
        Called as progress(file name, bytes here, bytes in all or None).
    insecure : bool
        Ask mirrors without https too. The bytes are verified in any case.
    """
    home = _home(data_home)
    if name == "digits":
        return ()
    if name in ARCHIVE_SETS:
        spec = ARCHIVE_SETS[name]
        folder = home / spec.folder
        if archives.missing_files(folder, spec):
            with _writing(folder):
                archives.fetch_archive(folder, spec, progress, insecure=insecure)
        return tuple(folder / file for file in (*spec.train, *spec.test))
    if name not in IDX_SETS:
        return (_feature_path(home, name),)
    folder = home / name
    if any(_sound(folder, file) is None for file in IDX_SETS[name].files):
        with _writing(folder):
            _fetch_idx(folder, name, progress, insecure=insecure)
    return tuple(path for file in IDX_SETS[name].files if (path := _find(folder, file)))


def available(data_home: str | Path | None = None) -> tuple[Availability, ...]:
    """Every data set that has a name here: those known, and the feature files in the data home."""
    home = _home(data_home)
    digits = Availability("digits", DIGITS_ROWS, 0, present=True, fetchable=True, n_bytes=0)
    idx_sets = (_idx_availability(home, name) for name in IDX_SETS)
    found = {path.stem for path in (home / "features").glob("*.npz")} - _reserved()
    features = (_feature_availability(home, name) for name in [*FEATURE_SETS, *sorted(found - set(FEATURE_SETS))])
    packed = (_archive_availability(home, name) for name in ARCHIVE_SETS)
    return (digits, *idx_sets, *packed, *features)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say what to do where a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be written to, got {error}. "
            "Try another data home (NVISA_DATA_HOME) or free some space."
        ) from error


def _home(path: str | Path | None) -> Path:
    return data_home(path)


def _reserved() -> set[str]:
    return {"digits", *IDX_SETS, *ARCHIVE_SETS}


# IDX sets ---------------------------------------------------------------------------------------------


def _find(folder: Path, file: IdxFile) -> Path | None:
    """Where `file` lies, packed or unpacked."""
    candidates = (folder / f"{file.name}.gz", folder / file.name)
    return next((path for path in candidates if path.is_file()), None)


def _missing(home: Path, name: str) -> list[str]:
    return [file.name for file in IDX_SETS[name].files if _find(home / name, file) is None]


def _sound(folder: Path, file: IdxFile) -> Path | None:
    """Where `file` lies if its bytes are the published ones."""
    path = _find(folder, file)
    try:
        return path if path and read_verified(path, file.raw_sha256) else None
    except DataError:
        return None


def _fetch_idx(folder: Path, name: str, progress: Progress | None, *, insecure: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / archives.LOCK, wait=True):
        for file in IDX_SETS[name].files:
            # Asked again under the lock: another process may just have fetched it.
            if _sound(folder, file) is None:
                urls = [f"{mirror}{file.name}.gz" for mirror in IDX_SETS[name].mirrors]
                path = folder / f"{file.name}.gz"
                download(urls, path, sha256=file.gz_sha256, insecure=insecure, progress=progress)


def _load_idx(home: Path, name: str) -> Dataset:
    spec, folder = IDX_SETS[name], home / name
    if missing := _missing(home, name):
        raise DataError(
            f"{folder}: expected the four files of {name}, got all but {', '.join(missing)}. "
            f"Try `nvisa data fetch {name}`, download=True, or another data home (NVISA_DATA_HOME)."
        )
    arrays = {}
    for file in spec.files:
        path = _find(folder, file) or folder
        arrays[file.role] = parse_idx(read_verified(path, file.raw_sha256), source=str(path))
    listing = "".join(f"{file.raw_sha256}  {file.name}\n" for file in spec.files)
    return Dataset(
        name=name,
        X_train=scale_images(arrays["X_train"].reshape(len(arrays["X_train"]), -1)),
        y_train=arrays["y_train"].astype(np.int64),
        X_test=scale_images(arrays["X_test"].reshape(len(arrays["X_test"]), -1)),
        y_test=arrays["y_test"].astype(np.int64),
        feature_shape=arrays["X_train"].shape[1:],
        classes=spec.classes,
        digest=hashlib.sha256(listing.encode()).hexdigest(),
    )


def _idx_availability(home: Path, name: str) -> Availability:
    spec = IDX_SETS[name]
    paths = [path for file in spec.files if (path := _find(home / name, file))]
    present = len(paths) == len(spec.files)
    n_bytes = sum(path.stat().st_size for path in paths) if present else sum(file.n_bytes for file in spec.files)
    return Availability(name, spec.n_train, spec.n_test, present, fetchable=True, n_bytes=n_bytes)


# Binary archives --------------------------------------------------------------------------------------


def _load_archive(home: Path, name: str) -> Dataset:
    spec = ARCHIVE_SETS[name]
    splits = {split: archives.read_images(home / spec.folder, spec, split) for split in ("train", "test")}
    rows = {split: scale_images(images.reshape(len(images), -1)) for split, (images, _) in splits.items()}
    names = archives.class_names(home / spec.folder, spec)
    return Dataset(
        name=name,
        X_train=rows["train"],
        y_train=splits["train"][1],
        X_test=rows["test"],
        y_test=splits["test"][1],
        feature_shape=(spec.side, spec.side, 3),
        classes=names or tuple(str(k) for k in range(int(splits["train"][1].max()) + 1)),
        digest=hashlib.sha256(archives.listing(spec).encode()).hexdigest(),
    )


def _archive_availability(home: Path, name: str) -> Availability:
    spec = ARCHIVE_SETS[name]
    folder = home / spec.folder
    present = not archives.missing_files(folder, spec)
    n_bytes = sum((folder / file).stat().st_size for file in (*spec.train, *spec.test)) if present else spec.n_bytes
    return Availability(name, spec.n_train, spec.n_test, present, fetchable=True, n_bytes=n_bytes)


# Digits -----------------------------------------------------------------------------------------------


def _load_digits() -> Dataset:
    """The 1,797 8 x 8 digits that ship with scikit-learn, ink 0..16 scaled to [0, 1]; no published split."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  slow, and only here

    X, y = load_digits(return_X_y=True)
    X, y = (X / 16).astype("<f4"), y.astype("<i8")
    return Dataset(
        name="digits",
        X_train=X,
        y_train=y,
        X_test=None,
        y_test=None,
        feature_shape=(8, 8),
        classes=tuple("0123456789"),
        digest=hashlib.sha256(X.tobytes() + y.tobytes()).hexdigest(),
    )


# Feature files ----------------------------------------------------------------------------------------


def _feature_path(home: Path, name: str) -> Path:
    spec = FEATURE_SETS.get(name)
    known = {path.stem: path for path in (home / "features").glob("*.npz")}
    path = known.get(Path(spec.file).stem if spec else name)
    if path is not None and name not in _reserved():
        return path
    if spec is not None:
        raise DataError(
            f"{home / 'features' / spec.file}: expected a feature file, got nothing. It is built from "
            "images, not downloaded: try `nvisa features`, or another data home (NVISA_DATA_HOME)."
        )
    names = {*_reserved(), *FEATURE_SETS, *known}
    close = difflib.get_close_matches(name, names) or sorted(set(names))
    raise DataError(f"{name!r}: expected the name of a data set, got none of them. Try {', '.join(close)}.")


def _load_features(home: Path, name: str) -> Dataset:
    path = _feature_path(home, name)
    spec = FEATURE_SETS.get(name, FeatureSet(path.name, 0, 0))
    keys = ("x_train", f"{spec.labels}_train", "x_test", f"{spec.labels}_test")
    with open_npz(path) as archive:
        if lacking := [key for key in keys if key not in archive]:
            raise DataError(
                f"{path}: expected arrays {', '.join(keys)}, got {', '.join(archive.files)} "
                f"(without {', '.join(lacking)}). Try building the file again."
            )
        X_train, X_test = (dequantized(archive, keys[i], path).astype(np.float32, copy=False) for i in (0, 2))
        y_train, y_test = archive[keys[1]].astype(np.int64), archive[keys[3]].astype(np.int64)
        names = archive[spec.names_key].tolist() if spec.names_key in archive else spec.classes
    _check_split(path, "train", X_train, y_train, X_train.shape[-1])
    _check_split(path, "test", X_test, y_test, X_train.shape[-1])
    n_classes = int(max(y_train.max(), y_test.max())) + 1
    return Dataset(
        name=name,
        X_train=X_train,
        y_train=y_train,
        X_test=X_test,
        y_test=y_test,
        feature_shape=X_train.shape[1:],
        classes=tuple(str(c) for c in names or range(n_classes)),
        digest=_file_digest(path),
    )


def _check_split(path: Path, split: str, X: np.ndarray, y: np.ndarray, n_features: int) -> None:
    if X.ndim != 2 or X.shape[1] != n_features or y.shape != X.shape[:1] or not X.size:
        raise DataError(
            f"{path}: expected a {split} split of shapes (N, {n_features}) and (N,), got {X.shape} and "
            f"{y.shape}. Try building the file again."
        )


def _feature_availability(home: Path, name: str) -> Availability:
    spec = FEATURE_SETS.get(name)
    path = home / "features" / (spec.file if spec else f"{name}.npz")
    n_bytes = path.stat().st_size if path.is_file() else None
    n_train, n_test = (spec.n_train, spec.n_test) if spec else (None, None)
    return Availability(name, n_train, n_test, path.is_file(), fetchable=False, n_bytes=n_bytes)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
