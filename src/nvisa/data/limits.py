"""What a file says that it will need, against the memory that is there: asked before anything is allocated."""

from pathlib import Path
from typing import Any

from nvisa.data.errors import DataError
from nvisa.reading import available_memory

__all__ = ["check_memory", "check_parquet"]


def check_memory(path: str | Path, what: str, n_bytes: int, advice: str) -> None:
    """Raise a DataError if so many bytes are not free.

    A small file can ask for any memory: zeros are compressed a thousandfold.
    """
    if n_bytes > (free := available_memory()):
        raise DataError(
            f"{path}: expected what fits into the free memory, {free / 1e9:.1f} GB, got {what}, "
            f"{n_bytes / 1e9:.1f} GB. {advice}"
        )


def check_parquet(path: Path, declared: Any) -> None:
    """Raise a DataError if the rows that a Parquet file declares do not fit: equal ones take no room in it."""
    n_rows, n_columns = declared.num_rows, declared.num_columns
    what = f"{n_rows:,} rows of {n_columns:,} columns"
    check_memory(path, what, 8 * n_rows * n_columns, "Try fewer rows or columns.")
