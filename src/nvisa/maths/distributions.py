"""Log densities, divergences, responsibilities and draws: functions that sum over the last axis.

They broadcast over leading axes; what draws is handed its generator. Nothing here knows a model.

The second half has the log densities of a decoder's linear heads with their gradients in closed form: a training step
costs the matrix products and little else. They equal the plain forms of the first half, which are taken where those
are cheaper. What is said once for all of them: a multi-sample bound gives sample m of x the gradient
``w_m = softmax(log w)_m``, and in many dimensions nearly all of it falls on a few of the M samples. A row whose weight
is below the rounding of the largest one cannot change a sum, so the backward passes gather the other rows and multiply
those alone (:func:`nvisa.maths.products.contributing_rows`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from nvisa.maths.products import Rows, contributing_rows, factor_type, residual, scatter_rows
from nvisa.maths.shapes import Data, Float, LogClusters, Scalar, Tensor

__all__ = [
    "HALF_LOG_2PI",
    "draw_categorical",
    "draw_normal",
    "entropy",
    "information",
    "kl_categorical",
    "kl_normal",
    "log_bernoulli",
    "log_bernoulli_head",
    "log_bernoulli_observed",
    "log_normal",
    "log_normal_head",
    "log_normal_linear",
    "log_normal_observed",
    "mean_squared_error",
    "marginal_entropy",
    "noise_like",
    "responsibilities",
]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def noise_like(x: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard normal noise in the shape of x, drawn where the generator is: the same numbers on every device."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)


def log_normal(x: Float[Tensor, "..."], loc: Float[Tensor, "..."], scale: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``log N(x; loc, diag scale^2)``, summed over the last axis.

    ``- sum_d [ (x_d - loc_d)^2 / (2 scale_d^2) + log scale_d + log(2 pi) / 2 ]``
    """
    return _log_normal_of(x - loc, scale)


def _log_normal_of(error: Float[Tensor, "..."], scale: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The same from ``x - loc``; a scale that others share is summed once."""
    n = error.shape[-1]
    squared = (error / scale).square().sum(-1)
    return -0.5 * squared - scale.log().expand(*scale.shape[:-1], n).sum(-1) - n * HALF_LOG_2PI


def mean_squared_error(x: Data, mean: Data, axis: int) -> Float[Tensor, "..."]:
    """Mean of ``(x - mean)^2`` along an axis, over what is observed of x; 0 where nothing is.

    Not torch's ``nanmean``, which would hide a ``mean`` that has left the finite numbers.
    """
    seen = ~x.isnan()
    if bool(seen.all()):
        return (x - mean).square().mean(axis)
    return torch.where(seen, x - mean, 0.0).square().sum(axis) / seen.sum(axis).clamp_min(1)


def log_normal_observed(
    x: Float[Tensor, "..."], loc: Float[Tensor, "..."], scale: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """``log N(x_o; loc_o, diag scale_o^2)`` of what is observed: the marginal, for NaN is a gap. Without any, 0."""
    seen = ~x.isnan()
    each = 0.5 * ((x.nan_to_num(0.0) - loc) / scale).square() + scale.log() + HALF_LOG_2PI
    return -(each * seen).sum(-1)


def draw_normal(
    loc: Float[Tensor, "*B D"], scale: Float[Tensor, "*#B D"], generator: torch.Generator
) -> Float[Tensor, "*B D"]:
    """One ``x ~ N(loc, diag scale^2)`` a row."""
    return loc + scale * noise_like(loc, generator)


def draw_categorical(log_weights: Float[Tensor, " K"], n: int, rng: RandomState) -> NDArray[np.int64]:
    """n draws of ``y ~ exp(log_weights)``."""
    weights = log_weights.detach().cpu().double().exp().numpy()
    return rng.choice(len(weights), size=n, p=weights / weights.sum())


def log_bernoulli(x: Float[Tensor, "..."], logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``sum_d x_d log s(l_d) + (1 - x_d) log(1 - s(l_d))`` with ``s`` the logistic function; x in [0, 1].

    Written as ``x l - softplus(l)``, which needs no clipping.
    """
    return (x * logits - F.softplus(logits)).sum(-1)


def log_bernoulli_observed(x: Float[Tensor, "..."], logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """:func:`log_bernoulli` of what is observed; NaN is a gap."""
    each = x.nan_to_num(0.0) * logits - F.softplus(logits)
    return (each * ~x.isnan()).sum(-1)


def kl_normal(
    loc: Float[Tensor, "..."],
    scale: Float[Tensor, "..."],
    prior_loc: Float[Tensor, "..."],
    prior_scale: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """``KL( N(loc, scale^2) || N(prior_loc, prior_scale^2) )``, diagonal, summed over the last axis."""
    ratio = (scale / prior_scale).square()
    shift = ((loc - prior_loc) / prior_scale).square()
    return 0.5 * (ratio + shift - 1.0 - ratio.log()).sum(-1)


def kl_categorical(log_p: Float[Tensor, "*B K"], log_q: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
    """``KL(p || q) = sum_k p_k (log p_k - log q_k)`` from log probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def entropy(log_p: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
    """``H[p] = - sum_k p_k log p_k`` in nats, from log probabilities (a zero probability adds zero)."""
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)


def marginal_entropy(log_q_y: LogClusters) -> Scalar:
    """``H[ mean_x q(y|x) ]`` over the batch: log K when the clusters are equally large."""
    return entropy(torch.logsumexp(log_q_y, 0).log_softmax(0))


def information(log_q_y: LogClusters, balance: float = 1.0, log_sizes: Float[Tensor, " K"] | None = None) -> Scalar:
    """``balance * H[mean q(y|x)] - mean H[q(y|x)]``; at balance 1, the mutual information of x and y.

    With the logarithm of expected sizes pi, ``-balance * KL( mean q(y|x) || pi ) - mean H[q(y|x)]``: the same, up to a
    constant, where all sizes are equal.
    """
    if log_sizes is None:
        return balance * marginal_entropy(log_q_y) - entropy(log_q_y).mean()
    log_mean = torch.logsumexp(log_q_y, 0).log_softmax(0)
    return -balance * kl_categorical(log_mean, log_sizes) - entropy(log_q_y).mean()


def whole_batch(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The rows of the batch that x has a row for each of: x itself, or of all processes that share the batch.

    These intercept it (``fitting/whole_batch.py``), as torch lets its own functions be.
    """
    return handle_torch_function(whole_batch, (x,), x) if has_torch_function_unary(x) else x


def responsibilities(
    z: Float[Tensor, "*B Z"],
    log_weights: Float[Tensor, " K"],
    loc: Float[Tensor, "*#B K Z"],
    scale: Float[Tensor, "*#B K Z"],
) -> Float[Tensor, "*B K"]:
    """``log p(y = k | z)`` of a diagonal Gaussian mixture, or of one for each z, by Bayes' rule in log space."""
    return (log_weights + log_normal(z[..., None, :], loc, scale)).log_softmax(-1)


# ---- of a decoder's heads: which rows count --------------------------------------------------------------------------

CHUNK = 512  # rows: 512 x 500 float32 are 1 MB, a core's own cache
FEW = 64  # rows: below, the plain form costs less than its own passes would save


def _chunks(n_rows: int, n_owners: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows, and of their owners, where row i belongs to owner ``i % n_owners``."""
    for first in range(0, n_rows, n_owners):
        last = min(first + n_owners, n_rows)
        for start in range(first, last, CHUNK):
            stop = min(start + CHUNK, last)
            yield slice(start, stop), slice(start - first, stop - first)


# ---- a deviation that all z share: the Gram form ---------------------------------------------------------------------


def log_normal_linear(
    x: Float[Tensor, "B D"],
    h: Float[Tensor, "M B H"],
    weight: Float[Tensor, "D H"],
    bias: Float[Tensor, " D"],
    scale: Float[Tensor, " D"],
) -> Float[Tensor, "M B"]:
    """``log N(x; W h + b, diag scale^2)`` for M hidden vectors per x, by the Gram matrix.

    With ``W' = W / s``, ``r = (x - b) / s``, ``G = W'^T W'`` and ``c = r W'``::

        || (x - b - W h) / s ||^2 = ||r||^2 - 2 h . c + h^T G h

    Equal to :func:`log_normal` at ``loc = W h + b``, but no tensor of size M x B x D exists: G is
    made once a batch, c once an x, and a sample costs H^2 whatever D is. The three terms cancel, so in
    float32 keep the scale above about 0.05 of the data's own. With few samples the plain form costs
    fewer products (forward and backward, 3 M B D H against 2 D H^2 + 3 B D H + 2 M B H^2) and is taken; it is too
    where factors are rounded, which the cancellation does not allow.
    """
    (m, n, n_hidden), n_features = h.shape, x.shape[-1]
    few = 3 * m * n * n_features <= 2 * n_features * n_hidden + 3 * n_features * n + 2 * m * n * n_hidden
    if few or factor_type(h) != h.dtype:
        squared = (residual(x, h, weight, bias) * scale.reciprocal()).square().sum(-1)
        return -0.5 * squared - scale.log().sum() - n_features * HALF_LOG_2PI
    r = (x - bias) / scale
    squared = r.square().sum(-1) + _Quadratic.apply(h, weight / scale[:, None], r)
    return -0.5 * squared - scale.log().sum() - x.shape[-1] * HALF_LOG_2PI


class _Quadratic(torch.autograd.Function):
    """``||W h||^2 - 2 r . W h = h^T G h - 2 h . c``; the gradient ``2 (G h - c)`` in h reuses the product Gh."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, r: Tensor) -> Tensor:
        """``(G h - 2 c) . h`` of every row of h."""
        c = r @ weight
        half_slope = F.linear(h.flatten(0, 1), weight.T @ weight).view_as(h).sub_(c)  # G is its own transpose
        ctx.save_for_backward(h, half_slope, weight, r)
        return (half_slope - c).mul_(h).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In h, W and r, for the rows that receive a gradient."""
        h, half_slope, weight, r = ctx.saved_tensors
        rows, n = contributing_rows(gradient.flatten()), len(r)
        g = gradient.flatten()[rows, None]
        h_rows = h.flatten(0, 1)[rows]
        weighted = g * h_rows
        d_h = scatter_rows(half_slope.flatten(0, 1)[rows] * (2.0 * g), rows, gradient.numel()).view_as(h)
        if isinstance(rows, slice):
            d_c = weighted.view_as(h).sum(0).mul_(-2.0)
        else:
            d_c = weighted.new_zeros(n, h.shape[-1]).index_add_(0, rows % n, weighted, alpha=-2.0)
        # d G = weighted^T h is symmetric, so d W = W (d G + d G^T) is one product.
        d_weight = (r.T @ d_c).add_(F.linear(weight, weighted.T @ h_rows), alpha=2.0)
        return d_h, d_weight, F.linear(d_c, weight)


# ---- a parameter per feature and per z: chunks -----------------------------------------------------------------------


def log_normal_head(
    x: Float[Tensor, "B D"],
    h: Float[Tensor, "M B H"],
    loc: torch.nn.Linear,
    raw_scale: torch.nn.Linear,
    std_floor: float,
) -> Float[Tensor, "M B"]:
    """``log N(x; loc(h), diag sigma'^2)`` with ``sigma' = softplus(raw_scale(h)) + std_floor``."""

    def density(_: Tensor, error: Tensor, raw: Tensor) -> Tensor:
        return _log_normal_of(error, F.softplus(raw).add_(std_floor))

    def slopes(_: Tensor, error: Tensor, raw: Tensor) -> tuple[Tensor, ...]:
        scale = F.softplus(raw).add_(std_floor)
        error = error.div_(scale)
        return error / scale, (error.square_() - 1.0).div_(scale).mul_(raw.sigmoid_())

    return _log_density(x, h, [loc, raw_scale], density, slopes, n_centered=1)


def log_bernoulli_head(
    x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], logits: torch.nn.Linear
) -> Float[Tensor, "M B"]:
    """``log Bernoulli(x; s(logits(h)))`` with s the logistic function."""
    return _log_density(x, h, [logits], log_bernoulli, lambda x, logits: (x - logits.sigmoid_(),), n_centered=0)


Density = Callable[..., Tensor]
Slopes = Callable[..., tuple[Tensor, ...]]


def _log_density(
    x: Tensor, h: Tensor, heads: list[torch.nn.Linear], density: Density, slopes: Slopes, *, n_centered: int
) -> Tensor:
    """``density(x, head(h) of each head)`` [M B]: chunk by chunk, or plainly where there are few rows.

    The outputs of the first ``n_centered`` heads are handed over as ``x - output``.
    """
    if h.shape[0] * h.shape[1] <= FEW or x.requires_grad:
        outputs = [head(h) for head in heads]
        return density(x, *[x - output for output in outputs[:n_centered]], *outputs[n_centered:])
    parameters = [tensor for head in heads for tensor in (head.weight, head.bias)]
    return _Chunked.apply(x, h, density, slopes, n_centered, *parameters)


class _Chunked(torch.autograd.Function):
    """A log density whose parameters are linear in h: no tensor of size M x B x D, forward or back.

    ``slopes`` is the gradient of the density in its parameters, from what the density saw and may be overwritten; that
    is computed again for the rows that receive a gradient, unless there is one chunk, whose outputs are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, density: Density, slopes: Slopes, n_centered: int, *parameters: Tensor
    ) -> Tensor:
        """``density(x, W h + b of every head)``, chunk by chunk."""
        kind, outputs = factor_type(h), []
        flat = h.flatten(0, 1).to(kind)
        value = h.new_empty(len(flat))
        owners = x.repeat(min(max(1, CHUNK // len(x)), len(h)), 1)  # of small batches, several samples are a chunk
        heads = _Heads(owners, parameters, kind, n_centered)
        for rows, own in _chunks(len(flat), len(owners)):
            outputs = heads(flat[rows], own)
            value[rows] = density(owners[own], *outputs)
        ctx.slopes, ctx.heads, ctx.n_owners = slopes, heads, len(x)
        ctx.save_for_backward(owners, h, flat, *(outputs if len(flat) <= CHUNK else []))
        return value.view(h.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """In h and the heads' parameters, for the rows that receive a gradient."""
        owners, h, flat, *outputs = ctx.saved_tensors
        g = gradient.flatten()
        kept = contributing_rows(g)
        every = isinstance(kept, slice)
        numbers = torch.arange(len(g), device=g.device) if isinstance(kept, slice) else kept
        d_h = torch.empty_like(h) if every else torch.zeros_like(h)
        found: list[Tensor] = []
        for rows in [slice(None)] if outputs and every else numbers.split(CHUNK):
            own = rows if len(owners) == len(flat) else (numbers if isinstance(rows, slice) else rows) % ctx.n_owners
            seen = [output[rows] for output in outputs] or ctx.heads(flat[rows], own)
            slopes = [slope.mul_(g[rows, None]) for slope in ctx.slopes(owners[own], *seen)]
            d_h.flatten(0, 1)[rows], *part = ctx.heads.gradients(slopes, flat[rows])
            found = [a.add_(b) for a, b in zip(found, part, strict=True)] if found else part
        return None, d_h, None, None, None, *found


class _Heads:
    """``W h + b`` of every head, and of the first ``n_centered`` ``x - W h - b`` for rows of x.

    The factors of products are rounded to ``kind``. A centered head is one product that begins at ``x - b``; what is
    lost there by rounding is added again. So the error is relative to what is left of x, not to x, which a narrow
    density could not stand.
    """

    def __init__(self, x: Tensor, parameters: Sequence[Tensor], kind: torch.dtype, n_centered: int) -> None:
        self.weights = [weight.to(kind) for weight in parameters[::2]]
        self.biases = [bias.to(kind) for bias in parameters[1::2]]
        self.type, self.n_centered = x.dtype, n_centered
        wholes = [x - bias for bias in parameters[1 : 2 * n_centered : 2]]
        self.shifted = [whole.to(kind) for whole in wholes]
        self.lost = [whole - rounded for whole, rounded in zip(wholes, self.shifted, strict=True)]

    def __call__(self, h: Tensor, rows: Rows) -> list[Tensor]:
        """The outputs for h of these rows of x, in the type of x."""
        heads = range(len(self.weights))
        return [self._centered(i, h, rows) if i < self.n_centered else self._output(i, h) for i in heads]

    def _output(self, i: int, h: Tensor) -> Tensor:
        return F.linear(h, self.weights[i], self.biases[i]).to(self.type)

    def _centered(self, i: int, h: Tensor, rows: Rows) -> Tensor:
        left = torch.addmm(self.shifted[i][rows], h, self.weights[i].T, alpha=-1)
        return left if left.dtype == self.type else left.to(self.type).add_(self.lost[i][rows])

    def gradients(self, slopes: list[Tensor], h: Tensor) -> list[Tensor]:
        """In h, and in the weight and bias of every head, from those in their outputs."""
        rounded = [slope.to(h.dtype) for slope in slopes]
        d_h = reduce(torch.add, (slope @ weight for slope, weight in zip(rounded, self.weights, strict=True)))
        pairs = [((r.T @ h).to(self.type), slope.sum(0)) for r, slope in zip(rounded, slopes, strict=True)]
        return [d_h.to(self.type), *(tensor for pair in pairs for tensor in pair)]
