"""Encoders and decoders that are no perceptrons: convolutions for images, and modules of the user's own.

* ``network=Conv()``: images [N H W], [N H W C] or [N C H W] as they are; convolutions halve the sides, and double them
* ``network=Modules(encoder=..., decoder=...)``: any ``torch.nn.Module``; a copy is trained, from the weights it has

A decoder makes E[x|z] itself (Bernoulli: its log odds), in the networks' units, so p(x|z) adds a deviation for each
number and no layer: :func:`direct_head`.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

import torch
from torch import nn

from nvisa.maths.distributions import log_bernoulli, log_normal
from nvisa.maths.shapes import Float, Tensor
from nvisa.nets.convolutions import Layout
from nvisa.nets.layers import (
    LEAK,
    BernoulliHead,
    Kept,
    Network,
    SharedGaussianHead,
    UnitGaussianHead,
    mlp,
)
from nvisa.settings import AtLeast, Each, InstanceOf, OneOf, SettingError

__all__ = ["SHAPED", "Conv", "Modules", "direct_head", "make_decoder", "make_encoder", "with_shape"]

Shape = tuple[int, ...] | None


@dataclass(frozen=True)
class Conv(Network):
    """Convolutions for images: ``NVISA(10, network=Conv()).fit(images)``.

    Parameters
    ----------
    channels
        Of the encoder's convolutions, each of which halves the sides; the decoder mirrors them.
    image_shape
        Of a row: (H, W), (H, W, C), or (C, H, W) with C 1, 3 or 4. None: that of images [N H W ...] of the fit, or a
        square.
    hidden
        Layers of a perceptron on top of the convolutions.
    latent_dim, batch_norm, scaling, category_weight, prior_components, prior_covariance
        As in :class:`nvisa.Network`.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> digits = NVISA(10, network=Conv(channels=(16, 32), hidden=(200,)))
    """

    channels: Annotated[tuple[int, ...], Each(AtLeast(1))] = (32, 64)
    image_shape: Annotated[Shape, InstanceOf(tuple, None)] = None
    hidden: Annotated[tuple[int, ...], Each(AtLeast(1))] = (500,)

    def layout(self, n_features: int) -> tuple[tuple[int, int, int], bool]:
        """(height, width, channels) of a row of so many numbers, and whether the channels come first.

        Raises
        ------
        SettingError
            Unless the rows are such images, and their sides can be halved for each convolution.
        """
        side = math.isqrt(n_features)
        shape = (side, side) if self.image_shape is None else tuple(self.image_shape)
        first = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
        sides = shape[1:] if first else shape[:2]
        halved = 2 ** len(self.channels)
        if len(shape) not in (2, 3) or math.prod(shape) != n_features or any(n % halved for n in sides):
            raise SettingError(
                "network.image_shape",
                f"(H, W), (H, W, C) or (C, H, W) of {n_features} numbers with sides divisible by {halved}",
                self.image_shape,
                "Try fewer channels, which halve the sides less often, or pad the images.",
            )
        depth = 1 if len(shape) == 2 else shape[0] if first else shape[2]
        return (*sides, depth), first  # type: ignore[return-value]


@dataclass(frozen=True)
class Modules(Network):
    """Your own networks: ``NVISA(10, network=Modules(encoder=my_encoder, decoder=my_decoder))``.

    A copy is trained, from the weights that they have. A model directory holds their weights and not their code: hand
    them to :func:`nvisa.load` again, ``load(path, network=Modules(...))``.

    Parameters
    ----------
    encoder
        From rows ``[n, *shape]`` in the networks' units to hidden units [n, H], H of your choice; None: a perceptron of
        ``hidden`` layers.
    decoder
        From latent vectors [n, latent_dim] to E[x|z] ``[n, *shape]`` in the networks' units, log odds for
        ``likelihood="bernoulli"``; None: a perceptron.
    shape
        Of a row as the modules see it, such as (1, 28, 28). None: that of arrays [N, ...] of the fit, or flat rows.
    hidden, latent_dim, batch_norm, scaling, category_weight, prior_components, prior_covariance
        As in :class:`nvisa.Network`.

    Examples
    --------
    >>> from torch import nn
    >>> from nvisa import NVISA
    >>> encoder = nn.Sequential(nn.Linear(64, 100), nn.BatchNorm1d(100), nn.ReLU())
    >>> own = NVISA(10, network=Modules(encoder=encoder))
    """

    encoder: Annotated[nn.Module | None, InstanceOf(nn.Module, None)] = None
    decoder: Annotated[nn.Module | None, InstanceOf(nn.Module, None)] = None
    shape: Annotated[Shape, InstanceOf(tuple, None)] = None

    def row_shape(self, n_features: int) -> tuple[int, ...]:
        """Of a row of so many numbers, as the modules see it."""
        shape = (n_features,) if self.shape is None else tuple(self.shape)
        if math.prod(shape) != n_features:
            raise SettingError("network.shape", f"the shape of a row of {n_features} numbers", self.shape)
        return shape


def with_shape(network: Network, shape: Sequence[int] | None) -> Network:
    """The settings, with the shape of images or arrays that a fit was handed, unless they have one."""
    if shape is None:
        return network
    if isinstance(network, Conv) and network.image_shape is None:
        return replace(network, image_shape=tuple(shape))
    if isinstance(network, Modules) and network.shape is None:
        return replace(network, shape=tuple(shape))
    return network


SHAPED = (Conv, Modules)  # settings whose networks see the shape of a row


# ---- networks --------------------------------------------------------------------------------------------------------


class Images(nn.Module):
    """Rows to images [B C H W], ``back``: images to rows."""

    def __init__(self, shape: tuple[int, int, int], *, first: bool, back: bool) -> None:
        super().__init__()
        height, width, channels = shape
        self.layout = None if first else Layout(height, width, channels, back=not back)
        self.shape, self.back = (channels, height, width), back

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Return the other."""
        if self.layout is not None:
            return self.layout(x)
        return x.flatten(1) if self.back else x.unflatten(1, self.shape)


class Flat(nn.Sequential):
    """Layers for two axes, or more for images, behind any leading axes: [... Z] to [... D]."""

    def forward(self, z: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B D"]:
        """Return rows."""
        return super().forward(z.flatten(0, -2)).unflatten(0, z.shape[:-1])


class Reshaped(Kept):
    """A copy of the user's module that sees rows in a shape, and whose outputs are rows again; its weights are kept."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.shape = deepcopy(module), shape

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        """Return what the module makes of it, flat."""
        return self.module(x.unflatten(1, self.shape)).flatten(1)


def make_encoder(network: Network, n_features: int) -> tuple[nn.Module, int]:
    """What turns rows into hidden units, and their number."""
    if isinstance(network, Conv):
        (height, width, channels), first = network.layout(n_features)
        layers: list[nn.Module] = [Images((height, width, channels), first=first, back=False)]
        for n_in, n_out in zip((channels, *network.channels[:-1]), network.channels, strict=True):
            layers.append(nn.Conv2d(n_in, n_out, 4, 2, 1))
            layers += [nn.BatchNorm2d(n_out)] if network.batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        n_flat = math.prod(_corner(network, height, width))
        top = mlp([n_flat, *network.hidden], batch_norm=network.batch_norm, leak=0.0)
        return nn.Sequential(*layers, nn.Flatten(), *top), network.hidden[-1]
    own = cast(Modules, network)
    assert own.encoder is not None  # asked for
    shape = own.row_shape(n_features)
    made = Reshaped(own.encoder, shape)
    got = _tried(made, n_features, "network.encoder", f"a module from rows [n, {_said(shape)}] to hidden units [n, H]")
    return made, got[1]


def make_decoder(network: Network, n_features: int) -> nn.Module:
    """What turns latent vectors into E[x|z], a linear layer first."""
    z = network.latent_dim
    if isinstance(network, Conv):
        (height, width, channels), first = network.layout(n_features)
        corner = _corner(network, height, width)
        layers: list[nn.Module] = [*mlp([z, *network.hidden[::-1], math.prod(corner)]), nn.Unflatten(1, corner)]
        outputs = [*network.channels[-2::-1], channels]
        for n_in, n_out in zip(network.channels[::-1], outputs, strict=True):
            layers += [nn.ConvTranspose2d(n_in, n_out, 4, 2, 1), nn.LeakyReLU(LEAK, inplace=True)]
        return Flat(*layers[:-1], Images((height, width, channels), first=first, back=True))
    own = cast(Modules, network)
    assert own.decoder is not None  # asked for
    shape = own.row_shape(n_features)
    made = Reshaped(own.decoder, (z,))
    expected = f"a module from latent vectors [n, {z}] to rows [n, {_said(shape)}]"
    got = _tried(made, z, "network.decoder", expected)
    if got[1] != n_features:
        raise SettingError("network.decoder", expected, f"[2, {got[1]}] of [2, {z}]", "See latent_dim and shape.")
    return Flat(_Axes(z), made)


class _Axes(nn.Linear):
    """A linear map of z that begins as the identity: what gives codes their mean and deviation (``standardize``)."""

    def __init__(self, n: int) -> None:
        super().__init__(n, n)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Begin as the identity, whatever the generator."""
        self.weight.copy_(torch.eye(len(self.weight)))
        self.bias.zero_()


def _corner(network: Conv, height: int, width: int) -> tuple[int, int, int]:
    halved = 2 ** len(network.channels)
    return network.channels[-1], height // halved, width // halved


def _said(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


@torch.no_grad()
def _tried(made: Reshaped, n_in: int, setting: str, expected: str) -> tuple[int, ...]:
    """Shape of what two rows of zeros become; a SettingError if they become nothing, or no tensor with two rows."""
    like = next(iter(made.parameters()), torch.zeros(()))
    was_training = made.training
    try:
        got = made.eval()(torch.zeros(2, n_in, device=like.device if like.device.type != "meta" else "cpu"))
        shape = tuple(got.shape)
    except Exception as error:
        raise SettingError(setting, expected, f"{type(made.module).__name__} ({error})") from error
    finally:
        made.train(was_training)
    if len(shape) != 2 or shape[0] != 2:
        raise SettingError(setting, expected, f"{list(shape)} of two rows")
    return shape


# ---- p(x|z) without a layer ------------------------------------------------------------------------------------------


class _DirectGaussian(SharedGaussianHead):
    def __init__(self, n_out: int) -> None:
        super().__init__(1, n_out)
        self.loc = nn.Identity()  # type: ignore[assignment]

    def log_prob(self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B D"], std_floor: float) -> Float[Tensor, "M B"]:
        """``log p(x|z)``."""
        return log_normal(x, h, self.scale(std_floor))


class _DirectUnitGaussian(UnitGaussianHead):
    def __init__(self, n_out: int) -> None:
        super().__init__(1, n_out)
        self.loc = nn.Identity()  # type: ignore[assignment]


class _DirectBernoulli(BernoulliHead):
    def __init__(self, n_out: int) -> None:
        super().__init__(1, n_out)
        self.logits = nn.Identity()  # type: ignore[assignment]

    def log_prob(self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B D"], std_floor: float) -> Float[Tensor, "M B"]:
        """``log p(x|z)``."""
        return log_bernoulli(x, h)


DIRECT: dict[str, Any] = {
    "gaussian_shared": _DirectGaussian,
    "gaussian_unit": _DirectUnitGaussian,
    "bernoulli": _DirectBernoulli,
}


def direct_head(likelihood: Any, n_features: int) -> nn.Module:
    """p(x|z) of which the decoder makes the mean.

    Raises
    ------
    SettingError
        For a likelihood with another parameter that z decides.
    """
    if not (allowed := OneOf(*DIRECT)).allows(likelihood):
        raise SettingError(
            "likelihood", f"{allowed.expected} beside network=Conv() or a decoder of your own", likelihood
        )
    return cast(nn.Module, DIRECT[likelihood](n_features))
