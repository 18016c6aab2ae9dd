"""What a page carries: typed arrays as base64 of gzip, and text that cannot do harm."""

import gzip
import hashlib
import json
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "compressed", "encoded", "encoded_floats", "encoded_json", "one_line", "script_hash"]

Array = NDArray[np.floating[Any]]
Encoded = dict[str, Any]
LEVELS = 65_534  # of a float in 16 bits; 65,535 is NaN
MAX_TEXT = 80


def one_line(value: object, limit: int = MAX_TEXT) -> str:
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


def encoded(values: NDArray[Any]) -> Encoded:
    """An array for the page's ``unpack``: little-endian, gzip, base64."""
    values = np.ascontiguousarray(values)
    kind = {"u1": "Uint8", "u2": "Uint16", "u4": "Uint32", "f4": "Float32", "f8": "Float64"}[values.dtype.str[1:]]
    return {"kind": kind, "data": compressed(values.astype(values.dtype.newbyteorder("<")).tobytes())}


def encoded_floats(values: Array) -> Encoded:
    """Floats in 16 bits each: ``low + (high - low) level / 65,534``; NaN has a level of its own."""
    known = values[np.isfinite(values)].astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    share = (values - low) / ((high - low) or 1.0)
    level = np.where(np.isfinite(share), np.round(np.nan_to_num(share).clip(0, 1) * LEVELS), LEVELS + 1)
    return encoded(level.astype(np.uint16)) | {"low": low, "high": high}


def encoded_json(value: object) -> Encoded:
    """Anything that JSON knows, compressed."""
    return {"kind": "json", "data": compressed(json.dumps(value).encode())}


def script_hash(source: str) -> str:
    """``'sha256-...'``, by which a Content-Security-Policy knows a script."""
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
