"""Matrix products of float32 whose factors are rounded to bfloat16, inside :func:`factors_in`.

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
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nvisa.maths.shapes import Float, Tensor

__all__ = ["PRECISION", "PRECISIONS", "factor_type", "factors_in", "linear", "residual", "training_factors"]

PRECISIONS = ("auto", "float32", "bfloat16")
PRECISION: ContextVar[str] = ContextVar("precision", default="auto")  # of a training: ``nvisa.config`` sets it
_FACTORS: ContextVar[torch.dtype] = ContextVar("factors", default=torch.float32)


def training_factors(device: torch.device) -> torch.dtype:
    """The type to which a training on this device rounds the factors of its products."""
    if PRECISION.get() == "auto":
        return torch.bfloat16 if device.type == "cpu" and _multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if PRECISION.get() == "bfloat16" else torch.float32


@cache
def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16."""
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
