"""Matrix products, alone and in a row of layers, whose float32 factors are rounded to bfloat16 in :func:`factors_in`.

    a b ~ round(a) round(b)         products of 8-bit mantissas, summed in float32; the sum is rounded once more

Twice as fast as float32 where a processor has AVX512_BF16, several times where it has AMX. What a product is for, a log
density, a sum, a weight, stays float32, and so do the parameters: a rounded gradient still adds up in them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nvisa.maths.shapes import Float, Tensor

__all__ = [
    "PRECISION",
    "PRECISIONS",
    "Rows",
    "contributing_rows",
    "factor_type",
    "factors_in",
    "linear",
    "perceptron",
    "residual",
    "scatter_rows",
    "training_factors",
]

PRECISIONS = ("auto", "float32", "bfloat16")
PRECISION: ContextVar[str] = ContextVar("precision", default="auto")  # of a training: ``nvisa.config`` sets it
_FACTORS: ContextVar[torch.dtype] = ContextVar("factors", default=torch.float32)


def training_factors(device: torch.device) -> torch.dtype:
    """The type to which a training on this device rounds the factors of its products."""
    if PRECISION.get() == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device.type) else torch.float32
    return torch.bfloat16 if PRECISION.get() == "bfloat16" else torch.float32


@cache
def _multiplies_bfloat16(kind: str) -> bool:
    """Whether a device of this kind has instructions for products of bfloat16."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    tests = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(test is not None and test() for test in tests)


@contextmanager
def factors_in(kind: torch.dtype) -> Iterator[None]:
    """Round the factors of float32 products to this type inside."""
    token = _FACTORS.set(kind)
    try:
        yield
    finally:
        _FACTORS.reset(token)


def factor_type(x: Tensor) -> torch.dtype:
    """To what the products of x round it: to its own type, unless that is float32 and they are :func:`factors_in`."""
    return _FACTORS.get() if x.dtype == torch.float32 else x.dtype


def linear(x: Float[Tensor, "*B H"], weight: Float[Tensor, "D H"], bias: Float[Tensor, " D"]) -> Float[Tensor, "*B D"]:
    """``W x + b``, differentiable, its products and those of its gradient of factors in :func:`factor_type`."""
    kind = factor_type(x)
    if kind == x.dtype:
        return F.linear(x, weight, bias)
    y: Tensor = _Linear.apply(x.flatten(0, -2), weight, bias, kind)
    return y.unflatten(0, x.shape[:-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
        """``W x + b``."""
        ctx.kind = kind
        ctx.save_for_backward(x, weight)
        return F.linear(x.to(kind), weight.to(kind), bias.to(kind)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """In x, W and b, as far as asked for; differentiable itself, which the gradient's penalty of GM-GAN needs."""
        (x, weight), g = ctx.saved_tensors, gradient.to(ctx.kind)
        d_x = (g @ weight.to(ctx.kind)).to(x.dtype) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return d_x, None, None, None
        return d_x, (g.T @ x.to(ctx.kind)).to(x.dtype), gradient.sum(0), None


def residual(
    x: Float[Tensor, "B D"], h: Float[Tensor, "M B H"], weight: Float[Tensor, "D H"], bias: Float[Tensor, " D"]
) -> Float[Tensor, "M B D"]:
    """``x - W h - b``, differentiable. Of rounded factors, its error is relative to what is left of x, not to x.

    The product begins at a rounded ``x - b``; what is lost there is added again. A narrow density could not stand
    ``W h`` rounded by itself.
    """
    kind = factor_type(h)
    if kind == h.dtype:
        return x - F.linear(h, weight, bias)
    difference: Tensor = _Residual.apply(x - bias, h, weight, kind)
    return difference


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, weight: Tensor, kind: torch.dtype) -> Tensor:
        """``x - W h``, the rounded factors kept."""
        near, rounded = x.to(kind), (h.flatten(0, 1).to(kind), weight.to(kind))
        ctx.save_for_backward(*rounded)
        left = torch.addmm(near.repeat(len(h), 1), rounded[0], rounded[1].T, alpha=-1).to(x.dtype)
        return left.unflatten(0, h.shape[:2]).add_(x - near)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """In x, h and W."""
        h, weight = ctx.saved_tensors
        g = gradient.flatten(0, 1).to(h.dtype).neg_()
        d_h = (g @ weight).to(gradient.dtype).unflatten(0, gradient.shape[:2])
        return gradient.sum(0), d_h, (g.T @ h).to(gradient.dtype), None


# ---- several layers at once ------------------------------------------------------------------------------------------


def perceptron(x: Float[Tensor, "*B Z"], layers: list[nn.Linear], leak: float) -> Float[Tensor, "*B H"]:
    """``a_l = leaky_relu(W_l a_{l-1} + b_l)`` from ``a_0 = x``; rows that receive no gradient are not sent back."""
    parameters = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    return _Perceptron.apply(x.flatten(0, -2), leak, *parameters).unflatten(0, x.shape[:-1])


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float, *parameters: Tensor) -> Tensor:
        """``h_l = leaky_relu(W_l h_{l-1} + b_l)``, every ``h_l`` kept."""
        ctx.leak, kind = leak, factor_type(x)
        outputs, weights = [x.to(kind)], [weight.to(kind) for weight in parameters[::2]]
        for weight, bias in zip(weights, parameters[1::2], strict=True):
            outputs.append(F.leaky_relu_(F.linear(outputs[-1], weight, bias.to(kind)), leak))
        ctx.save_for_backward(*outputs, *weights)
        return outputs[-1].to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Layer by layer, for the rows that receive a gradient."""
        n_layers, wanted = len(ctx.saved_tensors) // 2, gradient.dtype
        activations, weights = ctx.saved_tensors[: n_layers + 1], ctx.saved_tensors[n_layers + 1 :]
        n, rows = len(gradient), contributing_rows(gradient.abs().amax(1).sign_())
        gradient = gradient[rows].to(activations[0].dtype)
        found: list[Tensor | None] = []
        for layer in reversed(range(n_layers)):
            above, below = activations[layer + 1][rows], activations[layer][rows]
            gradient = torch.ops.aten.leaky_relu_backward(gradient, above, ctx.leak, True)  # noqa: FBT003
            found[:0] = [(gradient.T @ below).to(wanted), gradient.sum(0, dtype=wanted)]
            gradient = gradient @ weights[layer] if layer or ctx.needs_input_grad[0] else gradient
        d_x = scatter_rows(gradient.to(wanted), rows, n) if ctx.needs_input_grad[0] else None
        return d_x, None, *found


# ---- rows that receive no gradient -----------------------------------------------------------------------------------

MULTIPLE = 64  # rows kept in a backward pass: few different shapes
Rows = torch.Tensor | slice


def contributing_rows(weight: Float[Tensor, " R"]) -> Rows:
    """The rows whose weight counts beside the largest one; all, as a slice, when gathering them would not pay."""
    if len(weight) <= 2 * MULTIPLE:
        return slice(None)
    size = weight.abs()
    n_kept = int((~(size <= torch.finfo(weight.dtype).eps * size.max())).sum())  # NaN counts: it must be seen
    n_kept = -(-n_kept // MULTIPLE) * MULTIPLE
    return size.topk(n_kept, sorted=False).indices.sort().values if n_kept < 0.8 * len(weight) else slice(None)


def scatter_rows(values: Tensor, rows: Rows, n: int) -> Tensor:
    """``values`` at their rows of [n ...], zero elsewhere."""
    return values if isinstance(rows, slice) else values.new_zeros(n, *values.shape[1:]).index_copy_(0, rows, values)
