"""How well labels with noise agree with classes, under both conventions for the noise."""

import numpy as np

from nvisa.maths.metrics import accuracy, ari, nmi


def scores(y: np.ndarray, labels: np.ndarray, filled: np.ndarray) -> dict[str, dict[str, float]]:
    """Accuracy, NMI and ARI of classes ``y`` [N] and clusters ``labels`` [N], -1 for noise.

    ``noise_wrong``: a row of noise is wrong, and for NMI and ARI the noise is a cluster. ``noise_nearest``: of
    ``filled`` [N], where each row of it has the nearest cluster.
    """
    some = labels >= 0
    right = accuracy(y[some], labels[some]) * some.mean() if some.any() else 0.0
    return {
        "noise_wrong": {"accuracy": right, "nmi": nmi(y, labels), "ari": ari(y, labels)},
        "noise_nearest": {"accuracy": accuracy(y, filled), "nmi": nmi(y, filled), "ari": ari(y, filled)},
    }
