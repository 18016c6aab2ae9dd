"""Errors of data: each says the path, what was expected, what came, and what to try."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ChecksumError", "DataError", "DownloadError", "describing", "extra_needed"]


class DataError(ValueError):
    """Data that cannot be used as it stands.

    Parameters
    ----------
    problem
        Where, what was expected, and what came.
    hint
        What to try; ``{name}`` stands for an argument of the function that reads.
    arguments
        The value to try of each argument that the hint names; None: whatever suits the caller's data.

    Examples
    --------
    >>> print(DataError("x.csv: expected numbers, got text.", "Try {drop_text}.", drop_text=True))
    x.csv: expected numbers, got text. Try drop_text=True.
    """

    def __init__(self, problem: str, hint: str = "", **arguments: object) -> None:
        super().__init__(problem, hint)  # what pickle hands to another process; the attributes go with it
        self.problem, self.hint, self.arguments = problem, hint, arguments

    def __str__(self) -> str:
        return self.told(lambda name, value: name if value is None else f"{name}={value!r}")

    def told(self, spell: Callable[[str, object], str]) -> str:
        """The message, with each argument as ``spell(name, value)`` writes it: a program calls it otherwise."""
        if not self.hint:
            return self.problem
        return f"{self.problem} {self.hint.format(**{name: spell(name, v) for name, v in self.arguments.items()})}"


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
    except MemoryError as error:
        raise DataError(f"{path}: expected {expected} that fits into memory, got none left (MemoryError).") from error
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
