"""The normalized cut of the neighbor graph: how many neighbors are lost at the borders, each cluster counting once.

    cut(P) = sum_a ( 1 - P_aa / P_a )         in [0, K]: P_aa / P_a is the chance that a neighbor of a row of a is in a

with ``P`` the joint distribution of the clusters of a random row and of a random neighbor of it
(:func:`nvisa.fitting.graph.neighbor_joint`). The mutual information of the two is bounded by the entropy of the sizes,
and so prefers halves to a group of 2 % that stands alone; the normalized cut does not know sizes.

Sources: Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000; as a random walk: Meila and Shi, AISTATS
2001; moving rows instead of finding eigenvectors: Dhillon, Guan and Kulis, PAMI 2007.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.fitting.graph import symmetric_edges

__all__ = ["cut_curve", "cut_merges", "merge_by_cut", "normalized_cut", "refine_by_cut", "relative_gap"]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]


def _kept(within: Array, size: Array) -> Array:
    """``P_aa / P_a``: the share of its neighbors that a cluster keeps; none if it is empty."""
    return np.divide(within, size, out=np.zeros_like(within), where=size > 0)


def normalized_cut(joint: Array) -> float:
    """``sum_a ( 1 - P_aa / P_a )`` of a symmetric joint distribution [K K]; an empty cluster costs 1.

    Examples
    --------
    >>> import numpy as np
    >>> normalized_cut(np.diag([0.9, 0.1])), normalized_cut(np.full((2, 2), 0.25))
    (0.0, 1.0)
    """
    return float(len(joint) - _kept(np.diag(joint), joint.sum(1)).sum())


def _changes(joint: Array, rows: Rows, columns: Rows) -> Array:
    """What ``sum_a P_aa / P_a`` loses when clusters a and b become one, for a in ``rows`` and b in ``columns``."""
    within, size = np.diag(joint), joint.sum(1)
    kept = _kept(within, size)
    both = within[rows][:, None] + within[columns][None] + 2.0 * joint[np.ix_(rows, columns)]
    losses = kept[rows][:, None] + kept[columns][None] - _kept(both, size[rows][:, None] + size[columns][None])
    return np.where(rows[:, None] == columns, np.inf, losses)


def cut_merges(joint: Array) -> Iterator[tuple[int, int, float]]:
    """Merge clusters, each time the pair whose border costs most: a, b (into a < b), and the normalized cut after it.

    A merge takes ``1 - ( P_aa / P_a + P_bb / P_b - P_uu / P_u )`` from the cut, u their union.
    """
    joint, everyone = joint.copy(), np.arange(len(joint))
    cut, losses = normalized_cut(joint), _changes(joint, everyone, everyone)
    for _ in range(len(joint) - 1):
        a, b = sorted(divmod(int(losses.argmin()), len(joint)))
        cut -= 1.0 - losses[a, b]
        yield a, b, cut
        joint[a] += joint[b]
        joint[:, a] += joint[:, b]
        joint[b] = joint[:, b] = 0.0
        everyone = everyone[everyone != b]
        losses[a, everyone] = losses[everyone, a] = _changes(joint, np.array([a]), everyone)[0]
        losses[b] = losses[:, b] = np.inf


def merge_by_cut(joint: Array, n_clusters: int) -> Rows:
    """The cluster of each micro-cluster when they are merged down to ``n_clusters`` by :func:`cut_merges`."""
    group = np.arange(len(joint))
    for a, b, _ in islice(cut_merges(joint), max(len(joint) - n_clusters, 0)):
        group[group == b] = a
    return np.unique(group, return_inverse=True)[1]


def cut_curve(joint: Array) -> Array:
    """The normalized cut at K = 1 .. len(joint) clusters along :func:`cut_merges`; 0 at K = 1."""
    return np.array([normalized_cut(joint), *(cut for *_, cut in cut_merges(joint))])[::-1]


def relative_gap(curve: Array, n_clusters: int, *, least: float = 0.005) -> float:
    """What the border of the K-th cluster costs, as a share of what that of one more would cost.

    ``( cut(K) - cut(K-1) + least ) / ( cut(K+1) - cut(K) + least )``: near 0 where the graph has just K groups, near 1
    where K is one number among others. ``least`` is what a border of chance edges costs.

    Examples
    --------
    >>> relative_gap(np.array([0.0, 0.01, 0.02, 0.42, 0.82]), 3) < 0.05
    True
    """
    borders = np.diff(curve) + least
    return float(borders[n_clusters - 2] / borders[n_clusters - 1]) if 2 <= n_clusters < len(curve) else 1.0


def refine_by_cut(labels: Rows, neighbor_rows: Rows, n_clusters: int, *, n_rounds: int = 30) -> Rows:
    """Move each row where the normalized cut falls fastest in its own assignment, until it no longer falls.

    Row i with ``V[i,b]`` edges to b, of ``d_i``, goes to ``argmax_a 2 V[i,a] / (d_i P_a) - P_aa / P_a^2``.
    """
    edges = symmetric_edges(neighbor_rows)
    degree = np.asarray(edges.sum(1)).ravel()
    best, least = labels, np.inf
    for _ in range(n_rounds):
        one_hot = np.eye(n_clusters)[labels]
        votes = edges @ one_hot
        joint = one_hot.T @ votes / degree.sum()
        if (cut := normalized_cut(joint)) >= least:
            break
        best, least = labels, cut
        size = np.where(joint.sum(1) > 0, joint.sum(1), 1.0)
        slope = 2.0 * votes / (degree[:, None] * size) - np.diag(joint) / size**2
        slope[:, joint.sum(1) == 0] = -np.inf  # an empty cluster attracts nobody
        labels = slope.argmax(1)
    return best
