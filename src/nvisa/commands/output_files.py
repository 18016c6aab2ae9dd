"""The file that a command writes: complete or not there, in the form that its suffix names."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvisa.data import DataError
from nvisa.durable_files import replacing_file

__all__ = ["ARRAYS", "TABLES", "check_output", "write_arrays", "write_table"]

Columns = Mapping[str, NDArray | list[str]]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".parquet")


def check_output(out: str | Path, suffixes: tuple[str, ...], *, source: str | None = None) -> Path:
    """``out`` as a path, if a result of one of these kinds may be written there.

    Raises
    ------
    DataError
        If its suffix, its folder or what lies there forbids it.
    """
    path = Path(out).expanduser()
    if path.suffix.lower() not in suffixes:
        raise DataError(f"{out}: expected a name ending in {', '.join(suffixes)}, got {path.suffix or 'no suffix'!r}.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(
            f"{out}: expected a file of its own for the result, got a pipe or a device. Choose another name."
        )
    if path.is_dir() or (source is not None and path.exists() and Path(source).exists() and path.samefile(source)):
        kind = "a folder" if path.is_dir() else "the data themselves"
        raise DataError(f"{out}: expected a file of its own for the result, got {kind}. Choose another name.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"{out}: expected a folder that can be written to, got {path.parent}. Try mkdir, or another.")
    return path


def write_table(path: Path, columns: Columns, *, quote_formulas: bool = False) -> None:
    """Write columns of one length as .csv or .parquet; ``quote_formulas`` puts an apostrophe before each formula.

    A spreadsheet computes a cell that begins with one of ``=+-@``, a tab or a carriage return, whoever has written it.
    """
    try:
        import pandas as pd  # noqa: PLC0415  slow, and only here
    except ImportError as error:
        raise DataError(f'{path}: expected pandas for tables, got: {error}. Try pip install "nvisa[io]".') from error
    if quote_formulas:
        columns = {_quoted(name): _without_formulas(values) for name, values in columns.items()}
    frame = pd.DataFrame(dict(columns))
    with replacing_file(path) as part:
        if path.suffix.lower() == ".parquet":
            frame.to_parquet(part, index=False, engine="pyarrow")
        else:
            frame.to_csv(part, index=False)


def _without_formulas(values: NDArray | list[str]) -> NDArray | list[str]:
    return [_quoted(value) for value in values] if isinstance(values, list) else values


def _quoted(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def write_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write .npz with every array, or .npy with the first."""
    with replacing_file(path) as part, part.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez(file, **arrays)  # type: ignore[arg-type]  # keywords are names of arrays
        else:
            np.save(file, next(iter(arrays.values())), allow_pickle=False)
