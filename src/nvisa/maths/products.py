"""Matrix products with a weight, forward and back, by the faster of the two libraries that torch carries.

torch multiplies float32 matrices by MKL, which on AMD's processors with AVX-512 is slower than oneDNN, the library of
torch's compiler: a little where both matrices are large, several times where one has 10 columns (the table of products
in docs/performance.md). Which of them runs depends on the machine, the types and the shapes, never on a timing, so that
two runs on one machine add in the same order. Everywhere else these functions are torch's own.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nvisa.maths.shapes import Float, Tensor

__all__ = ["Linear", "gram", "inputs_only", "linear", "product"]

SMALL = 2**20  # multiplications: below, the call costs what the product saves
THIN = 64  # columns
_INPUTS_ONLY: ContextVar[bool] = ContextVar("inputs_only", default=False)


@cache
def prefers_onednn() -> bool:
    """Whether this is a machine, and a torch, on which oneDNN's product exists and has been measured to win."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    return (
        "AuthenticAMD" in described
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _onednn_takes(a: Tensor, b: Tensor, work: int) -> bool:
    """Whether oneDNN is to multiply these: plain float32 matrices on the processor, and not too small."""
    return (
        work >= SMALL
        and prefers_onednn()
        and a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )


def product(
    a: Float[Tensor, "N I"], b: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None, *, leak: float = 1.0
) -> Float[Tensor, "N O"]:
    """``leaky_relu(a b^T + bias)``, without a gradient; ``leak=1`` is the product itself."""
    if not _onednn_takes(a, b, a.numel() * len(b)):
        out = F.linear(a, b, bias)
        return out if leak == 1.0 else F.leaky_relu_(out, leak)
    if leak == 1.0:
        return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "leaky_relu", [leak], "")


def gram(a: Float[Tensor, "N I"], b: Float[Tensor, "N O"]) -> Float[Tensor, "I O"]:
    """``a^T b``, without a gradient: a weight's, from what arrives and what went in. MKL is slow for thin ones."""
    if min(a.shape[1], b.shape[1]) >= THIN or not _onednn_takes(a, b, a.numel() * b.shape[1]):
        return a.T @ b
    return product(a.T, b.T) if a.shape[1] <= b.shape[1] else product(b.T, a.T).T


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """``x W^T + b``, as often differentiable as torch's own."""
    if not _onednn_takes(x, weight, x.numel() * len(weight)):
        return F.linear(x, weight, bias)
    if _INPUTS_ONLY.get():
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    if x.dim() == 2:
        return _Linear.apply(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x W^T + b``."""
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """``G W``, ``G^T x`` and the column sums of G, as far as they are wanted."""
        (x, weight), wanted = ctx.saved_tensors, ctx.needs_input_grad
        d_bias = gradient.sum(0) if wanted[2] else None
        if torch.is_grad_enabled():  # to be differentiated again
            return linear(gradient, weight.T), linear(gradient.T, x.T), d_bias
        return product(gradient, weight.T) if wanted[0] else None, gram(gradient, x) if wanted[1] else None, d_bias


@contextmanager
def inputs_only() -> Iterator[None]:
    """Nobody will ask for the gradient of a weight of what is computed inside: it need not be made.

    torch's own layers find that out in the backward pass; a function of ours is only told when it runs forward.
    """
    token = _INPUTS_ONLY.set(True)
    try:
        yield
    finally:
        _INPUTS_ONLY.reset(token)


class Linear(nn.Linear):
    """torch's layer, its weights and its formula, by :func:`linear`."""

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Return ``x W^T + b``."""
        return linear(x, self.weight, self.bias)
