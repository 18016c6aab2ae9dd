"""The encoder and the autoencoder of the methods that start from codes: x in the user's units, z, and back."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from nvisa.nets import LIKELIHOODS, Decoder, Network, Rescale, mlp
from nvisa.shapes import Data, Float, PerSample, Tensor

__all__ = ["Autoencoder", "Encoder"]


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

    def q_z(self, x: Data) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Loc and scale of ``q(z|x)``, ``x`` in the user's units; loc is the code."""
        return self.q_z_from(self.trunk(self.rescale(x)))

    def q_z_from(self, h: Float[Tensor, "B H"]) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """The same from the trunk's ``h``, for a method that has more heads on it."""
        assert self.z_raw_scale is not None  # built with variational=True
        return self.z_loc(h), F.softplus(self.z_raw_scale(h)) + 1e-4

    @torch.no_grad()
    def fix_scale(self, scale: float) -> None:
        """Let ``q(z|x)`` start at this deviation everywhere."""
        assert self.z_raw_scale is not None  # built with variational=True
        self.z_raw_scale.weight.zero_()
        self.z_raw_scale.bias.fill_(math.log(math.expm1(scale)))


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

    def reconstruct(self, z: Float[Tensor, "B Z"]) -> Data:
        """``E[x|z]`` in the networks' units."""
        return self.x_head.mean(self.decoder(z))

    def log_p_x(self, x: Data, z: Float[Tensor, "M B Z"], std_floor: float) -> PerSample:
        """``log p(x|z)`` in the networks' units, ``x`` in the user's."""
        return self.x_head.log_prob(self.rescale(x), self.decoder(z), std_floor)

    def draw(self, z: Float[Tensor, "B Z"], generator: torch.Generator | None, std_floor: float) -> Data:
        """``x ~ p(x|z)`` in the user's units; without a generator its mean."""
        h = self.decoder(z)
        return self.rescale.inverse(
            self.x_head.mean(h) if generator is None else self.x_head.draw(h, generator, std_floor)
        )
