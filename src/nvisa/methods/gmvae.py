"""GMVAE: a variational autoencoder whose clusters are drawn by a second noise variable w.

    p(x, y, z, w) = p(w) p(y) p(z|w, y) p(x|z),  p(w) = N(0, I),  p(y) = 1/K
    p(z|w, y)     = N(z; mu_y(w), diag sigma_y(w)^2)       one network of w with K heads
    q(z, w, y|x)  = q(z|x) q(w|x) p(y|z, w)                p(y|z, w) by Bayes' rule, no network
    L(x)          = E log p(x|z)                           reconstruction
                  - E sum_y p(y|z, w) KL( q(z|x) || p(z|w, y) )      conditional prior
                  - KL( q(w|x) || p(w) )                             w-prior
                  - E KL( p(y|z, w) || p(y) )                        y-prior; its batch mean is free up to lambda
    cluster of x  = argmax_y p(y|z, w) at the means of q(z|x) and q(w|x)

E is the mean over M samples of (z, w) ~ q(z|x) q(w|x); what has a closed form is in it.

Source: Dilokthanakul, Mediano, Garnelo, Lee, Salimbeni, Arulkumaran, Shanahan, "Deep Unsupervised Clustering with
Gaussian Mixture Variational Autoencoders", arXiv:1611.02648 v2 (their y, x, z are our x, z, y). Every deviation from
it is listed in docs/methods/gmvae.md.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nvisa.fitting.initialization import distill, find_start, pretrain
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import StepOutput, Training, maximize
from nvisa.maths.bounds import importance_sampled, log_mean_exp
from nvisa.maths.distributions import (
    draw_normal,
    kl_categorical,
    kl_normal,
    log_normal,
    noise_like,
    responsibilities,
)
from nvisa.maths.schedules import Cosine
from nvisa.maths.shapes import Data, Float, Int, Latent, LogClusters, PerExample, PerSample, Scalar, Tensor
from nvisa.methods.fitted import Array, Record
from nvisa.methods.generative import GenerativeClusterer
from nvisa.methods.partial_fit import Objective, StreamingClusterer
from nvisa.nets.autoencoder import LEAST_SCALE, Autoencoder, Encoder
from nvisa.nets.layers import GaussianHead, Network, inverse_softplus
from nvisa.nets.priors import moments
from nvisa.nets.units import Rescale
from nvisa.settings import AnyOf, AtLeast, Fitted, NotNegative, OneOf

__all__ = ["GMVAE", "ConditionalPrior", "Networks", "free_bits_penalty"]

START_GAIN = 0.1  # of w in p(z|w,y) after a start: enough to be found, too little to blur its clusters


class ConditionalPrior(nn.Module):
    """``p(z|w,y) = N(mu_y(w), diag sigma_y(w)^2)`` with one tanh layer of w and K heads; ``p(y) = 1/K``."""

    def __init__(self, n_clusters: int, latent_dim: int, noise_dim: int, n_hidden: int) -> None:
        super().__init__()
        self.shape = (n_clusters, latent_dim)
        self.trunk = nn.Sequential(nn.Linear(noise_dim, n_hidden), nn.Tanh())
        self.head = GaussianHead(n_hidden, n_clusters * latent_dim)

    def forward(self, w: Float[Tensor, "*B W"]) -> tuple[Float[Tensor, "*B K Z"], Float[Tensor, "*B K Z"]]:
        """Loc and scale of every cluster's ``p(z|w,y)``."""
        loc, scale = self.head(self.trunk(w), LEAST_SCALE)
        return loc.unflatten(-1, self.shape), scale.unflatten(-1, self.shape)

    def log_q_y(self, z: Float[Tensor, "*B Z"], w: Float[Tensor, "*B W"]) -> Float[Tensor, "*B K"]:
        """``log p(y|z,w)``, Bayes' rule."""
        return responsibilities(z, z.new_zeros(self.shape[0]), *self(w))  # a constant p(y) cancels

    def log_p_z(self, z: Float[Tensor, "*B Z"], w: Float[Tensor, "*B W"]) -> Float[Tensor, "*B"]:
        """``log p(z|w) = log sum_y p(y) p(z|w,y)``."""
        return log_mean_exp(log_normal(z[..., None, :], *self(w)).movedim(-1, 0))  # the mean holds p(y) = 1/K

    @torch.no_grad()
    def load(self, loc: Array, variance: Array, gain: float) -> None:
        """Take over a mixture's means and variances [K Z]; w keeps the share ``gain`` of its first influence."""
        raw = inverse_softplus(torch.from_numpy(variance).sqrt())
        for layer, values in ((self.head.loc, torch.from_numpy(loc)), (self.head.raw_scale, raw)):
            layer.weight.mul_(gain)
            layer.bias.copy_(values.flatten())

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        for table in self.head.parameters():
            heads = table.unflatten(0, self.shape)
            heads.copy_(heads[order])


class Networks(Autoencoder):
    """q(z|x), q(w|x), p(x|z), and p(z|w,y)."""

    def __init__(self, rescale: Rescale, n_clusters: int, network: Network, *, likelihood: str, noise_dim: int) -> None:
        super().__init__(Encoder(rescale, network, variational=True), network, likelihood)
        self.w_head = GaussianHead(network.hidden[-1], noise_dim)
        self.prior = ConditionalPrior(n_clusters, network.latent_dim, noise_dim, network.hidden[-1])

    def posterior(
        self, x: Data
    ) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"], Float[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Loc and scale of ``q(z|x)``, then of ``q(w|x)``, ``x`` in the user's units."""
        h = self.encoder.trunk(self.rescale(x))
        return *self.encoder.q_z_from(h), *self.w_head(h, LEAST_SCALE)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log p(y|z,w)`` at the means of ``q(z|x)`` and ``q(w|x)``: what labels a row."""
        z, _, w, _ = self.posterior(x)
        return self.prior.log_q_y(z, w)

    def elbo(
        self, x: Data, noise_z: Latent, noise_w: Float[Tensor, "M B W"], std_floor: float
    ) -> tuple[dict[str, PerExample], LogClusters]:
        """The terms of L(x) without free bits, which add up, and log of the mean ``p(y|z,w)``.

        The M samples are ``z = m(x) + sigma(x) noise_z``, and w alike.
        """
        z_loc, z_scale, w_loc, w_scale = self.posterior(x)
        z, w = z_loc + z_scale * noise_z, w_loc + w_scale * noise_w
        loc, scale = self.prior(w)  # [M B K Z]
        log_p_y = z.new_full(loc.shape[2:3], -math.log(loc.shape[2]))
        log_q_y = responsibilities(z, log_p_y, loc, scale)  # [M B K]
        kl_z = kl_normal(z_loc[:, None], z_scale[:, None], loc, scale)
        terms = {
            "log_p_x_given_z": self.log_p_x_given_z(x, z, std_floor).mean(0),
            "minus_kl_z": -(log_q_y.exp() * kl_z).sum(-1).mean(0),
            "minus_kl_w": -kl_normal(w_loc, w_scale, torch.zeros_like(w_loc), torch.ones_like(w_scale)),
            "minus_kl_y": -kl_categorical(log_q_y, log_p_y.expand_as(log_q_y)).mean(0),
        }
        return terms, log_mean_exp(log_q_y)

    def start(self, codes: Array, proba: Array) -> None:
        """Whiten and turn the codes, load their moments under the responsibilities, and let q(z|x) start narrow.

        The axes are those in which the clusters come nearest to what p(z|w, y) can be, diagonal ones.
        """
        self.prior.load(*moments(self.whiten(codes, proba), proba), START_GAIN)

    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        self.prior.permute(order)


def free_bits_penalty(kl_y: PerExample, free_bits: float) -> Scalar:
    """``max(lambda, mean KL) - mean KL``: what the bound pays beside its y-prior, whose gradient it takes away."""
    return F.relu(free_bits - kl_y.mean())


class GMVAE(StreamingClusterer, GenerativeClusterer):
    """Gaussian-mixture variational autoencoder of Dilokthanakul et al.

    Parameters
    ----------
    n_samples
        M, draws of (z, w) in a step.
    noise_dim
        Size of w.
    free_bits
        lambda, in nats: a batch whose mean y-prior term is below it pays lambda and nothing pushes it further.
        0 is the plain bound.
    std_floor
        Least deviation of p(x|z), in the networks' units. Constant features would drive it to zero.
    init
        "umap": autoencoder, layout of the neighbor graph by UMAP's objective, micro-clusters merged by neighbor
        information; "gmm": autoencoder and Gaussian mixture on its codes; "random", as in the paper; or a fitted
        clusterer with ``predict_proba``.
    pretraining
        Schedule of the start's autoencoder, or a fitted clusterer whose autoencoder is taken; None:
        ``Training(steps=700)``.
    network, training
        Sizes, and schedule of the bound; None: ``Network(hidden=(500, 500), batch_norm=False)`` and
        ``Training(steps=1200, learning_rate=Cosine(1e-3))``.

    Attributes
    ----------
    start_score_ : float
        Neighbor information of the initial assignment, in nats (NaN for a random start).

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> short = Training(epochs=5)
    >>> model = GMVAE(3, init="gmm", training=short, pretraining=short, random_state=0).fit(X)
    >>> model.sample(5, cluster=0)[0].shape
    (5, 4)
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500), batch_norm=False)
    DEFAULT_TRAINING = Training(steps=1200, learning_rate=Cosine(1e-3))  # 2e-3 loses more of the start

    n_samples: Annotated[int, AtLeast(1)] = 1
    noise_dim: Annotated[int, AtLeast(1)] = 10
    free_bits: Annotated[float, NotNegative] = 0.5
    std_floor: Annotated[float, NotNegative] = 0.1
    init: Annotated[Any, AnyOf(OneOf("umap", "gmm", "random"), Fitted())] = "umap"
    pretraining: Any = None

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        return Networks(rescale, self.n_clusters, self._network, likelihood=self.likelihood, noise_dim=self.noise_dim)

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        history, score = self._start(net, run) if self.init != "random" else ([], float("nan"))
        history += self._train(net, run)
        return FitResult(net, history, {"start_score_": score})

    def _start(self, net: Networks, run: Run) -> tuple[list[Record], float]:
        """Pretrain, find a first assignment, load it into p(z|w,y), and teach it to p(y|z,w)."""
        source, generator, listeners = run.source, run.generator, run.listeners
        history = pretrain(net, source, self.pretraining or Training(steps=700), generator, listeners)
        start = find_start(net, source, self.init, self.n_clusters, run.rng)
        net.start(start.codes, start.proba)
        taught = self._training.shortened(0.08)
        history += distill(net.log_q_y, net, source, start, taught, generator, listeners)
        return history, start.score

    def _train(self, net: Networks, run: Run) -> list[Record]:
        """Maximize L(x) per feature, with its free bits."""
        objective = self._objective(net, len(run.source), run.generator)
        return maximize(objective, net, run.source, self._training, run.generator, run.listeners)

    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        def objective(x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
            """L(x) of a batch, by M draws of z and w."""
            shape = (self.n_samples, len(x))
            noise_z = noise_like(x.new_empty(*shape, net.latent_dim), generator)
            noise_w = noise_like(x.new_empty(*shape, self.noise_dim), generator)
            terms, log_q_y = net.elbo(x, noise_z, noise_w, self.std_floor)
            step = StepOutput.of_bound(terms, x.shape[1], log_q_y)
            step.value = step.value - free_bits_penalty(-terms["minus_kl_y"], self.free_bits) / x.shape[1]
            return step

        return objective

    def _log_p_x(self, x: Data) -> PerExample:
        """``log 1/S sum_s p(x|z_s) p(z_s|w_s) p(w_s) / q(z_s|x) q(w_s|x)``: y is summed exactly, (z, w) drawn."""
        net = self.module_
        z_loc, z_scale, w_loc, w_scale = net.posterior(x)

        def log_joint(zw: Latent) -> PerSample:
            z, w = zw.split([net.latent_dim, self.noise_dim], -1)
            log_p_w = log_normal(w, torch.zeros_like(w), torch.ones_like(w))
            return net.log_p_x_given_z(x, z, self.std_floor) + net.prior.log_p_z(z, w) + log_p_w

        loc, scale = torch.cat([z_loc, w_loc], -1), torch.cat([z_scale, w_scale], -1)
        return importance_sampled(log_joint, loc[None], scale[None])[0] + self.module_.rescale.log_det(x)

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        w = torch.randn(len(y), self.noise_dim, generator=generator, device=generator.device)
        w = w.to(self.module_.rescale.shift.device)
        loc, scale = (table[torch.arange(len(y)), y] for table in self.module_.prior(w))
        z = draw_normal(loc, scale, generator)
        return self.module_.draw(z, generator if noise else None, self.std_floor)

    def _reconstruct(self, x: Data) -> Data:
        return self.module_.draw(self.module_.code(x), None, self.std_floor)
