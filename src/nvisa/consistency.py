"""Local consistency of q(y|x), and the balance of the clusters: pure functions on log q(y|x).

The extension that the slides' conclusion proposes. Virtual adversarial consistency: Miyato et al.,
"Virtual adversarial training", TPAMI 2018; with the information term for clustering: Hu et al., IMSAT,
ICML 2017 (arXiv:1702.08720), sec. 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nvisa.distributions import entropy, kl_categorical, noise_like
from nvisa.shapes import Data, LogClusters, PerExample, Scalar

__all__ = ["VAT", "adversarial_direction", "information", "marginal_entropy", "vat"]

LogPosterior = Callable[[Data], LogClusters]


@dataclass(frozen=True)
class VAT:
    """Virtual adversarial consistency of q(y|x), with cluster balance.

    ``maximise  -KL( q(y|x) || q(y|x + r) ) + information * ( balance * H[mean q(y)] - mean H[q(y|x)] )``

    Parameters
    ----------
    weight
        Weight of the whole against the bound per feature.
    radius
        ``||r||``, as a fraction of the distance from x to its 10th nearest neighbour.
    information
        Weight of the information term (IMSAT: 0.1).
    balance
        Weight of the entropy of the mean assignment inside it (IMSAT: 4). The term is largest when all
        clusters have equal size, but a soft reward, not a constraint: it saturates at log K. Lower it
        (1 is the plain mutual information) when sizes are known to be very unequal.
    probe
        Length of the probe of the power iteration that finds the direction, in the same unit. A long
        one (IMSAT's xi = 10 is about 1.8 on MNIST) sees where q changes at all, not only its slope.
    """

    weight: float = 1.0
    radius: float = 0.25
    information: float = 0.1
    balance: float = 4.0
    probe: float = 1.8


def marginal_entropy(log_q_y: LogClusters) -> Scalar:
    """``H[ mean_x q(y|x) ]`` over the batch: log K when the clusters are equally large."""
    return entropy(torch.logsumexp(log_q_y, 0).log_softmax(0))


def information(log_q_y: LogClusters, balance: float = 1.0) -> Scalar:
    """``balance * H[mean q(y|x)] - mean H[q(y|x)]``; at balance 1, the mutual information of x and y."""
    return balance * marginal_entropy(log_q_y) - entropy(log_q_y).mean()


def adversarial_direction(
    log_posterior: LogPosterior, x: Data, log_q_y: LogClusters, probe: PerExample, generator: torch.Generator
) -> Data:
    """Unit vectors along which q(y|x) changes most: one power iteration on the Hessian of the KL.

    ``d ~ N(0, I) / ||.||``, then the gradient of ``KL( q(y|x) || q(y|x + probe d) )`` in d, normalised.
    """
    d = F.normalize(noise_like(x, generator)).requires_grad_()
    divergence = kl_categorical(log_q_y.detach(), log_posterior(x + probe[:, None] * d)).sum()
    (gradient,) = torch.autograd.grad(divergence, d)
    return F.normalize(gradient)


def vat(
    log_posterior: LogPosterior,
    x: Data,
    log_q_y: LogClusters,
    radius: PerExample,
    probe: PerExample,
    generator: torch.Generator,
) -> PerExample:
    """``KL( q(y|x) || q(y|x + r) )`` with r the adversarial direction times ``radius``; q(y|x) is the target.

    Parameters
    ----------
    log_posterior
        ``x -> log q(y|x)``.
    log_q_y
        ``log_posterior(x)``, already computed by the caller.
    radius, probe
        ``||r||`` of each x, and the length at which its direction is sought, in the units of x.
    """
    r = radius[:, None] * adversarial_direction(log_posterior, x, log_q_y, probe, generator)
    return kl_categorical(log_q_y.detach(), log_posterior(x + r))
