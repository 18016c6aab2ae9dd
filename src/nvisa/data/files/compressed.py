"""Files that are compressed as a whole: gzip, bzip2, xz and Zstandard, known by their first bytes."""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import Any

from nvisa.data.limits import check_memory

__all__ = ["SUFFIXES", "open_binary", "plain_suffix"]

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")
BLOCK, CHECKED = 1 << 16, 1 << 24  # bytes of a piece, and between two looks at the memory
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
        return _bounded(gzip.open(path), path)
    if start.startswith(b"BZh"):
        return _bounded(bz2.open(path), path)
    if start == b"\xfd7zXZ\x00":
        return _bounded(lzma.open(path), path)
    if start.startswith(ZSTD):
        import pyarrow  # noqa: PLC0415  Python has Zstandard from 3.14 on

        return _bounded(pyarrow.CompressedInputStream(str(path), "zstd"), path)
    return path.open("rb")


def _bounded(file: Any, path: Path) -> io.BufferedIOBase:
    return io.BufferedReader(_Bounded(file, path), BLOCK)


class _Bounded(io.RawIOBase):
    """What is decompressed, which nothing declares, up to the memory that is free: a table takes as much at least."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path, self.n_bytes = file, path, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes."""
        content = self.file.read(len(buffer))
        self.n_bytes += len(content)
        if self.n_bytes % CHECKED < len(content):  # the system is asked now and then
            check_memory(self.path, "more than that, once decompressed", self.n_bytes, "Try fewer rows.")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """And the file below."""
        self.file.close()
        super().close()
