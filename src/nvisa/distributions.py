"""Log densities, divergences and responsibilities: pure functions that sum over the last axis.

Every function broadcasts over leading axes. Nothing here knows a model, a network or a generator.
"""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nvisa.shapes import Float, Tensor

__all__ = [
    "HALF_LOG_2PI",
    "entropy",
    "kl_categorical",
    "kl_normal",
    "log_bernoulli",
    "log_mean_exp",
    "log_normal",
    "log_normal_linear",
    "noise_like",
    "responsibilities",
]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def noise_like(x: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard normal noise in the shape of x, drawn where the generator is: the same numbers on every device."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)


def log_mean_exp(a: Float[Tensor, "M ..."]) -> Float[Tensor, "..."]:
    """``log 1/M sum_m exp(a_m)`` over the first axis, without overflow."""
    return torch.logsumexp(a, dim=0) - math.log(a.shape[0])


def log_normal(x: Float[Tensor, "..."], loc: Float[Tensor, "..."], scale: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``log N(x; loc, diag scale^2)``, summed over the last axis.

    ``- sum_d [ (x_d - loc_d)^2 / (2 scale_d^2) + log scale_d + log(2 pi) / 2 ]``
    """
    return -(0.5 * ((x - loc) / scale).square() + scale.log() + HALF_LOG_2PI).sum(-1)


def log_bernoulli(x: Float[Tensor, "..."], logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``sum_d x_d log s(l_d) + (1 - x_d) log(1 - s(l_d))`` with ``s`` the logistic function; x in [0, 1].

    Written as ``x l - softplus(l)``, which needs no clipping.
    """
    return (x * logits - F.softplus(logits)).sum(-1)


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

    Equal to :func:`log_normal` at ``loc = W h + b``, but no tensor of size M x B x D exists: G is made
    once a batch, c once an x, and a sample costs H^2 whatever D is. The three terms cancel, so in
    float32 keep the scale above about 0.05 of the data's own. With few samples the plain form costs
    fewer products (forward and backward, 3 M B D H against 3 D H^2 + 3 B D H + 2 M B H^2) and is taken.
    """
    (m, n, n_hidden), n_features = h.shape, x.shape[-1]
    if 3 * m * n * n_features <= 3 * n_features * (n_hidden + n) + 2 * m * n * n_hidden:
        return log_normal(x, F.linear(h, weight, bias), scale)
    w = weight / scale[:, None]
    r = (x - bias) / scale
    squared = r.square().sum(-1) + _Quadratic.apply(h, w.T @ w, r @ w)
    return -0.5 * squared - scale.log().sum() - x.shape[-1] * HALF_LOG_2PI


class _Quadratic(torch.autograd.Function):
    """``h^T G h - 2 h . c`` with symmetric G; its gradient ``2 (G h - c)`` reuses the product Gh."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gram: Tensor, c: Tensor) -> Tensor:
        half_slope = (h @ gram).sub_(c)
        ctx.save_for_backward(h, half_slope)
        return (h * (half_slope - c)).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, half_slope = ctx.saved_tensors
        weighted = gradient[..., None] * h
        d_gram = weighted.flatten(0, 1).T @ h.flatten(0, 1)
        return 2.0 * gradient[..., None] * half_slope, d_gram, -2.0 * weighted.sum(0)


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


def responsibilities(
    z: Float[Tensor, "B Z"],
    log_weights: Float[Tensor, " K"],
    loc: Float[Tensor, "K Z"],
    scale: Float[Tensor, "K Z"],
) -> Float[Tensor, "B K"]:
    """``log p(y = k | z)`` of a diagonal Gaussian mixture, by Bayes' rule in log space."""
    return (log_weights + log_normal(z[:, None, :], loc, scale)).log_softmax(-1)
