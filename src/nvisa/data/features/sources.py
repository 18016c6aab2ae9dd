"""Images and labels that features are made of: those of a folder, or of a data set."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nvisa.data.datasets.download import Progress
from nvisa.data.datasets.loading import load
from nvisa.data.errors import DataError
from nvisa.data.features.images import folder_images
from nvisa.data.files.images import folder_labels

__all__ = ["fine_name", "of_data_set", "of_folder"]

COARSE = {"cifar100": "cifar100_coarse"}  # the same images with labels of fewer classes: one file holds both
Arrays = dict[str, Any]


def fine_name(name: str) -> str:
    """The data set whose file holds the labels of this one: cifar100 of cifar100_coarse, else itself."""
    return next((fine for fine, coarse in COARSE.items() if coarse == name), name)


def of_folder(folder: str, *, with_labels: bool) -> tuple[Arrays, Arrays]:
    """({"X": images}, {"names": paths below the folder, "y": names of the subfolders, if asked for})."""
    images = folder_images(folder)
    labels: Arrays = {"names": np.array([path.relative_to(folder).as_posix() for path in images.paths])}
    if with_labels:
        labels["y"] = folder_labels(images.paths, Path(folder))
    return {"X": images}, labels


def of_data_set(name: str, data_home: str | None, *, progress: Progress | None = None) -> tuple[Arrays, Arrays]:
    """(images of both splits, their labels and the classes' names)."""
    coarse = _coarse_labels(name, data_home, progress)  # first, so that its pixels are gone before the others come
    dataset = load(name, data_home, progress=progress)
    shape = dataset.feature_shape
    if len(shape) < 2:
        raise DataError(f"{name}: expected a data set of images, got one of {shape[0]} columns. Try cifar10.")
    names = np.array(dataset.classes)
    images, labels = {"x_train": _pixels(dataset.X_train, shape)}, {"y_train": dataset.y_train, "names": names}
    if dataset.X_test is not None and dataset.y_test is not None:
        images |= {"x_test": _pixels(dataset.X_test, shape)}
        labels |= {"y_test": dataset.y_test}
    return images, labels | ({"fine_names": names} | coarse if coarse else {})


def _coarse_labels(name: str, data_home: str | None, progress: Progress | None) -> Arrays:
    """Superclasses of both splits and their names; nothing where there are none."""
    if name not in COARSE:
        return {}
    dataset = load(COARSE[name], data_home, progress=progress)
    names = np.array(dataset.classes)
    return {"coarse_train": dataset.y_train, "coarse_test": dataset.y_test, "coarse_names": names}


def _pixels(X: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Rows in [0, 1] as the bytes that they were, block by block."""
    images = np.empty((len(X), *shape), np.uint8)
    for start in range(0, len(X), 4096):
        block = slice(start, start + 4096)
        images[block] = np.rint(X[block] * 255).reshape(-1, *shape)
    return images
