"""Bounds on log p(x) from log weights, each with its gradient estimator. No model here.

Calling convention
------------------
``log_w`` is ``log p(x, y, z) - log q(y, z | x)`` of the drawn pairs, ``log_q`` is ``log q(y, z | x)`` of
the variables that were *not* reparameterized (y and z, or y alone). Every function returns the bound for
each example: its **value** is the bound, its **gradient** is the estimator's.

Sources: EnumY, NVISA slides (IJCNN 2020), "Candidate Variational Inference"; NVIL, Mnih & Gregor,
ICML 2014 (arXiv:1402.0030), sec. 2; VIMCO, Mnih & Rezende, ICML 2016 (arXiv:1602.06725), sec. 2.5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch

from nvisa.maths.distributions import log_normal, whole_batch
from nvisa.maths.shapes import Bool, Float, Int, Latent, PerExample, PerSample, Tensor
from nvisa.settings import AtLeast, InRange

__all__ = [
    "VIMCO",
    "EnumY",
    "RunningMoments",
    "add_gradient",
    "drawn_by_weight",
    "enum_y",
    "importance_sampled",
    "log_mean_exp",
    "log_mean_exp_swap_one_out",
    "nvil",
    "nvil_fitting",
    "scaled_gradient",
    "vimco",
]

N_DRAWS = 32  # of z, in an estimate of log p(x)


@dataclass(frozen=True)
class VIMCO:
    """The bound of M samples and its score-function gradient (:func:`vimco`).

    Parameters
    ----------
    decoder_samples
        How many of the M samples send their gradient through the decoder, drawn by their normalized weight w_m:
        ``grad log p(x|z_m)`` of a sample drawn so has the mean ``sum_m w_m grad log p(x|z_m)``, which is what all M
        give together. One makes a step of M = 15 several times cheaper, with more noise in the decoder's gradient; the
        others are unchanged. None: all M, without that noise.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> cheap = NVISA(inference=VIMCO(decoder_samples=1), n_samples=15, likelihood="gaussian")
    """

    decoder_samples: Annotated[int | None, AtLeast(1, optional=True)] = None


@dataclass(frozen=True)
class EnumY:
    """The bound with y enumerated and z reparameterized (:func:`enum_y`).

    Parameters
    ----------
    min_probability
        Clusters with a smaller q(y|x) are not tried on x, which is most of them once q(y|x) is sharp: their log w is
        taken to be the mean of those tried, and no force moves them. The bound is wrong by ``sum_y q(y|x) (log w_y -
        mean)`` over them, and a cluster that is not tried is not found again by this x. 0: all are tried.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> cheap = NVISA(inference=EnumY(min_probability=3e-3), likelihood="bernoulli")
    """

    min_probability: Annotated[float, InRange(0, 1, open_high=True)] = 0.0

    def tried(self, log_q_y: Float[Tensor, "K B"]) -> Bool[Tensor, "K B"] | None:
        """Which clusters are tried on each x, the most probable always; None: all."""
        if self.min_probability == 0:
            return None
        q = log_q_y.detach().exp()
        return q >= q.amax(0).clamp_max(self.min_probability)


def add_gradient(value: Tensor, term: Tensor) -> Tensor:
    """``value``, unchanged as a number, whose gradient gains that of ``term``."""
    return value + (term - term.detach())


def scaled_gradient(value: Tensor, weight: float) -> Tensor:
    """``value``, unchanged as a number, with ``weight`` times its gradient."""
    return add_gradient(value.detach(), weight * value)


def enum_y(
    log_w: Float[Tensor, "K B"], log_q_y: Float[Tensor, "K B"], tried: Bool[Tensor, "K B"] | None = None
) -> PerExample:
    """``sum_y q(y|x) [ log p(x,y,z) - log q(y,z|x) ]``, z reparameterized: differentiable as it stands.

    Row k of ``log_w`` is the log weight of ``(y = k, z_k ~ q(z | k, x))``. Where it was not ``tried`` it is the mean of
    those that were, weighted by q(y|x): the gradient in log q(y|x) is then zero for that y.
    """
    q = log_q_y.exp()
    if tried is not None:
        known = q.detach() * tried
        mean = (known * log_w.detach()).sum(0) / known.sum(0)
        log_w = torch.where(tried, log_w, add_gradient(mean.expand_as(log_w), -log_q_y))
    return (q * log_w).sum(0)


def importance_sampled(log_joint: Callable[[Latent], PerSample], loc: Latent, scale: Latent) -> PerSample:
    """``log 1/S sum_s p(x, z_s) / q(z_s|x)`` with ``z_s ~ q = N(loc, diag scale^2)``: the estimate of ``log p(x)``.

    The S draws share their noise among all rows, and the noise is always the same, so the number is
    deterministic and a row's does not depend on the others. The first axis holds one q for each y, or one.
    """
    noise = torch.randn(N_DRAWS, loc.shape[-1], generator=torch.Generator().manual_seed(0)).to(loc)
    terms = []
    for eps in noise:
        z = loc + scale * eps
        terms.append(log_joint(z) - log_normal(z, loc, scale))
    return log_mean_exp(torch.stack(terms))


def nvil(log_w: PerSample, log_q: PerSample, baseline: Tensor, scale: float = 1.0) -> PerExample:
    """The ELBO, the mean of ``log_w``; its gradient is NVIL's with the given baseline.

    ``grad = E[ grad log_w + (log_w - C(x) - c) / scale * grad log q ]``

    Parameters
    ----------
    baseline
        ``C(x) + c``, broadcast over M; detached here (:func:`nvil_fitting` fits it to ``log_w``).
    scale
        Divisor of the learning signal. The original divides by ``max(1, running std)``; 1 turns it off.
    """
    signal = ((log_w - baseline) / scale).detach()
    return add_gradient(log_w.mean(0), (signal * log_q).mean(0))


@dataclass
class RunningMoments:
    """NVIL's running mean c and variance v of the centered signal, ``c <- a c + (1 - a) mean`` (a = 0.8)."""

    mean: float = 0.0
    variance: float = 0.0
    decay: float = 0.8

    def update(self, signal: Tensor) -> None:
        """Fold in one batch of ``log_w - C(x)``."""
        a = self.decay
        self.mean = a * self.mean + (1 - a) * float(signal.mean())
        self.variance = a * self.variance + (1 - a) * float(signal.var(correction=0))

    @property
    def scale(self) -> float:
        """``max(1, sqrt(v))``: the signal is divided only when its spread exceeds one nat."""
        return max(1.0, self.variance**0.5)


def nvil_fitting(log_w: PerSample, log_q: PerSample, baseline: PerExample, moments: RunningMoments) -> PerExample:
    """:func:`nvil` with its running moments and its baseline C(x), which is fitted by least squares."""
    centered = log_w.detach() - baseline
    bound = nvil(log_w, log_q, baseline + moments.mean, moments.scale)
    moments.update(whole_batch(centered.detach().T))
    return add_gradient(bound, -(centered - moments.mean).square().mean(0))


def vimco(log_w: PerSample, log_q: PerSample) -> PerExample:
    """``log 1/M sum_m w_m``; its gradient is VIMCO's.

    ``grad = E[ sum_m (L - L_{-m}) grad log q_m + sum_m softmax(log_w)_m grad log_w_m ]``,
    where ``L_{-m}`` swaps sample m for the geometric mean of the others. The score term is a sum over m,
    not a mean: ``L`` already holds the 1/M.

    Raises
    ------
    ValueError
        If M < 2: with one sample there is nothing to leave out.
    """
    if log_w.shape[0] < 2:
        msg = f"VIMCO needs at least 2 samples, got {log_w.shape[0]}: raise n_samples, or use inference='nvil'."
        raise ValueError(msg)
    bound = log_mean_exp(log_w)
    signal = bound.detach() - log_mean_exp_swap_one_out(log_w.detach())
    return add_gradient(bound, (signal * log_q).sum(0))


def drawn_by_weight(log_w: PerSample, n: int, generator: torch.Generator) -> Int[Tensor, "R B"]:
    """The numbers of n samples of each x, drawn by ``w_m = softmax(log_w)_m``."""
    u = torch.rand(log_w.shape[1], n, generator=generator, dtype=log_w.dtype, device=generator.device)
    cdf = log_w.detach().softmax(0).cumsum(0).T.contiguous()
    m = torch.searchsorted(cdf, u.to(log_w.device) * cdf[:, -1:], right=True)
    return m.clamp_(max=len(log_w) - 1).T.contiguous()


def log_mean_exp(a: Float[Tensor, "M ..."]) -> Float[Tensor, "..."]:
    """``log 1/M sum_m exp(a_m)`` over the first axis, without overflow."""
    return torch.logsumexp(a, dim=0) - math.log(a.shape[0])


def log_mean_exp_swap_one_out(log_w: PerSample) -> PerSample:
    """``log 1/M [ exp(mean_{i != m} log_w_i) + sum_{i != m} exp(log_w_i) ]`` for every m, in O(M).

    The sum over the others joins a cumulative sum from the left with one from the right. Subtracting
    term m from the total would be shorter and lose all digits where one sample dominates.
    """
    m = log_w.shape[0]
    geometric_mean = (log_w.sum(0) - log_w) / (m - 1)
    nothing = torch.full_like(log_w[:1], -torch.inf)
    before = torch.cat([nothing, log_w.logcumsumexp(0)[:-1]])
    after = torch.cat([log_w.flip(0).logcumsumexp(0).flip(0)[1:], nothing])
    others = torch.logaddexp(before, after)
    return torch.logaddexp(others, geometric_mean) - math.log(m)
