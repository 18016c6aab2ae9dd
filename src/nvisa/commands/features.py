"""``nvisa features``: a data set of images or a folder of them, to a feature file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa import data as datasets
from nvisa.data import DataError
from nvisa.data.features import extract, folder_images, load_backbone
from nvisa.data.files.images import folder_labels
from nvisa.fitting.progress import DownloadProgress, ImageProgress

__all__ = ["features"]

COARSE = {"cifar100": "cifar100_coarse"}  # the same images with labels of fewer classes: one file holds both
SHORT = {"efficientnet_lite2": "effnet_lite2", "resnet50": "resnet50"}  # in the names of feature files


def features(
    source: str,
    backbone: str,
    out: str | None,
    data_home: str | None,
    *,
    labels_from_folders: bool = False,
    batch_size: int = 64,
    quiet: bool = False,
    **preprocessing: Any,
) -> dict[str, Any]:
    """Write ``x_train, y_train, x_test, y_test`` of a data set, or ``X`` and ``names`` (and ``y``) of a folder.

    ``out`` is by default the file in the data home that :func:`nvisa.data.load` finds by its name;
    ``preprocessing`` is :func:`load_backbone`'s mean, std and size.
    """
    loaded = load_backbone(backbone, **preprocessing)
    is_folder = Path(source).is_dir()
    source = source if is_folder else _fine(source)
    path = Path(out) if out is not None else _default_out(source, backbone, data_home, is_folder=is_folder)
    progress = None if quiet else ImageProgress()
    if is_folder:
        splits, labels = _of_folder(source, with_labels=labels_from_folders)
    else:
        splits, labels = _of_dataset(source, data_home)
    if out is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    extract(splits, loaded, path, labels=labels, batch_size=batch_size, progress=progress)
    with np.load(path, allow_pickle=False) as archive:
        shape = archive[next(iter(splits))].shape
    return {"out": str(path), "n_rows": sum(map(len, splits.values())), "n_features": shape[1], "backbone": loaded.name}


def _fine(name: str) -> str:
    """The data set whose file holds the labels of this one: cifar100 of cifar100_coarse, else itself."""
    return next((fine for fine, coarse in COARSE.items() if coarse == name), name)


def _default_out(source: str, backbone: str, data_home: str | None, *, is_folder: bool) -> Path:
    """``<data home>/features/<data set>_<backbone>.npz``, where nothing is yet: others' records may name its digest."""
    if is_folder or backbone not in SHORT:
        what = "a folder of images" if is_folder else "a network of your own"
        raise ValueError(f"{source}: expected an .npz to write, as for {what}, got none. Try --out FILE.npz.")
    path = datasets.data_home(data_home) / "features" / f"{source}_{SHORT[backbone]}.npz"
    if path.exists():
        raise ValueError(f"{path}: expected no file there yet, got one. Try removing it, or --out FILE.npz.")
    return path


def _of_folder(folder: str, *, with_labels: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    images = folder_images(folder)
    labels: dict[str, Any] = {"names": np.array([path.relative_to(folder).as_posix() for path in images.paths])}
    if with_labels:
        labels["y"] = folder_labels(images.paths, Path(folder))
    return {"X": images}, labels


def _of_dataset(name: str, data_home: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    coarse = _coarse_labels(name, data_home)  # first, so that its pixels are gone before the others come
    dataset = datasets.load(name, data_home, progress=DownloadProgress())
    shape = dataset.feature_shape
    if len(shape) < 2:
        raise DataError(f"{name}: expected a data set of images, got one of {shape[0]} columns. Try cifar10.")
    names = np.array(dataset.classes)
    images, labels = {"x_train": _pixels(dataset.X_train, shape)}, {"y_train": dataset.y_train, "names": names}
    if dataset.X_test is not None and dataset.y_test is not None:
        images |= {"x_test": _pixels(dataset.X_test, shape)}
        labels |= {"y_test": dataset.y_test}
    return images, labels | ({"fine_names": names} | coarse if coarse else {})


def _coarse_labels(name: str, data_home: str | None) -> dict[str, Any]:
    """Superclasses of both splits and their names; nothing where there are none."""
    if name not in COARSE:
        return {}
    dataset = datasets.load(COARSE[name], data_home, progress=DownloadProgress())
    names = np.array(dataset.classes)
    return {"coarse_train": dataset.y_train, "coarse_test": dataset.y_test, "coarse_names": names}


def _pixels(X: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Rows in [0, 1] as the bytes that they were, block by block."""
    images = np.empty((len(X), *shape), np.uint8)
    for start in range(0, len(X), 4096):
        block = slice(start, start + 4096)
        images[block] = np.rint(X[block] * 255).reshape(-1, *shape)
    return images
