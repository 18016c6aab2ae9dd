"""Clusters joined, parted and put in another order after a fit: exact changes of q(y|x) that leave all else alone.

    merge(i, j):  q'(i|x) = q(i|x) + q(j|x)
    split(i):     q'(i|x) = q(i|x) s(-u(z)),  q'(K|x) = q(i|x) s(u(z)),  u(z) = w . z + b
    order:        q'(k|x) = q(order_k|x)

s is the logistic function, z the latent vector of x. No weight of the networks moves: p(x) stays, and a row keeps its
cluster unless that is one of those named. The gate u is the log odds of two Gaussians with one spherical covariance,
centered where 2-means puts the cluster's latent vectors.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch.nn import functional as F

from nvisa.maths.shapes import Float, LogClusters, Tensor

__all__ = ["Edit", "edited", "gate", "n_before", "names_after", "sources"]

Array = NDArray[np.floating[Any]]
Edit: TypeAlias = dict[str, Any]  # {"merge": [i, j]}, {"split": i, "weight": w, "bias": b} or {"order": [...]}


def edited(log_q_y: LogClusters, z: Float[Tensor, "B Z"] | None, edits: Sequence[Edit]) -> Float[Tensor, "B _"]:
    """``log q'(y|x)`` after these edits; ``z`` is read by splits only.

    Examples
    --------
    >>> edited(torch.tensor([[0.2, 0.3, 0.5]]).log(), None, [{"merge": [0, 2]}, {"order": [1, 0]}]).exp()
    tensor([[0.3000, 0.7000]])
    """
    columns = list(log_q_y.unbind(1))
    for edit in edits:
        if "merge" in edit:
            i, j = edit["merge"]
            columns[i] = torch.logaddexp(columns[i], columns.pop(j))
        elif "split" in edit:
            assert z is not None
            u = z @ z.new_tensor(edit["weight"]) + edit["bias"]
            part = columns[edit["split"]]
            columns[edit["split"]] = part + F.logsigmoid(-u)
            columns.append(part + F.logsigmoid(u))
        else:
            columns = [columns[k] for k in edit["order"]]
    return torch.stack(columns, 1)


def gate(z: Array, random_state: int) -> tuple[list[float], float]:
    """``w = (m_1 - m_0) / s^2`` and ``b = (|m_0|^2 - |m_1|^2) / 2 s^2`` of 2-means of z [n Z]; s^2: variance within."""
    found = KMeans(2, n_init=10, random_state=random_state).fit(z.astype(np.float64))
    (a, b), variance = found.cluster_centers_, max(found.inertia_ / z.size, 1e-12)
    return ((b - a) / variance).tolist(), float((a @ a - b @ b) / (2 * variance))


def names_after(names: Sequence[str], edit: Edit) -> list[str]:
    """What the clusters are called after an edit: a merged one keeps its own name if it has one."""
    names = list(names)
    if "merge" in edit:
        i, j = edit["merge"]
        names[i] = names[i] or names[j]
        del names[j]
    elif "split" in edit:
        names.append("")
    else:
        names = [names[k] for k in edit["order"]]
    return names


def sources(n_clusters: int, edits: Sequence[Edit]) -> list[list[int]]:
    """The clusters of the fit, of ``n_clusters``, that each of today's is made of."""
    found = [[k] for k in range(n_clusters)]
    for edit in edits:
        if "merge" in edit:
            i, j = edit["merge"]
            found[i] = found[i] + found.pop(j)
        elif "split" in edit:
            found.append(found[edit["split"]])
        else:
            found = [found[k] for k in edit["order"]]
    return found


def n_before(n_clusters: int, edits: Sequence[Edit]) -> int:
    """How many clusters there were before these edits, of which ``n_clusters`` are left."""
    return n_clusters + sum("merge" in edit for edit in edits) - sum("split" in edit for edit in edits)
