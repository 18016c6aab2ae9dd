"""Priors p(y) p(z|y) of NVISA: the paper's, and the more powerful ones that its conclusion proposes.

Tables that are trained with the networks, and may be loaded with the moments of the codes of a start.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from nvisa.maths.distributions import draw_normal, draw_normal_tril, log_normal, log_normal_tril
from nvisa.maths.shapes import Float, Int, Tensor
from nvisa.nets.layers import Network
from nvisa.nets.mixtures import covariances, moments

__all__ = ["FullPrior", "MixturePrior", "NestedMixturePrior", "make_prior"]

Array = NDArray[np.floating]


class MixturePrior(nn.Module):
    """``p(y) = 1/K`` and ``p(z|y) = N(mu_y, diag sigma_y^2)``: a free table of K means and log deviations.

    The slides put no floor on ``sigma_y``. Means start at N(0, 1) draws, deviations at 1.
    """

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(n_clusters, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(n_clusters, latent_dim))

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

    def log_p_z(self, z: Float[Tensor, "*B Z"], y: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """``log p(z|y)`` of the paired z and y."""
        return log_normal(z, F.embedding(y, self.loc), F.embedding(y, self.log_scale).exp())

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y)`` for each y."""
        return draw_normal(self.loc[y], self.scale[y], generator)

    @torch.no_grad()
    def set_moments(self, loc: Array, variance: Array) -> None:
        """Give every ``p(z|y)`` this mean and this variance [K Z]."""
        self.loc.copy_(torch.from_numpy(loc))
        self.log_scale.copy_(torch.from_numpy(0.5 * np.log(variance)))

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
        super().__init__(n_clusters, latent_dim)
        self.loc = nn.Parameter(torch.zeros(n_clusters, n_components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(n_clusters, n_components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(n_clusters, n_components))

    @property
    def scale(self) -> Float[Tensor, "K C Z"]:
        """``sigma_yc``."""
        return self.log_scale.exp()

    def log_p_z(self, z: Float[Tensor, "*B Z"], y: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
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

    def log_p_z(self, z: Float[Tensor, "*B Z"], y: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
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


def make_prior(n_clusters: int, network: Network) -> MixturePrior:
    """The p(z|y) that the network's settings ask for."""
    table, n_parts, covariance = (n_clusters, network.latent_dim), network.prior_components, network.prior_covariance
    if covariance not in ("diag", "full") or (covariance == "full" and n_parts > 1):
        raise ValueError(
            "Network.prior_covariance must be 'diag', or 'full' with prior_components=1, "
            f"got {covariance!r} with prior_components={n_parts}."
        )
    if covariance == "full":
        return FullPrior(*table)
    return MixturePrior(*table) if n_parts == 1 else NestedMixturePrior(*table, n_parts)
