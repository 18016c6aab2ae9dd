"""The encoder and the autoencoder of the methods that start from codes: x in the user's units, z, and back."""

from typing import Any, cast

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from nvisa.maths.mixtures import common_axes, fit_mixture
from nvisa.maths.shapes import Data, Float, Int, LogClusters, PerSample, Tensor
from nvisa.nets.layers import (
    LIKELIHOODS,
    BernoulliHead,
    Decoder,
    Network,
    change_axes,
    inverse_softplus,
    mlp,
    standardize,
)
from nvisa.nets.priors import covariances, mixture_of_codes
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError

__all__ = ["LEAST_SCALE", "Autoencoder", "Encoder", "MixtureAutoencoder", "load_autoencoder"]

Array = NDArray[np.floating]
LEAST_SCALE = 1e-4  # of a deviation that has no std floor, added to its softplus
START_SCALE = 0.1  # of q(z|x), in standard deviations of the codes: small beside any cluster, so none is lost at once


class Encoder(nn.Module):
    """``h = trunk(x)``, ``z = W h + b``; variational: also ``q(z|x) = N(z, diag sigma(x)^2)``.

    ``sigma = softplus(s(h)) + 1e-4``: the papers' exp(log-variance / 2), without its overflow far from the data.
    """

    def __init__(self, rescale: Rescale, network: Network, *, variational: bool = False) -> None:
        super().__init__()
        self.latent_dim = network.latent_dim
        self.rescale = rescale
        self.trunk = mlp([len(rescale.shift), *network.hidden], batch_norm=network.batch_norm)
        self.z_loc = nn.Linear(network.hidden[-1], network.latent_dim)
        self.z_raw_scale = nn.Linear(network.hidden[-1], network.latent_dim) if variational else None

    def code(self, x: Data) -> Float[Tensor, "B Z"]:
        """The latent vector, ``x`` in the user's units."""
        return self.z_loc(self.trunk(self.rescale(x)))

    encode = code  # what every method's networks have

    def q_z(self, x: Data) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Loc and scale of ``q(z|x)``, ``x`` in the user's units; loc is the code."""
        return self.q_z_from(self.trunk(self.rescale(x)))

    def q_z_from(self, h: Float[Tensor, "B H"]) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """The same from the trunk's ``h``, for a method that has more heads on it."""
        assert self.z_raw_scale is not None  # built with variational=True
        return self.z_loc(h), F.softplus(self.z_raw_scale(h)) + LEAST_SCALE

    @torch.no_grad()
    def init_scale(self, scale: float) -> None:
        """Let ``q(z|x)`` start at this deviation everywhere."""
        assert self.z_raw_scale is not None  # built with variational=True
        self.z_raw_scale.weight.zero_()
        self.z_raw_scale.bias.fill_(inverse_softplus(torch.tensor(scale, dtype=torch.float64)))


class Autoencoder(nn.Module):
    """An encoder and its mirror, ``p(x|z)``."""

    def __init__(self, encoder: Encoder, network: Network, likelihood: str = "gaussian_unit") -> None:
        super().__init__()
        hidden = network.hidden[::-1]
        self.latent_dim, self.encoder = encoder.latent_dim, encoder
        self.decoder = Decoder([encoder.latent_dim, *hidden])
        self.x_head = LIKELIHOODS[likelihood](hidden[-1], len(encoder.rescale.shift))

    @property
    def rescale(self) -> Rescale:
        """The encoder's units."""
        return self.encoder.rescale

    def code(self, x: Data) -> Float[Tensor, "B Z"]:
        """The latent vector, ``x`` in the user's units."""
        return self.encoder.code(x)

    encode = code

    def reconstruct(self, z: Float[Tensor, "B Z"]) -> Data:
        """``E[x|z]`` in the networks' units."""
        return self.x_head.mean(self.decoder(z))

    def log_p_x_given_z(self, x: Data, z: Float[Tensor, "M B Z"], std_floor: float) -> PerSample:
        """``log p(x|z)`` in the networks' units, ``x`` in the user's."""
        return self.x_head.log_prob(self.rescale(x), self.decoder(z), std_floor)

    def whiten(self, codes: Array, proba: Array | None = None) -> Array:
        """Standardize the codes, let q(z|x) start narrow, and return the new codes; no reconstruction changes.

        With responsibilities [n K] their axes are also turned to where these clusters are nearest to diagonal ones.
        """
        last, first = self.encoder.z_loc, cast(nn.Linear, self.decoder[0])
        codes = standardize(last, first, codes)
        self.encoder.init_scale(START_SCALE)
        if proba is None:
            return codes
        axes = common_axes(proba.mean(0), covariances(codes, proba))
        axes /= (codes @ axes.T).std(0)[:, None]
        change_axes(last, first, axes)
        return (codes @ axes.T).astype(codes.dtype)

    def draw(self, z: Float[Tensor, "B Z"], generator: torch.Generator | None, std_floor: float) -> Data:
        """``x ~ p(x|z)`` in the user's units; without a generator its mean."""
        h = self.decoder(z)
        return self.rescale.inverse(
            self.x_head.mean(h) if generator is None else self.x_head.draw(h, generator, std_floor)
        )


class MixtureAutoencoder(Autoencoder):
    """An autoencoder, and the mixture of its codes that EM finds when it is trained: ``q(y|x) = p(y|z)``."""

    def __init__(
        self,
        rescale: Rescale,
        n_clusters: int,
        network: Network,
        *,
        likelihood: str,
        covariance: str,
        variational: bool = False,
    ) -> None:
        super().__init__(Encoder(rescale, network, variational=variational), network, likelihood)
        self.covariance = covariance
        self.mixture = mixture_of_codes(n_clusters, network.latent_dim, covariance)

    def fit_mixture(self, codes: Array, n_init: int, rng: RandomState) -> float:
        """EM on the codes [n Z], the most likely of ``n_init`` k-means starts; their mean ``log p(z)`` under it."""
        found = fit_mixture(codes, len(self.mixture.loc), rng, n_init=n_init, covariance=self.covariance)
        self.mixture.load(found.weights_, found.means_, found.covariances_)
        return float(found.lower_bound_)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)``: the mixture's responsibilities at the code."""
        return self.mixture.log_q_y(self.code(x))

    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        self.mixture.permute(order)


def load_autoencoder(module: Encoder | Autoencoder, fitted: Any) -> None:
    """Give ``module`` the units, the encoder and (if it has one) the decoder of a fitted clusterer's autoencoder.

    What the fitted one lacks (a scale of q(z|x), a deviation of p(x|z)) stays as it is.

    Raises
    ------
    SettingError
        If ``fitted`` has no autoencoder, or one of another network or likelihood.
    """
    given = getattr(fitted, "module_", None)
    if not isinstance(given, Autoencoder):
        raise SettingError(
            "pretraining",
            "a Training or a fitted clusterer with an autoencoder, such as AEGMM",
            type(fitted).__name__,
            "Fit it first; a clone is not fitted, unless what it copies stands in sklearn.frozen.FrozenEstimator.",
        )
    own = _layers(module)
    theirs = {name: layer for name, layer in _layers(given).items() if name in own}
    for name in own:
        expected, got = (_shapes(layers.get(name)) for layers in (own, theirs))
        if expected != got:
            raise SettingError(
                "pretraining",
                f"an autoencoder of the same network and likelihood, with {name} {expected}",
                got,
                "Give both the same network= and likelihood=.",
            )
    for name, layer in own.items():
        layer.load_state_dict(theirs[name].state_dict())


def _layers(module: Encoder | Autoencoder) -> dict[str, nn.Module]:
    """What every encoder has, and every autoencoder."""
    if isinstance(module, Encoder):
        return {"units": module.rescale, "trunk": module.trunk, "code": module.z_loc}
    head = module.x_head
    x = {"logits of x": head.logits} if isinstance(head, BernoulliHead) else {"mean of x": head.loc}
    return _layers(module.encoder) | {"decoder": module.decoder} | x


def _shapes(layer: nn.Module | None) -> list[tuple[int, ...]]:
    return [] if layer is None else [tuple(tensor.shape) for tensor in layer.state_dict().values()]
