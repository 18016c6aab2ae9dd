"""Log densities, divergences, responsibilities and draws: functions that sum over the last axis.

They broadcast over leading axes; what draws is handed its generator. Nothing here knows a model or a network.
"""

import math

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch.nn import functional as F

from nvisa.maths.shapes import Float, Tensor

__all__ = [
    "HALF_LOG_2PI",
    "draw_categorical",
    "draw_normal",
    "draw_normal_tril",
    "entropy",
    "kl_categorical",
    "kl_normal",
    "log_bernoulli",
    "log_mean_exp",
    "log_normal",
    "log_normal_tril",
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
    error = (x - loc) / scale  # the one tensor of full size; a scale that others share is summed once
    n = error.shape[-1]
    return -0.5 * error.square().sum(-1) - scale.log().expand(*scale.shape[:-1], n).sum(-1) - n * HALF_LOG_2PI


def log_normal_tril(
    x: Float[Tensor, "B D"], loc: Float[Tensor, "K D"], tril: Float[Tensor, "K D D"]
) -> Float[Tensor, "B K"]:
    """``log N(x; loc_k, L_k L_k^T)`` of each row in each component, ``L_k`` lower triangular.

    The inverse of every ``L_k`` is made once, so that all rows and components are one matrix product.
    """
    inverse = torch.linalg.solve_triangular(tril, torch.eye(x.shape[-1]).to(tril).expand_as(tril), upper=False)
    white = (inverse.flatten(0, 1) @ x.T).unflatten(0, loc.shape) - inverse @ loc[..., None]  # [K D B]
    log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -(0.5 * white.square().sum(1).T + log_det + x.shape[-1] * HALF_LOG_2PI)


def draw_normal(
    loc: Float[Tensor, "*B D"], scale: Float[Tensor, "*#B D"], generator: torch.Generator
) -> Float[Tensor, "*B D"]:
    """One ``x ~ N(loc, diag scale^2)`` a row."""
    return loc + scale * noise_like(loc, generator)


def draw_normal_tril(
    loc: Float[Tensor, "B D"], tril: Float[Tensor, "B D D"], generator: torch.Generator
) -> Float[Tensor, "B D"]:
    """One ``x ~ N(loc, L L^T)`` a row."""
    return loc + (tril @ noise_like(loc, generator)[..., None])[..., 0]


def draw_categorical(log_weights: Float[Tensor, " K"], n: int, rng: RandomState) -> NDArray[np.int64]:
    """n draws of ``y ~ exp(log_weights)``."""
    weights = log_weights.detach().cpu().double().exp().numpy()
    return rng.choice(len(weights), size=n, p=weights / weights.sum())


def log_bernoulli(x: Float[Tensor, "..."], logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``sum_d x_d log s(l_d) + (1 - x_d) log(1 - s(l_d))`` with ``s`` the logistic function; x in [0, 1].

    Written as ``x l - softplus(l)``, which needs no clipping.
    """
    return (x * logits - F.softplus(logits)).sum(-1)


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
    z: Float[Tensor, "*B Z"],
    log_weights: Float[Tensor, " K"],
    loc: Float[Tensor, "*#B K Z"],
    scale: Float[Tensor, "*#B K Z"],
) -> Float[Tensor, "*B K"]:
    """``log p(y = k | z)`` of a diagonal Gaussian mixture, or of one for each z, by Bayes' rule in log space."""
    return (log_weights + log_normal(z[..., None, :], loc, scale)).log_softmax(-1)
