"""Clusters that somebody has given: labels of all rows or of some, and pairs that belong together or do not.

A clustering of any origin (HDBSCAN, EVoC, Leiden, a person) becomes the start, and is taught beside the method's own
objective L' from the first step to the last:

    maximize  mean_x L'(x)  +  mean_{x known} log q(y_x | x)
              +  mean_{must}   log sum_k q(k|x) q(k|x')
              +  mean_{cannot} log ( 1 - sum_k q(k|x) q(k|x') )

``sum_k q(k|x) q(k|x')`` is the probability that two rows fall into one cluster, if they are drawn apart. Where all
clusters are given, L' rewards no sizes and no clearness: the labels say both.

Sources: a classifier that also explains x, Kingma et al., "Semi-supervised learning with deep generative models",
NIPS 2014, eq. 9; the likelihood of a pair, Hsu, Lv, Schlosser, Odom and Kira, "Multi-class classification without
multi-class labels", ICLR 2019, eq. 2.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nvisa.fitting.candidates import PER_CLUSTER, Candidate, kmeans
from nvisa.fitting.consistency import frozen_statistics
from nvisa.fitting.graph import joint_of_labels, nearest, principal_components
from nvisa.fitting.initialization import MAX_ROWS, PRETRAINING, Start, distill, pretrain, start_from
from nvisa.fitting.normalized_cut import merge_by_cut
from nvisa.fitting.run import Run
from nvisa.fitting.training import StepOutput, Training
from nvisa.maths.distributions import whole_batch
from nvisa.maths.shapes import Data, Int, LogClusters, PerExample, Tensor
from nvisa.nets.rows import Source, map_blocks, subset
from nvisa.settings import OneOf, SettingError

__all__ = [
    "Given",
    "Labels",
    "Supervised",
    "Supervision",
    "given",
    "log_other_cluster",
    "log_same_cluster",
    "matching",
    "n_supervised",
    "start_from_supervision",
]

Array = NDArray[np.floating]
Record = dict[str, Any]
Rows = NDArray[np.integer]
UNKNOWN = -1
NAMELESS = ("", "-1", "None", "nan", "NaN", "<NA>")  # as strings
DRAWN = 64  # known rows and pairs of every step, where few are known


@dataclass(frozen=True)
class Labels:
    """A constraint: one label for each row, an array or series, or a list of whole numbers."""

    expected: str = "labels of the rows (an array; -1: unknown)"

    def allows(self, value: Any) -> bool:
        """Whether it is that; its length is looked at beside the rows."""
        if isinstance(value, (list, tuple)):
            return len(value) > 0 and all(isinstance(item, (int, np.integer)) for item in value)
        return hasattr(value, "__array__") and np.ndim(value) == 1 and len(value) > 0


@dataclass(frozen=True, eq=False)
class Supervision:
    """What is known of some rows: the setting ``init`` of NVISA, which teaches it beside its objective.

    Parameters
    ----------
    labels
        One a row: whole numbers or strings. -1, None, NaN and the empty string are unknown. None: no row has one.
    must_link, cannot_link
        Pairs of row numbers [P 2] that belong to one cluster, or do not.
    start
        Where rows without a label begin: as NVISA's ``init`` of that name. "labels": they learn from the others alone.

    Examples
    --------
    >>> import numpy as np
    >>> from nvisa import NVISA, Training
    >>> X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> known = Supervision([0, -1, -1, 1, -1, -1], must_link=[(0, 1)], cannot_link=[(2, 5)])
    >>> NVISA(2, init=known, training=Training(epochs=30), random_state=0).fit_predict(X)
    array([0, 0, 0, 1, 1, 1])
    """

    labels: Any = None
    must_link: Any = ()
    cannot_link: Any = ()
    start: Annotated[str, OneOf("auto", "umap", "gmm", "labels")] = "auto"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Supervision) and all(
            np.array_equal(getattr(self, part.name), getattr(other, part.name)) for part in fields(self)
        )

    def __hash__(self) -> int:
        return hash(self.start)  # arrays have none

    @classmethod
    def of(cls, init: Any) -> "Supervision | None":
        """The setting ``init``, if it is one or is labels, by which all rows go; else None."""
        return init if isinstance(init, cls) else cls(init, start="labels") if Labels().allows(init) else None


@dataclass
class Given:
    """A :class:`Supervision` beside its rows: the cluster of each [N], -1 where unknown, and pairs [P 2] of rows.

    ``classes``: what the given labels call the clusters; None if none are given. Clusters beyond are nameless.
    """

    known: Rows
    must: Rows
    cannot: Rows
    classes: NDArray[Any] | None

    @property
    def n_classes(self) -> int:
        """Clusters that the labels name."""
        return 0 if self.classes is None else len(self.classes)


def given(supervision: Supervision, n_rows: int) -> Given:
    """Read and check it: what a must-link ties to a known row is known too.

    Raises
    ------
    SettingError
        If labels are not one a row, or pairs name rows that are not there, or contradict labels or each other.
    """
    known, classes = _clusters(supervision.labels, n_rows)
    must, cannot = (_pairs(name, getattr(supervision, name), n_rows) for name in ("must_link", "cannot_link"))
    if classes is None and not len(must) and not len(cannot):
        raise SettingError("init", "labels or pairs of rows, some of them known", "none")
    tied = coo_array((np.ones(len(must)), (must[:, 0], must[:, 1])), shape=(n_rows, n_rows))
    group = connected_components(tied, directed=False)[1]
    known = _spread(known, group)
    for i, j in cannot:
        if group[i] == group[j] or known[i] == known[j] != UNKNOWN:
            why = "by must_link" if group[i] == group[j] else "by their labels"
            raise SettingError("init.cannot_link", f"pairs that are not together {why}", (int(i), int(j)))
    return Given(known, must, cannot, classes)


def n_supervised(supervision: Supervision, n_rows: int, n_clusters: Any, default: int, counted: int = 2) -> int:
    """How many clusters a fit shall have: those of the labels, if all rows go by them, else ``n_clusters``.

    "auto": as many as are ``counted``, and at least those of the labels.

    Raises
    ------
    SettingError
        If ``n_clusters`` is neither left at its default nor theirs, or less than theirs.
    """
    n_classes = given(supervision, n_rows).n_classes
    if supervision.start != "labels":
        if n_clusters == "auto":
            return max(counted, n_classes)
        if n_clusters < n_classes:
            raise SettingError("n_clusters", f"at least {n_classes}, one for each label", n_clusters)
        return n_clusters
    if n_classes < 2:
        raise SettingError("init", "labels of at least two clusters", n_classes)
    if n_clusters not in (default, n_classes, "auto"):
        raise SettingError("n_clusters", f"{n_classes}, as init has it", n_clusters, "Leave it out.")
    return n_classes


def _clusters(labels: Any, n_rows: int) -> tuple[Rows, NDArray[Any] | None]:
    """The cluster of each row, numbered in the order of the labels' names, and these."""
    if labels is None:
        return np.full(n_rows, UNKNOWN), None
    values = np.asarray(labels)
    if values.shape != (n_rows,):
        raise SettingError("init", f"labels of shape ({n_rows},), one for each row", values.shape)
    values, is_known = _named(values)
    known = np.full(n_rows, UNKNOWN)
    if not is_known.any():
        return known, None
    classes, known[is_known] = np.unique(values[is_known], return_inverse=True)
    return known, classes


def _named(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The labels as whole numbers or strings, and which of them are known."""
    if values.dtype.kind not in "biuf":
        items = [None if str(item) in NAMELESS else item for item in values.tolist()]
        if not all(item is None or isinstance(item, (int, float)) for item in items):
            is_known = np.array([item is not None for item in items])
            return np.array(["" if item is None else str(item) for item in items]), is_known
        values = np.array([np.nan if item is None else item for item in items], dtype=float)
    values = np.where(np.isnan(values), UNKNOWN, values) if values.dtype.kind == "f" else values
    if (wrong := values[(values < UNKNOWN) | (values % 1 != 0)]).size:
        raise SettingError("init", "labels: strings, or whole numbers from 0, -1 for unknown", wrong[0])
    return values.astype(np.int64), values != UNKNOWN


def _pairs(name: str, pairs: Any, n_rows: int) -> Rows:
    found = np.asarray(pairs, dtype=np.int64).reshape(-1, 2) if np.size(pairs) % 2 == 0 else np.asarray(pairs)
    if found.ndim != 2 or ((found < 0) | (found >= n_rows)).any() or (found[:, 0] == found[:, 1]).any():
        raise SettingError(f"init.{name}", f"pairs of two rows of 0..{n_rows - 1}", pairs)
    return found


def _spread(known: Rows, group: Rows) -> Rows:
    """Labels of all rows that must-links tie to a known one."""
    is_known = known != UNKNOWN
    low, high = np.full(group.max() + 1, np.iinfo(np.int64).max), np.full(group.max() + 1, UNKNOWN)
    np.minimum.at(low, group[is_known], known[is_known])
    np.maximum.at(high, group[is_known], known[is_known])
    if (wrong := np.flatnonzero((high != UNKNOWN) & (low != high))).size:
        rows = np.flatnonzero((group == wrong[0]) & is_known)[:5].tolist()
        raise SettingError("init.must_link", "pairs of rows whose labels are one, if known", rows)
    return high[group]


def matching(proba: Array, known: Rows) -> Rows:
    """The order of a start's clusters [K] in which most rows that are known have their label; -1 is not known.

    New cluster i is old cluster ``matching(proba, known)[i]``, of q(y|x) ``proba`` [n K].

    Examples
    --------
    >>> matching(np.eye(3)[[0, 0, 1, 2]], np.array([1, 1, -1, 0]))
    array([2, 0, 1])
    """
    is_known = known != UNKNOWN
    agreement = proba[is_known].T @ np.eye(proba.shape[1])[known[is_known]]
    return np.argsort(linear_sum_assignment(-agreement)[1])


def start_from_supervision(
    supervision: Supervision, found: Given, n_clusters: int, training: Training, run: Run, make_bound: Callable[[], Any]
) -> tuple[list[Record], Start]:
    """Give the networks the clusters that are known, and where others are wanted the start that ``supervision`` names.

    Returns what was trained, and the start, in which known rows are in their clusters.
    """
    if supervision.start == "labels":
        return _start_from_labels(found, n_clusters, training, run)
    if len(found.must):
        return _start_from_pairs(found, n_clusters, training, run)
    history, start = start_from(supervision.start, n_clusters, training, run, make_bound)
    known = found.known[start.rows]
    run.module.permute(torch.from_numpy(matching(start.proba, known)).to(run.source.device))
    return history, replace(start, proba=_with_known(start.proba, known))


def _with_known(proba: Array, known: Rows) -> Array:
    """A start's q(y|x) [n K], its clusters in the order of :func:`matching`, and rows that are known in theirs."""
    proba, is_known = proba[:, matching(proba, known)], known != UNKNOWN
    proba[is_known] = np.eye(proba.shape[1], dtype=proba.dtype)[known[is_known]]
    return proba


def _start_from_labels(found: Given, n_clusters: int, training: Training, run: Run) -> tuple[list[Record], Start]:
    """Networks that have been shown all labels."""
    known = np.flatnonzero(found.known != UNKNOWN)
    first = known[np.unique(found.known[known], return_index=True)[1]]  # of every cluster one row, however small it is
    rows = np.union1d(run.rng.permutation(known)[:MAX_ROWS], first)
    proba = np.eye(n_clusters, dtype=np.float32)[found.known[rows]]
    candidate = Candidate(proba, "labels", is_clear=True, gap=None)
    return _taught(rows, proba, candidate, training, run)


def _start_from_pairs(found: Given, n_clusters: int, training: Training, run: Run) -> tuple[list[Record], Start]:
    """Micro-clusters, merged by the normalized cut of a graph with two kinds of edges of equal weight in all.

    One is to the nearest neighbors, the other is what must link.
    """
    rows = subset(len(run.source), run.rng, MAX_ROWS)
    x = principal_components(map_blocks(run.module.rescale.features, run.source, rows=rows, fixed=False), run.rng)
    n_micro = min(PER_CLUSTER * n_clusters, max(n_clusters, len(rows) // 5))
    micro = kmeans(x, n_micro, run.rng, n_init=1)
    place = np.full(len(run.source), UNKNOWN)
    place[rows] = micro
    pairs = place[found.must][(place[found.must] != UNKNOWN).all(1)]
    linked = np.zeros((n_micro, n_micro))
    np.add.at(linked, (pairs.ravel(), pairs[:, ::-1].ravel()), 0.5 / max(len(pairs), 1))
    joint = joint_of_labels(micro, nearest(x, 10)[0], n_micro) + linked
    proba = np.eye(n_clusters, dtype=np.float32)[merge_by_cut(joint / joint.sum(), n_clusters)[micro]]
    proba = _with_known(proba, found.known[rows])
    return _taught(rows, proba, Candidate(proba, "pairs", is_clear=True, gap=None), training, run)


def _taught(rows: Rows, proba: Array, candidate: Candidate, training: Training, run: Run) -> tuple[list[Record], Start]:
    """An autoencoder whose codes give p(z|y) its moments, and q(y|x) that has been shown ``proba`` of these rows."""
    module, everybody = run.module, (run.generator, run.listeners)
    history = pretrain(module, run.source, training, *everybody, share=PRETRAINING["auto"])
    codes = map_blocks(module.code, run.source, rows=rows, fixed=False)
    module.load_codes(codes, proba)
    start = Start(rows, proba, codes, float("nan"), candidate)
    return history + distill(module.log_q_y, module, run.source, start, training.shortened(0.08), *everybody), start


def log_same_cluster(a: LogClusters, b: LogClusters) -> PerExample:
    """``log sum_k q(k|x) q(k|x')`` of two rows' log q(y|x)."""
    return (a + b).logsumexp(-1)


def log_other_cluster(a: LogClusters, b: LogClusters) -> PerExample:
    """``log ( 1 - sum_k q(k|x) q(k|x') )`` of two rows' log q(y|x); no smaller than log 1e-6."""
    return torch.log(-torch.expm1(log_same_cluster(a, b).clamp_max(-1e-6)))


@dataclass
class Supervised:
    """An objective, and beside it what is known (the equation above).

    Parameters
    ----------
    objective
        ``(x, rows, fraction) -> StepOutput``, with ``log_q_y`` of the batch.
    known
        The cluster of each row [N], -1 where it is not known. Where they are fewer than half, 64 known rows are drawn
        for every step, so that ten labels count as much as ten thousand.
    """

    objective: Any
    network: Any
    source: Source
    known: Int[Tensor, " N"]
    must: Rows
    cannot: Rows
    generator: torch.Generator
    drawn_from: Rows | None = field(init=False)

    @classmethod
    def of(cls, objective: Any, network: Any, found: Given, run: Run) -> "Supervised":
        """An objective beside what is known of the rows of a fit."""
        known = torch.from_numpy(found.known).to(run.source.device)
        return cls(objective, network, run.source, known, found.must, found.cannot, run.generator)

    def __post_init__(self) -> None:
        is_known = (self.known != UNKNOWN).cpu().numpy()
        self.drawn_from = np.flatnonzero(is_known) if 0 < 2 * is_known.sum() < len(is_known) else None

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """Value and terms of the batch ``x`` in the user's units."""
        step = self.objective(x, rows, fraction)
        assert step.log_q_y is not None
        terms = {"log_q_of_known": self._agreement(rows, step.log_q_y)}
        for pairs, log_p in ((self.must, log_same_cluster), (self.cannot, log_other_cluster)):
            if len(pairs):
                a, b = self._log_q_y(self._drawn(pairs).T.ravel()).chunk(2)
                terms[log_p.__name__] = log_p(a, b).mean()
        return StepOutput(
            whole_batch(step.value).mean() + torch.stack(list(terms.values())).sum(), step.terms | terms, step.log_q_y
        )

    def _agreement(self, rows: np.ndarray, log_q_y: LogClusters) -> Tensor:
        """Mean ``log q(y_x|x)`` of known rows: those of the batch, or drawn ones."""
        if self.drawn_from is not None:
            rows = self._drawn(self.drawn_from)
            return self._known(rows, self._log_q_y(rows))[0].mean()
        found, is_known = (whole_batch(each) for each in self._known(rows, log_q_y))
        return found.sum() / is_known.sum().clamp_min(1)

    def _known(self, rows: np.ndarray, log_q_y: LogClusters) -> tuple[PerExample, PerExample]:
        """``log q(y_x|x)``, 0 where y_x is not known, and whether it is, 0 or 1."""
        known = self.known[torch.from_numpy(rows).to(self.known.device)]
        is_known = known != UNKNOWN
        found = log_q_y.gather(1, known.clamp_min(0)[:, None])[:, 0]
        return torch.where(is_known, found, 0.0), is_known.to(found)

    def _drawn(self, rows: Rows) -> Rows:
        """64 of these rows or pairs, or all if they are fewer."""
        if len(rows) <= DRAWN:
            return rows
        return rows[torch.randint(len(rows), (DRAWN,), generator=self.generator).numpy()]

    def _log_q_y(self, rows: Rows) -> LogClusters:
        """``log q(y|x)`` of rows beside the batch, whose statistics are not the data's."""
        with frozen_statistics(self.network.trunk):
            return self.network.log_q_y(self.source[rows])

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the objective's."""
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.objective.load_state_dict(state)
