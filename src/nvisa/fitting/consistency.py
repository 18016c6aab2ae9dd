"""Local consistency of q(y|x), and the balance of the clusters: pure functions on log q(y|x), and the objective.

    maximize  [ L(x) / D ]  +  sum_c weight_c ( information_c ( balance_c H[mean_x q(y|x)] - mean_x H[q(y|x)] )
                                                - mean_x KL( sg q(y|x) || q(y|x') ) )

with x' = x + r adversarial (:class:`VAT`) or another view of x (:class:`Augment`), sg a stopped gradient, and L a bound
on log p(x), if any: of every second row, with the share ``bound_gradient`` (the least of all c) of its gradient in
log q(y|x).

The extension that the slides' conclusion proposes: under augmentations of images, or, for any data, under virtual
adversarial displacements. Virtual adversarial consistency: Miyato et al.,
"Virtual adversarial training", TPAMI 2018; with the information term for clustering: Hu et al., IMSAT,
ICML 2017 (arXiv:1702.08720), sec. 3; which also names augmentation by random affine maps.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nvisa.fitting.training import StepOutput
from nvisa.maths.bounds import scaled_gradient
from nvisa.maths.distributions import information, kl_categorical, noise_like, whole_batch
from nvisa.maths.shapes import Data, Float, LogClusters, PerExample, Tensor
from nvisa.settings import AnyOf, Each, InstanceOf, NotNegative, OneOf, SettingError, refuses

__all__ = [
    "BY_NAME",
    "VAT",
    "Augment",
    "Consistency",
    "ConsistencyObjective",
    "adversarial_direction",
    "affine",
    "augmented",
    "drift_penalty",
    "vat",
    "warp",
]

LogPosterior = Callable[[Data], LogClusters]


@refuses(pull="bound_gradient")
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
        Weight of the entropy of the mean assignment inside it (IMSAT: 4), or, beside a start, of minus the divergence
        of the mean assignment from the sizes to expect: halfway from equal ones to those of the start.
    probe
        Length of the probe of the power iteration that finds the direction, in the same unit. A long
        one (IMSAT's xi = 10 is about 1.8 on MNIST) sees where q changes at all, not only its slope.
    bound_gradient
        Share of the bound's gradient that reaches log q(y|x): 0 leaves q(y|x) to consistency while the bound trains
        everything else, the trunk below q(y|x) included; 1 is the gradient of the sum. A mixture of ten latent
        dimensions need not cut where the neighbors do: the bound then draws rows over (docs/methods/nvisa-default.md).

    Examples
    --------
    >>> from nvisa import NVISA
    >>> free = NVISA(10, consistency=VAT(balance=1))  # sizes are drawn less to those expected
    >>> summed = NVISA(10, consistency=VAT(bound_gradient=1))  # the bound moves q(y|x) too
    """

    weight: Annotated[float, NotNegative] = 1.0
    radius: Annotated[float, NotNegative] = 0.25
    information: Annotated[float, NotNegative] = 0.1
    balance: Annotated[float, NotNegative] = 4.0
    probe: Annotated[float, NotNegative] = 1.8
    bound_gradient: Annotated[float, NotNegative] = 0.0


@refuses(pull="bound_gradient")
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
    weight, information, balance, bound_gradient
        As in :class:`VAT`.

    Examples
    --------
    >>> from nvisa import NVISA, VAT
    >>> images = NVISA(10, consistency=Augment(image_shape=(28, 28)))
    >>> both = NVISA(10, consistency=(VAT(), Augment(information=0.0)))  # the information counts once
    """

    image_shape: tuple[int, ...] | None = None
    shift: Annotated[float, NotNegative] = 0.07
    scale: Annotated[float, NotNegative] = 0.1
    rotation: Annotated[float, NotNegative] = 10.0
    weight: Annotated[float, NotNegative] = 1.0
    information: Annotated[float, NotNegative] = 0.1
    balance: Annotated[float, NotNegative] = 4.0
    bound_gradient: Annotated[float, NotNegative] = 0.0

    def shape_of(self, n_features: int) -> tuple[int, int, int]:
        """(H, W, C) of a row with this many pixels.

        Raises
        ------
        SettingError
            If it is no such image.
        """
        side = math.isqrt(n_features)
        shape = (side, side) if self.image_shape is None else tuple(self.image_shape)
        if len(shape) not in (2, 3) or math.prod(shape) != n_features:
            raise SettingError(
                "consistency.image_shape",
                f"the shape of rows of {n_features} features, (height, width) or (height, width, channels)",
                self.image_shape,
                f"An image of {shape} has not as many. For other data use VAT.",
            )
        return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


BY_NAME: dict[str, VAT | Augment] = {"vat": VAT(), "augment": Augment()}
ONE = AnyOf(OneOf(*BY_NAME), InstanceOf(VAT, Augment))
Consistency = AnyOf(ONE, Each(ONE))  # what the setting ``consistency`` may be


def adversarial_direction(
    log_posterior: LogPosterior, x: Data, log_q_y: LogClusters, probe: PerExample, generator: torch.Generator
) -> Data:
    """Unit vectors along which q(y|x) changes most: one power iteration on the Hessian of the KL.

    ``d ~ N(0, I) / ||.||``, then the gradient of ``KL( q(y|x) || q(y|x + probe d) )`` in d, normalized.
    """
    d = F.normalize(noise_like(x, generator)).requires_grad_()
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


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norm keeps its running statistics inside: they belong to the data, not to adversarial neighbors."""
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@contextmanager
def constant_parameters(module: nn.Module) -> Iterator[None]:
    """What is computed inside has no gradient in the parameters, which would cost as much as that in x."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)  # noqa: FBT003
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)  # noqa: FBT003


# ---- the objective ---------------------------------------------------------------------------------------------------


@dataclass
class ConsistencyObjective:
    """Consistency and information of a batch, beside the bound of a generative model if there is one.

    Parameters
    ----------
    network
        Has ``rescale``, ``trunk`` and ``log_q_y_from``.
    terms
        The consistencies, which are added.
    neighbor_distance
        Of every row of the data to its 10th neighbor [N], for VAT; else None.
    generative
        Has ``bound(x, h, log_q_y, fraction) -> (bound on log p(x), its terms)``, such as the slides' objective
        (:class:`nvisa.methods.nvisa.Bound`); None: consistency alone.
    log_sizes
        Logarithm of the sizes of clusters that the mean assignment is drawn to [K]; None: equal ones.
    """

    network: Any
    terms: tuple[VAT | Augment, ...]
    neighbor_distance: Any
    generator: torch.Generator
    generative: Any = None
    log_sizes: Any = None

    def __post_init__(self) -> None:
        if self.neighbor_distance is not None:
            self.neighbor_distance = torch.as_tensor(self.neighbor_distance, dtype=torch.float32).to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.network.rescale.shift.device

    def found(self) -> dict[str, float]:
        """What a clusterer says of it: the median distance to the 10th neighbor, if VAT has asked for it."""
        distance = self.neighbor_distance
        return {} if distance is None else {"neighbor_distance_": float(distance.median())}

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """Value and its parts of the batch ``x`` (user's units), rows of the data ``rows``."""
        user, x = x, self.network.rescale(x)
        h = self.network.trunk(x)
        log_q_y = self.network.log_q_y_from(h)
        value, parts = self._bound_per_feature(x, h, log_q_y, fraction)
        for settings in self.terms:
            if isinstance(settings, VAT):
                name, divergence = "vat", self._from_neighbor(settings, x, rows, log_q_y)
            else:
                name, divergence = "augment", self._from_view(settings, user, log_q_y)
            mutual = settings.information * information(whole_batch(log_q_y), settings.balance, self.log_sizes)
            value = value + settings.weight * (mutual - whole_batch(divergence).mean())
            parts |= {name: divergence, "information": parts.get("information", 0.0) + mutual}
        return StepOutput(value, parts, log_q_y)

    def _bound_per_feature(
        self, x: Data, h: Float[Tensor, "B H"], log_q_y: LogClusters, fraction: float
    ) -> tuple[Any, dict[str, Tensor]]:
        """The bound's mean per feature, by every second row, and its terms.

        Consistency learns from the number of steps, the bound from the number of rows. On every second row of the
        shuffled batch its gradient is unbiased, at half the cost.
        """
        if self.generative is None:
            return 0.0, {}
        share = min(settings.bound_gradient for settings in self.terms)
        seen = log_q_y.detach() if share == 0 else scaled_gradient(log_q_y, share)
        bound, terms = self.generative.bound(x[::2], h[::2], seen[::2], fraction)
        return whole_batch(bound).mean() / x.shape[1], terms

    def _from_neighbor(self, settings: VAT, x: Data, rows: np.ndarray, log_q_y: LogClusters) -> PerExample:
        """Divergence of each row from its adversarial neighbor."""
        assert self.neighbor_distance is not None  # made for VAT
        unit = self.neighbor_distance[torch.from_numpy(rows).to(x.device)]
        with frozen_statistics(self.network.trunk):
            return vat(self._log_q_y, x, log_q_y, settings.radius * unit, settings.probe * unit, self.generator)

    def _from_view(self, settings: Augment, user: Data, log_q_y: LogClusters) -> PerExample:
        """Divergence of each image (user's units) from itself under a small affine map."""
        moved = self.network.rescale(augmented(user, settings, self.generator))
        with frozen_statistics(self.network.trunk):
            return kl_categorical(log_q_y.detach(), self._log_q_y(moved))

    def _log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)`` of rows in the networks' units; of a probe, whose gradient is asked for in x alone."""
        with constant_parameters(self.network) if x.requires_grad else nullcontext():
            return self.network.log_q_y_from(self.network.trunk(x))

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the bound's."""
        return {} if self.generative is None else self.generative.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.generative.load_state_dict(state)


def drift_penalty(
    before: Any, module: Any, objective: Callable[[Data, np.ndarray, float], StepOutput]
) -> Callable[[Data, np.ndarray, float], StepOutput]:
    """The objective less ``KL( q_before(y|x) || q(y|x) )``: training on new rows must not forget the clusters.

    The trunk's batch norm stays as it is: a chunk's mean and deviation are not the data's. An objective without q(y|x)
    of its own, such as an autoencoder's, is held by that of the module.
    """
    fixed = getattr(module, "trunk", module)

    def penalized(x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """The objective less the drift of its batch."""
        fixed.eval()
        step = objective(x, rows, fraction)
        log_q_y = module.log_q_y(x) if step.log_q_y is None else step.log_q_y
        drift = kl_categorical(before.log_q_y(x).detach(), log_q_y)
        return StepOutput(step.value.mean() - drift.mean(), step.terms | {"drift": drift}, log_q_y)

    return penalized
