"""Gaussian mixtures of codes: EM run to its end, each of its steps two matrix products; axes common to all clusters.

The density is an exponential family: with ``f(z) = (1, z, z_i z_j)`` and natural parameters ``w_k`` it is
``log pi_k N(z; mu_k, S_k) = f(z) . w_k``, and all that the M-step needs is ``sum_n r_nk f(z_n)``. scikit-learn's EM
takes one cluster after the other, which is its cost where there are a hundred (docs/performance.md).

Source: Dempster, Laird and Rubin, JRSS B 1977; Bishop, PRML, sec. 2.4 and 9.2.
"""

import warnings
from typing import TypeAlias

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from nvisa.maths.distributions import HALF_LOG_2PI
from nvisa.maths.shapes import Float, Int, Tensor

__all__ = ["common_axes", "em", "fit_mixture", "log_density", "responsibilities"]

Array = NDArray[np.floating]
Weights: TypeAlias = Float[Tensor, " K"]
Means: TypeAlias = Float[Tensor, "K Z"]
Covariances: TypeAlias = Float[Tensor, "K Z Z"]
Pairs: TypeAlias = Int[Tensor, "2 P"]
TOL, MAX_STEPS = 1e-5, 300  # nats a row
RIDGE = 1e-6  # added to every variance, scikit-learn's reg_covar
BLOCK = 4096  # rows whose statistics stay in the cache


def fit_mixture(
    codes: Array, n_clusters: int, rng: RandomState, *, n_init: int = 10, covariance: str = "full"
) -> GaussianMixture:
    """Gaussian mixture of ``codes`` [n Z], "full" or "diag", the most likely of ``n_init`` k-means starts.

    EM runs until a step gains less than 1e-5 nats a row. At scikit-learn's 1e-3 it stops after ten steps on MNIST's
    codes, and its clusters are still moving. What it finds is handed to scikit-learn, which adds the last step.
    """
    z = torch.from_numpy(codes.astype(np.float64))
    middle = z.mean(0)  # sums of squares about zero would lose digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        starts = (KMeans(n_clusters, n_init=1, random_state=rng).fit(z.numpy()).labels_ for _ in range(n_init))
        ends = (em(z - middle, np.eye(n_clusters)[labels], covariance) for labels in starts)
        _, weights, loc, within = max(ends, key=lambda end: end[0])
        precision = within.inverse() if covariance == "full" else 1 / within.diagonal(dim1=1, dim2=2)
        found = {"weights_init": weights, "means_init": loc + middle, "precisions_init": precision}
        settings = {name: value.numpy() for name, value in found.items()} | {"reg_covar": RIDGE, "max_iter": 1}
        return GaussianMixture(n_clusters, covariance_type=covariance, **settings).fit(z.numpy())


def em(z: Float[Tensor, "N Z"], proba: Array, covariance: str) -> tuple[float, Weights, Means, Covariances]:
    """EM from these ``p(y|z)`` [N K]: mean ``log p(z)``, ``pi``, ``mu`` and ``S``."""
    n = z.shape[1]
    pairs = torch.triu_indices(n, n) if covariance == "full" else torch.arange(n).expand(2, n)
    blocks = zip(torch.from_numpy(proba).split(BLOCK), z.split(BLOCK), strict=True)
    total = torch.stack([r.T @ statistics(rows, pairs) for r, rows in blocks]).sum(0)
    log_p = -float("inf")
    for _ in range(MAX_STEPS):
        before = log_p
        log_p, total = e_step(z, natural(*m_step(total, n, pairs), pairs), pairs)
        if abs(log_p - before) < TOL:
            break
    return log_p, *m_step(total, n, pairs)


def statistics(z: Float[Tensor, "N Z"], pairs: Pairs) -> Float[Tensor, "N F"]:
    """``f(z) = (1, z, z_i z_j)`` for the ``pairs`` (i, j)."""
    i, j = pairs
    return torch.cat([z.new_ones(len(z), 1), z, z[:, i] * z[:, j]], 1)


def e_step(z: Float[Tensor, "N Z"], w: Float[Tensor, "F K"], pairs: Pairs) -> tuple[float, Float[Tensor, "K F"]]:
    """Mean ``log p(z)`` and ``sum_n r_nk f(z_n)``, block by block."""
    log_p, total = 0.0, torch.zeros_like(w.T)
    for rows in z.split(BLOCK):
        f = statistics(rows, pairs)
        log_joint = f @ w
        norm = log_joint.logsumexp(1, keepdim=True)
        log_p += float(norm.sum())
        total += (log_joint - norm).exp_().T @ f
    return log_p / len(z), total


def m_step(total: Float[Tensor, "K F"], n: int, pairs: Pairs) -> tuple[Weights, Means, Covariances]:
    """``pi``, ``mu`` and ``S`` of ``sum_n r_nk f(z_n)``, with z of ``n`` numbers."""
    i, j = pairs
    mass = total[:, 0] + 10 * torch.finfo(total.dtype).eps  # a cluster may be empty
    loc, second = (total[:, 1:] / mass[:, None]).tensor_split([n], 1)
    within = torch.diag_embed(torch.full_like(loc, RIDGE))
    within[:, i, j] += second - loc[:, i] * loc[:, j]
    within[:, j, i] = within[:, i, j]
    return mass / mass.sum(), loc, within


def natural(weights: Weights, loc: Means, within: Covariances, pairs: Pairs) -> Float[Tensor, "F K"]:
    """``w`` with ``f(z) @ w = log pi_k + log N(z; mu_k, S_k)``."""
    i, j = pairs
    precision = within.inverse()
    slope = (precision @ loc[..., None])[..., 0]
    log_det = torch.linalg.cholesky(within).diagonal(dim1=1, dim2=2).log().sum(1)
    at_zero = weights.log() - log_det - 0.5 * (loc * slope).sum(1) - loc.shape[1] * HALF_LOG_2PI
    curvature = precision[:, i, j] * torch.where(i == j, -0.5, -1.0)  # a pair stands for (i, j) and (j, i)
    return torch.cat([at_zero[:, None], slope, curvature], 1).T


def log_joint(z: Float[Tensor, "N Z"], weights: Weights, loc: Means, within: Covariances) -> Float[Tensor, "N K"]:
    """``log pi_k + log N(z; mu_k, S_k)`` of every row."""
    n = z.shape[1]
    pairs = torch.triu_indices(n, n)
    w = natural(weights, loc, within, pairs)
    return torch.cat([statistics(rows, pairs) @ w for rows in z.split(BLOCK)])


def log_density(z: Float[Tensor, "N Z"], weights: Weights, loc: Means, within: Covariances) -> Float[Tensor, " N"]:
    """``log p(z)`` of every row."""
    return log_joint(z, weights, loc, within).logsumexp(1)


def responsibilities(
    z: Float[Tensor, "N Z"], weights: Weights, loc: Means, within: Covariances
) -> Float[Tensor, "N K"]:
    """``p(y|z)`` of every row."""
    return log_joint(z, weights, loc, within).softmax(1)


def common_axes(weights: Array, covariances: Array) -> Array:
    """Axes ``A`` [Z Z] in which clusters of weights [K] and covariances [K Z Z] come nearest to diagonal ones.

    ``A = argmax_A log |det A| - 1/2 sum_k w_k sum_i log (A S_k A^T)_ii``: the likelihood of ``z`` when ``A z`` has a
    mixture with diagonal covariances. What it lacks to full covariances is the mean divergence of a cluster from its
    diagonal one. No scaling of the rows of ``A`` changes it.

    Source: Pham, "Joint approximate diagonalization of positive definite Hermitian matrices", SIAM J. Matrix Anal.
    Appl. 2001; Gales, "Semi-tied covariance matrices for hidden Markov models", IEEE Trans. Speech Audio Process. 1999.
    """
    share, within = np.asarray(weights, np.float64), np.asarray(covariances, np.float64)
    n = within.shape[1]

    def loss(flat: Array) -> tuple[float, Array]:
        """What the likelihood lacks, and its slope ``sum_k w_k D_k^-1 A S_k - A^-T``, ``D_k = diag(A S_k A^T)``."""
        axes = flat.reshape(n, n)
        turned = axes @ within  # [K Z Z]
        variance = np.einsum("kij,ij->ki", turned, axes)
        gradient = np.einsum("k,kij->ij", share, turned / variance[..., None]) - np.linalg.inv(axes).T
        return 0.5 * float(share @ np.log(variance).sum(1)) - np.linalg.slogdet(axes)[1], gradient.ravel()

    exact = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-8}
    return minimize(loss, np.eye(n).ravel(), jac=True, method="L-BFGS-B", options=exact).x.reshape(n, n)
