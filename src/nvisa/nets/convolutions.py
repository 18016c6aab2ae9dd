"""Networks for rows of any kind or for rows that are images: perceptrons or convolutions, by the same settings."""

import math

from torch import nn

from nvisa.maths.shapes import Float, Tensor
from nvisa.nets.layers import LEAK, Network, mlp
from nvisa.settings import SettingError

__all__ = ["ImageShape", "Layout", "body", "check_image_shape", "mirror"]

ImageShape = tuple[int, ...] | None


def check_image_shape(shape: tuple[int, ...], n_features: int, n_halvings: int) -> None:
    """Raise a SettingError unless the rows are such images and their sides can be halved that often."""
    whole = len(shape) in (2, 3) and math.prod(shape) == n_features
    if not whole or any(side % 2**n_halvings for side in shape[:2]):
        raise SettingError(
            "image_shape",
            f"(H, W) or (H, W, C) of {n_features} numbers with sides divisible by {2**n_halvings}",
            shape,
            "Try fewer layers in network.hidden, or image_shape=None.",
        )


class Layout(nn.Module):
    """Images [B C H W] to rows of the data, whose numbers stand in the order H W C; ``back``: rows to images."""

    def __init__(self, height: int, width: int, channels: int, *, back: bool) -> None:
        super().__init__()
        self.shape, self.back = (height, width, channels), back

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Return rows, or images."""
        if self.back:
            return x.unflatten(1, self.shape).permute(0, 3, 1, 2)
        return x.permute(0, 2, 3, 1).flatten(1)


def body(n_features: int, network: Network, image_shape: ImageShape) -> tuple[nn.Module, int]:
    """What turns a row into hidden units, and their number.

    ``network.hidden`` are the layers of a perceptron or, of images, the channels of convolutions that halve the sides.
    """
    if image_shape is None:
        return mlp([n_features, *network.hidden]), network.hidden[-1]
    height, width, channels = (*image_shape, 1)[:3]
    layers: list[nn.Module] = [Layout(height, width, channels, back=True)]
    for n_in, n_out in zip((channels, *network.hidden[:-1]), network.hidden, strict=True):
        layers += [nn.Conv2d(n_in, n_out, 4, 2, 1), nn.LeakyReLU(LEAK, inplace=True)]
    halvings = 2 ** len(network.hidden)
    return nn.Sequential(*layers, nn.Flatten()), network.hidden[-1] * (height // halvings) * (width // halvings)


def mirror(n_features: int, network: Network, image_shape: ImageShape) -> nn.Sequential:
    """The generator, in the networks' units: :func:`body` backwards; images end in a tanh, within [-1, 1]."""
    hidden = network.hidden[::-1]
    if image_shape is None:
        return nn.Sequential(
            mlp([network.latent_dim, *hidden], batch_norm=network.batch_norm), nn.Linear(hidden[-1], n_features)
        )
    height, width, channels = (*image_shape, 1)[:3]
    corner = (hidden[0], height // 2 ** len(hidden), width // 2 ** len(hidden))
    layers: list[nn.Module] = [nn.Linear(network.latent_dim, math.prod(corner)), nn.Unflatten(1, corner)]
    for n_in, n_out in zip(hidden, (*hidden[1:], channels), strict=True):
        layers += [nn.BatchNorm2d(n_in)] if network.batch_norm else []
        layers += [nn.ReLU(inplace=True), nn.ConvTranspose2d(n_in, n_out, 4, 2, 1)]
    return nn.Sequential(*layers, nn.Tanh(), Layout(height, width, channels, back=False))
