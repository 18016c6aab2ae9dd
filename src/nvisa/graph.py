"""The neighbour graph of a data set: radii in O(N), and clusterings that keep neighbours together.

A leaf on numpy, scipy and scikit-learn. No function here sees a label or a network.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import xlogy
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.extmath import randomized_svd

__all__ = [
    "information_curve",
    "intrinsic_dimension",
    "merge_by_information",
    "mutual_information",
    "nearest",
    "neighbour_information",
    "neighbour_joint",
    "neighbour_radius",
    "neighbours",
    "refine_by_information",
    "separation",
]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]


def neighbours(X: Array, k: int) -> Rows:
    """Row numbers of the k nearest other rows of each row [N k], exact; meant for at most 1e5 rows."""
    return nearest(X, k)[0]


def nearest(X: Array, k: int) -> tuple[Rows, Array]:
    """The k nearest other rows of each row [N k], nearest first, and their distances; exact."""
    distances, rows = NearestNeighbors(n_neighbors=min(k, len(X) - 1)).fit(X).kneighbors()
    return rows, distances


def intrinsic_dimension(distances: Array) -> float:
    """Levina and Bickel's maximum likelihood dimension from sorted neighbour distances [N k].

    ``1 / d = mean_i mean_{j<k} log( T_k(x_i) / T_j(x_i) )`` (NIPS 2004, eq. 8, with MacKay and
    Ghahramani's average of the inverses).
    """
    tiny = np.finfo(distances.dtype).tiny
    ratios = np.log(np.maximum(distances[:, -1:], tiny) / np.maximum(distances[:, :-1], tiny))
    inverse = np.median(ratios.mean(1)) if ratios.size else 0.0  # the median: duplicates would rule a mean
    return float(1.0 / max(inverse, 1e-3))


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


def neighbour_radius(
    X: Any, rng: np.random.RandomState, *, k: int = 10, n_reference: int = 4000, n_components: int = 50
) -> Array:
    """Distance from every row to its k-th nearest other row [N] in the leading principal components, in O(N).

    A little noise in each of a thousand columns puts all rows equally far apart (of CIFAR-10's features the median 10th
    neighbour is at 34, the rows' norm at 36), and no single direction is that long. The leading components
    leave the noise out. With D at most ``n_components`` columns they are the rows themselves.

    The neighbours are looked for among ``n_reference`` random rows R only. In d intrinsic dimensions the
    distance to the k-th of n points grows as ``(k / n)^(1/d)``, so the distance within R is multiplied by
    ``(|R| / N)^(1/d)``, with d estimated from the same distances. Exact when ``N <= n_reference``.

    X needs ``len`` and indexing by rows only, so that it may be a memory map or rescale as it is read.
    """
    n = len(X)
    chosen = np.sort(rng.permutation(n)[:n_reference])
    k = min(k, len(chosen) - 1)
    reference = X[chosen]
    axes = _leading_axes(reference, n_components, rng) if reference.shape[1] > n_components else None
    reference = reference if axes is None else reference @ axes
    if len(chosen) == n:
        return nearest(reference, k)[1][:, -1]
    parts = (X[start : start + 4096] for start in range(0, n, 4096))
    distances = np.concatenate([_distances(x if axes is None else x @ axes, reference, k + 1) for x in parts])
    # A row of R finds itself first, at distance zero; the others drop their last neighbour.
    own = np.isin(np.arange(n), chosen, assume_unique=True)
    distances = np.where(own[:, None], distances[:, 1:], distances[:, :-1])
    shrink = (len(chosen) / n) ** (1.0 / intrinsic_dimension(distances))
    return distances[:, -1] * shrink


def neighbour_joint(proba: Array, neighbour_rows: Rows) -> Array:
    """``P[a, b]``: probability that a random row is in a and a random neighbour of it in b, made symmetric.

    Parameters
    ----------
    proba
        q(y|x), or one-hot labels [N K].
    neighbour_rows
        Neighbours of each row [N k], as :func:`neighbours` returns them.
    """
    joint = sum(proba.T @ proba[column] for column in neighbour_rows.T)
    joint = joint + joint.T
    return joint / joint.sum()


def mutual_information(joint: Array) -> float:
    """``I = sum_ab P[a,b] log P[a,b] - 2 sum_a P[a] log P[a]`` of a symmetric joint distribution, in nats."""
    marginal = joint.sum(1)
    return float(xlogy(joint, joint).sum() - 2.0 * xlogy(marginal, marginal).sum())


def neighbour_information(proba: Array, neighbour_rows: Rows) -> float:
    """Mutual information of the clusters of two neighbours, in nats: how good an assignment is, label-free.

    At most log K, reached when the clusters are equally large and no edge of the graph leaves its
    cluster. A merge of two real groups costs it balance, a cut through one costs it edges.
    """
    return mutual_information(neighbour_joint(proba, neighbour_rows))


def _merge_gains(joint: Array) -> Array:
    """Change of the mutual information when clusters a and b become one, for every pair [K K]."""
    f, r, d = xlogy(joint, joint), joint.sum(1), np.diag(joint)
    fr, fd = xlogy(r, r), np.diag(f)
    summed = xlogy(joint[:, None] + joint[None], joint[:, None] + joint[None]).sum(-1)  # over all columns
    corner = xlogy(d[:, None] + joint, d[:, None] + joint)  # columns a and b are not plain sums
    rest = f.sum(1) - fd
    outside = summed - corner - corner.T - (rest[:, None] + rest[None] - 2.0 * f)
    inside_joint = d[:, None] + d[None] + 2.0 * joint
    inside = xlogy(inside_joint, inside_joint) - fd[:, None] - fd[None] - 2.0 * f
    r_sum = r[:, None] + r[None]
    gains = 2.0 * outside + inside - 2.0 * (xlogy(r_sum, r_sum) - fr[:, None] - fr[None])
    np.fill_diagonal(gains, -np.inf)
    return gains


def merge_by_information(joint: Array, n_clusters: int) -> Rows:
    """Merge micro-clusters down to ``n_clusters``, each time the pair that loses least information.

    Agglomerative information bottleneck (Slonim & Tishby, NIPS 1999) with a neighbour as the relevant
    variable. Returns the cluster of each micro-cluster.
    """
    group, joint = np.arange(len(joint)), joint.copy()
    while len(joint) > n_clusters:
        joint, a, b = _merged_once(joint)
        group = np.where(group == b, a, group)
        group -= group > b
    return group


def _merged_once(joint: Array) -> tuple[Array, int, int]:
    """The joint distribution after the merge that loses least information, of b into a < b."""
    gains = _merge_gains(joint)
    a, b = sorted(int(i) for i in np.unravel_index(gains.argmax(), gains.shape))
    joint[a] += joint[b]
    joint[:, a] += joint[:, b]
    return np.delete(np.delete(joint, b, 0), b, 1), a, b


def information_curve(joint: Array) -> Array:
    """``I(K)`` for K = 1 .. len(joint) while micro-clusters are merged one pair at a time, in nats.

    One pass gives every K. The curve never falls as K grows, for a merge cannot add information.
    """
    joint, curve = joint.copy(), [mutual_information(joint)]
    while len(joint) > 1:
        joint, _, _ = _merged_once(joint)
        curve.append(mutual_information(joint))
    return np.array(curve[::-1])


def separation(curve: Array) -> Array:
    """How much more the K-th cluster brings than the next one, for K = 2 .. len(curve) - 1.

    ``r(K) = (I(K) - I(K-1)) / log(K / (K-1))``, the share of what a K-th cluster can bring at most, and
    ``separation(K) = r(K) / r(K+1)``: large where the last real border is found. It sees no label.
    """
    k = np.arange(2, len(curve) + 1)
    share = np.diff(curve) / np.log(k / (k - 1))
    return share[:-1] / np.maximum(share[1:], 1e-9)


def refine_by_information(labels: Rows, neighbour_rows: Rows, n_clusters: int, *, n_rounds: int = 30) -> Rows:
    """Move each row where its neighbours point, until the mutual information of neighbours stops growing.

    Row i goes to ``argmax_a sum_b V[i,b] log( P[a,b] / (P[a] P[b]) )``, with ``V[i,b]`` the number of its
    neighbours (either way) in b: the derivative of the information in the row's own assignment.
    """
    n, k = neighbour_rows.shape
    edges = csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), neighbour_rows.ravel())), shape=(n, n))
    edges = edges + edges.T
    best, best_score = labels, -np.inf
    for _ in range(n_rounds):
        one_hot = np.eye(n_clusters)[labels]
        votes = edges @ one_hot
        joint = one_hot.T @ votes
        joint /= joint.sum()
        if (score := mutual_information(joint)) <= best_score:
            break
        best, best_score = labels, score
        r = joint.sum(1)
        labels = (votes @ np.log((joint + 1e-9) / (np.outer(r, r) + 1e-18)).T).argmax(1)
    return best
