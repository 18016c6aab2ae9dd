"""Predictions of Dask's collections: nothing is computed before somebody asks, and then block by block, anywhere.

An array gives an array of the same chunks of rows; a data frame gives a series or a frame with its index, in columns
``cluster``, ``p0 p1 ...``, ``z0 z1 ...`` or ``score``. A clusterer goes to the workers as it is pickled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import uuid4

import numpy as np

__all__ = ["is_lazy", "lazily", "lazy_of_dask"]

Method = TypeVar("Method", bound=Callable[..., Any])

COLUMNS = {"predict": "cluster", "predict_proba": "p", "transform": "z", "score_samples": "score"}


def is_lazy(X: Any) -> bool:
    """Whether X is Dask's.

    Examples
    --------
    >>> is_lazy([[0.0]])
    False
    """
    return type(X).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(X, "__dask_graph__")


def lazy_of_dask(method: Method) -> Method:
    """A prediction that gives a Dask collection for one, computed later, and is as it was for all other rows."""

    @wraps(method)
    def answer(clusterer: Any, X: Any, **how: Any) -> Any:
        return lazily(clusterer, method.__name__, X, **how) if is_lazy(X) else method(clusterer, X, **how)

    return cast(Method, answer)


def lazily(clusterer: Any, method: str, X: Any, **how: Any) -> Any:
    """``clusterer.method(X, **how)`` of each block of a Dask array or data frame, later."""
    if len(X.shape) != 2:
        raise ValueError(f"X: expected rows [N D], got a Dask collection of {len(X.shape)} axes. Try X[:, None].")
    call = _Call(clusterer, method, how)
    if hasattr(X, "map_partitions"):
        return X.map_partitions(call.of_frame, meta=call.of_frame(X._meta))
    X = X.rechunk({1: -1})
    empty = call.of_rows(np.empty((0, X.shape[1]), X.dtype))
    chunks = (X.chunks[0],) if empty.ndim == 1 else (X.chunks[0], (empty.shape[1],))
    where: dict[str, Any] = {"drop_axis": 1} if empty.ndim == 1 else {}
    return X.map_blocks(call.of_rows, dtype=empty.dtype, meta=empty, chunks=chunks, **where)


@dataclass(frozen=True)
class _Call:
    """A method, to be called for a block of rows."""

    clusterer: Any
    method: str
    how: dict[str, Any]
    token: str = field(default_factory=lambda: uuid4().hex)

    def __dask_tokenize__(self) -> str:
        """Dask's name for it: it cannot hash a clusterer."""
        return self.token

    def of_rows(self, x: Any) -> Any:
        """What the method says of rows, of which there may be none."""
        if len(x):
            return getattr(self.clusterer, self.method)(x, **self.how)
        wide = {"predict_proba": self.clusterer.n_clusters_, "transform": self.clusterer._n_features_out}
        shape = (0, wide[self.method]) if self.method in wide else (0,)
        kind = np.int64 if self.method == "predict" else np.float32 if x.dtype == np.float32 else np.float64
        return np.empty(shape, kind)

    def of_frame(self, frame: Any) -> Any:
        """The same of a pandas data frame, as a series or a frame with its index."""
        import pandas as pd  # noqa: PLC0415  slow, and only here

        narrow = all(kind == np.float32 for kind in frame.dtypes)
        values = self.of_rows(frame if len(frame) else np.empty((0, 1), np.float32 if narrow else np.float64))
        name = COLUMNS[self.method]
        if values.ndim == 1:
            return pd.Series(values, frame.index, name=name)
        return pd.DataFrame(values, frame.index, [f"{name}{k}" for k in range(values.shape[1])])
