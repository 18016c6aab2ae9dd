"""A folder of images, of every kind that Pillow reads, as rows of pixels in [0, 1]."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from nvisa.data.errors import DataError, Note, describing
from nvisa.data.files.arrays import Float32
from nvisa.data.limits import check_memory

__all__ = ["Found", "folder_labels", "list_images", "on_background", "read_images"]

UNREADABLE = {"BUFR", "EPS", "FLI", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}  # known to Pillow by name, drawn by others
GRAY_MODES = ("1", "L", "LA", "La", "I", "F")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
IMAGE, ADVICE = "an image that Pillow reads", "Try removing it or saving it again."
BYTES_A_PIXEL = 7  # while it is decoded: color, and gray in float32


@dataclass(frozen=True)
class Found:
    """The images below a folder, and how many files are something else."""

    paths: list[Path]
    notes: tuple[Note, ...]


def list_images(folder: Path) -> Found:
    """Every image below `folder`, sorted by path; hidden files left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    suffixes = _suffixes()
    paths = [path for path in files if path.suffix.lower() in suffixes]
    others = Counter(path.suffix.lower() or "no suffix" for path in files if path.suffix.lower() not in suffixes)
    shown = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5)) + (", ..." if len(others) > 5 else "")
    if not paths:
        got = f"only {shown}" if others else "none"
        advice = "Try another folder, or one file of it; tables in several files have to be joined first."
        raise DataError(f"{folder}: expected images (.png, .jpg, .webp, .tif, ...), got {got}. {advice}")
    notes = (Note(f"{others.total()} files that are no images left out: {shown}"),) if others else ()
    return Found(paths, notes)


def _suffixes() -> set[str]:
    """Of the files that Pillow here opens."""
    known = Image.registered_extensions()
    return {suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in UNREADABLE}


@dataclass(frozen=True)
class _Header:
    """What a file says of its image before the pixels are decoded; ``size`` is (height, width), upright."""

    size: tuple[int, int]
    is_gray: bool
    is_float: bool
    is_transparent: bool
    n_frames: int


def read_images(
    paths: Sequence[Path], folder: Path, image_size: int | tuple[int, int] | None, background: str | None = None
) -> tuple[Float32, tuple[int, ...], list[Note]]:
    """(X [N D], shape of one image, notes): (H, W) if all are gray, else (H, W, 3)."""
    headers = [_header(path) for path in paths]
    height, width = _size_asked(image_size) or _common_size(folder, [header.size for header in headers])
    is_gray, is_float = all(header.is_gray for header in headers), _is_float(headers, folder)
    shape = (height, width) if is_gray else (height, width, 3)
    what = f"{len(paths):,} images of {width} x {height}"
    check_memory(folder, what, 4 * len(paths) * prod(shape), "Try a smaller image_size.")
    X = np.empty((len(paths), int(np.prod(shape))), dtype=np.float32)
    mode = "F" if is_float else "L" if is_gray else "RGB"
    for row, path in zip(X, paths, strict=True):
        row[:] = _pixels(path, mode, (width, height), background).reshape(-1)
    return X, shape, _notes(headers, background)


def _notes(headers: Sequence[_Header], background: str | None) -> list[Note]:
    notes = []
    if n := sum(header.is_transparent for header in headers):
        what = f"{n} images with transparent pixels laid on {background or 'white'}"
        notes.append(Note(what, "for another color: {background}", background="black"))
    if n := sum(header.n_frames > 1 for header in headers):
        notes.append(Note(f"{n} images of several frames: the first of each is used"))
    if any(header.is_float for header in headers):
        notes.append(Note("floating pixels, values as they are"))
    return notes


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


def _header(path: Path) -> _Header:
    with describing(path, IMAGE, advice=ADVICE), Image.open(path) as image:
        width, height = image.size
        check_memory(path, f"an image of {width} x {height}", BYTES_A_PIXEL * width * height, ADVICE)
        if image.getexif().get(0x0112) in SIDEWAYS:
            width, height = height, width
        is_gray = image.mode in GRAY_MODES or image.mode.startswith("I;16")
        is_float = image.mode in ("F", "I") and image.format != "PNG"  # a PNG's I is of 16 bits
        frames = getattr(image, "n_frames", 1)
        return _Header((height, width), is_gray, is_float, image.has_transparency_data, frames)


def _is_float(headers: Sequence[_Header], folder: Path) -> bool:
    """Whether the images hold numbers without a white; beside others they would have no common scale."""
    n = sum(header.is_float for header in headers)
    if 0 < n < len(headers):
        raise DataError(
            f"{folder}: expected images of one kind, got {n} of {len(headers)} with pixels of 32 bits, whose white is "
            "not known. Try two folders, or saving all as 8 bits."
        )
    return n > 0


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


def _pixels(path: Path, mode: str, size: tuple[int, int], background: str | None) -> np.ndarray:
    """Upright, in `mode`, resized to (width, height), in [0, 1]; in mode F as they are."""
    with describing(path, f"a whole image ({IMAGE})", advice=ADVICE), Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        opaque = on_background(image, background, path)
        upright, full_scale = (opaque.convert("F"), 1) if mode == "F" else _eight_bit(opaque, mode)
        if upright.size != size:
            upright = upright.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(upright, dtype=np.float32) / np.float32(full_scale)


def on_background(image: Image.Image, background: str | None, path: Path) -> Image.Image:
    """The image without transparency: its colors over one color, "white" unless it is said.

    Raises
    ------
    DataError
        If nothing of it is left on white, as of a white drawing, and no color was asked for.
    """
    if not image.has_transparency_data:
        return image
    whole = image.convert("RGBA")
    try:
        below = Image.new("RGBA", whole.size, ImageColor.getrgb(background or "white"))
    except ValueError as error:
        raise DataError(
            f"background: expected a color, got {background!r}.", "Try {background}.", background="black"
        ) from error
    flat = Image.alpha_composite(below, whole).convert("RGB")
    alpha = np.asarray(whole)[..., 3]
    if background is None and alpha.min() < alpha.max() and np.ptp(np.asarray(flat), axis=(0, 1)).max() == 0:
        raise DataError(
            f"{path}: expected an image that shows on white, got transparent pixels around white ones.",
            "Try {background}.",
            background="black",
        )
    return flat.convert("L") if image.mode in GRAY_MODES else flat


def _eight_bit(image: Image.Image, mode: str) -> tuple[Image.Image, int]:
    """(image in `mode`, or in floats where Pillow would clip 16-bit gray at 255; its white)."""
    if not image.mode.startswith("I"):
        return image.convert(mode), 255
    gray = Image.fromarray(np.asarray(image, dtype=np.float32))
    if mode == "L":
        return gray, 65535
    levels = Image.fromarray((np.asarray(gray) / 257).round().astype(np.uint8))
    return levels.convert(mode), 255
