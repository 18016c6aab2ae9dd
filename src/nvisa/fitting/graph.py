"""The neighbor graph of a data set: radii in O(N), and clusterings that keep neighbors together.

On numpy, scipy and scikit-learn. No function here sees a label or a network.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import xlogy
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.extmath import randomized_svd

__all__ = [
    "information_curve",
    "informative_merges",
    "intrinsic_dimension",
    "joint_of_labels",
    "merge_by_information",
    "merged_microclusters",
    "mutual_information",
    "nearest",
    "neighbor_information",
    "neighbor_joint",
    "neighbor_radius",
    "neighbors",
    "principal_components",
    "refine_by_information",
    "separation",
    "symmetric_edges",
]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]


def neighbors(X: Array, k: int) -> Rows:
    """Row numbers of the k nearest other rows of each row [N k], exact; meant for at most 1e5 rows."""
    return nearest(X, k)[0]


def nearest(X: Array, k: int) -> tuple[Rows, Array]:
    """The k nearest other rows of each row [N k], nearest first, and their distances; exact."""
    distances, rows = NearestNeighbors(n_neighbors=min(k, len(X) - 1)).fit(X).kneighbors()
    return rows, distances


def degree(n_rows: int) -> int:
    """How many neighbors of a row the graph of this many rows has: 10, of fewer than 100 rows a tenth of them.

    A group with fewer rows than that has most of its neighbors elsewhere, and no border of it is cheap.

    Examples
    --------
    >>> degree(1000), degree(68), degree(12)
    (10, 6, 3)
    """
    return min(10, max(3, n_rows // 10))


def intrinsic_dimension(distances: Array) -> float:
    """Levina and Bickel's maximum likelihood dimension from sorted neighbor distances [N k].

    ``1 / d = median_i mean_{j<k} log( T_k(x_i) / T_j(x_i) )`` (NIPS 2004, eq. 8, the inverses averaged as MacKay and
    Ghahramani propose, by the median: duplicates would rule a mean).
    """
    return _median_dimension(_inverse_dimensions(distances))


def _inverse_dimensions(distances: Array) -> Array:
    """``mean_{j<k} log( T_k(x_i) / T_j(x_i) )`` of each row [N]; none of a single neighbor."""
    tiny = np.finfo(distances.dtype).tiny
    with np.errstate(over="ignore"):  # beside a duplicate's distance it is infinite, which a median can bear
        ratios = np.log(np.maximum(distances[:, -1:], tiny) / np.maximum(distances[:, :-1], tiny))
    return ratios.mean(1) if ratios.size else ratios.ravel()


def _median_dimension(inverse: Array) -> float:
    return float(1.0 / max(np.median(inverse) if inverse.size else 0.0, 1e-3))


def _distances(x: Array, reference: Array, k: int) -> Array:
    """From each row to its k nearest reference rows, sorted [n k]: ``||x||^2 - 2 x . r + ||r||^2``, in x's precision.

    The cancellation costs float32 about 1e-6 of the squared norms, which no radius feels; scikit-learn's own search
    multiplies in float64, at half the speed.
    """
    squared = x @ (-2.0 * reference.T)
    squared += np.einsum("nd,nd->n", reference, reference)
    squared.partition(k - 1, axis=1)
    squared = np.sort(squared[:, :k], axis=1) + np.einsum("nd,nd->n", x, x)[:, None]
    return np.sqrt(np.maximum(squared, 0.0))


def _leading_axes(X: Array, n_components: int, rng: np.random.RandomState) -> Array:
    """Orthonormal axes of the largest principal components [D C]; all there are when they are fewer."""
    n_components = min(n_components, *X.shape)
    return randomized_svd(X - X.mean(0), n_components, random_state=rng)[2].T.astype(X.dtype)


def neighbor_radius(
    X: Any, rng: np.random.RandomState, *, k: int = 10, n_reference: int = 4000, n_components: int = 50
) -> Array:
    """Distance from every row to its k-th nearest other row [N] in the leading principal components, in O(N).

    A little noise in each of a thousand columns puts all rows equally far apart (of CIFAR-10's features the median 10th
    neighbor is at 34, the rows' norm at 36), and no single direction is that long. The leading components
    leave the noise out. With D at most ``n_components`` columns they are the rows themselves.

    The neighbors are looked for among ``n_reference`` random rows R only. In d intrinsic dimensions the
    distance to the k-th of n points grows as ``(k / n)^(1/d)``, so the distance within R is multiplied by
    ``(|R| / N)^(1/d)``, with d estimated from the same distances. Exact when ``N <= n_reference``.

    X needs ``len`` and indexing by rows only: it may be a memory map, or rows that are rescaled as they are read.
    """
    n = len(X)
    chosen = np.sort(rng.permutation(n)[:n_reference])
    k = min(k, len(chosen) - 1)
    reference = X[chosen]
    axes = _leading_axes(reference, n_components, rng) if reference.shape[1] > n_components else None
    reference = reference if axes is None else reference @ axes
    if len(chosen) == n:
        return nearest(reference, k)[1][:, -1]
    own = np.zeros(n, dtype=bool)
    own[chosen] = True
    radius, inverse = [], []  # numbers of a row, not its k distances: of millions of rows these are much
    for start in range(0, n, 4096):
        x = X[start : start + 4096]
        distances = _distances(x if axes is None else x @ axes, reference, k + 1)
        # A row of R finds itself first, at distance zero; the others drop their last neighbor.
        distances = np.where(own[start : start + 4096, None], distances[:, 1:], distances[:, :-1])
        radius.append(distances[:, -1])
        inverse.append(_inverse_dimensions(distances))
    shrink = (len(chosen) / n) ** (1.0 / _median_dimension(np.concatenate(inverse)))
    return np.concatenate(radius) * shrink


def neighbor_joint(proba: Array, neighbor_rows: Rows) -> Array:
    """``P[a, b]``: probability that a random row is in a and a random neighbor of it in b, made symmetric.

    Parameters
    ----------
    proba
        q(y|x), or one-hot labels [N K].
    neighbor_rows
        Neighbors of each row [N k], as :func:`neighbors` returns them.
    """
    joint = sum(proba.T @ proba[column] for column in neighbor_rows.T)
    joint = joint + joint.T
    return joint / joint.sum()


def joint_of_labels(labels: Rows, neighbor_rows: Rows, n_clusters: int) -> Array:
    """:func:`neighbor_joint` of hard labels [N], by counting: K may be thousands."""
    pairs = labels[:, None] * n_clusters + labels[neighbor_rows]
    joint = np.bincount(pairs.ravel(), minlength=n_clusters**2).reshape(n_clusters, n_clusters)
    joint = joint + joint.T
    return joint / joint.sum()


def mutual_information(joint: Array) -> float:
    """``I = sum_ab P[a,b] log P[a,b] - 2 sum_a P[a] log P[a]`` of a symmetric joint distribution, in nats."""
    marginal = joint.sum(1)
    return float(xlogy(joint, joint).sum() - 2.0 * xlogy(marginal, marginal).sum())


def neighbor_information(proba: Array, neighbor_rows: Rows) -> float:
    """Mutual information of the clusters of two neighbors, in nats: how good an assignment is, label-free.

    At most log K, reached when the clusters are equally large and no edge of the graph leaves its
    cluster. A merge of two real groups costs it balance, a cut through one costs it edges.
    """
    return mutual_information(neighbor_joint(proba, neighbor_rows))


def _interaction(x: Array, y: Array) -> Array:
    """``f(x + y) - f(x) - f(y)`` with ``f(x) = x log x``: zero unless both are positive."""
    return xlogy(x + y, x + y) - xlogy(x, x) - xlogy(y, y)


def _merge_gains(joint: Array, shared: Array, rows: Rows, columns: Rows) -> Array:
    """Change of the mutual information when clusters a and b become one, for a in ``rows`` and b in ``columns``."""
    diagonal, r, block = np.diag(joint), joint.sum(1), np.ix_(rows, columns)
    d_a, d_b, p = diagonal[rows][:, None], diagonal[columns][None], joint[block]
    outside = shared[block] - _interaction(d_a, p) - _interaction(p, d_b)  # columns a and b are not plain sums
    both = d_a + d_b + 2.0 * p
    inside = xlogy(both, both) - xlogy(d_a, d_a) - xlogy(d_b, d_b) - 2.0 * xlogy(p, p)
    gains = 2.0 * outside + inside - 2.0 * _interaction(r[rows][:, None], r[columns][None])
    return np.where(rows[:, None] == columns, -np.inf, gains)


def _add_shared(shared: Array, column: Array, rows: Rows, sign: float = 1.0) -> None:
    """Add the interactions of one column of the joint distribution, which only these rows have, in place."""
    shared[np.ix_(rows, rows)] += sign * _interaction(column[rows][:, None], column[rows][None])


def _merges(joint: Array) -> Iterator[tuple[int, int, float]]:
    """Merge clusters, each time the pair that loses least information: a, b (into a < b) and the change in nats.

    ``shared[a, b] = sum_c interaction(P[a, c], P[b, c])`` runs over the neighbors that a and b have in common. A merge
    changes it, and the gains, among the neighbors of the pair alone, so that a thousand micro-clusters, of which
    each has a few dozen neighbors, merge in seconds and in the memory of their joint distribution.
    """
    joint, shared, everyone = joint.copy(), np.zeros_like(joint), np.arange(len(joint))
    for column in joint.T:
        _add_shared(shared, column, np.flatnonzero(column))
    gains = _merge_gains(joint, shared, everyone, everyone)
    for _ in range(len(joint) - 1):
        a, b = sorted(divmod(int(gains.argmax()), len(joint)))
        yield a, b, float(gains[a, b])
        touched = np.flatnonzero(joint[a] + joint[b])
        for gone in (a, b):
            _add_shared(shared, joint[gone], touched, -1.0)
        joint[a] += joint[b]
        joint[:, a] += joint[:, b]
        joint[b] = joint[:, b] = 0.0
        _add_shared(shared, joint[a], touched)
        near = np.flatnonzero(joint[a])
        shared[a] = shared[:, a] = _interaction(joint[a, near], joint[:, near]).sum(1)
        everyone = everyone[everyone != b]
        others = touched[(touched != a) & (touched != b)]
        gains[np.ix_(others, others)] = _merge_gains(joint, shared, others, others)
        gains[a, everyone] = gains[everyone, a] = _merge_gains(joint, shared, np.array([a]), everyone)[0]
        gains[b] = gains[:, b] = -np.inf


def merge_by_information(joint: Array, n_clusters: int) -> Rows:
    """Merge micro-clusters down to ``n_clusters``, each time the pair that loses least information.

    Agglomerative information bottleneck (Slonim & Tishby, NIPS 1999) with a neighbor as the relevant
    variable. Returns the cluster of each micro-cluster.
    """
    group = np.arange(len(joint))
    for a, b, _ in islice(_merges(joint), max(len(joint) - n_clusters, 0)):
        group[group == b] = a
    return np.unique(group, return_inverse=True)[1]


def information_curve(joint: Array) -> Array:
    """``I(K)`` for K = 1 .. len(joint) while micro-clusters are merged one pair at a time, in nats.

    One pass gives every K. The curve never falls as K grows, for a merge cannot add information.
    """
    changes = [change for *_, change in _merges(joint)]
    return (mutual_information(joint) + np.cumsum([0.0, *changes]))[::-1]


def separation(curve: Array) -> Array:
    """How much more the K-th cluster brings than the next one, for K = 2 .. len(curve) - 1.

    ``r(K) = (I(K) - I(K-1)) / log(K / (K-1))``, the share of what a K-th cluster can bring at most, and
    ``separation(K) = r(K) / r(K+1)``: large where the last real border is found. It sees no label.
    """
    k = np.arange(2, len(curve) + 1)
    share = np.diff(curve) / np.log(k / (k - 1))
    return share[:-1] / np.maximum(share[1:], 1e-9)


def symmetric_edges(neighbor_rows: Rows) -> csr_array:
    """Number of edges between two rows, either way [N N]."""
    n, k = neighbor_rows.shape
    edges = csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), neighbor_rows.ravel())), shape=(n, n))
    return edges + edges.T


def refine_by_information(labels: Rows, neighbor_rows: Rows, n_clusters: int, *, n_rounds: int = 30) -> Rows:
    """Move each row where its neighbors point, until the mutual information of neighbors stops growing.

    Row i goes to ``argmax_a sum_b V[i,b] log( P[a,b] / (P[a] P[b]) )``, with ``V[i,b]`` the number of its
    neighbors (either way) in b: the derivative of the information in the row's own assignment.
    """
    edges = symmetric_edges(neighbor_rows)
    best, best_score = labels, -np.inf
    for _ in range(n_rounds):
        one_hot = np.eye(n_clusters)[labels]
        votes = edges @ one_hot
        joint = one_hot.T @ votes
        joint /= joint.sum()
        if (score := mutual_information(joint)) <= best_score:
            break
        best, best_score = labels, score
        expected = np.outer(joint.sum(1), joint.sum(1))
        expected[expected == 0] = 1e-9  # an empty cluster attracts nobody
        labels = (votes @ np.log((joint + 1e-9) / expected).T).argmax(1)
    return best


def principal_components(X: Array, rng: np.random.RandomState, *, overwrite: bool = False) -> Array:
    """The 50 leading principal components: distances among them drop the noise and cost little.

    ``overwrite`` is for rows that nobody needs any more: they are centered where they stand, not copied.
    """
    pca = PCA(min(50, *X.shape), svd_solver="randomized", random_state=rng, copy=not overwrite)
    with np.errstate(invalid="ignore"):  # the explained share of constant rows: 0 / 0, which nobody asks for
        return pca.fit_transform(X)


def informative_merges(
    points: Array, graph: Rows, n_clusters: int, rng: np.random.RandomState, per_cluster: tuple[int, ...] = (3, 5, 10)
) -> Iterator[Rows]:
    """Labels of micro-clusters merged by neighbor information and refined, one partition a fineness of the cut.

    A Gaussian mixture has to draw the borders and to count the groups at once, and merges two real groups
    while it splits a third; here k-means only cuts, and the neighbor graph decides what belongs together.
    """
    for fineness in per_cluster:
        n_micro = min(fineness * n_clusters, max(n_clusters, len(points) // 5))
        micro = KMeans(n_micro, n_init=1, random_state=rng.randint(2**31 - 1)).fit(points).labels_
        group = merge_by_information(joint_of_labels(micro, graph, n_micro), n_clusters)
        yield refine_by_information(group[micro], graph, n_clusters)


def merged_microclusters(
    points: Array,
    graph: Rows,
    n_clusters: int,
    rng: np.random.RandomState,
    *,
    per_cluster: tuple[int, ...] = (3, 5, 10),
) -> tuple[Array, float]:
    """Of :func:`informative_merges` the partition with the largest neighbor information.

    Returns
    -------
    proba : ndarray of shape (n, K)
        One-hot.
    score : float
        Its neighbor information.
    """
    found = [
        np.eye(n_clusters, dtype=np.float32)[part]
        for part in informative_merges(points, graph, n_clusters, rng, per_cluster)
    ]
    scores = [neighbor_information(proba, graph) for proba in found]
    return found[int(np.argmax(scores))], max(scores)
