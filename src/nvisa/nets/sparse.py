"""Sparse rows: kept as they are, and dense for a batch at a time, so that 100,000 rows of 20,000 columns fit in memory.

What distances, graphs and simple clusterings see of them is a projection on the leading axes of all rows
(:func:`leading_axes`): the singular vectors, as in latent semantic analysis (Deerwester et al. 1990).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from sklearn.utils.extmath import randomized_svd

from nvisa.maths.shapes import Float, Tensor

__all__ = ["SparseRows", "leading_axes"]

N_AXES = 50
AXES_ROWS = 100_000  # that they are found in
BATCH_BYTES = 2**25  # of a dense block


class SparseRows:
    """Rows of a sparse matrix [N D] with the length, shape and indexing of an array; what is taken out is dense."""

    ndim = 2

    def __init__(self, csr: Any) -> None:
        self.csr = csr_array(csr)
        self.shape: tuple[int, int] = self.csr.shape
        self.dtype: np.dtype[Any] = self.csr.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer] | slice) -> NDArray[Any]:
        return self.dense(rows, self.dtype)

    def dense(self, rows: NDArray[np.integer] | slice, dtype: Any) -> NDArray[Any]:
        """These rows as an array of this type."""
        return self.csr[rows].astype(dtype or self.dtype, copy=False).toarray()

    def part(self, rows: NDArray[np.integer]) -> "SparseRows":
        """These rows, sparse."""
        return SparseRows(self.csr[rows])

    @property
    def block_rows(self) -> int:
        """Rows of a dense block that memory is no question for."""
        return max(1, BATCH_BYTES // (8 * self.shape[1]))

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each column [D], in float64, without a dense row."""
        n, values = len(self), self.csr.data.astype(np.float64)
        total, squares = (np.bincount(self.csr.indices, v, self.shape[1]) for v in (values, values**2))
        mean = total / n
        return mean, np.sqrt(np.maximum(squares / n - mean**2, 0.0))

    def contents(self) -> Iterator[NDArray[Any]]:
        """What makes two of them equal: the arrays behind them, in an order that is one for all."""
        self.csr.sum_duplicates()
        yield from (self.csr.indptr.astype(np.int64), self.csr.indices.astype(np.int64), self.csr.data)


def leading_axes(X: SparseRows, scale: Float[Tensor, " D"], rng: RandomState) -> Float[Tensor, "D C"] | None:
    """The 50 leading right singular vectors of ``X / scale``; None where there are no more columns than that."""
    if X.shape[1] <= N_AXES:
        return None
    rows = np.sort(rng.permutation(len(X))[:AXES_ROWS])
    scaled = X.csr[rows].astype(np.float32) @ diags_array(1.0 / scale.numpy().astype(np.float32))
    n_axes = min(N_AXES, len(rows))
    return torch.from_numpy(np.ascontiguousarray(randomized_svd(scaled, n_axes, random_state=rng)[2].T))
