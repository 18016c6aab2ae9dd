"""A folder of .png and .jpg images as rows of pixels in [0, 1]."""

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nvisa.data.errors import DataError, describing
from nvisa.data.files.arrays import Float32
from nvisa.data.limits import check_memory

__all__ = ["folder_labels", "list_images", "read_images"]

SUFFIXES = (".jpeg", ".jpg", ".png")
GRAY_MODES = ("1", "L", "LA", "I", "F")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ADVICE = "Try removing it or saving it again."
BYTES_A_PIXEL = 7  # while it is decoded: color, and gray in float32


def list_images(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted by path; hidden files left out."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = sorted(path for path in paths if not path.name.startswith("."))
    if not paths:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}), got none. Try another folder.")
    return paths


def read_images(
    paths: Sequence[Path], folder: Path, image_size: int | tuple[int, int] | None
) -> tuple[Float32, tuple[int, ...]]:
    """(X [N D], shape of one image): (H, W) if all are gray, else (H, W, 3)."""
    headers = [_header(path) for path in paths]
    height, width = _size_asked(image_size) or _common_size(folder, [size for size, _ in headers])
    is_gray = all(gray for _, gray in headers)
    shape = (height, width) if is_gray else (height, width, 3)
    what = f"{len(paths):,} images of {width} x {height}"
    check_memory(folder, what, 4 * len(paths) * prod(shape), "Try a smaller image_size.")
    X = np.empty((len(paths), int(np.prod(shape))), dtype=np.float32)
    for row, path in zip(X, paths, strict=True):
        row[:] = _pixels(path, "L" if is_gray else "RGB", (width, height)).reshape(-1)
    return X, shape


def folder_labels(paths: Sequence[Path], folder: Path) -> np.ndarray:
    """The immediate subfolder of each image."""
    parts = [path.relative_to(folder).parts for path in paths]
    if loose := [part[0] for part in parts if len(part) == 1]:
        raise DataError(
            f"{folder}: expected every image in a subfolder named for its label, got {len(loose)} beside "
            f"them, such as {loose[0]!r}.",
            "Try moving them, or {labels_from_folders}.",
            labels_from_folders=False,
        )
    return np.array([part[0] for part in parts])


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """((height, width) as seen upright, whether it is gray), without decoding the pixels."""
    with describing(path, "a PNG or JPEG image", advice=ADVICE), Image.open(path) as image:
        width, height = image.size
        check_memory(path, f"an image of {width} x {height}", BYTES_A_PIXEL * width * height, ADVICE)
        if image.getexif().get(0x0112) in SIDEWAYS:
            width, height = height, width
        return (height, width), image.mode in GRAY_MODES or image.mode.startswith("I;16")


def _size_asked(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"image_size: expected a side or (height, width), got {image_size}. Try 64.")
    return size


def _common_size(folder: Path, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    counts = Counter(sizes)
    if len(counts) > 1:
        shown = ", ".join(f"{h} x {w} ({n})" for (h, w), n in counts.most_common(3))
        raise DataError(
            f"{folder}: expected images of one size, got {len(counts)} sizes, most often {shown}.",
            "Try {image_size} to resize them.",
            image_size=counts.most_common(1)[0][0],
        )
    return sizes[0]


def _pixels(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """Upright, in `mode`, resized to (width, height), in [0, 1]."""
    with describing(path, "a whole PNG or JPEG image", advice=ADVICE), Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        upright, full_scale = _eight_bit(image, mode)
        if upright.size != size:
            upright = upright.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(upright, dtype=np.float32) / np.float32(full_scale)


def _eight_bit(image: Image.Image, mode: str) -> tuple[Image.Image, int]:
    """(image in `mode`, or in floats where Pillow would clip 16-bit gray at 255; its white)."""
    if not image.mode.startswith("I"):
        return image.convert(mode), 255
    gray = Image.fromarray(np.asarray(image, dtype=np.float32))
    if mode == "L":
        return gray, 65535
    levels = Image.fromarray((np.asarray(gray) / 257).round().astype(np.uint8))
    return levels.convert(mode), 255
