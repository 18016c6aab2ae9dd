"""Log densities of a decoder, with their gradients in closed form: the products of a training step and little else.

What is said once for all of them:

* A multi-sample bound gives sample m of x the gradient ``w_m = softmax(log w)_m``, and in many dimensions nearly all of
  it falls on a few of the M samples. A row whose weight is below the rounding of the largest one cannot change a
  sum, so the backward passes gather the other rows and multiply those alone (``_rows``).
* Where the density has parameters per feature and per z, rows go through it in chunks that stay in the cache.
* Nothing here needs a compiler, and everything equals the plain form of :mod:`nvisa.maths.distributions`, which is taken
  where it is cheaper.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nvisa.maths.distributions import HALF_LOG_2PI, log_bernoulli, log_normal
from nvisa.maths.products import gram, linear, product
from nvisa.maths.shapes import Float, Tensor

__all__ = ["log_bernoulli_head", "log_normal_head", "log_normal_linear", "perceptron"]

CHUNK = 512  # rows: 512 x 500 float32 are 1 MB, a core's own cache
FEW = 256  # rows: below, the plain form costs less than its own passes would save
MULTIPLE = 64  # rows kept in a backward pass: few different shapes, for each of which oneDNN writes a program once
Rows = Tensor | slice


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def _rows(weight: Float[Tensor, " R"]) -> Rows:
    """The rows whose weight counts beside the largest one; all, as a slice, when gathering them would not pay."""
    size = weight.abs()
    n_kept = int((~(size <= torch.finfo(weight.dtype).eps * size.max())).sum())  # NaN counts: it must be seen
    n_kept = -(-n_kept // MULTIPLE) * MULTIPLE
    return size.topk(n_kept, sorted=False).indices.sort().values if n_kept < 0.8 * len(weight) else slice(None)


def _scatter(values: Tensor, rows: Rows, n: int) -> Tensor:
    """``values`` at their rows of [n ...], zero elsewhere."""
    return values if isinstance(rows, slice) else values.new_zeros(n, *values.shape[1:]).index_copy_(0, rows, values)


# ---- the hidden layers ---------------------------------------------------------------------------------------------


def perceptron(x: Float[Tensor, "*B Z"], layers: list[torch.nn.Linear], leak: float) -> Float[Tensor, "*B H"]:
    """``a_l = leaky_relu(W_l a_{l-1} + b_l)`` from ``a_0 = x``; rows that receive no gradient are not sent back."""
    parameters = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    return _Perceptron.apply(x.flatten(0, -2), leak, *parameters).unflatten(0, x.shape[:-1])


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float, *parameters: Tensor) -> Tensor:
        """``h_l = leaky_relu(W_l h_{l-1} + b_l)``, every ``h_l`` kept."""
        weights, biases = parameters[::2], parameters[1::2]
        outputs = [x]
        for weight, bias in zip(weights, biases, strict=True):
            outputs.append(product(outputs[-1], weight, bias, leak=leak))
        ctx.leak = leak
        ctx.save_for_backward(*outputs, *weights)
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Layer by layer, for the rows that receive a gradient."""
        n_layers = len(ctx.saved_tensors) // 2
        activations, weights = ctx.saved_tensors[: n_layers + 1], ctx.saved_tensors[n_layers + 1 :]
        n, rows = len(gradient), _rows(gradient.abs().amax(1).sign_())
        gradient = gradient[rows]
        found: list[Tensor | None] = []
        for layer in reversed(range(n_layers)):
            above, below = activations[layer + 1][rows], activations[layer][rows]
            gradient = torch.ops.aten.leaky_relu_backward(gradient, above, ctx.leak, True)  # noqa: FBT003
            found[:0] = [gram(gradient, below), gradient.sum(0)]
            gradient = product(gradient, weights[layer].T) if layer or ctx.needs_input_grad[0] else gradient
        return _scatter(gradient, rows, n) if ctx.needs_input_grad[0] else None, None, *found


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

    Equal to :func:`nvisa.maths.distributions.log_normal` at ``loc = W h + b``, but no tensor of size M x B x D exists: G is
    made once a batch, c once an x, and a sample costs H^2 whatever D is. The three terms cancel, so in
    float32 keep the scale above about 0.05 of the data's own. With few samples the plain form costs
    fewer products (forward and backward, 3 M B D H against 2 D H^2 + 3 B D H + 2 M B H^2) and is taken.
    """
    (m, n, n_hidden), n_features = h.shape, x.shape[-1]
    if 3 * m * n * n_features <= 2 * n_features * n_hidden + 3 * n_features * n + 2 * m * n * n_hidden:
        return log_normal(x, linear(h, weight, bias), scale)
    r = (x - bias) / scale
    squared = r.square().sum(-1) + _Quadratic.apply(h, weight / scale[:, None], r)
    return -0.5 * squared - scale.log().sum() - x.shape[-1] * HALF_LOG_2PI


class _Quadratic(torch.autograd.Function):
    """``||W h||^2 - 2 r . W h = h^T G h - 2 h . c``; the gradient ``2 (G h - c)`` in h reuses the product Gh."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, r: Tensor) -> Tensor:
        """``(G h - 2 c) . h`` of every row of h."""
        c = product(r, weight.T)
        half_slope = product(h.flatten(0, 1), gram(weight, weight)).view_as(h).sub_(c)  # G is its own transpose
        ctx.save_for_backward(h, half_slope, weight, r)
        return (half_slope - c).mul_(h).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In h, W and r, for the rows that receive a gradient."""
        h, half_slope, weight, r = ctx.saved_tensors
        rows, n = _rows(gradient.flatten()), len(r)
        g = gradient.flatten()[rows, None]
        h_rows = h.flatten(0, 1)[rows]
        weighted = g * h_rows
        d_h = _scatter(half_slope.flatten(0, 1)[rows] * (2.0 * g), rows, gradient.numel()).view_as(h)
        if isinstance(rows, slice):
            d_c = weighted.view_as(h).sum(0).mul_(-2.0)
        else:
            d_c = weighted.new_zeros(n, h.shape[-1]).index_add_(0, rows % n, weighted, alpha=-2.0)
        # d G = weighted^T h is symmetric, so d W = W (d G + d G^T) is one product.
        d_weight = gram(r, d_c).add_(product(weight, gram(weighted, h_rows)), alpha=2.0)
        return d_h, d_weight, product(d_c, weight)


# ---- a parameter per feature and per z: chunks -----------------------------------------------------------------------


def log_normal_head(
    x: Float[Tensor, "B D"],
    h: Float[Tensor, "M B H"],
    loc: torch.nn.Linear,
    raw_scale: torch.nn.Linear,
    std_floor: float,
) -> Float[Tensor, "M B"]:
    """``log N(x; loc(h), diag sigma'^2)`` with ``sigma' = softplus(raw_scale(h)) + std_floor``."""

    def density(x: Tensor, loc: Tensor, raw: Tensor) -> Tensor:
        return log_normal(x, loc, F.softplus(raw) + std_floor)

    def slopes(x: Tensor, loc: Tensor, raw: Tensor) -> tuple[Tensor, ...]:
        scale = F.softplus(raw).add_(std_floor)
        error = (x - loc).div_(scale)
        return error / scale, (error.square_() - 1.0).div_(scale).mul_(raw.sigmoid_())

    return _log_density(x, h, [loc, raw_scale], density, slopes)


def log_bernoulli_head(
    x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], logits: torch.nn.Linear
) -> Float[Tensor, "M B"]:
    """``log Bernoulli(x; s(logits(h)))`` with s the logistic function."""
    return _log_density(x, h, [logits], log_bernoulli, lambda x, logits: (x - logits.sigmoid_(),))


Density = Callable[..., Tensor]
Slopes = Callable[..., tuple[Tensor, ...]]


def _log_density(x: Tensor, h: Tensor, heads: list[torch.nn.Linear], density: Density, slopes: Slopes) -> Tensor:
    """``density(x, head(h) of each head)`` [M B]: chunk by chunk, or plainly where there are few rows."""
    if h.shape[0] * h.shape[1] <= FEW or x.requires_grad:
        return density(x, *[head(h) for head in heads])
    parameters = [tensor for head in heads for tensor in (head.weight, head.bias)]
    return _Chunked.apply(x, h, density, slopes, *parameters)


class _Chunked(torch.autograd.Function):
    """A log density whose parameters are linear in h: no tensor of size M x B x D, forward or back.

    ``slopes`` is the gradient of the density in its parameters, which it may overwrite; they are computed again
    for the rows that receive a gradient, unless there is one chunk, whose parameters are kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, density: Density, slopes: Slopes, *parameters: Tensor) -> Tensor:
        """``density(x, W h + b of every head)``, chunk by chunk."""
        flat, value, outputs = h.flatten(0, 1), h.new_empty(h.shape[0] * h.shape[1]), []
        for chunk in _chunks(len(flat)):
            owners = torch.arange(chunk.start, chunk.stop, device=x.device) % len(x)
            outputs = _outputs(flat[chunk], parameters)
            value[chunk] = density(x[owners], *outputs)
        ctx.n_parameters, ctx.slopes = len(parameters), slopes
        ctx.save_for_backward(x, h, *parameters, *(outputs if len(flat) <= CHUNK else []))
        return value.view(h.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """In h and the heads' parameters, for the rows that receive a gradient."""
        x, h, *saved = ctx.saved_tensors
        parameters, kept_outputs = saved[: ctx.n_parameters], saved[ctx.n_parameters :]
        g, flat = gradient.flatten(), h.flatten(0, 1)
        rows = _rows(g)
        kept = torch.arange(len(g), device=g.device) if isinstance(rows, slice) else rows
        d_h = torch.zeros_like(flat) if len(kept) < len(g) else torch.empty_like(flat)
        found = [torch.zeros_like(parameter) for parameter in parameters]
        for part in kept.split(CHUNK):
            h_part = flat[part]
            d_part = torch.zeros_like(h_part)
            outputs = [output[part] for output in kept_outputs] or _outputs(h_part, parameters)
            for i, slope in enumerate(ctx.slopes(x[part % len(x)], *outputs)):
                slope.mul_(g[part, None])
                found[2 * i].addmm_(slope.T, h_part)
                found[2 * i + 1].add_(slope.sum(0))
                d_part.add_(product(slope, parameters[2 * i].T))
            d_h[part] = d_part
        return None, d_h.view_as(h), None, None, *found


def _outputs(h: Tensor, parameters: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    return [product(h, weight, bias) for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)]
