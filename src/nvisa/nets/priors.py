"""p(y) p(z|y): every Gaussian mixture of latent vectors that a method trains, or loads from what EM has found.

Mixture              p(y) = pi,   N(mu_y, diag sigma_y^2)               AE+GMM ("diag"), VAE+GMM ("diag"), VaDE
FullMixture          p(y) = pi,   N(mu_y, L_y L_y^T)                    AE+GMM, VAE+GMM
MixturePrior         p(y) = 1/K,  N(mu_y, diag sigma_y^2)               NVISA, as in the slides
NestedMixturePrior   p(y) = 1/K,  sum_c w_yc N(mu_yc, diag sigma_yc^2)  NVISA, the conclusion's "more powerful prior"
FullPrior            p(y) = 1/K,  N(mu_y, L_y L_y^T)                    NVISA, the same
IdentityPrior        p(y) = 1/K,  N(mu_y, I)                            NVISA, with nothing to learn in sigma_y
FactorPrior          p(y) = 1/K,  N(mu_y, A_y A_y^T)                    GM-GAN
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from nvisa.maths.distributions import (
    draw_categorical,
    draw_normal,
    log_normal,
    responsibilities,
)
from nvisa.maths.full_covariance import draw_normal_tril, log_normal_tril
from nvisa.maths.shapes import Float, Int, LogClusters, Tensor
from nvisa.nets.layers import Network
from nvisa.settings import SettingError

__all__ = [
    "FactorPrior",
    "FullMixture",
    "FullPrior",
    "IdentityPrior",
    "Mixture",
    "MixturePrior",
    "NestedMixturePrior",
    "covariances",
    "make_prior",
    "mixture_of_codes",
    "moments",
]

Array = NDArray[np.floating]


class _Tables(nn.Module):
    """Tables with a row for each cluster: parameters if they are trained, else buffers."""

    def __init__(self, tables: Mapping[str, Tensor], *, trained: bool) -> None:
        super().__init__()
        for name, table in tables.items():
            if trained:
                self.register_parameter(name, nn.Parameter(table))
            else:
                self.register_buffer(name, table)

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        for table in (*self.parameters(), *self.buffers()):
            table.copy_(table[order])

    @torch.no_grad()
    def _copy(self, **values: Array) -> None:
        for name, value in values.items():
            getattr(self, name).copy_(torch.from_numpy(value))


# ---- p(y) = pi -------------------------------------------------------------------------------------------------------


class Mixture(_Tables):
    """``p(y) = pi = softmax(logits)`` and ``p(z|y) = N(mu_y, diag sigma_y^2)``.

    ``trained``: parameters of the networks; otherwise what a mixture's own EM has found, kept as buffers.
    """

    logits: Tensor
    loc: Tensor
    log_scale: Tensor

    def __init__(self, n_clusters: int, latent_dim: int, *, trained: bool) -> None:
        tables = {name: torch.zeros(n_clusters, latent_dim) for name in ("loc", "log_scale")}
        super().__init__({"logits": torch.zeros(n_clusters), **tables}, trained=trained)

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

    def load(self, weights: Array, loc: Array, variance: Array) -> None:
        """Take over a mixture: weights [K], means and variances [K Z]."""
        self._copy(logits=np.log(np.maximum(weights, 1e-12)), loc=loc, log_scale=0.5 * np.log(variance))


class FullMixture(_Tables):
    """``p(y) = pi`` and ``p(z|y) = N(mu_y, L_y L_y^T)``: what EM with full covariances has found, as buffers.

    The codes of an autoencoder are correlated within a cluster, which a diagonal covariance takes for several clusters.
    """

    log_weights: Tensor
    loc: Tensor
    tril: Tensor

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        weights = torch.full((n_clusters,), -math.log(n_clusters))
        tables = {"loc": torch.zeros(n_clusters, latent_dim), "tril": torch.eye(latent_dim).repeat(n_clusters, 1, 1)}
        super().__init__({"log_weights": weights, **tables}, trained=False)

    def log_q_y(self, z: Float[Tensor, "B Z"]) -> LogClusters:
        """``log p(y|z)``, Bayes' rule."""
        return (self.log_weights + log_normal_tril(z, self.loc, self.tril)).log_softmax(-1)

    def draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        """n clusters ``y ~ pi``."""
        return draw_categorical(self.log_weights, n, rng)

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y)`` for each y."""
        return draw_normal_tril(self.loc[y], self.tril[y], generator)

    def load(self, weights: Array, loc: Array, covariance: Array) -> None:
        """Take over a mixture: weights [K], means [K Z], covariances [K Z Z]."""
        self._copy(log_weights=np.log(np.maximum(weights, 1e-12)), loc=loc, tril=np.linalg.cholesky(covariance))


def mixture_of_codes(n_clusters: int, latent_dim: int, covariance: str) -> Mixture | FullMixture:
    """An empty mixture, to be loaded: ``covariance`` "diag" or "full"."""
    if covariance == "full":
        return FullMixture(n_clusters, latent_dim)
    return Mixture(n_clusters, latent_dim, trained=False)


# ---- p(y) = 1/K: NVISA's ---------------------------------------------------------------------------------------------


class MixturePrior(_Tables):
    """``p(y) = 1/K`` and ``p(z|y) = N(mu_y, diag sigma_y^2)``: a free table of K means and log deviations.

    The slides put no floor on ``sigma_y``. Means start at N(0, 1) draws, deviations at 1.
    """

    loc: nn.Parameter
    log_scale: nn.Parameter

    def __init__(self, *shape: int) -> None:
        super().__init__({name: torch.zeros(shape) for name in ("loc", "log_scale")}, trained=True)

    def initialize(self, generator: torch.Generator) -> None:
        """Means from N(0, 1); the other tables stay as they are."""
        nn.init.normal_(self.loc, generator=generator)

    @property
    def scale(self) -> Float[Tensor, "K Z"]:
        """``sigma_y``."""
        return self.log_scale.exp()

    @property
    def precision(self) -> Float[Tensor, "*K Z"]:
        """The diagonal of the inverse covariance: ``1 / sigma_y^2``."""
        return self.scale.square().reciprocal()

    def log_p_y(self) -> float:
        """``log 1/K``."""
        return -math.log(len(self.loc))

    def log_p_z_given_y(self, z: Float[Tensor, "*B Z"], y: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """``log p(z|y)`` of the paired z and y."""
        return log_normal(z, F.embedding(y, self.loc), F.embedding(y, self.log_scale).exp())

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y)`` for each y."""
        return draw_normal(self.loc[y], self.scale[y], generator)

    def set_moments(self, loc: Array, variance: Array) -> None:
        """Give every ``p(z|y)`` this mean and this variance [K Z]."""
        self._copy(loc=loc, log_scale=0.5 * np.log(variance))

    def set_from(self, codes: Array, proba: Array) -> None:
        """Give every ``p(z|y)`` the moments of the codes [n Z] under the given responsibilities [n K]."""
        self.set_moments(*moments(codes, proba))


class NestedMixturePrior(MixturePrior):
    """``p(y) = 1/K`` and ``p(z|y) = sum_c w_yc N(mu_yc, diag sigma_yc^2)``, ``w_y = softmax(logits_y)``, C components.

    A cluster may then be curved or have parts, which one Gaussian with axes along the latent ones cannot: a more
    powerful prior, as the slides' conclusion proposes, whose density stays exact. ``loc`` and ``log_scale``
    are [K C Z].
    """

    def __init__(self, n_clusters: int, latent_dim: int, n_components: int) -> None:
        super().__init__(n_clusters, n_components, latent_dim)
        self.logits = nn.Parameter(torch.zeros(n_clusters, n_components))

    @property
    def scale(self) -> Float[Tensor, "K C Z"]:
        """``sigma_yc``."""
        return self.log_scale.exp()

    def log_p_z_given_y(self, z: Float[Tensor, "*B Z"], y: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """``log p(z|y)`` of the paired z and y."""
        tables = (self.logits.log_softmax(-1), self.loc.flatten(1), self.log_scale.flatten(1))
        log_w, loc, log_scale = (F.embedding(y, table) for table in tables)
        parts = (log_w.shape[-1], z.shape[-1])
        log_p = log_normal(z[..., None, :], loc.unflatten(-1, parts), log_scale.unflatten(-1, parts).exp())
        return (log_w + log_p).logsumexp(-1)

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``c ~ w_y`` and ``z ~ N(mu_yc, diag sigma_yc^2)`` for each y."""
        weights = self.logits.softmax(-1).to(generator.device)[y.to(generator.device)]
        c = torch.multinomial(weights, 1, generator=generator).squeeze(1).to(self.loc.device)
        return draw_normal(self.loc[y, c], self.scale[y, c], generator)

    @torch.no_grad()
    def set_moments(self, loc: Array, variance: Array) -> None:
        """Give every ``p(z|y)`` this mean and this variance, its components a quarter of the variance apart.

        The components keep the directions in which they lie now (random ones, in a new prior): centered and brought
        to deviation one, they become ``mu_y + sigma_y e_yc / 2``, each with variance ``3/4 sigma_y^2``.
        """
        mean, deviation = (torch.from_numpy(a).to(self.loc)[:, None] for a in (loc, np.sqrt(variance)))
        e = self.loc - self.loc.mean(1, keepdim=True)
        e /= e.square().mean(1, keepdim=True).sqrt()
        self.loc.copy_(mean + 0.5 * deviation * e)
        self.log_scale.copy_((math.sqrt(0.75) * deviation).log().expand_as(self.loc))
        self.logits.zero_()


class FullPrior(MixturePrior):
    """``p(y) = 1/K`` and ``p(z|y) = N(mu_y, L_y L_y^T)``, ``L_y`` lower triangular.

    Within a cluster the codes of an autoencoder are correlated. ``L_y`` is ``below`` under its diagonal and
    ``exp(log_scale)`` on it, so that it starts as the paper's diagonal.
    """

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__(n_clusters, latent_dim)
        self.below = nn.Parameter(torch.zeros(n_clusters, latent_dim, latent_dim))

    @property
    def tril(self) -> Float[Tensor, "K Z Z"]:
        """``L_y``."""
        return self.below.tril(-1) + torch.diag_embed(self.log_scale.exp())

    @property
    def scale(self) -> Float[Tensor, "K Z"]:
        """The deviations of z within a cluster, ``sqrt (L_y L_y^T)_jj``."""
        return self.tril.square().sum(-1).sqrt()

    @property
    def precision(self) -> Float[Tensor, "K Z"]:
        """``((L_y L_y^T)^-1)_jj``: of z_j when the other coordinates are known."""
        return torch.linalg.inv(self.tril).square().sum(-2)

    def log_p_z_given_y(self, z: Float[Tensor, "*B Z"], y: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """``log p(z|y)`` of the paired z and y."""
        of_all = log_normal_tril(z.flatten(0, -2), self.loc, self.tril)
        return of_all.gather(1, y.reshape(-1, 1)).view(y.shape)

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y)`` for each y."""
        return draw_normal_tril(self.loc[y], self.tril[y], generator)

    @torch.no_grad()
    def set_covariances(self, loc: Array, covariance: Array) -> None:
        """Give every ``p(z|y)`` this mean [K Z] and this covariance [K Z Z]."""
        tril = torch.from_numpy(np.linalg.cholesky(covariance))
        self.loc.copy_(torch.from_numpy(loc))
        self.log_scale.copy_(tril.diagonal(dim1=-2, dim2=-1).log())
        self.below.copy_(tril)

    def set_from(self, codes: Array, proba: Array) -> None:
        """Give every ``p(z|y)`` the mean and the covariance of the codes [n Z] under responsibilities [n K]."""
        self.set_covariances(moments(codes, proba)[0], covariances(codes, proba))


class IdentityPrior(MixturePrior):
    """``p(y) = 1/K`` and ``p(z|y) = N(mu_y, I)``: only the means are learned.

    The floor epsilon of q(z|y,x) then has a unit. ``sigma_y`` that can be learned outgrows any floor within a few
    epochs, and z carries all it likes from the beginning; beside a deviation of 1, a floor of 1 leaves z nearly nothing
    to say about x within a cluster, and a floor that falls hands it out bit by bit.
    """

    log_scale: Tensor  # type: ignore[assignment]  # zero, and no parameter

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__(n_clusters, latent_dim)
        fixed = self.log_scale.detach()
        del self.log_scale
        self.register_buffer("log_scale", fixed)

    def set_moments(self, loc: Array, variance: Array) -> None:
        """Give every ``p(z|y)`` this mean [K Z]; the variance is 1, whatever is asked for."""
        self._copy(loc=loc)


PRIORS = {"diag": MixturePrior, "full": FullPrior, "identity": IdentityPrior}


def make_prior(n_clusters: int, network: Network) -> MixturePrior:
    """The p(z|y) that the network's settings ask for."""
    kind, n_parts = network.prior_covariance, network.prior_components
    if n_parts == 1:
        return PRIORS[kind](n_clusters, network.latent_dim)
    if kind != "diag":
        raise SettingError("network.prior_covariance", f"'diag' with prior_components={n_parts}", kind)
    return NestedMixturePrior(n_clusters, network.latent_dim, n_parts)


# ---- p(y) = 1/K: GM-GAN's --------------------------------------------------------------------------------------------


class FactorPrior(_Tables):
    """``p(y) = 1/K``, ``p(z|y) = N(mu_y, A_y A_y^T)``; static tables are buffers, dynamic ones parameters."""

    loc: Tensor
    factor: Tensor

    def __init__(self, n_clusters: int, latent_dim: int, *, dynamic: bool) -> None:
        tables = {"loc": torch.zeros(n_clusters, latent_dim), "factor": torch.eye(latent_dim).repeat(n_clusters, 1, 1)}
        super().__init__(tables, trained=dynamic)

    @torch.no_grad()
    def start(self, separation: float, scale: float, generator: torch.Generator) -> None:
        """``mu_y ~ Uniform[-c, c]^Z``, ``A_y = sigma I``.

        c is such that two means stand ``separation`` sigma apart, in the root mean square: their squared distance has
        the mean ``2 Z c^2 / 3``.
        """
        latent_dim = self.loc.shape[1]
        spread = separation * scale * math.sqrt(3 / (2 * latent_dim))
        self.loc.copy_(spread * (2 * torch.rand(self.loc.shape, generator=generator) - 1))
        self.factor.copy_(scale * torch.eye(latent_dim))

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z = A_y e + mu_y`` for each y."""
        return draw_normal_tril(self.loc[y], self.factor[y], generator)


# ---- moments of codes ------------------------------------------------------------------------------------------------


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
