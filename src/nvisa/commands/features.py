"""``nvisa features``: a data set of images or a folder of them, to a feature file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa import datasets
from nvisa.datasets import DataError
from nvisa.features import extract, folder_images, load_backbone
from nvisa.progress import DownloadProgress, ImageProgress

__all__ = ["features"]


def features(
    source: str,
    backbone: str,
    out: str,
    data_home: str | None,
    *,
    labels_from_folders: bool = False,
    batch_size: int = 64,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write ``x_train, y_train, x_test, y_test`` of a data set, or ``X`` and ``names`` (and ``y``) of a folder."""
    loaded = load_backbone(backbone)
    progress = None if quiet else ImageProgress()
    if Path(source).is_dir():
        images = folder_images(source)
        relative = [path.relative_to(source) for path in images.paths]
        labels: dict[str, Any] = {"names": np.array([path.as_posix() for path in relative])}
        if labels_from_folders:
            labels["y"] = np.array([path.parts[0] for path in relative])
        splits: dict[str, Any] = {"X": images}
    else:
        splits, labels = _of_dataset(source, data_home)
    path = extract(splits, loaded, out, labels=labels, batch_size=batch_size, progress=progress)
    with np.load(path, allow_pickle=False) as archive:
        shape = archive[next(iter(splits))].shape
    return {"out": str(path), "n_rows": sum(map(len, splits.values())), "n_features": shape[1], "backbone": loaded.name}


def _of_dataset(name: str, data_home: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    dataset = datasets.load(name, data_home, progress=DownloadProgress())
    shape = dataset.feature_shape
    if len(shape) < 2:
        raise DataError(f"{name}: expected a data set of images, got one of {shape[0]} columns. Try cifar10.")
    images, labels = {"x_train": _pixels(dataset.X_train, shape)}, {"y_train": dataset.y_train}
    if dataset.X_test is not None and dataset.y_test is not None:
        images |= {"x_test": _pixels(dataset.X_test, shape)}
        labels |= {"y_test": dataset.y_test}
    return images, labels | {"names": np.array(dataset.classes)}


def _pixels(X: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Rows in [0, 1] as the bytes that they were, block by block."""
    images = np.empty((len(X), *shape), np.uint8)
    for start in range(0, len(X), 4096):
        block = slice(start, start + 4096)
        images[block] = np.rint(X[block] * 255).reshape(-1, *shape)
    return images
