"""Gaussian mixtures of latent vectors, trained with the networks or loaded from what EM has found; moments of codes."""

import math

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import nn

from nvisa.maths.distributions import (
    draw_categorical,
    draw_normal,
    draw_normal_tril,
    log_normal,
    log_normal_tril,
    responsibilities,
)
from nvisa.maths.shapes import Float, Int, LogClusters, Tensor

__all__ = ["FullMixture", "Mixture", "common_axes", "covariances", "mixture_of_codes", "moments"]

Array = NDArray[np.floating]


class Mixture(nn.Module):
    """``p(y) = pi = softmax(logits)`` and ``p(z|y) = N(mu_y, diag sigma_y^2)``.

    ``trained``: parameters of the networks; otherwise what a mixture's own EM has found, kept as buffers.
    """

    logits: Tensor
    loc: Tensor
    log_scale: Tensor

    def __init__(self, n_clusters: int, latent_dim: int, *, trained: bool) -> None:
        super().__init__()
        tables = {name: torch.zeros(n_clusters, latent_dim) for name in ("loc", "log_scale")}
        for name, table in {"logits": torch.zeros(n_clusters), **tables}.items():
            if trained:
                self.register_parameter(name, nn.Parameter(table))
            else:
                self.register_buffer(name, table)

    @property
    def log_weights(self) -> Float[Tensor, " K"]:
        """``log pi``."""
        return self.logits.log_softmax(-1)

    @property
    def scale(self) -> Float[Tensor, "K Z"]:
        """``sigma_y``."""
        return self.log_scale.exp()

    def log_q_y(self, z: Float[Tensor, "B Z"]) -> LogClusters:
        """``log p(y|z)``, Bayes' rule."""
        return responsibilities(z, self.log_weights, self.loc, self.scale)

    def log_p_z(self, z: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
        """``log sum_y pi_y N(z; mu_y, diag sigma_y^2)``."""
        return (self.log_weights + log_normal(z[..., None, :], self.loc, self.scale)).logsumexp(-1)

    def draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        """n clusters ``y ~ pi``."""
        return draw_categorical(self.log_weights, n, rng)

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y)`` for each y."""
        return draw_normal(self.loc[y], self.scale[y], generator)

    @torch.no_grad()
    def load(self, weights: Array, loc: Array, variance: Array) -> None:
        """Take over a mixture: weights [K], means and variances [K Z]."""
        found = (np.log(np.maximum(weights, 1e-12)), loc, 0.5 * np.log(variance))
        for table, values in zip((self.logits, self.loc, self.log_scale), found, strict=True):
            table.copy_(torch.from_numpy(values))

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        for table in (self.logits, self.loc, self.log_scale):
            table.copy_(table[order])


class FullMixture(nn.Module):
    """``p(y) = pi`` and ``p(z|y) = N(mu_y, L_y L_y^T)``: what EM with full covariances has found, as buffers.

    The codes of an autoencoder are correlated within a cluster, which a diagonal covariance takes for several clusters.
    """

    log_weights: Tensor
    loc: Tensor
    tril: Tensor

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.full((n_clusters,), -math.log(n_clusters)))
        self.register_buffer("loc", torch.zeros(n_clusters, latent_dim))
        self.register_buffer("tril", torch.eye(latent_dim).repeat(n_clusters, 1, 1))

    def log_q_y(self, z: Float[Tensor, "B Z"]) -> LogClusters:
        """``log p(y|z)``, Bayes' rule."""
        return (self.log_weights + log_normal_tril(z, self.loc, self.tril)).log_softmax(-1)

    def draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        """n clusters ``y ~ pi``."""
        return draw_categorical(self.log_weights, n, rng)

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y)`` for each y."""
        return draw_normal_tril(self.loc[y], self.tril[y], generator)

    @torch.no_grad()
    def load(self, weights: Array, loc: Array, covariance: Array) -> None:
        """Take over a mixture: weights [K], means [K Z], covariances [K Z Z]."""
        found = np.log(np.maximum(weights, 1e-12)), loc, np.linalg.cholesky(covariance)
        for table, values in zip((self.log_weights, self.loc, self.tril), found, strict=True):
            table.copy_(torch.from_numpy(values))

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        for table in (self.log_weights, self.loc, self.tril):
            table.copy_(table[order])


def mixture_of_codes(n_clusters: int, latent_dim: int, covariance: str) -> Mixture | FullMixture:
    """An empty mixture, to be loaded: ``covariance`` "diag" or "full"."""
    if covariance == "full":
        return FullMixture(n_clusters, latent_dim)
    return Mixture(n_clusters, latent_dim, trained=False)


def moments(codes: Array, proba: Array) -> tuple[Array, Array]:
    """Means and variances [K Z] of the codes [n Z] under responsibilities [n K]; no variance is below 1e-3."""
    weights = proba / np.maximum(proba.sum(0), 1e-6)
    loc = weights.T @ codes
    return loc, np.maximum(weights.T @ codes**2 - loc**2, 1e-3)


def covariances(codes: Array, proba: Array) -> Array:
    """Covariances [K Z Z] of the codes [n Z] under responsibilities [n K]; each variance is 1e-3 above the codes'."""
    weights = proba / np.maximum(proba.sum(0), 1e-6)
    loc, second = weights.T @ codes, np.stack([(w[:, None] * codes).T @ codes for w in weights.T])
    return second - loc[:, :, None] * loc[:, None] + 1e-3 * np.eye(codes.shape[1])


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
