"""The Gaussian-mixture VAE whose posterior keeps the cluster: its five densities, a draw from q, and log w.

    p(x, y, z)   = p(y) p(z|y) p(x|z)
    q(y, z | x)  = q(y|x) q(z|y, x)                                      not mean-field
    log w        = log p(x, y, z) - log q(y, z | x)

The graph of the slides ("Our approach NVISA"); how it is trained is the method's. Axes: B batch, M samples,
K clusters, D features, H hidden, Z latent.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from nvisa.maths.bounds import importance_sampled
from nvisa.maths.distributions import draw_normal, log_normal, mean_squared_error
from nvisa.maths.shapes import Bool, Data, Float, Int, Latent, LogClusters, PerExample, PerSample, Tensor
from nvisa.nets.counts import COUNT_LIKELIHOODS, CountHead, CountUnits, GeneColumns, NegativeBinomial
from nvisa.nets.gaps import Observed
from nvisa.nets.heads import ProductHead
from nvisa.nets.layers import (
    BINARIZED,
    LEAK,
    LIKELIHOODS,
    BinarizedHead,
    Decoder,
    GaussianHead,
    Linear,
    Network,
    mlp,
    standardize,
)
from nvisa.nets.modules import Conv, direct_head, make_decoder, make_encoder
from nvisa.nets.priors import make_prior
from nvisa.nets.tables import CategoricalHead, TableUnits
from nvisa.nets.units import Rescale

__all__ = ["Drawn", "MixtureVAE", "draw", "log_p_x", "log_weights"]

Array = NDArray[np.floating]
OWN = ("encoder", "decoder")  # what the user may have brought


def make_trunk(rescale: Rescale, hidden: Sequence[int], *, batch_norm: bool) -> nn.Sequential:
    """The encoder's hidden layers, for rows in the networks' units.

    Plain ReLU: with a leak, consistency lets whole clusters merge.
    """
    width, fill = rescale.width, rescale.fill
    if isinstance(rescale, CountUnits):
        d = rescale.n_genes
        return nn.Sequential(GeneColumns(d), *mlp([d, *hidden], batch_norm=batch_norm, leak=0.0))
    if fill is None:
        return mlp([width, *hidden], batch_norm=batch_norm, leak=0.0)
    return nn.Sequential(Observed(deepcopy(fill)), *mlp([2 * width, *hidden], batch_norm=batch_norm, leak=0.0))


def make_head(rescale: Rescale, likelihood: Any, n_hidden: int) -> Any:
    """p(x|z) of rows in the networks' units, from the decoder's last hidden layer: a head for each kind of columns."""
    if isinstance(rescale, CountUnits):
        likelihood = COUNT_LIKELIHOODS[likelihood] if isinstance(likelihood, str) else likelihood
        return CountHead(n_hidden, rescale, zero_inflated=likelihood.zero_inflated)
    if isinstance(rescale, TableUnits):
        n_numbers = len(rescale.numbers)
        heads = [LIKELIHOODS[likelihood](n_hidden, n_numbers)] if n_numbers else []
        sizes = [n_numbers] if n_numbers else []
        return ProductHead([*heads, CategoricalHead(n_hidden, rescale)], [*sizes, rescale.width - n_numbers])
    head = (LIKELIHOODS | BINARIZED)[likelihood](n_hidden, rescale.width)
    return head if rescale.fill is None else ProductHead([head], [rescale.width])


class Drawn(NamedTuple):
    """M pairs (y, z) drawn from q(y, z | x), and the log densities that weigh them; all [M B]."""

    y: Int[Tensor, "M B"]
    z: Latent
    log_q_y: PerSample
    log_q_z: PerSample


class MixtureVAE(nn.Module):
    """q(y|x), q(z|y,x) and p(x|z), one method each; p(y) and p(z|y) are on ``prior``. h = trunk(x), once per x.

    y enters q(z|y,x) as an embedding added before the last hidden layer, which is what concatenating a
    one-hot y computes, without repeating the product with h for every sample.
    """

    trunk: Any
    decoder: Any
    x_head: Any

    def __init__(
        self,
        rescale: Rescale,
        n_clusters: int,
        network: Network,
        *,
        likelihood: str | NegativeBinomial,
        posterior: str,
        baseline: bool = False,
    ) -> None:
        super().__init__()
        hidden, self.latent_dim = list(network.hidden), network.latent_dim
        prior = make_prior(n_clusters, network)
        self.rescale = rescale
        self.decoder: Any  # ours, or the user's
        self.x_head: Any
        own_encoder, own_decoder = (isinstance(network, Conv) or getattr(network, of, None) for of in OWN)
        if own_encoder:
            self.trunk, n = make_encoder(network, rescale.width)
        else:
            self.trunk, n = make_trunk(rescale, hidden, batch_norm=network.batch_norm), hidden[-1]
        self.y_logits = nn.Linear(n, n_clusters)
        self.z_base = Linear(n, n)
        self.y_embedding = nn.Embedding(n_clusters, n) if posterior == "joint" else None
        self.z_head = GaussianHead(n, self.latent_dim)
        self.prior = prior
        if own_decoder:
            self.decoder, self.x_head = make_decoder(network, rescale.width), direct_head(likelihood, rescale.width)
        else:
            self.decoder = Decoder([self.latent_dim, *reversed(hidden)])
            self.x_head = make_head(rescale, likelihood, hidden[0])
        # NVIL's input-dependent baseline C(x): one hidden layer on the detached trunk.
        self.baseline = nn.Sequential(mlp([n, n]), nn.Linear(n, 1)) if baseline else None

    def log_q_y_from(self, h: Float[Tensor, "B H"]) -> LogClusters:
        """``log q(y|x)`` from ``h = trunk(x)``."""
        return self.y_logits(h).log_softmax(-1)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)``, ``x`` in the user's units: what labels a row."""
        return self.log_q_y_from(self.trunk(self.rescale(x)))

    def q_z(self, h: Float[Tensor, "B H"], y: Int[Tensor, "M B"], std_floor: float) -> tuple[Latent, Latent]:
        """Loc and scale of ``q(z|y,x)``; of ``q(z|x)`` when mean-field."""
        base = self.z_base(h)
        if self.y_embedding is None:
            loc, scale = self.z_head(F.leaky_relu(base, LEAK), std_floor)
            return loc.expand(len(y), -1, -1), scale.expand(len(y), -1, -1)
        n_clusters = self.y_embedding.num_embeddings
        if len(y) <= n_clusters:
            return self.z_head(F.leaky_relu(base + self.y_embedding(y), LEAK), std_floor)
        # More samples than clusters: compute each cluster once and look the samples up.
        loc, scale = self.z_head(F.leaky_relu(base + self.y_embedding.weight[:, None], LEAK), std_floor)
        index = y[:, :, None].expand(-1, -1, self.latent_dim)
        return loc.gather(0, index), scale.gather(0, index)

    def as_trained(self, x: Float[Tensor, "B D"], generator: torch.Generator) -> Float[Tensor, "B D"]:
        """The batch that a step of training sees: x, or zeros and ones drawn from it (:class:`BinarizedHead`)."""
        if not isinstance(self.x_head, BinarizedHead):
            return x
        return torch.bernoulli(x.to(generator.device), generator=generator).to(x.device)

    def log_p_x_given_z(self, x: Float[Tensor, "B D"], z: Latent, std_floor: float) -> PerSample:
        """``log p(x|z)``."""
        return self.x_head.log_prob(x, self.decoder(z), std_floor)

    def encode(self, x: Data) -> Float[Tensor, "B Z"]:
        """The mean of ``q(z|y,x)`` at the most probable y, ``x`` in the user's units."""
        h = self.trunk(self.rescale(x))
        return self.q_z(h, self.log_q_y_from(h).argmax(-1)[None], 0.0)[0][0]

    def code(self, x: Data) -> Float[Tensor, "B Z"]:
        """The latent mean without a cluster: what pretraining uses. ``x`` in the user's units."""
        return self.z_head.loc(F.leaky_relu(self.z_base(self.trunk(self.rescale(x))), LEAK))

    def reconstruct(self, z: Float[Tensor, "B Z"]) -> Data:
        """``E[x|z]`` in the networks' units."""
        return self.x_head.mean(self.decoder(z))

    def load_codes(self, codes: Array, proba: Array) -> None:
        """Give the codes mean zero and deviation one, which changes no reconstruction, and ``p(z|y)`` their moments."""
        self.prior.set_from(standardize(self.z_head.loc, cast(nn.Linear, self.decoder[0]), codes), proba)

    def draw_x(self, z: Float[Tensor, "B Z"], generator: torch.Generator | None, std_floor: float) -> Data:
        """``x ~ p(x|z)`` in the user's units; without a generator its mean."""
        h = self.decoder(z)
        if generator is None:
            return self.rescale.inverse(self.x_head.mean(h))
        x = self.rescale.inverse(self.x_head.draw(h, generator, std_floor))
        return x.round() if self.rescale.has_counts else x

    @torch.no_grad()
    def init_scales(self, x: Data, std_floor_x: float, std_floor_z: float) -> None:
        """Let the deviations begin where the bound has its maximum in them, seen from the autoencoder of a start.

        With ``s_d^2 = E (x_d - x^_d)^2``, z around the code of x and the decoder linear there, one round of ascent::

            1 / sigma_z,j^2  =  E sum_d (d x^_d / d z_j)^2 / s_d^2  +  E_y (cov_y^-1)_jj
            sigma_x,d^2      =  s_d^2  +  E sum_j (d x^_d / d z_j)^2 sigma_z,j^2

        No deviation can lie below its floor. The derivative is a difference over a twentieth of a code's deviation.
        From ``softplus(0)`` instead, the noise on z is as wide as a cluster of codes, and wipes the start out.
        """
        z = self.code(x)
        mean, x = self.reconstruct(z), self.rescale(x)
        variance = mean_squared_error(x, mean, 0).clamp_min(max(std_floor_x, 1e-2) ** 2)
        step = 0.05 * z.std(0)
        slopes = [((self.reconstruct(z + dz) - mean) / dz.sum()).square().mean(0) for dz in step.diag()]
        precision = torch.stack([(slope / variance).sum() for slope in slopes])
        precision += self.prior.precision.flatten(0, -2).mean(0)
        variance += torch.stack(slopes).T @ precision.reciprocal()
        self.z_head.init_scale(precision.rsqrt(), std_floor_z)
        if hasattr(self.x_head, "init_scale"):  # the others have no deviation
            self.x_head.init_scale(variance.sqrt(), std_floor_x)
        if self.y_embedding is not None:
            self.y_embedding.weight.zero_()  # the codes know no cluster yet

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        tables = [self.y_logits.weight, self.y_logits.bias, *self.prior.parameters()]
        for table in tables + ([] if self.y_embedding is None else [self.y_embedding.weight]):
            table.copy_(table[order])


def draw(
    network: MixtureVAE,
    h: Float[Tensor, "B H"],
    log_q_y: LogClusters,
    std_floor_z: float,
    *,
    n_samples: int | None,
    reparameterize: bool,
    generator: torch.Generator,
) -> Drawn:
    """Draw ``(y, z) ~ q(y|x) q(z|y,x)`` M times; ``n_samples=None`` enumerates y instead (M = K)."""
    n_rows, n_clusters = log_q_y.shape
    if n_samples is None:
        y = torch.arange(n_clusters, device=h.device)[:, None].expand(-1, n_rows)
    else:
        u = torch.rand(n_rows, n_samples, generator=generator, dtype=h.dtype, device=generator.device).to(h.device)
        cdf = log_q_y.detach().exp().cumsum(1)
        y = torch.searchsorted(cdf, u * cdf[:, -1:], right=True).clamp_(max=n_clusters - 1).T.contiguous()
    loc, scale = network.q_z(h, y, std_floor_z)
    z = draw_normal(loc, scale, generator)
    z = z if reparameterize else z.detach()
    return Drawn(y, z, log_q_y.T.gather(0, y), log_normal(z, loc, scale))


def log_weights(
    network: MixtureVAE,
    x: Float[Tensor, "B D"],
    drawn: Drawn,
    std_floor_x: float,
    *,
    tried: Bool[Tensor, "M B"] | None = None,
    decoded: bool = True,
) -> dict[str, PerSample]:
    """The terms of ``log w = log p(x|z) + log p(z|y) + log p(y) - log q(y|x) - log q(z|y,x)``; they add up.

    Parameters
    ----------
    tried
        The pairs of which ``log p(x|z)`` is wanted, zero for the others; None: all.
    decoded
        Whether ``log p(x|z)`` has a gradient, which costs most.
    """
    with torch.set_grad_enabled(decoded and torch.is_grad_enabled()):
        if tried is None:
            log_p_x_given_z = network.log_p_x_given_z(x, drawn.z, std_floor_x)
        else:
            m, b = tried.nonzero(as_tuple=True)
            found = network.log_p_x_given_z(x[b], drawn.z[m, b][None], std_floor_x)[0]
            log_p_x_given_z = torch.zeros_like(drawn.log_q_y).index_put((m, b), found)
    return {
        "log_p_x_given_z": log_p_x_given_z,
        "log_p_z_given_y": network.prior.log_p_z_given_y(drawn.z, drawn.y),
        "log_p_y": torch.full_like(drawn.log_q_y, network.prior.log_p_y()),
        "minus_log_q_y": -drawn.log_q_y,
        "minus_log_q_z": -drawn.log_q_z,
    }


def log_p_x(network: MixtureVAE, x: Float[Tensor, "B D"], std_floor_x: float, std_floor_z: float) -> PerExample:
    """``log sum_y p(y) 1/S sum_s p(x|z_s) p(z_s|y) / q(z_s|y,x)``, ``z_s ~ q(z|y,x)``.

    y is enumerated; see :func:`nvisa.maths.bounds.importance_sampled` for the S = 32 draws.
    """
    y = torch.arange(network.y_logits.out_features, device=x.device)[:, None].expand(-1, len(x))
    loc, scale = network.q_z(network.trunk(x), y, std_floor_z)

    def log_joint(z: Latent) -> PerSample:
        return network.log_p_x_given_z(x, z, std_floor_x) + network.prior.log_p_z_given_y(z, y)

    return torch.logsumexp(importance_sampled(log_joint, loc, scale) + network.prior.log_p_y(), 0)
