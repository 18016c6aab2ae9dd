"""Networks: sizes, multilayer perceptrons, and likelihood heads with a std floor.

Each likelihood is a head on the decoder's last hidden layer with the same three methods: ``log_prob``,
``mean`` and ``draw``. The std floor epsilon enters in :class:`GaussianHead` and :class:`SharedGaussianHead`; of the
former, ``log p(x|z)`` adds it in :func:`nvisa.maths.distributions.log_normal_head`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from nvisa.maths.distributions import (
    draw_normal,
    log_bernoulli_head,
    log_bernoulli_observed,
    log_normal,
    log_normal_head,
    log_normal_linear,
    log_normal_observed,
    noise_like,
)
from nvisa.maths.products import linear, perceptron
from nvisa.maths.shapes import Data, Float, Int, LogClusters, Tensor
from nvisa.nets.units import Rescale
from nvisa.settings import AtLeast, Each, InstanceOf, OneOf, Positive, SettingError

__all__ = [
    "BINARIZED",
    "BinarizedHead",
    "LEAK",
    "LIKELIHOODS",
    "BernoulliHead",
    "Decoder",
    "GaussianHead",
    "Kept",
    "LatentNetwork",
    "Network",
    "SharedGaussianHead",
    "UnitGaussianHead",
    "build",
    "change_axes",
    "generator_from",
    "initialize",
    "inverse_softplus",
    "mlp",
    "standardize",
    "torch_device",
]

Array = NDArray[np.floating]

LEAK = 0.2  # TensorFlow's default, which the authors' library, tfsnippet, uses


@dataclass(frozen=True)
class Network:
    """The size of the networks, and the units in which they see the data.

    Parameters
    ----------
    hidden
        Hidden layers of the encoder's trunk; the decoder mirrors them.
    latent_dim
        Z.
    batch_norm
        Normalize the trunk's hidden layers. Consistency from random weights needs it; the paper has none.
    scaling
        ``"global"``: subtract each column's mean, divide by one number (pixels, embeddings).
        ``"columns"``: divide each column by its own standard deviation (tables with mixed units).
        ``"none"``: leave the data as they are. ``"auto"``: "columns" if the largest column deviation
        is more than 10 times the median one, so that a few columns would drown the others; else "global". Rows that are
        unit vectors are "global". ``"cosine"``: "global" of rows divided by their length: distances go by angles.
    category_weight
        What a category of a table counts beside a number, in squared distances: 1 is as much, 0.125 about what
        k-prototypes has. Which of them tells groups apart cannot be seen without labels.
    prior_components
        C: NVISA's p(z|y) is a mixture of C Gaussians. 1 is the paper's. Other methods refuse another C.
    prior_covariance
        Of NVISA's p(z|y) when C is 1: "diag", the paper's; "full"; or "identity", of which nothing is learned, so that
        the floor of q(z|y,x) means the same throughout. Other methods refuse the last two.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> table = NVISA(5, network=Network(scaling="columns"))  # each column has a unit of its own
    >>> small = NVISA(5, network=Network(hidden=(64, 64), latent_dim=4))
    """

    hidden: Annotated[tuple[int, ...], Each(AtLeast(1))] = (500, 500)
    latent_dim: Annotated[int, AtLeast(1)] = 10
    batch_norm: Annotated[bool, InstanceOf(bool)] = True
    scaling: Annotated[str, OneOf("auto", "global", "columns", "cosine", "none")] = "auto"
    category_weight: Annotated[float, Positive] = 1.0
    prior_components: Annotated[int, AtLeast(1)] = 1
    prior_covariance: Annotated[str, OneOf("diag", "full", "identity")] = "diag"


@runtime_checkable
class LatentNetwork(Protocol):
    """What the networks of every method have: the fitted ``module_`` of a clusterer, usable alone.

    Rows ``x`` are in the user's units. Nothing is drawn: the same x has the same y and z.
    """

    latent_dim: int

    @property
    def rescale(self) -> Rescale:
        """The networks' units of the data."""

    def log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)``: its largest entry labels the row."""

    def encode(self, x: Data) -> Float[Tensor, "B Z"]:
        """The latent vector of each row."""

    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""


class Linear(nn.Linear):
    """A linear layer whose products may be of rounded factors (:mod:`nvisa.maths.products`): a wide one."""

    def forward(self, input: Float[Tensor, "*B H"]) -> Float[Tensor, "*B D"]:
        """``W x + b``."""
        return linear(input, self.weight, self.bias)


class Decoder(nn.Sequential):
    """An :func:`mlp` without batch norm that takes any leading axes, as one fused pass."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(*mlp(sizes))

    def forward(self, x: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B H"]:
        """Return the last hidden layer."""
        return perceptron(x, [layer for layer in self if isinstance(layer, nn.Linear)], LEAK)


def mlp(sizes: Sequence[int], *, batch_norm: bool = False, leak: float = LEAK) -> nn.Sequential:
    """Linear layers of the given sizes, each followed by (batch norm and) a leaky ReLU; ``leak=0.0`` is the ReLU."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers.append(Linear(n_in, n_out))
        if batch_norm:
            layers.append(nn.BatchNorm1d(n_out))
        layers.append(nn.LeakyReLU(leak, inplace=True))
    return nn.Sequential(*layers)


class Kept(nn.Module):
    """A module whose weights are somebody's: a fit begins with them."""


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Glorot-normal weights and zero biases in every linear or convolutional layer, from the given generator only.

    A module with a method ``initialize(generator)`` is asked to do it for itself; those in a :class:`Kept` one stay.
    """
    kept = {inner for outer in module.modules() if isinstance(outer, Kept) for inner in outer.modules()}
    for layer in (layer for layer in module.modules() if layer not in kept):
        if callable(begin := getattr(layer, "initialize", None)):  # a module of ours that knows its own
            begin(generator)
        elif isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=1.0 / math.sqrt(layer.embedding_dim), generator=generator)


def build(make: Callable[[], Any], generator: torch.Generator, device: torch.device | None = None) -> Any:
    """The module that ``make`` returns, its weights drawn from the generator and the global one untouched."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator when built
        module = make()
    initialize(module, generator)
    return module.to(device)


def generator_from(rng: RandomState) -> torch.Generator:
    """A torch generator seeded by a draw of a NumPy one; torch's global generator is left alone."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def torch_device(name: str) -> torch.device:
    """The device of this name on this machine; "auto": CUDA, then MPS, then CPU."""
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SettingError("training.device", f"'auto' or a device of this machine ({error})", name) from error


@torch.no_grad()
def standardize(last: nn.Linear, first: nn.Linear, codes: Array) -> Array:
    """Give the codes that ``last`` makes and ``first`` reads mean zero and deviation one; what follows is unchanged.

    Returns them as they are now [n Z].
    """
    mean, deviation = codes.mean(0), codes.std(0).clip(1e-6)
    shift, scale = (torch.from_numpy(a).to(first.weight) for a in (mean, deviation))
    first.bias.add_(first.weight @ shift)
    first.weight.mul_(scale)
    last.bias.sub_(shift).div_(scale)
    last.weight.div_(scale[:, None])
    return (codes - mean) / deviation


@torch.no_grad()
def change_axes(last: nn.Linear, first: nn.Linear, axes: Array) -> None:
    """Let ``last`` make and ``first`` read ``axes @ z`` in place of ``z``; what follows is unchanged."""
    new, old = (torch.from_numpy(a).to(first.weight) for a in (axes, np.linalg.inv(axes)))
    first.weight.copy_(first.weight @ old)
    last.bias.copy_(new @ last.bias)
    last.weight.copy_(new @ last.weight)


def inverse_softplus(scale: Tensor) -> Tensor:
    """The argument of which ``scale`` is the softplus, ``log(exp(scale) - 1)``."""
    return scale + torch.log(-torch.expm1(-scale))


def _raw(scale: Tensor, std_floor: float) -> Tensor:
    """The argument of ``softplus(raw) + std_floor = scale``; softplus is at least 0.01."""
    return inverse_softplus((scale - std_floor).clamp_min(1e-2))


class GaussianHead(nn.Module):
    """``N(mu(h), diag sigma'(h)^2)`` with ``sigma' = softplus(sigma(h)) + epsilon`` (slides, "Std Annealing")."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.loc = nn.Linear(n_in, n_out)
        self.raw_scale = nn.Linear(n_in, n_out)

    def forward(
        self, h: Float[Tensor, "*B H"], std_floor: float
    ) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D"]]:
        """Return loc and scale."""
        weights, biases = zip(*((head.weight, head.bias) for head in (self.loc, self.raw_scale)), strict=True)
        loc, raw = linear(h, torch.cat(weights), torch.cat(biases)).chunk(2, -1)  # one product
        return loc, F.softplus(raw) + std_floor

    @torch.no_grad()
    def init_scale(self, scale: Float[Tensor, " D"], std_floor: float) -> None:
        """Give every z this deviation, or the least that the floor leaves."""
        self.raw_scale.weight.zero_()
        self.raw_scale.bias.copy_(_raw(scale, std_floor))

    def log_prob(self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float) -> Float[Tensor, "M B"]:
        """``log p(x|z)`` with a deviation per feature and per z."""
        return log_normal_head(x, h, self.loc, self.raw_scale, std_floor)

    def log_prob_observed(
        self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float
    ) -> Float[Tensor, "M B"]:
        """``log p(x_o|z)`` of what is observed of x; NaN is a gap."""
        return log_normal_observed(x, *self(h, std_floor))

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B D"]:
        """``E[x|z]``."""
        return self.loc(h)

    def draw(self, h: Float[Tensor, "*B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "*B D"]:
        """One x ~ p(x|z)."""
        loc, scale = self(h, std_floor)
        return draw_normal(loc, scale, generator)


class SharedGaussianHead(nn.Module):
    """The same with a deviation per feature that does not depend on z: the Gram form applies (fast default)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.loc = nn.Linear(n_in, n_out)
        self.raw_scale = nn.Parameter(torch.zeros(n_out))

    def scale(self, std_floor: float) -> Float[Tensor, " D"]:
        """``sigma' = softplus(sigma) + epsilon``."""
        return F.softplus(self.raw_scale) + std_floor

    @torch.no_grad()
    def init_scale(self, scale: Float[Tensor, " D"], std_floor: float) -> None:
        """Start at this deviation, or at the least that the floor leaves."""
        self.raw_scale.copy_(_raw(scale, std_floor))

    def log_prob(self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float) -> Float[Tensor, "M B"]:
        """``log p(x|z)`` without a tensor of size M x B x D."""
        return log_normal_linear(x, h, self.loc.weight, self.loc.bias, self.scale(std_floor))

    def log_prob_observed(
        self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float
    ) -> Float[Tensor, "M B"]:
        """``log p(x_o|z)`` of what is observed of x; NaN is a gap."""
        return log_normal_observed(x, self.loc(h), self.scale(std_floor))

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B D"]:
        """``E[x|z]``."""
        return self.loc(h)

    def draw(self, h: Float[Tensor, "*B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "*B D"]:
        """One x ~ p(x|z)."""
        return draw_normal(self.loc(h), self.scale(std_floor), generator)


class UnitGaussianHead(nn.Module):
    """``N(mu(h), I)`` in the networks' units: squared error. Its deviation is fixed, so the floor does not touch it."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.loc = nn.Linear(n_in, n_out)

    def log_prob(self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float) -> Float[Tensor, "M B"]:
        """``log p(x|z)``."""
        return log_normal(x, self.loc(h), torch.ones_like(x))

    def log_prob_observed(
        self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float
    ) -> Float[Tensor, "M B"]:
        """``log p(x_o|z)`` of what is observed of x; NaN is a gap."""
        return log_normal_observed(x, self.loc(h), torch.ones_like(x))

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B D"]:
        """``E[x|z]``."""
        return self.loc(h)

    def draw(self, h: Float[Tensor, "*B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "*B D"]:
        """One x ~ p(x|z)."""
        loc = self.loc(h)
        return loc + noise_like(loc, generator)


class BernoulliHead(nn.Module):
    """``Bernoulli(s(l(h)))`` for x in [0, 1]; it has no deviation, so the floor does not touch it."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.logits = nn.Linear(n_in, n_out)

    def log_prob(self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float) -> Float[Tensor, "M B"]:
        """``log p(x|z)``."""
        return log_bernoulli_head(x, h, self.logits)

    def log_prob_observed(
        self, x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], std_floor: float
    ) -> Float[Tensor, "M B"]:
        """``log p(x_o|z)`` of what is observed of x; NaN is a gap."""
        return log_bernoulli_observed(x, self.logits(h))

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B D"]:
        """``E[x|z]``, the pixel probabilities."""
        return self.logits(h).sigmoid()

    def draw(self, h: Float[Tensor, "*B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "*B D"]:
        """One x ~ p(x|z), zeros and ones."""
        mean = self.mean(h)
        return torch.bernoulli(mean.to(generator.device), generator=generator).to(mean.device)


class BinarizedHead(BernoulliHead):
    """The same for x drawn anew from its probabilities each time it is trained on, dynamic binarization.

    So the slides' authors train their Bernoulli rows (tfsnippet, ``bernoulli_flow``). A gray pixel is then on in one
    epoch and off in the next, for q(y|x) too, which cannot cut by how gray it is.
    """


LIKELIHOODS: dict[str, Any] = {
    "gaussian": GaussianHead,
    "gaussian_shared": SharedGaussianHead,
    "gaussian_unit": UnitGaussianHead,
    "bernoulli": BernoulliHead,
}
BINARIZED: dict[str, Any] = {"bernoulli_binarized": BinarizedHead}  # of networks that ask it for what they train on
