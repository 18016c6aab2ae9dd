"""A folder of Parquet files as rows: read in batches into a map of a file, so that a large one needs no memory."""

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import dataset, parquet

from nvisa.data.errors import DataError, Note, describing

__all__ = ["read_parquet_folder"]

BATCH, STRIP = 16_384, 128  # rows and columns read at once: of every column Parquet holds a page, of 1 MB or more
SMALL = 1 << 26  # numbers that are held in memory


def read_parquet_folder(
    folder: Path, left_out: set[str], *, drop_text: bool
) -> tuple[np.ndarray, list[str], list[str], list[Note]]:
    """(values [N D], names [D], names left out, notes): the numeric columns of all files, sorted by their paths.

    Raises
    ------
    DataError
        If columns are not numeric, differ between files, or there are no rows.
    """
    advice = "A file may be cut, or hold other columns than the rest; try writing it again."
    with describing(folder, "a folder of Parquet files with the same columns", advice=advice):
        files = sorted(folder.rglob("*.parquet"))
        whole = dataset.dataset([str(path) for path in files], format="parquet", schema=_schema(files, folder))
        kinds = {field.name: field.type for field in whole.schema if field.name not in left_out}
        names = [name for name, kind in kinds.items() if _is_number(kind)]
        text = [name for name in kinds if name not in names]
        if (text and not drop_text) or not names:
            raise DataError(
                f"{folder}: expected numeric columns, got {len(text)} of {len(kinds)} that are not: "
                f"{', '.join(map(repr, text[:10]))}.",
                "Try {drop_text} to leave them out, or {drop} for one.",
                drop_text=True,
                drop=None,
            )
        values = _filled(whole, names, [kinds[name] for name in names])
    if len(values) == 0:
        raise DataError(f"{folder}: expected rows, got none in {len(files)} files. Try another folder.")
    return values, names, [*left_out, *text], [Note(f"{len(files)} Parquet files, one after the other")]


def _schema(files: list[Path], folder: Path) -> pyarrow.Schema:
    """That of the first file, which all others have to have."""
    schemas = [parquet.read_schema(path) for path in files]
    for path, schema in zip(files, schemas, strict=True):
        if set(schema.names) != set(schemas[0].names):
            odd = sorted(set(schema.names) ^ set(schemas[0].names))
            raise DataError(
                f"{folder}: expected the columns of {files[0].name} in every file, got others in {path.name}: "
                f"{', '.join(odd[:5])}. Try a folder of files of one kind."
            )
    return pyarrow.unify_schemas(schemas, promote_options="permissive").remove_metadata()


def _is_number(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)


def _filled(whole: dataset.Dataset, names: list[str], kinds: list[pyarrow.DataType]) -> np.ndarray:
    """The columns as an array: of a file without a name, where they are many."""
    is_narrow = all(pyarrow.types.is_floating(kind) and kind.bit_width <= 32 for kind in kinds)
    shape = (whole.count_rows(), len(names))
    dtype = np.dtype(np.float32 if is_narrow else np.float64)
    values = np.empty(shape, dtype) if shape[0] * shape[1] <= SMALL else _map(shape, dtype)
    kind, start = pyarrow.from_numpy_dtype(dtype), 0
    for path in whole.files:
        with parquet.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                for d in range(0, len(names), STRIP):
                    strip = names[d : d + STRIP]
                    batches = file.iter_batches(BATCH, [group], strip, use_threads=False)
                    _fill(values[start:stop, d : d + STRIP], batches, strip, kind)
                start = stop
    pyarrow.default_memory_pool().release_unused()
    return values


def _fill(values: np.ndarray, batches: Iterator[pyarrow.RecordBatch], names: list[str], kind: pyarrow.DataType) -> None:
    """Write these columns of a row group into a part [n d] of the array."""
    start = 0
    for batch in batches:
        stop = start + batch.num_rows
        for d, name in enumerate(names):
            values[start:stop, d] = batch.column(name).cast(kind).to_numpy(zero_copy_only=False)
        start = stop
        _release(values)


def _release(values: np.ndarray) -> None:
    """Hand the pages of a map back; its file keeps what they hold."""
    pages = getattr(values, "_mmap", None)  # numpy has no public name for it
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _map(shape: tuple[int, int], dtype: np.dtype) -> np.memmap:
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)
