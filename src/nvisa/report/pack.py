"""What a page carries: typed arrays as base64 of gzip, images as sheets, and text that cannot do harm."""

import gzip
import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.report.pictures import as_images

__all__ = ["Sheets", "compressed", "levels", "packed", "packed_json", "script_hash", "sheet", "sheets", "tidy"]

Array = NDArray[np.floating[Any]]
Packed = dict[str, Any]
LEVELS = 65_534  # of a float in 16 bits; 65,535 is NaN
SHEET = 64  # images in a line of a sheet, and lines
SIDE = 64  # longest side of an image in a page, in pixels
MAX_TEXT = 80
FORMS = ((1.0, None), (1.0, 20), (0.75, 20), (0.6, 20), (0.5, 20))  # (share of the side, quality) of the map's images


def tidy(value: object, limit: int = MAX_TEXT) -> str:
    """One line of printable text of at most ``limit`` characters, whatever was in the data.

    Control and bidirectional characters, which could reorder the page, and half surrogates, which no file can
    hold, become a replacement sign. Escaping for HTML is the template's part.
    """
    text = " ".join(str(value)[: 10 * limit].split())
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def compressed(raw: bytes) -> str:
    """Gzip in base64, for the page's ``gunzip``."""
    return b64encode(gzip.compress(raw, 6, mtime=0)).decode()  # no time of making: equal pages are equal files


def packed(values: NDArray[Any]) -> Packed:
    """An array for the page's ``unpack``: little-endian, gzip, base64."""
    values = np.ascontiguousarray(values)
    kind = {"u1": "Uint8", "u2": "Uint16", "u4": "Uint32", "f4": "Float32"}[values.dtype.str[1:]]
    return {"kind": kind, "data": compressed(values.astype(values.dtype.newbyteorder("<")).tobytes())}


def levels(values: Array) -> Packed:
    """Floats in 16 bits each: ``low + (high - low) level / 65,534``; NaN has a level of its own."""
    known = values[np.isfinite(values)].astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    share = (values - low) / ((high - low) or 1.0)
    level = np.where(np.isfinite(share), np.round(np.nan_to_num(share).clip(0, 1) * LEVELS), LEVELS + 1)
    return packed(level.astype(np.uint16)) | {"low": low, "high": high}


def packed_json(value: object) -> Packed:
    """Anything that JSON knows, compressed."""
    return {"kind": "json", "data": compressed(json.dumps(value).encode())}


def script_hash(source: str) -> str:
    """``'sha256-...'``, by which a Content-Security-Policy knows a script."""
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


# ---- images ---------------------------------------------------------------------------------------------------


class Sheets:
    """How rows become small images: of ``feature_shape``, all on one scale of brightness.

    Parameters
    ----------
    feature_shape
        (H, W) or (H, W, 3).
    limits
        Values of black and white, as :func:`nvisa.report.pictures.brightness` finds them.
    """

    def __init__(self, feature_shape: Sequence[int], limits: tuple[float, float]) -> None:
        self.shape, self.limits = tuple(feature_shape), limits

    def size(self, share: float = 1.0) -> tuple[int, int]:
        """(height, width) in the page: at most ``SIDE``, then times ``share``."""
        height, width = self.shape[:2]
        share *= min(1.0, SIDE / max(height, width))
        return max(4, round(height * share)), max(4, round(width * share))

    def __call__(self, X: Array, size: tuple[int, int] | None = None, columns: int = SHEET) -> Any:
        """Rows [n D] as one Pillow image, ``columns`` in a line."""
        from PIL import Image  # noqa: PLC0415  of the extra

        height, width = size or self.size()
        small = [
            Image.fromarray((255 * image).round().astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
            for image in as_images(X, self.shape, limits=self.limits)
        ]
        lines = -(-len(small) // columns)
        whole = Image.new(small[0].mode, (columns * width, lines * height))
        for i, image in enumerate(small):
            whole.paste(image, (i % columns * width, i // columns * height))
        return whole


def _url(image: Any, quality: int | None) -> str:
    """A WebP image as a URL; ``quality=None`` loses nothing."""
    file = io.BytesIO()
    image.save(file, "webp", method=2, **({"lossless": True} if quality is None else {"quality": quality}))
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"


def sheet(X: Array, draw: Sheets, columns: int = 32) -> Packed:
    """The images of a gallery on one sheet, in good quality; small ones as they are."""
    height, width = draw.size()
    url = _url(draw(X, columns=columns), None if height * width <= 1024 else 80) if len(X) else ""
    return {"url": url, "columns": columns, "lines": -(-len(X) // columns), "height": height, "width": width}


def sheets(take: Callable[[slice], Array], n_rows: int, draw: Sheets, budget: int) -> Packed:
    """Images of n_rows rows for the map's hover, within a budget of bytes.

    Their form is the first of ``FORMS`` at which the first thousand promise to keep the budget; if none does,
    as many rows as fit have an image. ``take`` gives the rows [n D] of a slice.
    """
    first = take(slice(0, 1024))
    for share, quality in FORMS:
        size = draw.size(share)
        per_image = len(_url(draw(first, size), quality)) / len(first)
        if per_image * n_rows <= budget:
            break
    n_shown = min(n_rows, int(budget / per_image))
    parts = [slice(start, min(start + SHEET * SHEET, n_shown)) for start in range(0, n_shown, SHEET * SHEET)]
    urls = [_url(draw(take(part), size), quality) for part in parts]
    return {"urls": urls, "columns": SHEET, "n": n_shown, "height": size[0], "width": size[1]}
