"""Whatever rows come as, as what scikit-learn's checks take: an array, a frame, a sparse matrix, or a memory map.

=============================  =====================================================================================
torch.Tensor                   its memory where it is on the CPU; detached, bfloat16 in float32
Dataset, DataLoader            in the order of the data set, whatever a loader shuffles; of a pair the first
iterators of chunks            one after the other
masked arrays                  NaN where they are masked
pyarrow tables, record batches a data frame
arrays on disk (zarr, h5py)    block by block into a map of a file that vanishes with it, never whole in memory
=============================  =====================================================================================

Everything else passes, for scikit-learn to take or to refuse: lists, frames of pandas and polars, sparse matrices.
"""

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

__all__ = ["as_rows", "temporary_map"]

BLOCK = 4096
SMALL = 1 << 28  # bytes that are read whole


def as_rows(X: Any) -> Any:
    """The rows of X, converted once; order and values are those of X.

    Examples
    --------
    >>> import torch
    >>> as_rows(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True))
    array([[1., 2.]], dtype=float32)
    """
    if isinstance(X, torch.Tensor):
        return _of_tensor(X)
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(np.result_type(X.dtype, np.float32)), np.nan) if np.ma.is_masked(X) else X.data
    if isinstance(X, (DataLoader, Dataset, Iterator)):
        return _stacked(X if isinstance(X, Iterator) else _chunks(X))
    if type(X).__module__.partition(".")[0] == "pyarrow" and hasattr(X, "to_pandas"):
        return X.to_pandas()
    if _is_on_disk(X):
        return _mapped(X)
    return X


def _of_tensor(x: torch.Tensor) -> NDArray[Any]:
    """On the CPU, in a type that NumPy has."""
    x = x.detach()
    x = x.to_dense() if x.layout != torch.strided else x
    return x.to("cpu", torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype).numpy()


def _chunks(source: Any) -> Iterator[Any]:
    """Batches in the order of the data set; of a loader as it collates them."""
    alone = torch.Generator()  # a loader draws a seed, if need be from torch's global generator
    if not isinstance(source, DataLoader):
        return iter(DataLoader(source, BLOCK, generator=alone))
    workers, collate = source.num_workers, source.collate_fn
    size = source.batch_size or BLOCK
    return iter(DataLoader(source.dataset, size, num_workers=workers, collate_fn=collate, generator=alone))


def _stacked(chunks: Iterable[Any]) -> NDArray[Any]:
    """Chunks [n D], or [n ...] flattened, or pairs of them and something else, below each other."""
    parts = []
    for chunk in chunks:
        part = _of_chunk(chunk)
        parts.append(part.reshape(len(part), -1))
    if not parts:
        raise ValueError("Expected rows, got a data set without any. Try another.")
    if len({part.shape[1] for part in parts}) > 1:
        found = sorted({part.shape[1] for part in parts})
        raise ValueError(f"Expected chunks of one number of columns, got {found}. Look for a chunk that is cut.")
    return np.concatenate(parts)


def _of_chunk(chunk: Any) -> NDArray[Any]:
    if isinstance(chunk, dict):
        raise TypeError(f"Expected rows or pairs (rows, labels), got a dict of {', '.join(map(str, chunk))}.")
    is_pair = isinstance(chunk, (tuple, list)) and len(chunk) > 0 and isinstance(chunk[0], (torch.Tensor, np.ndarray))
    rows = chunk[0] if is_pair else chunk
    return np.asarray(as_rows(rows))


def _is_on_disk(X: Any) -> bool:
    """Whether X is an array that reads what is asked of it from a file: zarr, HDF5."""
    named = all(hasattr(X, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
    return named and not isinstance(X, np.ndarray) and not hasattr(X, "dask")


def _mapped(X: Any) -> NDArray[Any]:
    """The rows in floats: in memory where they are few, else in a map of a file."""
    kind = np.float32 if X.dtype.itemsize <= 2 or X.dtype == np.float32 else np.float64
    shape = (X.shape[0], int(np.prod(X.shape[1:])))
    is_small = np.dtype(kind).itemsize * shape[0] * shape[1] <= SMALL
    rows = np.empty(shape, kind) if is_small else temporary_map(shape, kind)
    for start in range(0, shape[0], BLOCK):
        rows[start : start + BLOCK] = np.asarray(X[start : start + BLOCK]).reshape(-1, shape[1])
    return rows


def temporary_map(shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """A map of a file without a name, which is gone when nobody holds the map."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)
