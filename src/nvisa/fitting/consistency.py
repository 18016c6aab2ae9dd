"""Local consistency of q(y|x), and the balance of the clusters: pure functions on log q(y|x).

The extension that the slides' conclusion proposes: under augmentations of images, or, for any data, under virtual
adversarial displacements. Virtual adversarial consistency: Miyato et al.,
"Virtual adversarial training", TPAMI 2018; with the information term for clustering: Hu et al., IMSAT,
ICML 2017 (arXiv:1702.08720), sec. 3; which also names augmentation by random affine maps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
from sklearn.utils import check_scalar
from torch.nn import functional as F

from nvisa.maths.distributions import entropy, kl_categorical, noise_like
from nvisa.maths.products import inputs_only
from nvisa.maths.shapes import Data, Float, LogClusters, PerExample, Scalar, Tensor

__all__ = [
    "VAT",
    "Augment",
    "adversarial_direction",
    "affine",
    "as_settings",
    "augmented",
    "checked_settings",
    "information",
    "marginal_entropy",
    "vat",
    "warp",
]

LogPosterior = Callable[[Data], LogClusters]


@dataclass(frozen=True)
class VAT:
    """Virtual adversarial consistency of q(y|x), with cluster balance.

    ``maximize  -KL( q(y|x) || q(y|x + r) ) + information * ( balance * H[mean q(y)] - mean H[q(y|x)] )``

    Parameters
    ----------
    weight
        Weight of the whole against the bound per feature.
    radius
        ``||r||``, as a fraction of the distance from x to its 10th nearest neighbor, as the 50 leading principal
        components have it (:func:`nvisa.fitting.graph.neighbor_radius`).
    information
        Weight of the information term (IMSAT: 0.1).
    balance
        Weight of the entropy of the mean assignment inside it (IMSAT: 4). The term is largest when all
        clusters have equal size, but a soft reward, not a constraint: it saturates at log K. Lower it
        (1 is the plain mutual information) when sizes are known to be very unequal.
    probe
        Length of the probe of the power iteration that finds the direction, in the same unit. A long
        one (IMSAT's xi = 10 is about 1.8 on MNIST) sees where q changes at all, not only its slope.
    pull
        Share of the bound's gradient that reaches log q(y|x): 0 leaves q(y|x) to consistency while the bound trains
        everything else, the trunk below q(y|x) included; 1 is the gradient of the sum. A mixture of ten latent
        dimensions need not cut where the neighbors do, and then the bound pulls rows across (docs/methods/nvisa.md).
    """

    weight: float = 1.0
    radius: float = 0.25
    information: float = 0.1
    balance: float = 4.0
    probe: float = 1.8
    pull: float = 0.0


@dataclass(frozen=True)
class Augment:
    """Consistency of q(y|x) under small affine maps of images, with cluster balance.

    ``maximize  -KL( q(y|x) || q(y|a(x)) ) + information * ( balance * H[mean q(y)] - mean H[q(y|x)] )``

    Parameters
    ----------
    image_shape
        (H, W) or (H, W, C) of a row; None: a square of gray pixels.
    shift
        Largest shift, as a fraction of the height and of the width.
    scale
        Largest zoom: sizes are multiplied by a factor within [1 / (1 + scale), 1 + scale].
    rotation
        Largest rotation, in degrees.
    weight, information, balance, pull
        As in :class:`VAT`.
    """

    image_shape: tuple[int, ...] | None = None
    shift: float = 0.07
    scale: float = 0.1
    rotation: float = 10.0
    weight: float = 1.0
    information: float = 0.1
    balance: float = 4.0
    pull: float = 0.0

    def shape_of(self, n_features: int) -> tuple[int, int, int]:
        """(H, W, C) of a row with this many pixels.

        Raises
        ------
        ValueError
            If it is no such image.
        """
        side = math.isqrt(n_features)
        shape = (side, side) if self.image_shape is None else tuple(self.image_shape)
        if len(shape) not in (2, 3) or math.prod(shape) != n_features:
            raise ValueError(
                f"Augment expected rows that are images of shape {shape}, got {n_features} features: give "
                "Augment(image_shape=(height, width)) or (height, width, channels); for other data use VAT."
            )
        return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def as_settings(consistency: Any) -> tuple[VAT | Augment, ...]:
    """One of "vat", "augment", None or a settings object, or a sequence of them, as a tuple of settings.

    Raises
    ------
    ValueError
        On anything else.
    """
    named: dict[str, VAT | Augment] = {"vat": VAT(), "augment": Augment()}
    given: list[Any] = list(consistency) if isinstance(consistency, (tuple, list)) else [consistency]
    found = tuple(named[item] if item in ("vat", "augment") else item for item in given if item is not None)
    for item in found:
        if not isinstance(item, (VAT, Augment)):
            raise ValueError(f"consistency must be 'vat', 'augment', VAT(...), Augment(...) or None, got {item!r}.")
    return found


def checked_settings(consistency: Any, n_features: int) -> tuple[VAT | Augment, ...]:
    """:func:`as_settings` for rows with this many features.

    Raises
    ------
    ValueError, TypeError
        On a weight or a size that is no number or negative, or rows that are no such images.
    """
    found = as_settings(consistency)
    for settings in found:
        for name in (field.name for field in fields(settings) if field.name != "image_shape"):
            check_scalar(getattr(settings, name), f"{type(settings).__name__}.{name}", Real, min_val=0)
        if isinstance(settings, Augment):
            settings.shape_of(n_features)
    return found


def marginal_entropy(log_q_y: LogClusters) -> Scalar:
    """``H[ mean_x q(y|x) ]`` over the batch: log K when the clusters are equally large."""
    return entropy(torch.logsumexp(log_q_y, 0).log_softmax(0))


def information(log_q_y: LogClusters, balance: float = 1.0) -> Scalar:
    """``balance * H[mean q(y|x)] - mean H[q(y|x)]``; at balance 1, the mutual information of x and y."""
    return balance * marginal_entropy(log_q_y) - entropy(log_q_y).mean()


def adversarial_direction(
    log_posterior: LogPosterior, x: Data, log_q_y: LogClusters, probe: PerExample, generator: torch.Generator
) -> Data:
    """Unit vectors along which q(y|x) changes most: one power iteration on the Hessian of the KL.

    ``d ~ N(0, I) / ||.||``, then the gradient of ``KL( q(y|x) || q(y|x + probe d) )`` in d, normalized.
    """
    d = F.normalize(noise_like(x, generator)).requires_grad_()
    with inputs_only():
        divergence = kl_categorical(log_q_y.detach(), log_posterior(x + probe[:, None] * d)).sum()
    (gradient,) = torch.autograd.grad(divergence, d)
    return F.normalize(gradient)


def vat(
    log_posterior: LogPosterior,
    x: Data,
    log_q_y: LogClusters,
    radius: PerExample,
    probe: PerExample,
    generator: torch.Generator,
) -> PerExample:
    """``KL( q(y|x) || q(y|x + r) )`` with r the adversarial direction times ``radius``; q(y|x) is the target.

    Parameters
    ----------
    log_posterior
        ``x -> log q(y|x)``.
    log_q_y
        ``log_posterior(x)``, already computed by the caller.
    radius, probe
        ``||r||`` of each x, and the length at which its direction is sought, in the units of x.
    """
    r = radius[:, None] * adversarial_direction(log_posterior, x, log_q_y, probe, generator)
    return kl_categorical(log_q_y.detach(), log_posterior(x + r))


def affine(
    shift: Float[Tensor, "B 2"], zoom: PerExample, angle: PerExample, height: int, width: int
) -> Float[Tensor, "B 2 3"]:
    """Where each pixel of the new image lies in the old one: ``R(angle) (p - shift) / zoom`` about the center.

    What is seen turns counterclockwise by ``angle``, grows by ``zoom``, then moves by ``shift`` (right, down). In
    torch's units, where the image reaches from -1 to 1: ``shift`` counts in them, and R is stretched by H / W.
    """
    c, s = angle.cos() / zoom, angle.sin() / zoom
    turn = torch.stack([c, -s * height / width, s * width / height, c], -1).unflatten(-1, (2, 2))
    return torch.cat([turn, -turn @ shift[..., None]], -1)


def warp(x: Data, theta: Float[Tensor, "B 2 3"], shape: tuple[int, int, int]) -> Data:
    """Images (rows of H W C pixels) under :func:`affine` maps, bilinear; beyond the border its nearest pixel."""
    images = x.unflatten(1, shape).movedim(-1, 1)
    places = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    return moved.movedim(1, -1).flatten(1)


def augmented(x: Data, settings: Augment, generator: torch.Generator) -> Data:
    """Each image under a random affine map of its own: shift, log zoom and angle uniform within their limits."""
    shape = settings.shape_of(x.shape[1])
    u = 2.0 * torch.rand(len(x), 4, generator=generator, dtype=x.dtype, device=generator.device).to(x.device) - 1.0
    zoom = (math.log1p(settings.scale) * u[:, 2]).exp()
    angle = math.radians(settings.rotation) * u[:, 3]
    return warp(x, affine(2.0 * settings.shift * u[:, :2], zoom, angle, *shape[:2]), shape)
