"""Errors of the data rooms: each says the path, what was expected, what came, and what to try."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ChecksumError", "DataError", "DownloadError", "describing", "extra_needed"]


class DataError(ValueError):
    """Data that cannot be used as it stands."""


class ChecksumError(DataError):
    """A file whose bytes are not the published ones."""


class DownloadError(DataError):
    """No mirror gave the file."""


@contextmanager
def describing(path: str | Path, expected: str, *, advice: str) -> Iterator[None]:
    """Turn whatever a parser raises on `path` into a `DataError`.

    Catches every `Exception`: on damaged bytes numpy, zlib, pandas, pyarrow and Pillow raise a dozen
    unrelated types between them, some undocumented.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}".rstrip(". ")
        raise DataError(f"{path}: expected {expected}, got an unreadable file ({got}). {advice}") from error


@contextmanager
def extra_needed(path: str | Path) -> Iterator[None]:
    """Around the import of a reader: pandas, pyarrow and Pillow come with the extra `io` only."""
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"{path}: expected pandas, pyarrow and Pillow to read this kind of file, got: {error}. "
            'Try pip install "nvisa[io]".'
        ) from error
