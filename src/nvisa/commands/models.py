"""A model directory, and rows as its model wants them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.commands.options import ReadOptions
from nvisa.commands.printing import Result, listed
from nvisa.commands.rows import Remembered, Rows, as_frame, read_rows
from nvisa.data import DataError
from nvisa.fitting.training import clusters_in_use
from nvisa.methods import load
from nvisa.persistence import read_manifest

__all__ = ["aligned", "cluster_sizes", "feature_shape", "load_with_rows"]


def load_with_rows(model: str, data: str, options: ReadOptions, split: str | None) -> tuple[Any, Rows, Any]:
    """(the clusterer, the rows of DATA, these as it wants them)."""
    clusterer = load(model, device="auto")
    rows = read_rows(data, options, split=split, like=Remembered.of(read_manifest(model)["extra"]))
    return clusterer, rows, aligned(rows, clusterer, feature_shape(model))


def feature_shape(model: str) -> Any:
    """Shape of one image, of a model that was fitted on images."""
    return read_manifest(model)["extra"].get("feature_shape")


def cluster_sizes(labels: NDArray[np.integer], n_clusters: int) -> Result:
    """Rows of every cluster, and how many clusters have enough of them."""
    sizes = np.bincount(labels, minlength=n_clusters)
    return {"sizes": sizes.tolist(), "clusters_in_use": clusters_in_use(sizes)}


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
            problems = [f"{what} {listed(which)}" for what, which in (("no", missing), ("also", unknown)) if which]
            raise DataError(
                f"{rows.source}: expected the columns that the model was fitted on, {listed(names)}; got "
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
