"""Log densities of counts: negative binomial, and the same with additional zeros.

``NB(x; mu, theta)`` has mean ``mu`` and variance ``mu + mu^2 / theta``: a Poisson count whose rate is drawn from a
gamma distribution of shape theta. For theta to infinity it is the Poisson distribution. Letters as in Lopez et al.,
"Deep generative modeling for single-cell transcriptomics", Nature Methods 2018.
"""

import torch
from torch.nn import functional as F

from nvisa.maths.shapes import Float, Tensor

__all__ = ["draw_negative_binomial", "log_negative_binomial", "log_zero_inflated_negative_binomial"]


def log_negative_binomial(
    x: Float[Tensor, "..."], log_mean: Float[Tensor, "..."], log_theta: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """``log NB(x; mu, theta)``, summed over the last axis.

    ``sum_d log G(x_d + theta_d) - log G(theta_d) - log x_d! + theta_d log theta_d / s_d + x_d log mu_d / s_d`` with
    ``s = mu + theta`` and G the gamma function. The first three terms do not depend on mu, so they are computed once
    for all samples of z.
    """
    return _orderings(x, log_theta).sum(-1) + _in_mean(x, log_mean, log_theta).sum(-1)


def log_zero_inflated_negative_binomial(
    x: Float[Tensor, "..."],
    log_mean: Float[Tensor, "..."],
    log_theta: Float[Tensor, "..."],
    zero_logits: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """``sum_d log { pi_d [x_d = 0] + (1 - pi_d) NB(x_d; mu_d, theta_d) }`` with ``pi = s(zero_logits)``.

    Written with ``log pi = l - softplus(l)`` and ``log (1 - pi) = -softplus(l)``, which need no clipping.
    """
    each = _orderings(x, log_theta) + _in_mean(x, log_mean, log_theta)
    inflated = torch.where(x == 0, torch.logaddexp(zero_logits, each), each)
    return (inflated - F.softplus(zero_logits)).sum(-1)


def _orderings(x: Float[Tensor, "..."], log_theta: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``log G(x + theta) - log G(theta) - log x!``."""
    theta = log_theta.exp()
    return torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1.0)


def _in_mean(
    x: Float[Tensor, "..."], log_mean: Float[Tensor, "..."], log_theta: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """``theta log theta / s + x log mu / s``, ``s = mu + theta``, by the log odds ``l = log mu / theta``.

    Then ``log theta / s = -softplus(l)`` and ``log mu / s = l - softplus(l)``.
    """
    odds = log_mean - log_theta
    return x * odds - (x + log_theta.exp()) * F.softplus(odds)


def draw_negative_binomial(
    log_mean: Float[Tensor, "..."], log_theta: Float[Tensor, "..."], generator: torch.Generator
) -> Float[Tensor, "..."]:
    """One ``x ~ Poisson(r)``, ``r ~ Gamma(shape theta, mean mu)``, of each."""
    log_mean, log_theta = (part.to(generator.device) for part in torch.broadcast_tensors(log_mean, log_theta))
    theta = log_theta.exp()
    rate = torch._standard_gamma(theta, generator=generator) * (log_mean - log_theta).exp()
    return torch.poisson(rate, generator=generator)
