"""Files that are compressed as a whole: gzip, bzip2, xz and Zstandard, known by their first bytes."""

import bz2
import gzip
import io
import lzma
from pathlib import Path

__all__ = ["SUFFIXES", "open_binary", "plain_suffix"]

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")
ZSTD = b"\x28\xb5\x2f\xfd"


def plain_suffix(path: Path) -> str:
    """The suffix that says what the file holds, in lower case: .csv of x.csv.gz.

    Examples
    --------
    >>> plain_suffix(Path("x.CSV.gz")), plain_suffix(Path("x.npy"))
    ('.csv', '.npy')
    """
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in SUFFIXES else suffix


def open_binary(path: Path) -> io.BufferedIOBase:
    """The file's bytes, decompressed as they are read; by what it begins with, whatever it is called."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start.startswith(b"BZh"):
        return bz2.open(path)
    if start == b"\xfd7zXZ\x00":
        return lzma.open(path)
    if start.startswith(ZSTD):
        import pyarrow  # noqa: PLC0415  Python has Zstandard from 3.14 on

        return io.BufferedReader(pyarrow.CompressedInputStream(str(path), "zstd"))
    return path.open("rb")
