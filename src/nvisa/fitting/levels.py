"""How many clusters the neighbor graph has, and its clusters at every number of them: a tree of merges, without labels.

    border(K) = cut(K) - cut(K-1)     what the border of the K-th cluster costs, in clusters' lost neighbors
    K*        = 1 + #{ K : border(K) < 1/10 }

Micro-clusters of the graph's layout are merged one pair at a time, each time that whose border costs most of the
normalized cut (:mod:`nvisa.fitting.normalized_cut`), so that costs grow with K. Real borders cost next to nothing,
those through the middle of a group nearly a half. The cut does not know sizes: groups of 1 % count as those of 50 % do.
The limit was set by eye on digits, MNIST and mixtures (benchmarks/levels.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.sparse import issparse

from nvisa.fitting.candidates import kmeans
from nvisa.fitting.graph import joint_of_labels, principal_components
from nvisa.fitting.layout import neighbor_layout
from nvisa.fitting.normalized_cut import cut_curve, cut_merges
from nvisa.nets.conversion import as_rows
from nvisa.nets.rows import Table, count_gaps, numbers, subset
from nvisa.nets.sparse import SparseRows
from nvisa.nets.units import Rescale, Rescaled, feature_view
from nvisa.settings import SettingError

__all__ = ["ClusterLevels", "count_borders", "find_levels", "levels_of", "select_n_clusters"]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]

MAX_ROWS, MAX_CLUSTERS, N_CUTS, PER_CLUSTER = 10_000, 50, 3, 5
CHEAP = 0.1  # a border that a cluster loses a tenth of its neighbors at


@dataclass(eq=False)
class ClusterLevels:
    """The clusters of some rows at every number K of them, each level a merge of two clusters of the next.

    Parameters
    ----------
    n_clusters
        K*, at least 2.
    is_clear
        Whether two clusters have a cheap border at all: rows without clusters have none.
    rows
        Numbers of the rows looked at, at most 10,000 [n].
    cut, border
        The normalized cut per cluster, and what the last border costs, at K = 1, 2, ... (the first border is 0).
    micro, merges
        Micro-cluster of each row, and the pairs (a, b) that are merged, b into a, the first first.
    """

    n_clusters: int
    is_clear: bool
    rows: Rows
    cut: Array
    border: Array
    micro: Rows
    merges: tuple[tuple[int, int], ...]

    def labels(self, n_clusters: int | None = None) -> Rows:
        """The cluster of each of ``rows`` [n] at this level, K* by default; 0 is the largest."""
        k = self.n_clusters if n_clusters is None else n_clusters
        if not 1 <= k <= len(self.cut):
            raise SettingError("n_clusters", f"a whole number in 1..{len(self.cut)}", k)
        group = np.arange(len(self.merges) + 1)
        for a, b in self.merges[: len(group) - k]:
            group[group == b] = a
        found = np.unique(group, return_inverse=True)[1][self.micro]
        order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
        return np.argsort(order)[found]

    def attributes(self) -> dict[str, Any]:
        """What a fitted clusterer keeps of it."""
        labels = np.stack([self.labels(k) for k in range(1, len(self.cut) + 1)]).astype(np.int16)
        return {"cluster_levels_": self.table(), "level_labels_": labels, "level_rows_": self.rows}

    def table(self) -> list[dict[str, Any]]:
        """A record a level: K, the cut per cluster, and the cost of its last border."""
        return [
            {"n_clusters": k, "cut": float(cut), "border": float(border)}
            for k, (cut, border) in enumerate(zip(self.cut, self.border, strict=True), start=1)
        ]


def select_n_clusters(
    X: Any, *, max_clusters: int = MAX_CLUSTERS, scaling: str = "auto", random_state: int | RandomState = 0
) -> ClusterLevels:
    """How many clusters do the rows of X have, and which are they at every number? No network, no label.

    Parameters
    ----------
    X
        Rows [N D], at least 30, NaN where they have gaps, or sparse; of more than 10,000 a random part is looked at.
    max_clusters
        The largest number to consider.
    scaling
        Units, as in :class:`nvisa.Network`.
    random_state
        Of the part, of the layout and of the micro-clusters.

    Returns
    -------
    ClusterLevels
        ``n_clusters``, ``table()`` with the curve, ``labels(k)``.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.RandomState(0)
    >>> X = rng.randn(200, 2) + 20 * np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], [110, 50, 30, 10], axis=0)
    >>> levels = select_n_clusters(X, max_clusters=8)
    >>> levels.n_clusters, np.bincount(levels.labels()).tolist(), len(levels.labels(2))
    (4, [110, 50, 30, 10], 200)
    """
    given = as_rows(X)
    X = SparseRows(given) if issparse(given) else np.asarray(given)
    if X.ndim != 2 or len(X) < 30 or max_clusters < 2:
        raise SettingError("X", "at least 30 rows [N D], with max_clusters of at least 2", (X.shape, max_clusters))
    if any(np.isinf(block).any() for block in numbers(X)):
        raise SettingError("X", "finite numbers, or NaN for gaps", "infinity", "Try NaN in its place.")
    if (count_gaps(X) == len(X)).any():
        raise SettingError("X", "numbers in every column", "gaps only in some", "Leave these columns out.")
    rng = RandomState(random_state) if isinstance(random_state, int) else random_state
    rows = subset(len(X), rng, MAX_ROWS)
    return find_levels(feature_view(X, rows, scaling, rng), rows, max_clusters, rng)


def levels_of(X: Table, rescale: Rescale) -> ClusterLevels:
    """The levels of the checked rows of a fit; the same whatever its seed, for they decide the networks' shapes."""
    rows = subset(len(X), RandomState(0), MAX_ROWS)
    return find_levels(Rescaled(X, rescale)[rows], rows, MAX_CLUSTERS, RandomState(0))


def find_levels(x: Array, rows: Rows, max_clusters: int, rng: RandomState) -> ClusterLevels:
    """The levels of rows in the networks' units ``x`` [n D], whose numbers are ``rows``.

    Of three cuts into micro-clusters the curves are averaged, and the tree is that of the cut which is least at K*.
    """
    points = principal_components(x, rng)
    graph, layout = neighbor_layout(points, rng)
    n_micro = min(max(PER_CLUSTER * max_clusters, 50), len(x) // 5)
    cuts = [kmeans(layout, n_micro, rng, n_init=1) for _ in range(N_CUTS)]
    joints = [joint_of_labels(cut, graph, n_micro) for cut in cuts]
    curves = [cut_curve(joint) for joint in joints]
    k = np.arange(1, min(max_clusters, n_micro) + 1)
    curve = np.mean(curves, 0)[: len(k)]
    border = np.diff(curve, prepend=0.0)
    found = count_borders(border)
    best = int(np.argmin([of[max(found, 2) - 1] for of in curves]))
    merges = tuple((a, b) for a, b, _ in cut_merges(joints[best]))
    return ClusterLevels(max(found, 2), found > 1, rows, curve / k, border, cuts[best], merges)


def count_borders(border: Array) -> int:
    """``1 + #{K : border(K) < 1/10}``, K = 2, 3, ...; ``border[0]`` is that of one cluster, which has none.

    Examples
    --------
    >>> count_borders(np.array([0.0, 0.001, 0.03, 0.35, 0.4]))
    3
    """
    return 1 + int((border[1:] < CHEAP).sum())
