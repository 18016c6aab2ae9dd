"""Errors of data: each says the path, what was expected, what came, and what to try."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ChecksumError", "DataError", "DownloadError", "Note", "Spell", "describing", "extra_needed"]

Spell = Callable[[str, object], str]


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
        return self.told(_as_argument)

    def told(self, spell: Spell) -> str:
        """The message, with each argument as ``spell(name, value)`` writes it: a program calls it otherwise."""
        return _told(self.problem, self.hint, self.arguments, spell)


class Note:
    """Something that a reader found out and goes on with; told as a :class:`DataError` is.

    Examples
    --------
    >>> print(Note("the first line is a row", "if it is names: {header}", header=True))
    the first line is a row (if it is names: header=True)
    """

    def __init__(self, fact: str, hint: str = "", **arguments: object) -> None:
        self.fact, self.hint, self.arguments = fact, hint, arguments

    def __str__(self) -> str:
        return self.told(_as_argument)

    def told(self, spell: Spell) -> str:
        """The note, with each argument as ``spell(name, value)`` writes it."""
        return _told(self.fact, f"({self.hint})" if self.hint else "", self.arguments, spell)


def _as_argument(name: str, value: object) -> str:
    return name if value is None else f"{name}={value!r}"


def _told(text: str, hint: str, arguments: Mapping[str, object], spell: Spell) -> str:
    if not hint:
        return text
    return f"{text} {hint.format(**{name: spell(name, value) for name, value in arguments.items()})}"


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
