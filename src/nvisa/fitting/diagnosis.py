"""How a fit compares with k-means and a Gaussian mixture on the same rows, by two criteria that see no label.

The normalized cut per cluster (:func:`nvisa.fitting.normalized_cut.normalized_cut`) is the share of its neighbors that
a cluster loses, in the mean: small where borders run between groups. Neighbor information I(Y; Y') is large where the
clusters are also many and similar in size. A simple clustering is preferred to the fit only where both say so.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from nvisa.fitting.candidates import Candidate, kmeans
from nvisa.fitting.graph import degree, joint_of_labels, mutual_information, nearest, principal_components
from nvisa.fitting.normalized_cut import normalized_cut
from nvisa.fitting.run import Run
from nvisa.maths.mixtures import fit_mixture
from nvisa.nets.rows import map_blocks, subset

__all__ = ["Diagnosis", "diagnose", "diagnose_run", "diagnosis_text"]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]
Diagnosis: TypeAlias = dict[str, Any]

MAX_ROWS = 5_000
MIXTURE_COMPONENTS = 10  # principal components that the mixture is fitted in
BETTER = 0.05  # by this share both criteria must be better
NAMES = {"kmeans": "k-means", "mixture": "a Gaussian mixture"}


def diagnose_run(run: Run, n_clusters: int, start: Candidate | None) -> Diagnosis:
    """:func:`diagnose` of some rows of a run as its networks cluster them now, and ``start``: where it began."""
    rows = subset(len(run.source), run.rng, MAX_ROWS)
    x = map_blocks(run.module.rescale.features, run.source, rows=rows, fixed=False)
    labels = map_blocks(lambda x: run.module.log_q_y(x).argmax(-1), run.source, rows=rows)
    began = None if start is None else start.summary()
    return diagnose(x, labels, n_clusters, run.rng) | {"start": began}


def diagnose(x: Array, labels: Rows, n_clusters: int, rng: RandomState) -> Diagnosis:
    """Compare the clusters ``labels`` [n] of the rows ``x`` [n D], in the networks' units, with simpler ones.

    Returns
    -------
    dict
        ``cut`` and ``information``: of "fit", "kmeans" and "mixture"; ``agreement``: adjusted Rand index of the fit
        with each of the two; ``preferred``: "fit", or which of the two both criteria prefer; ``n_rows``.
    """
    points = principal_components(x, rng)
    graph = nearest(points, degree(len(points)))[0]
    mixture = fit_mixture(points[:, :MIXTURE_COMPONENTS], n_clusters, rng, n_init=1)
    simple = {
        "kmeans": kmeans(points, n_clusters, rng, n_init=3),
        "mixture": mixture.predict(points[:, :MIXTURE_COMPONENTS].astype(np.float64)),
    }
    joints = {name: joint_of_labels(of, graph, n_clusters) for name, of in ({"fit": labels} | simple).items()}
    cut = {name: normalized_cut(joint) / n_clusters for name, joint in joints.items()}
    information = {name: mutual_information(joint) for name, joint in joints.items()}
    agreement = {name: float(adjusted_rand_score(labels, of)) for name, of in simple.items()}
    better = [
        name
        for name in simple
        if cut[name] < (1 - BETTER) * cut["fit"] and information[name] > (1 + BETTER) * information["fit"]
    ]
    preferred = min(better, key=lambda name: cut[name]) if better else "fit"
    return {
        "n_rows": len(x), "cut": cut, "information": information, "agreement": agreement, "preferred": preferred,
    }  # fmt: skip


def diagnosis_text(found: Diagnosis) -> str:
    """The diagnosis in a sentence or two.

    Examples
    --------
    >>> cut, agreement = {"fit": 0.02, "kmeans": 0.05, "mixture": 0.04}, {"kmeans": 0.7, "mixture": 0.9}
    >>> print(diagnosis_text({"cut": cut, "agreement": agreement, "preferred": "fit"}))
    Neighbors lost at borders: 2.0 %; by k-means 5.0 % (agreement 0.70), by a Gaussian mixture 4.0 % (agreement 0.90).
    """
    cut, agreement = found["cut"], found["agreement"]
    others = ", ".join(f"by {NAMES[name]} {cut[name]:.1%} (agreement {agreement[name]:.2f})" for name in agreement)
    text = f"Neighbors lost at borders: {cut['fit']:.1%}; {others}.".replace("%", " %")
    if found["preferred"] == "fit":
        return text
    return f"{text} Both label-free criteria prefer {NAMES[found['preferred']]} here: look at it before this fit."
