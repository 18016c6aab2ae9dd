"""How well clusters agree with classes: pure functions of labels, no model here.

    counts[c, k] = #{n : y_true_n = c, y_pred_n = k}
    accuracy     = max over one-to-one matchings m of  sum_k counts[m(k), k] / N      (Hungarian)
    purity       = sum_k max_c counts[c, k] / N
    nmi          = I(C; K) / mean(H(C), H(K))
    ari          = (Rand index - its expectation) / (its maximum - its expectation)

Axes: N examples, C classes, K clusters. Labels may be numbers or strings; only equality matters.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

__all__ = [
    "accuracy",
    "ari",
    "calibration_error",
    "contingency",
    "evaluate",
    "match_clusters",
    "matching",
    "nmi",
    "purity",
]

Ints = npt.NDArray[np.integer[Any]]


def accuracy(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """Share of examples right under the best one-to-one matching of clusters to classes.

    With more clusters than classes the clusters left over count as wrong; with fewer, the classes
    left over do. A prediction cannot gain by splitting a class, as it can with `purity`.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (N,)
        Classes and clusters. Invariant to any renaming of either.
    """
    counts = contingency(*_encode_pair(y_true, y_pred))
    return float(counts[matching(counts)].sum() / counts.sum())


def purity(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """Share of examples in the majority class of their cluster (one when every cluster is a single point)."""
    counts = contingency(*_encode_pair(y_true, y_pred))
    return float(counts.max(axis=0).sum() / counts.sum())


def nmi(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1]."""
    return float(normalized_mutual_info_score(*_encode_pair(y_true, y_pred)))


def ari(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """Rand index adjusted for chance: 1 for equal partitions, 0 in the mean for random ones."""
    return float(adjusted_rand_score(*_encode_pair(y_true, y_pred)))


def evaluate(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> dict[str, float]:
    """The four numbers of a record: accuracy, purity, nmi, ari.

    Examples
    --------
    >>> evaluate(y_true=["cat", "cat", "dog"], y_pred=[1, 1, 0])
    {'accuracy': 1.0, 'purity': 1.0, 'nmi': 1.0, 'ari': 1.0}
    """
    c, k = _encode_pair(y_true, y_pred)
    return {"accuracy": accuracy(c, k), "purity": purity(c, k), "nmi": nmi(c, k), "ari": ari(c, k)}


def match_clusters(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> dict[object, object]:
    """The matching behind `accuracy`, as {cluster: class}.

    One to one: with K > C only C clusters appear, with K < C every cluster does.

    Examples
    --------
    >>> match_clusters(y_true=["cat", "cat", "dog"], y_pred=[1, 1, 0])
    {0: 'dog', 1: 'cat'}
    """
    classes, _ = _encode(y_true, "y_true")
    clusters, _ = _encode(y_pred, "y_pred")
    c, k = matching(contingency(*_encode_pair(y_true, y_pred)))
    by_cluster = np.argsort(k)
    return dict(zip(clusters[k[by_cluster]].tolist(), classes[c[by_cluster]].tolist(), strict=True))


def contingency(c: Ints, k: Ints, n_clusters: int = 0) -> Ints:
    """``counts[c, k]``, rows of class c in cluster k [C K].

    Parameters
    ----------
    c, k : ndarray of shape (N,)
        Numbers of classes and of clusters, from 0.
    n_clusters
        K where the last clusters may have no row; 0: the largest k ends the table.
    """
    n_classes, n_clusters = int(c.max()) + 1, max(int(k.max()) + 1, n_clusters)
    return np.bincount(c * n_clusters + k, minlength=n_classes * n_clusters).reshape(n_classes, n_clusters)


def matching(counts: Ints) -> tuple[Ints, Ints]:
    """The one-to-one pairs (class, cluster) that hold the most rows of ``counts`` [C K], by class (Hungarian)."""
    classes, clusters = linear_sum_assignment(counts, maximize=True)
    return classes, clusters


def calibration_error(y_true: npt.ArrayLike, proba: npt.ArrayLike, *, n_bins: int = 15) -> float:
    """Expected calibration error of the clusters, each read as its Hungarian-matched class.

    ``ECE = sum_b |B_b| / N * |accuracy(B_b) - confidence(B_b)|``, where the confidence of an example is
    max_k q(y=k|x) and B_b holds those in the b-th of `n_bins` equal parts of [0, 1], closed above.

    Parameters
    ----------
    y_true : array-like of shape (N,)
    proba : array-like of shape (N, K)
        Rows sum to one, as `predict_proba` returns them.
    n_bins : int
    """
    q = _check_proba(proba)
    if n_bins < 1:
        raise ValueError(f"n_bins: expected at least 1, got {n_bins}. Try the default, 15.")
    c, k = _encode_pair(y_true, q.argmax(axis=1))
    confidence = q.max(axis=1)
    b = np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    gap = np.bincount(b, weights=_is_matched(c, k) - confidence)
    return float(np.abs(gap).sum() / len(q))


def _is_matched(c: Ints, k: Ints) -> npt.NDArray[np.float64]:
    """1 where the cluster's matched class is the true one, else 0. [N]"""
    counts = contingency(c, k)
    class_of = np.full(counts.shape[1], -1)
    rows, columns = matching(counts)
    class_of[columns] = rows
    return (class_of[k] == c).astype(np.float64)


def _encode_pair(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[Ints, Ints]:
    """Both as integers 0..C-1 and 0..K-1 without gaps."""
    c, k = _encode(y_true, "y_true")[1], _encode(y_pred, "y_pred")[1]
    if len(c) != len(k):
        raise ValueError(
            f"y_true and y_pred: expected one label per example in both, got {len(c)} and {len(k)}. "
            "Try passing the labels of the rows that were predicted."
        )
    return c, k


def _encode(y: npt.ArrayLike, name: str) -> tuple[np.ndarray, Ints]:
    """(distinct labels, index of each example's label)."""
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            f"{name}: expected a non-empty vector of labels, shape (N,), got shape {labels.shape}. "
            "For probabilities, try proba.argmax(axis=1)."
        )
    try:
        distinct, index = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"{name}: expected labels of one type, got a mixture ({error}). Try str.") from error
    if distinct.dtype.kind == "f" and np.isnan(distinct).any():
        raise ValueError(f"{name}: expected a label for every example, got NaN. Try dropping those rows.")
    return distinct, index


def _check_proba(proba: npt.ArrayLike) -> npt.NDArray[np.float64]:
    q = np.asarray(proba, dtype=np.float64)
    if q.ndim != 2 or q.size == 0:
        raise ValueError(f"proba: expected shape (N, K), got {q.shape}. Try clusterer.predict_proba(X).")
    # Written so that NaN fails too; 1e-3 leaves room for float16 and for sums in float32.
    if not (q.min() >= 0 and np.abs(q.sum(axis=1) - 1).max() <= 1e-3):
        raise ValueError(
            "proba: expected non-negative rows that sum to one, got entries from "
            f"{q.min():.4g} and sums from {q.sum(axis=1).min():.4g} to {q.sum(axis=1).max():.4g}. "
            "For logits, try a softmax first."
        )
    return q
