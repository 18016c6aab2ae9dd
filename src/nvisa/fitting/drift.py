"""Whether rows that come later are still like those of the fit, without labels.

    low(v)   = share of the new rows below the 5 % quantile of the fit's rows, v: log max q(y|x), or log p(x)
    sizes    = 1/2 sum_k | n_k / n - m_k / m |        total variation of the sizes of clusters, in [0, 1]

Each comes with the chance of at least so much if nothing had changed: the binomial tail, and the chi-squared test of
two sets of counts (Pearson 1900). Many rows make any small change certain: read the size first, then the chance.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2_contingency

from nvisa.fitting.calibration import threshold

__all__ = ["SHARE", "low_drift", "size_drift"]

Array = NDArray[np.floating[Any]]

SHARE = 0.05


def low_drift(values: Array, quantiles: list[float]) -> dict[str, float]:
    """How many of ``values`` [N] lie below the 5 % quantile of the fit's rows, and the chance of as many.

    Examples
    --------
    >>> from nvisa.fitting.calibration import quantiles
    >>> low_drift(np.arange(100.0), quantiles(np.arange(100.0)))["share"]
    0.05
    """
    n = int((values < threshold(quantiles, SHARE)).sum())
    return {"share": n / len(values), "expected": SHARE, "p_value": float(binom.sf(n - 1, len(values), SHARE))}


def size_drift(before: NDArray[np.integer], after: NDArray[np.integer]) -> dict[str, Any]:
    """Total variation between the sizes of clusters [K] before and after, the chance of as much, and who is empty.

    Examples
    --------
    >>> found = size_drift(np.array([50, 50]), np.array([100, 0]))
    >>> found["distance"], found["empty"]
    (0.5, [1])
    """
    distance = 0.5 * float(np.abs(before / before.sum() - after / after.sum()).sum())
    seen = (before + after) > 0
    counts = np.stack([before[seen], after[seen]])
    p_value = 1.0 if seen.sum() < 2 else float(chi2_contingency(counts, correction=False).pvalue)
    return {"distance": distance, "p_value": p_value, "empty": np.flatnonzero(after == 0).tolist()}
