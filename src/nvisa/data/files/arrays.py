"""Arrays from .npy and .npz files: opening without pickle, a floating type, undoing 8-bit quantization."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from nvisa.data.errors import DataError, describing
from nvisa.data.limits import check_memory

__all__ = ["Float32", "Floats", "as_floats", "dequantized", "open_npz", "scale_images"]

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]


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


def as_floats(array: np.ndarray, source: str | Path) -> Floats:
    """The numbers in a floating type that holds them: itself if it is float32 or float64, else the least that does.

    Raises
    ------
    DataError
        If they are no numbers, or beyond float32, in which networks compute, or beyond what float64 tells apart.
    """
    if array.dtype.kind not in "fiub":
        raise DataError(f"{source}: expected numbers, got dtype {array.dtype}. Try encoding them as floats.")
    if array.dtype == np.float32 or array.size == 0:
        return array.astype(np.float32, copy=False)
    _check_size(array, source)
    if array.dtype.kind == "f":
        return array.astype(np.float64 if array.dtype.itemsize >= 8 else np.float32, copy=False)
    least, most = int(array.min()), int(array.max())
    if max(-least, most) <= 2**24:
        return array.astype(np.float32)
    if max(-least, most) > 2**53 and most - least < 2**20 * (max(-least, most) >> 53):
        raise DataError(
            f"{source}: expected whole numbers that float64 tells apart, got {least} .. {most}, closer to each other "
            "than its steps there. Try subtracting the least of them first; numbers that are names, leave out."
        )
    return array.astype(np.float64)


def _check_size(array: np.ndarray, source: str | Path) -> None:
    """Raise a DataError for numbers that are finite and infinite in float32."""
    if array.dtype.itemsize < 8 or array.dtype.kind != "f":
        return
    for start in range(0, len(array), 8192):
        block = np.abs(array[start : start + 8192])
        if (np.isfinite(block) & (block > np.finfo(np.float32).max)).any():
            raise DataError(
                f"{source}: expected values below {np.finfo(np.float32).max:.1e} in size, got larger ones. "
                "Try rescaling or taking logarithms."
            )


def scale_images(images: npt.NDArray[np.uint8]) -> Float32:
    """Pixels 0..255 to [0, 1]; 255 becomes exactly 1."""
    return np.divide(images, np.float32(255), dtype=np.float32)


def dequantized(archive: Mapping[str, np.ndarray], key: str, source: str | Path) -> Floats:
    """x = x_uint8 * scale + offset, per column, where the archive has a `scale` row; else x. [N D]"""
    x = archive[key]
    if "scale" not in archive or x.dtype.kind not in "ui":
        return as_floats(x, source)
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
