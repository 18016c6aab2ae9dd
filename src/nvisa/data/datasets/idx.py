"""The IDX format of the MNIST family: 0 0 type ndim, then ndim big-endian uint32 sizes, then the values."""

import gzip
import hashlib
import struct
from math import prod
from pathlib import Path

import numpy as np

from nvisa.data.errors import ChecksumError, DataError, describing

__all__ = ["parse_idx", "read_verified"]

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def parse_idx(raw: bytes, source: str = "IDX bytes") -> np.ndarray:
    """The array that `raw` spells, read-only, shape as in its header."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in DTYPES:
        raise DataError(
            f"{source}: expected an IDX header (0 0 type ndim), got {raw[:4].hex(' ') or 'no bytes'}. "
            "Try fetching the file again."
        )
    dtype, ndim = np.dtype(DTYPES[raw[2]]), raw[3]
    start = 4 + 4 * ndim
    shape = struct.unpack_from(f">{ndim}I", raw, 4) if len(raw) >= start else None
    if shape is None or len(raw) != start + dtype.itemsize * prod(shape):
        raise DataError(
            f"{source}: expected {ndim} sizes and values to fill shape {shape}, got {len(raw)} bytes. "
            "The file is cut or padded; try fetching it again."
        )
    return np.frombuffer(raw, dtype=dtype, offset=start).reshape(shape)


def read_verified(path: Path, sha256: str) -> bytes:
    """The unpacked bytes of `path` (.gz or not) if their SHA-256 is the published one.

    The digest is that of the unpacked bytes, so a recompressed copy is as good as the original.
    """
    advice = f"Try `nvisa data fetch {path.parent.name}`, which replaces it."
    with describing(path, "a complete gzip or IDX file", advice=advice):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    got = hashlib.sha256(raw).hexdigest()
    if got != sha256:
        raise ChecksumError(f"{path}: expected unpacked SHA-256 {sha256}, got {got}. {advice}")
    return raw
