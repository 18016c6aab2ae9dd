"""A pouch latent tree: discrete latents in a tree, groups ("pouches") of continuous variables at them, and EM.

    p(z) = sum_{y_0 ... y_l} p(y_0) prod_{(i,j)} p(y_j | y_i) prod_b N(z_b; mu_{b,y}, Sigma_{b,y})

Each pouch b has one home, a latent y, and a full covariance; given y the pouches are independent, so that all
pouches of a latent are one Gaussian whose covariance is block-diagonal. One upward pass of log-messages from
the leaves to the root (latent 0) gives log p(z); its derivatives in the log-potentials are the marginals
(Darwiche, "A differential approach to inference in Bayesian networks", JACM 2003), which autograd computes in
place of the downward pass of the paper's clique tree.

Source: Li, Chen, Poon, Zhang, "Learning latent superstructures in variational autoencoders for deep
multidimensional clustering", ICLR 2019 (arXiv:1803.05206), sections 3.1 and 3.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import nn

from nvisa.maths.distributions import draw_categorical
from nvisa.maths.full_covariance import draw_normal_tril, log_normal_tril
from nvisa.maths.shapes import Float, Int, PerExample, Tensor
from nvisa.methods.ltvae.structure import Structure

__all__ = ["LatentTree", "Marginals", "Statistics", "em", "marginals", "upward"]

LEAST_PROBABILITY = 1e-10  # of any state: a zero would stay for ever, and its logarithm has no gradient


# ---- inference -------------------------------------------------------------------------------------------------


def upward(
    structure: Structure,
    log_prior: Float[Tensor, " K"],
    log_tables: Sequence[Float[Tensor, "_ _"]],
    potentials: Sequence[Float[Tensor, "B _"]],
) -> Float[Tensor, "B K"]:
    """``log p(y_0, z)`` by messages from the leaves to the root; log-sum-exp over y_0 gives ``log p(z)``.

    ``m_{j -> i}(y_i) = log sum_{y_j} p(y_j|y_i) exp( potential_j(y_j) + sum of messages into j )``

    Parameters
    ----------
    log_prior, log_tables
        ``log p(y_0)``, and ``log p(y_j|y_i)`` [|Y_i| |Y_j|] of each edge.
    potentials
        ``log p(z_b, ... | y_j)`` of the pouches of each latent, zeros where it has none.
    """
    messages = list(potentials)
    for (i, j), log_table in zip(reversed(structure.edges), reversed(log_tables), strict=True):
        top = messages[j].detach().amax(-1, keepdim=True)
        messages[i] = messages[i] + top + ((messages[j] - top).exp() @ log_table.exp().T).log()
    return log_prior + messages[0]


@dataclass
class Marginals:
    """``log p(z)`` [B], ``p(y_j|z)`` [B |Y_j|] of each latent, and sums over the rows of p(y_0|z), p(y_i, y_j|z)."""

    log_p: PerExample
    posteriors: list[Tensor]
    prior: Tensor
    tables: list[Tensor]


def marginals(
    structure: Structure, log_prior: Tensor, log_tables: Sequence[Tensor], potentials: Sequence[Tensor]
) -> Marginals:
    """All marginals as derivatives of ``sum_n log p(z_n)`` in the log-potentials (Darwiche 2003).

    ``p(y_j = k | z_n) = d / d potential_j(k)``, ``sum_n p(y_i, y_j | z_n) = d / d log p(y_j|y_i)``.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaves = [t.detach().clone().requires_grad_() for t in (*potentials, log_prior, *log_tables)]
        n = len(potentials)
        log_p = upward(structure, leaves[n], leaves[n + 1 :], leaves[:n]).logsumexp(-1)
        slopes = list(torch.autograd.grad(log_p.sum(), leaves))
    return Marginals(log_p.detach(), slopes[:n], slopes[n], slopes[n + 1 :])


# ---- parameters ------------------------------------------------------------------------------------------------


@dataclass
class Statistics:
    """Expected sufficient statistics, means over the rows, and the mean ``log p(z)`` that they were taken at.

    ``prior`` [|Y_0|], ``tables`` [|Y_i| |Y_j|] an edge; for each latent ``mass`` E[y], ``first`` E[y z] and
    ``second`` E[y z z^T] of *all* dimensions of z, so that they outlive a change of the pouches.
    """

    prior: Tensor
    tables: list[Tensor]
    mass: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    log_p: float = 0.0

    @classmethod
    def of(cls, z: Float[Tensor, "B Z"], posteriors: Sequence[Tensor], prior: Tensor, tables: list[Tensor]) -> Any:
        """The statistics of rows z with these posteriors; ``prior`` and ``tables`` are means already."""
        pairs = (z[:, :, None] * z[:, None, :]).flatten(1)
        shape = (-1, z.shape[1], z.shape[1])
        return cls(
            prior,
            tables,
            [r.mean(0) for r in posteriors],
            [r.T @ z / len(z) for r in posteriors],
            [(r.T @ pairs / len(z)).view(shape) for r in posteriors],
        )

    def tensors(self) -> list[Tensor]:
        """Every statistic, in a fixed order."""
        return [self.prior, *self.tables, *self.mass, *self.first, *self.second]

    def towards(self, other: "Statistics", rate: float) -> "Statistics":
        """``s + rate (s' - s)``: the step of stepwise EM (LTVAE, eq. 8)."""

        def step(mine: Tensor, its: Tensor) -> Tensor:
            return mine.lerp(its, rate)

        lists = {
            name: [step(a, b) for a, b in zip(getattr(self, name), getattr(other, name), strict=True)]
            for name in ("tables", "mass", "first", "second")
        }
        return Statistics(prior=step(self.prior, other.prior), log_p=other.log_p, **lists)


class LatentTree(nn.Module):
    """The parameters of a pouch latent tree, as buffers: EM finds them, no gradient does.

    ``log_prior`` [|Y_0|], ``log_table_e`` of each edge, and for each latent ``loc_j`` [|Y_j| D_j] and ``tril_j``
    [|Y_j| D_j D_j], the Cholesky factor of its block-diagonal covariance, over its own D_j dimensions of z.
    """

    log_prior: Tensor

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.latent_dim = sum(map(len, structure.pouches))
        self.register_buffer("log_prior", torch.full((structure.states[0],), -math.log(structure.states[0])))
        for e, (i, j) in enumerate(structure.edges):
            shape = structure.states[i], structure.states[j]
            self.register_buffer(f"log_table_{e}", torch.full(shape, -math.log(shape[1])))
        for j, n in enumerate(structure.states):
            size = len(structure.dims(j))
            self.register_buffer(f"loc_{j}", torch.zeros(n, size))
            self.register_buffer(f"tril_{j}", torch.eye(size).repeat(n, 1, 1))

    @property
    def log_tables(self) -> list[Tensor]:
        """``log p(y_j|y_i)`` of each edge."""
        return [getattr(self, f"log_table_{e}") for e in range(len(self.structure.edges))]

    def gaussian(self, latent: int) -> tuple[Float[Tensor, "K D"], Float[Tensor, "K D D"]]:
        """Means and Cholesky factors of this latent's dimensions, ``structure.dims(latent)``."""
        return getattr(self, f"loc_{latent}"), getattr(self, f"tril_{latent}")

    def potentials(self, z: Float[Tensor, "B Z"]) -> list[Float[Tensor, "B _"]]:
        """``log N`` of the pouches of each latent in each of its states."""
        found = []
        for j, n in enumerate(self.structure.states):
            dims = self.structure.dims(j)
            found.append(log_normal_tril(z[:, dims], *self.gaussian(j)) if dims else z.new_zeros(len(z), n))
        return found

    def log_joint(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B K"]:
        """``log p(y_0, z)``."""
        return upward(self.structure, self.log_prior, self.log_tables, self.potentials(z))

    def log_p_z(self, z: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
        """``log p(z)``."""
        return self.log_joint(z.flatten(0, -2)).logsumexp(-1).view(z.shape[:-1])

    def log_q_y(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B K"]:
        """``log p(y_0|z)``."""
        return self.log_joint(z).log_softmax(-1)

    def marginals(self, z: Float[Tensor, "B Z"]) -> Marginals:
        """:func:`marginals` of these rows."""
        return marginals(self.structure, self.log_prior, self.log_tables, self.potentials(z))

    def statistics(self, z: Float[Tensor, "B Z"]) -> Statistics:
        """The E step."""
        with torch.no_grad():
            found = self.marginals(z)
            tables = [table / len(z) for table in found.tables]
            statistics = Statistics.of(z, found.posteriors, found.prior / len(z), tables)
        statistics.log_p = float(found.log_p.mean())
        return statistics

    @torch.no_grad()
    def load(self, statistics: Statistics, least_variance: float) -> None:
        """The M step: relative frequencies, means, and covariances whose eigenvalues are clipped from below.

        The clipped covariance is the most likely one among those with eigenvalues of at least
        ``least_variance``, so that EM never lowers the likelihood.
        """
        self.log_prior.copy_(_log_normalized(statistics.prior))
        for log_table, table in zip(self.log_tables, statistics.tables, strict=True):
            log_table.copy_(_log_normalized(table))
        for j in range(len(self.structure.states)):
            if dims := self.structure.dims(j):
                loc, tril = self.gaussian(j)
                mass = statistics.mass[j].clamp_min(LEAST_PROBABILITY)[:, None]
                mean = statistics.first[j][:, dims] / mass
                second = statistics.second[j][:, dims][:, :, dims] / mass[..., None]
                together = self._together(j).to(loc)
                covariance = (second - mean[:, :, None] * mean[:, None, :]) * together
                loc.copy_(mean)
                tril.copy_(_root(covariance, least_variance) * together)

    def _together(self, latent: int) -> Float[Tensor, "D D"]:
        """One where two dimensions of the latent share a pouch, else zero."""
        groups = [b for b, pouch in enumerate(self.structure.pouches_of(latent)) for _ in pouch]
        return torch.tensor([[float(a == b) for b in groups] for a in groups])

    def latent_marginals(self) -> list[Float[Tensor, " _"]]:
        """``p(y_j)`` of each latent, down the tree."""
        found = {0: self.log_prior.exp()}
        for (i, j), log_table in zip(self.structure.edges, self.log_tables, strict=True):
            found[j] = found[i] @ log_table.exp()
        return [found[j] for j in range(len(found))]

    def rerooted(self, root: int) -> "LatentTree":
        """The same density with this latent first; ``p(y_i|y_j) = p(y_j|y_i) p(y_i) / p(y_j)`` turns an edge round."""
        order = [root, *(j for j in range(len(self.structure.states)) if j != root)]
        new, old = {j: i for i, j in enumerate(order)}, self.structure
        homes = {p: new[h] for p, h in zip(old.pouches, old.homes, strict=True)}
        edges = [(new[i], new[j]) for i, j in old.edges]
        tree = LatentTree(Structure.joined([old.states[j] for j in order], edges, homes)[0]).to(self.log_prior)
        p = self.latent_marginals()
        joint = {}
        for (i, j), log_table in zip(edges, self.log_tables, strict=True):
            joint[i, j] = p[order[i]][:, None] * log_table.exp()
            joint[j, i] = joint[i, j].T
        tree.log_prior.copy_(_log_normalized(p[root]))
        for edge, log_table in zip(tree.structure.edges, tree.log_tables, strict=True):
            log_table.copy_(_log_normalized(joint[edge]))
        for i, j in enumerate(order):
            for mine, its in zip(tree.gaussian(i), self.gaussian(j), strict=True):
                mine.copy_(its)
        return tree

    @torch.no_grad()
    def permute(self, latent: int, order: Int[Tensor, " K"]) -> None:
        """Renumber the states of one latent: new state i is old state ``order[i]``."""
        if latent == 0:
            self.log_prior.copy_(self.log_prior[order])
        for (i, j), log_table in zip(self.structure.edges, self.log_tables, strict=True):
            if latent in (i, j):
                log_table.copy_(log_table[order] if latent == i else log_table[:, order])
        for table in self.gaussian(latent):
            table.copy_(table[order])

    def draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        """n states of the root, ``y_0 ~ p(y_0)``."""
        return draw_categorical(self.log_prior, n, rng)

    def draw(self, y: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, "B Z"]:
        """One ``z ~ p(z|y_0)`` for each y_0, down the tree."""
        states = {0: y}
        for (i, j), log_table in zip(self.structure.edges, self.log_tables, strict=True):
            rows = log_table[states[i]].exp().to(generator.device)
            states[j] = torch.multinomial(rows, 1, generator=generator)[:, 0].to(y.device)
        z = self.log_prior.new_empty(len(y), self.latent_dim)
        for j in range(len(self.structure.states)):
            if dims := self.structure.dims(j):
                loc, tril = (table[states[j]] for table in self.gaussian(j))
                z[:, dims] = draw_normal_tril(loc, tril, generator)
        return z


def _log_normalized(counts: Tensor) -> Tensor:
    """Log probabilities over the last axis, none of them zero."""
    floored = (counts / counts.sum(-1, keepdim=True).clamp_min(LEAST_PROBABILITY)).clamp_min(LEAST_PROBABILITY)
    return (floored / floored.sum(-1, keepdim=True)).log()


def _root(covariance: Float[Tensor, "K D D"], least: float) -> Float[Tensor, "K D D"]:
    """Cholesky factor of the covariance with its eigenvalues clipped from below."""
    values, vectors = torch.linalg.eigh(covariance)
    return torch.linalg.cholesky((vectors * values.clamp_min(least)[:, None, :]) @ vectors.mT)


def em(tree: LatentTree, z: Float[Tensor, "B Z"], n_steps: int, least_variance: float, tol: float = 0.0) -> list[float]:
    """Full-batch EM, in place: mean ``log p(z)`` before each step and after the last.

    Ends early when a step gains less than ``tol`` nats a row.
    """
    path: list[float] = []
    for _ in range(n_steps):
        statistics = tree.statistics(z)
        path.append(statistics.log_p)
        if len(path) > 1 and path[-1] - path[-2] < tol:
            return path
        tree.load(statistics, least_variance)
    return [*path, float(tree.log_p_z(z).mean())]
