"""A folder of images of any sizes, read one at a time, so that a big one needs no memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nvisa.data.errors import describing
from nvisa.data.files.images import ADVICE, BYTES_A_PIXEL, list_images
from nvisa.data.limits import check_memory

__all__ = ["Folder", "folder_images"]


class Folder(Sequence):
    """The images of a folder, recursively, sorted by path, as uint8 RGB [H W 3]; a slice is a list."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:  # type: ignore[override]
        return [_read(path) for path in self.paths[rows]] if isinstance(rows, slice) else _read(self.paths[rows])


def folder_images(folder: str | Path) -> Folder:
    """The .png and .jpg files below the folder, hidden ones left out.

    Raises
    ------
    DataError
        If there are none.
    """
    return Folder(list_images(Path(folder)))


def _read(path: Path) -> NDArray[np.uint8]:
    with describing(path, "a PNG or JPEG image", advice=ADVICE), Image.open(path) as image:
        width, height = image.size
        check_memory(path, f"an image of {width} x {height}", BYTES_A_PIXEL * width * height, ADVICE)
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
