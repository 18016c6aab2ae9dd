"""How sure q(y|x) may be, and which rows are to be refused: both learned from rows without labels.

    q_T(y|x)  proportional to  q(y|x)^(1/T)          the temperature T moves no largest entry
    T:  mean_x max_y q_T(y|x)  =  share of neighbor pairs that have one cluster

Two neighbors are nearly always of one group, so that the cluster of one is a second draw for the other; and where
predictions are calibrated, two draws agree as often as one of them is right (Jiang et al.). The root of the share,
which was taken before, holds if each of the two is put right by a coin of its own. Errors of networks are no such
coins: they lie along borders, where a whole group of neighbors has them. A group that is cut or joined in the wrong
place is beyond this, and beyond the agreement of two fits, which make the same mistake. T is found on rows that the
fit has not seen.

Sources: temperature scaling, Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017;
agreement as an estimate of accuracy, Jiang, Nagarajan, Baek and Kolter, "Assessing generalization of SGD via
disagreement", ICLR 2022.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax

__all__ = ["SHARES", "neighbor_agreement", "quantiles", "temperature", "tempered", "threshold"]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]

SHARES = np.concatenate([np.linspace(0.0, 0.1, 101), np.linspace(0.11, 0.5, 40)])  # of rows that may be refused
COLDEST, HOTTEST = 0.1, 20.0


def tempered(log_q: Array, temperature: float) -> Array:
    """``q_T(y|x)`` [N K], rows summing to one.

    Examples
    --------
    >>> tempered(np.log([[0.9, 0.1]]), 0.5).round(4).tolist()
    [[0.9878, 0.0122]]
    """
    return softmax(log_q / temperature, axis=1)


def neighbor_agreement(labels: Rows, near: Rows) -> float:
    """Share of pairs of a row and one of its neighbors, whose numbers are ``near`` [N k], that have one cluster.

    Examples
    --------
    >>> neighbor_agreement(np.array([0, 0, 1]), np.array([[1], [0], [1]]))
    0.6666666666666666
    """
    return float((labels[near] == labels[:, None]).mean())


def temperature(log_q: Array, confidence: float) -> float:
    """T at which the mean of ``max_y q_T(y|x)`` is this; within 0.1 .. 20."""

    def excess(log_t: float) -> float:
        """How much surer than that q is at this temperature: falls as it grows."""
        return float(tempered(log_q, np.exp(log_t)).max(1).mean()) - confidence

    low, high = np.log(COLDEST), np.log(HOTTEST)
    if excess(low) <= 0 or excess(high) >= 0:
        return COLDEST if excess(low) <= 0 else HOTTEST
    return float(np.exp(brentq(excess, low, high)))


def quantiles(values: Array) -> list[float]:
    """The quantiles of training rows at :data:`SHARES`: what a fitted model keeps."""
    return np.quantile(values.astype(np.float64), SHARES).tolist()


def threshold(kept: list[float], share: float) -> float:
    """The value below which this share of the training rows lies."""
    return float(np.interp(share, SHARES, kept))
