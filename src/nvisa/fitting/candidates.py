"""A first clustering of some rows, chosen without labels among the simplest ones that the rows allow.

1. k-means, in the leading principal components.
2. Micro-clusters of the neighbor graph's layout, merged. Where the graph has just K groups (:func:`relative_gap`), by
   the normalized cut: whatever the sizes, the groups are *clear*. Else by neighbor information, which of many possible
   merges prefers those that leave clusters of similar size.
3. A Gaussian mixture that goes on from there, where it explains held-out rows as well as richer mixtures do.

The graph's clusters replace those of k-means only where they are better by what they were merged by: clear ones on the
same graph, others on the graph of rows that they were not found in (:func:`held_out_information`), for merges fit the
noise of their own graph. Of few rows they do only where they are clear. No function here sees a label or a network.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

from nvisa.fitting.graph import degree, informative_merges, joint_of_labels, mutual_information, nearest
from nvisa.fitting.layout import neighbor_layout
from nvisa.fitting.normalized_cut import cut_curve, merge_by_cut, normalized_cut, refine_by_cut, relative_gap
from nvisa.maths import mixtures

__all__ = [
    "Candidate",
    "best_candidate",
    "explaining_mixture",
    "graph_clusters",
    "graph_generalizes",
    "held_out_density",
    "held_out_information",
    "votes",
]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]

CLEAR = 0.6  # relative gap below which the graph has just K groups
LESS = 0.9  # of k-means' cut: what clear groups of the graph must stay below
FEW = 20  # rows for each cluster: of fewer, what the graph leaves open is not learned either
PER_CLUSTER = 10  # micro-clusters
N_CUTS = 3
FOLDS = 3
HELD_OUT_ROWS = 5_000  # in two halves
TEST_ROWS = 2_000  # that a mixture is held against
SLACK = 0.02  # nats a row: held-out densities are not known better


@dataclass
class Candidate:
    """A clustering of some rows.

    Parameters
    ----------
    proba
        q(y|x) of the rows [n K].
    kind
        "kmeans", "graph" or "mixture", or the "labels" or "pairs" that somebody has given.
    is_clear
        The rows leave no doubt, or are too few to settle one: training teaches it to the networks, and does not redraw
        it.
    gap
        :func:`relative_gap`.
    cuts
        The normalized cut per cluster of every clustering looked at.
    """

    proba: Array
    kind: str
    is_clear: bool
    gap: float | None
    cuts: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """What a fitted clusterer keeps of it."""
        return {"kind": self.kind, "is_clear": self.is_clear, "gap": self.gap, "cut": self.cuts}


def best_candidate(x: Array, points: Array, graph: Rows, n_clusters: int, rng: RandomState) -> Candidate:
    """The clustering of the rows ``x`` [n C] (principal components) that training starts from.

    ``graph`` holds the neighbors of each row [n k], ``points`` the layout of the graph.
    """
    simple = np.eye(n_clusters, dtype=np.float32)[kmeans(x, n_clusters, rng, n_init=10 if len(x) <= 5_000 else 2)]
    merged, gap = graph_clusters(points, graph, n_clusters, rng)
    is_clear = gap < CLEAR
    cuts = {"kmeans": _cut(simple.argmax(1), graph, n_clusters), "graph": _cut(merged.argmax(1), graph, n_clusters)}
    is_few = not is_clear and len(x) < FEW * n_clusters
    if is_clear:
        is_better = cuts["graph"] < LESS * cuts["kmeans"]
    else:
        is_better = not is_few and graph_generalizes(x, n_clusters, rng)
    kind, is_clear = "graph" if is_better else "kmeans", is_clear or is_few
    proba = merged if kind == "graph" else simple
    labels = proba.argmax(1)
    if (explained := explaining_mixture(x, labels, n_clusters, rng)) is not None:
        proba, kind, is_clear = explained, "mixture", True
        cuts["mixture"] = _cut(proba.argmax(1), graph, n_clusters)
    return Candidate(proba, kind, is_clear, gap, cuts)


def _cut(labels: Rows, graph: Rows, n_clusters: int) -> float:
    return normalized_cut(joint_of_labels(labels, graph, n_clusters)) / n_clusters


def kmeans(x: Array, n_clusters: int, rng: RandomState, *, n_init: int = 10) -> Rows:
    """Labels of the tightest of some k-means++ starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        return KMeans(n_clusters, n_init=n_init, random_state=rng).fit(x).labels_


def graph_clusters(points: Array, graph: Rows, n_clusters: int, rng: RandomState) -> tuple[Array, float]:
    """Clusters of the neighbor graph [n K], and its relative gap at K, which decides how they are merged."""
    n_micro = min(max(PER_CLUSTER * n_clusters, 50), max(n_clusters, len(points) // 5))
    cuts = [kmeans(points, n_micro, rng, n_init=1) for _ in range(N_CUTS)]
    joints = [joint_of_labels(cut, graph, n_micro) for cut in cuts]
    gap = relative_gap(np.mean([cut_curve(joint) for joint in joints], 0), n_clusters)
    if gap >= CLEAR:
        rounds = N_CUTS if n_clusters <= 30 else 1
        found = [part for _ in range(rounds) for part in informative_merges(points, graph, n_clusters, rng)]
        return votes(found, n_clusters), gap
    merged = (merge_by_cut(joint, n_clusters)[cut] for joint, cut in zip(joints, cuts, strict=True))
    refined = [refine_by_cut(labels, graph, n_clusters) for labels in merged]
    best = min(refined, key=lambda labels: _cut(labels, graph, n_clusters))
    return np.eye(n_clusters, dtype=np.float32)[best], gap


def graph_generalizes(x: Array, n_clusters: int, rng: RandomState) -> bool:
    """Whether merged micro-clusters tell more of the neighbors of new rows than clusters of k-means do."""
    rows = rng.permutation(len(x))[:HELD_OUT_ROWS]
    halves = x[rows[::2]], x[rows[1::2]]

    def merged(part: Array) -> Rows:
        graph, points = neighbor_layout(part, rng)
        return votes(list(informative_merges(points, graph, n_clusters, rng)), n_clusters).argmax(1)

    told = held_out_information(*halves, merged, n_clusters)
    return told > held_out_information(*halves, lambda part: kmeans(part, n_clusters, rng), n_clusters)


def held_out_information(x: Array, new: Array, cluster: Callable[[Array], Rows], n_clusters: int) -> float:
    """Neighbor information among ``new`` rows of the clusters found in the rows ``x``, in nats; the mean of both ways.

    A new row gets the cluster of most of its ten nearest rows in x. Clusters that follow the noise of the graph which
    they were found in have less of it than their own graph says.
    """
    total = 0.0
    for train, test in ((x, new), (new, x)):
        labels = KNeighborsClassifier(min(10, len(train))).fit(train, cluster(train)).predict(test)
        total += mutual_information(joint_of_labels(labels, nearest(test, degree(len(test)))[0], n_clusters))
    return total / 2


def votes(partitions: Sequence[Rows], n_clusters: int) -> Array:
    """The share of the partitions that put a row into a cluster [n K], once each names its clusters as the medoid does.

    The medoid is the partition that agrees most with the others (adjusted Rand index); names are matched so that the
    most rows agree. Where partitions differ, training finds the border open.

    Source: cluster ensembles, Strehl and Ghosh, JMLR 2002.
    """
    agreement = [sum(adjusted_rand_score(a, b) for b in partitions) for a in partitions]
    medoid, shares = partitions[int(np.argmax(agreement))], np.zeros((len(partitions[0]), n_clusters), np.float32)
    for labels in partitions:
        both = np.bincount(labels * n_clusters + medoid, minlength=n_clusters**2).reshape(n_clusters, n_clusters)
        names = linear_sum_assignment(-both)[1]
        shares[np.arange(len(labels)), names[labels]] += 1 / len(partitions)
    return shares


def explaining_mixture(x: Array, labels: Rows, n_clusters: int, rng: RandomState) -> Array | None:
    """Responsibilities [n K] of the full Gaussian mixture that EM finds from ``labels``, if it explains the rows.

    It does where each cluster has as many rows as its Gaussian has parameters (of 2,000), EM leaves four rows of five
    in their cluster, and neither one Gaussian nor two or four times as many have a higher density on held-out rows.
    """
    n, d = x.shape
    some = np.sort(rng.permutation(n)[:TEST_ROWS])
    if np.bincount(labels[some], minlength=n_clusters).min() < d * (d + 3) / 2:
        return None
    folds = rng.randint(FOLDS, size=len(some))
    own = held_out_density(x[some], labels[some], n_clusters, folds, rng)
    for k in (1, 2 * n_clusters, 4 * n_clusters):
        if 2 * k <= len(some) and held_out_density(x[some], None, k, folds, rng) > own + SLACK:
            return None
    z = torch.from_numpy(x.astype(np.float64))
    found = mixtures.em(z - z.mean(0), np.eye(n_clusters)[labels], "full")[1:]
    proba = mixtures.responsibilities(z - z.mean(0), *found).numpy().astype(np.float32)
    return proba if (proba.argmax(1) == labels).mean() >= 0.8 else None


def held_out_density(x: Array, labels: Rows | None, k: int, folds: Rows, rng: RandomState) -> float:
    """Mean ``log p(x)`` under mixtures of k full Gaussians that saw the other folds, by EM from labels or k-means."""
    total = 0.0
    for fold in np.unique(folds):
        held_out = folds == fold
        start = kmeans(x[~held_out], k, rng, n_init=1) if labels is None else labels[~held_out]
        train, test = (torch.from_numpy(x[rows].astype(np.float64)) for rows in (~held_out, held_out))
        found = mixtures.em(train - train.mean(0), np.eye(k)[start], "full")[1:]
        total += float(mixtures.log_density(test - train.mean(0), *found).sum())
    return total / len(x)
