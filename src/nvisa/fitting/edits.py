"""Clusters joined, parted, dropped and put in another order after a fit: exact changes of q(y|x), nothing else.

    merge(i, j):  q'(i|x) = max( q(i|x), q(j|x) )
    split(i):     q'(i|x) = q(i|x) [u(z) <= 0],  q'(K|x) = q(i|x) [u(z) > 0],  u(z) = w . z + b
    drop(i):      q'(k|x) = q(k|x), k other than i
    order:        q'(k|x) = q(order_k|x)

z is the latent vector of x, and rows are made to sum to one again. No weight of the networks moves: p(x) stays, and a
row keeps its cluster unless that is one of those named; a sum of two could win over a third that is larger than each.
The gate u is the log odds of two Gaussians with one spherical covariance, centered where 2-means puts the cluster's
latent vectors.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from nvisa.maths.shapes import Float, LogClusters, Tensor

__all__ = ["Edit", "edited", "gate", "n_before", "names_after", "sources"]

Array = NDArray[np.floating[Any]]
# {"merge": [i, j]}, {"split": i, "weight": w, "bias": b}, {"drop": i} or {"order": [...]}
Edit: TypeAlias = dict[str, Any]


def edited(log_q_y: LogClusters, z: Float[Tensor, "B Z"] | None, edits: Sequence[Edit]) -> Float[Tensor, "B _"]:
    """``log q'(y|x)`` after these edits; ``z`` is read by splits only.

    Examples
    --------
    >>> edited(torch.tensor([[0.2, 0.3, 0.5]]).log(), None, [{"merge": [0, 2]}, {"order": [1, 0]}]).exp()
    tensor([[0.3750, 0.6250]])
    """
    columns = list(log_q_y.unbind(1))
    for edit in edits:
        if "merge" in edit:
            i, j = edit["merge"]
            columns[i] = torch.maximum(columns[i], columns.pop(j))
        elif "split" in edit:
            assert z is not None
            u = z @ z.new_tensor(edit["weight"]) + edit["bias"]
            part = columns[edit["split"]]
            nobody = torch.full_like(part, -torch.inf)
            columns[edit["split"]] = torch.where(u > 0, nobody, part)
            columns.append(torch.where(u > 0, part, nobody))
        elif "drop" in edit:
            columns.pop(edit["drop"])
        else:
            columns = [columns[k] for k in edit["order"]]
    return torch.stack(columns, 1).log_softmax(1)


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
    elif "drop" in edit:
        del names[edit["drop"]]
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
        elif "drop" in edit:
            found.pop(edit["drop"])
        else:
            found = [found[k] for k in edit["order"]]
    return found


def n_before(n_clusters: int, edits: Sequence[Edit]) -> int:
    """How many clusters there were before these edits, of which ``n_clusters`` are left."""
    lost = sum("merge" in edit or "drop" in edit for edit in edits)
    return n_clusters + lost - sum("split" in edit for edit in edits)
