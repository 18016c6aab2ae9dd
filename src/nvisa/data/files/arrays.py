"""Arrays from .npy and .npz files: opening without pickle, float32, undoing 8-bit quantization."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from nvisa.data.errors import DataError, describing
from nvisa.data.limits import check_memory

__all__ = ["Float32", "as_float32", "dequantized", "open_npz", "scale_images"]

Float32 = npt.NDArray[np.float32]


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """The archive, whose members are read on access; damage found on the way is a `DataError`."""
    advice = "Write it with numpy.savez; object arrays are refused because reading them runs code."
    # Opened here because np.load, given a path, forgets to close a damaged archive.
    with describing(path, "an .npz archive of plain arrays", advice=advice), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise DataError(f"{path}: expected an .npz archive, got a single array. Try the suffix .npy.")
        with archive:
            members = archive.zip.infolist() if archive.zip is not None else []
            largest = max((member.file_size for member in members), default=0)
            check_memory(path, "an array", largest, "Try fewer rows, or .npy, which is not read as a whole.")
            yield archive


def as_float32(array: np.ndarray, source: str | Path) -> Float32:
    """`array` in float32: itself if it is already, else converted."""
    if array.dtype == np.float32:
        return array
    if array.dtype.kind not in "fiub":
        raise DataError(f"{source}: expected numbers, got dtype {array.dtype}. Try encoding them as floats.")
    try:
        with np.errstate(over="raise"):
            return np.asarray(array, dtype=np.float32)
    except FloatingPointError as error:
        raise DataError(
            f"{source}: expected values below {np.finfo(np.float32).max:.1e} in size, got larger ones. "
            "Try rescaling or taking logarithms."
        ) from error


def scale_images(images: npt.NDArray[np.uint8]) -> Float32:
    """Pixels 0..255 to [0, 1]; 255 becomes exactly 1."""
    return np.divide(images, np.float32(255), dtype=np.float32)


def dequantized(archive: Mapping[str, np.ndarray], key: str, source: str | Path) -> Float32:
    """x = x_uint8 * scale + offset, per column, where the archive has a `scale` row; else x. [N D]"""
    x = archive[key]
    if "scale" not in archive or x.dtype.kind not in "ui":
        return as_float32(x, source)
    scale = archive["scale"]
    if x.ndim != 2 or scale.shape not in ((), x.shape[1:]):
        raise DataError(
            f"{source}: expected {key} of shape (N, D) with a scale of shape (D,), got {x.shape} and "
            f"{scale.shape}. Try storing floats without a scale."
        )
    values = x.astype(np.float32)
    values *= scale
    if "offset" in archive:
        values += archive["offset"]
    return values
