"""A folder of images of any sizes, read one at a time, so that a big one needs no memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nvisa.data.errors import Note, describing
from nvisa.data.files.images import ADVICE, BYTES_A_PIXEL, IMAGE, list_images, on_background
from nvisa.data.limits import check_memory

__all__ = ["Folder", "folder_images"]


class Folder(Sequence):
    """The images of a folder, recursively, sorted by path, as uint8 RGB [H W 3]; a slice is a list."""

    def __init__(self, paths: Sequence[Path], notes: Sequence[Note] = ()) -> None:
        self.paths, self.notes = paths, notes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:  # type: ignore[override]
        return [_read(path) for path in self.paths[rows]] if isinstance(rows, slice) else _read(self.paths[rows])


def folder_images(folder: str | Path) -> Folder:
    """The images below the folder, of every kind that Pillow reads, hidden ones left out; ``notes``: other files.

    Raises
    ------
    DataError
        If there are none.
    """
    found = list_images(Path(folder))
    return Folder(found.paths, found.notes)


def _read(path: Path) -> NDArray[np.uint8]:
    with describing(path, IMAGE, advice=ADVICE), Image.open(path) as image:
        width, height = image.size
        check_memory(path, f"an image of {width} x {height}", BYTES_A_PIXEL * width * height, ADVICE)
        return np.asarray(on_background(ImageOps.exif_transpose(image), None, path).convert("RGB"))
