"""What a page says about rows and clusters: pure functions of arrays.

Axes: N rows, K clusters, D features, Z latent dimensions, C classes; q = q(y|x) is [N K].
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.special import entr

from nvisa.maths.metrics import matching
from nvisa.nets.rows import blocks

__all__ = [
    "between",
    "confused_pairs",
    "confusion_rate",
    "contrasts",
    "deviations",
    "effective_clusters",
    "matched_order",
    "overlap",
    "scores",
    "traversal",
    "typical",
    "uncertain",
]

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Function: TypeAlias = Callable[[Array], Array]


def effective_clusters(sizes: Ints) -> float:
    """``exp H`` of the clusters' shares: K for equal sizes, 1 when one cluster has all rows."""
    return float(np.exp(entr(sizes / sizes.sum()).sum()))


def typical(z: Array, labels: Ints, n_clusters: int, n: int) -> list[Ints]:
    """For every cluster, its n rows nearest to the mean of its latent vectors, in units of its deviations."""
    found: list[Ints] = []
    for k in range(n_clusters):
        members = np.flatnonzero(labels == k)
        own = z[members]
        scale = own.std(0) if len(own) else np.ones(z.shape[1])
        offset = (own - own.mean(0)) / np.where(scale > 0, scale, 1.0) if len(own) else own
        found.append(members[np.argsort((offset**2).sum(1), kind="stable")[:n]])
    return found


def traversal(z: Array, n: int, reach: float = 2.0) -> Array:
    """``mean + t s v`` for n values t in -reach .. reach [n Z]: along the axis v of these latent vectors' largest
    deviation s; the sign of v is that its largest entry is positive.
    """
    mean = z.mean(0)
    _, lengths, axes = np.linalg.svd(z - mean, full_matrices=False)
    axis = axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])
    return mean + np.linspace(-reach, reach, n)[:, None] * axis * (lengths[0] / len(z) ** 0.5)


def uncertain(q: Array, labels: Ints, n: int) -> list[Ints]:
    """For every cluster, its n rows with the smallest ``max_y q(y|x)``."""
    order = np.argsort(q.max(1), kind="stable")
    return [order[labels[order] == k][:n] for k in range(q.shape[1])]


def overlap(q: Array) -> Array:
    """``S[a,b] = mean_x q(a|x) q(b|x)``: probability that two draws of y for one row are a and b [K K]."""
    q = q.astype(np.float64)
    return q.T @ q / len(q)


def confused_pairs(joint: Array, n: int) -> list[tuple[int, int]]:
    """The n pairs a < b of largest overlap; pairs that no row is between are left out."""
    a, b = np.triu_indices(len(joint), 1)
    order = np.argsort(-joint[a, b], kind="stable")[:n]
    return [(int(a[i]), int(b[i])) for i in order if joint[a[i], b[i]] > 0]


def confusion_rate(joint: Array, a: int, b: int) -> float:
    """``2 S[a,b] / (S[a] + S[b])``: probability that the second draw is the other one if the first is a or b."""
    return float(2.0 * joint[a, b] / (joint[a].sum() + joint[b].sum()))


def between(q: Array, a: int, b: int, n: int) -> Ints:
    """The n rows that add most to the overlap of a and b: largest ``q(a|x) q(b|x)``."""
    return np.argsort(-q[:, a].astype(np.float64) * q[:, b], kind="stable")[:n]


def _blocks(X: Array) -> Iterator[tuple[slice, Array]]:
    """Which rows, and these in float64, a block at a time: X may be a memory map."""
    start = 0
    for block in blocks(X):
        yield slice(start, start + len(block)), block.astype(np.float64)
        start += len(block)


def mean_and_std(X: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of every feature [D], of what is observed; infinite for a constant one, which then
    says nothing.
    """
    n = np.maximum(sum((~np.isnan(x)).sum(0) for _, x in _blocks(X)), 1)
    mean = sum(np.nansum(x, 0) for _, x in _blocks(X)) / n
    variance = sum(np.nansum((x - mean) ** 2, 0) for _, x in _blocks(X)) / n
    std = np.sqrt(variance)
    return mean, np.where(std > 1e-9 * np.abs(mean), std, np.inf)  # the sum of a constant is rounded


def contrasts(X: Array, labels: Ints, n_clusters: int) -> tuple[Array, Array, Array]:
    """What sets each cluster apart from the other rows.

    Returns
    -------
    inside, outside : ndarray of shape (K, D)
        Mean of each feature in the cluster, and in all other rows, of what is observed; NaN where there is nothing.
    contrast : ndarray of shape (K, D)
        ``(inside - outside) / std`` of the feature over all rows; 0 for a constant feature.
    """
    sums, sizes = np.zeros((n_clusters, X.shape[1])), np.zeros((n_clusters, X.shape[1]))
    for rows, x in _blocks(X):
        members = np.eye(n_clusters)[labels[rows]].T
        sums += members @ np.nan_to_num(x)
        sizes += members @ ~np.isnan(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside, outside = sums / sizes, (sums.sum(0) - sums) / (sizes.sum(0) - sizes)
    return inside, outside, np.nan_to_num((inside - outside) / mean_and_std(X)[1])


def deviations(X: Array, rows: Ints) -> Array:
    """``(x - mean) / std`` of the given rows [n D]; 0 for a constant feature, and for a gap."""
    mean, std = mean_and_std(X)
    return np.nan_to_num((np.asarray(X[rows], dtype=np.float64) - mean) / std)


def scores(log_p_x: Function, reconstruct: Function, X: Array, rng: RandomState, limit: int) -> Array:
    """``log p(x)`` of each row [N], NaN where it was not computed.

    Importance sampling decodes many z a row. Beyond ``limit`` rows, nine tenths of them are drawn at random
    and the last tenth are the rows that are reconstructed worst, which is where the anomalies are.
    """
    rows = np.arange(len(X))
    if len(X) > limit:
        at_random = rng.permutation(len(X))[: limit - limit // 10]
        error = _reconstruction_error(reconstruct, X)
        rows = np.union1d(at_random, np.argsort(-error, kind="stable")[: limit // 10])
    found = np.full(len(X), np.nan)
    found[rows] = log_p_x(np.asarray(X[rows]))
    return found


def _reconstruction_error(reconstruct: Function, X: Array) -> Array:
    """``|x - E[x|z]|^2`` with every feature in its own deviation [N]."""
    std = mean_and_std(X)[1]
    return np.concatenate([np.nansum(((x - reconstruct(x)) / std) ** 2, 1) for _, x in _blocks(X)])


def matched_order(counts: Ints) -> Ints:
    """The clusters [K] in the order of their Hungarian-matched classes, so that agreement is the diagonal."""
    _, matched = matching(counts)
    return np.concatenate([matched, np.setdiff1d(np.arange(counts.shape[1]), matched)])
