"""VaDE: a variational autoencoder with a Gaussian-mixture prior whose q(y|x) is the prior's own Bayes rule.

    p(x, y, z)   = pi_y N(z; mu_y, diag sigma_y^2) p(x|z)
    q(y, z | x)  = gamma_y q(z|x),  q(z|x) = N(m(x), diag sigma(x)^2)     mean-field
    gamma_y      = p(y|z) = pi_y N(z; mu_y, sigma_y^2) / sum_k (...)      at one z ~ q(z|x)
    L(x)         = E_q log p(x|z) - sum_y gamma_y KL( q(z|x) || p(z|y) ) - KL( gamma || pi )
    cluster of x = argmax_y p(y|z) at z = m(x)

L is the paper's equation 9 put in order: its half on the log-variance, its log pi_y once (not for every
latent dimension) and pi on the simplex, which the authors' code misses.

Source: Jiang, Zheng, Tan, Tang, Zhou, "Variational Deep Embedding: An Unsupervised and Generative Approach
to Clustering", IJCAI 2017 (arXiv:1611.05148). Every deviation from it is listed in docs/methods/vade.md.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.fitting.initialization import codes_of, distill, find_start, pretrain
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import StepOutput, Training, maximize
from nvisa.maths.distributions import kl_categorical, kl_normal, noise_like
from nvisa.maths.mixtures import fit_mixture
from nvisa.maths.shapes import Data, Float, Int, LogClusters, PerExample, PerSample, Tensor
from nvisa.methods.fitted import Array, Record
from nvisa.methods.generative import CodingClusterer
from nvisa.methods.partial_fit import Objective, StreamingClusterer
from nvisa.nets.autoencoder import Autoencoder, Encoder
from nvisa.nets.layers import Network
from nvisa.nets.priors import Mixture, moments
from nvisa.nets.units import Rescale
from nvisa.settings import AnyOf, AtLeast, Fitted, OneOf

__all__ = ["Networks", "VaDE"]


class Networks(Autoencoder):
    """q(z|x), p(x|z), and the mixture prior."""

    def __init__(self, rescale: Rescale, n_clusters: int, network: Network, *, likelihood: str) -> None:
        super().__init__(Encoder(rescale, network, variational=True), network, likelihood)
        self.prior = Mixture(n_clusters, network.latent_dim, trained=True)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log p(y|z)`` at ``z = m(x)``: what labels a row."""
        return self.prior.log_q_y(self.code(x))

    def elbo(self, x: Data, noise: Float[Tensor, "B Z"], std_floor: float) -> tuple[dict[str, PerExample], LogClusters]:
        """The terms of L(x), which add up, and log gamma, both at ``z = m(x) + sigma(x) noise``."""
        loc, scale = self.encoder.q_z(x)
        z = loc + scale * noise
        log_gamma = self.prior.log_q_y(z)
        kl_z = kl_normal(loc[:, None], scale[:, None], self.prior.loc, self.prior.scale)  # [B K]
        terms = {
            "log_p_x_given_z": self.log_p_x_given_z(x, z[None], std_floor)[0],
            "minus_kl_z": -(log_gamma.exp() * kl_z).sum(-1),
            "minus_kl_y": -kl_categorical(log_gamma, self.prior.log_weights.expand_as(log_gamma)),
        }
        return terms, log_gamma

    def start(self, codes: Array, n_init: int, rng: RandomState) -> None:
        """:meth:`start_from` the clusters of the codes that EM with full covariances finds."""
        found = fit_mixture(codes, len(self.prior.logits), rng, n_init=n_init)
        self.start_from(codes, found.predict_proba(codes))

    def start_from(self, codes: Array, proba: Array) -> None:
        """Whiten and turn the codes, load their moments, and let q(z|x) start narrow.

        The axes are those in which the clusters come nearest to what p(z|y) can be, diagonal ones.
        """
        self.prior.load(proba.mean(0), *moments(self.whiten(codes, proba), proba))

    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        self.prior.permute(order)


class VaDE(StreamingClusterer, CodingClusterer):
    """Variational deep embedding.

    Parameters
    ----------
    n_init
        k-means starts of the mixture of the codes; the most likely gives the first prior.
    init
        "gmm": that mixture; "umap": micro-clusters of a layout by UMAP's objective, merged; or a fitted clusterer. The
        last two are also taught to p(y|z) beside the bound, for a quarter of the run.
    pretraining
        Schedule of the autoencoder, or a fitted clusterer whose autoencoder is taken; None: ``Training()``.
    network, training
        Sizes, and schedule of the ELBO; None: ``Network(hidden=(500, 500, 2000), batch_norm=False)`` and
        ``Training()``.

    Attributes
    ----------
    start_score_ : float
        Neighbor information of an initial assignment, in nats (NaN for ``init="gmm"``, which makes none).

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> from nvisa import AEGMM
    >>> short = Training(epochs=5)
    >>> start = AEGMM(3, training=short, random_state=0).fit(X)
    >>> VaDE(3, training=short, pretraining=start, random_state=0).fit(X).score_samples(X).shape
    (150,)
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)

    n_init: Annotated[int, AtLeast(1)] = 10
    init: Annotated[Any, AnyOf(OneOf("gmm", "umap"), Fitted())] = "gmm"
    pretraining: Any = None

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        return Networks(rescale, self.n_clusters, self._network, likelihood=self.likelihood)

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        history, score = self._start(net, run)

        objective = self._objective(net, len(run.source), run.generator)
        history += maximize(objective, net, run.source, self._training, run.generator, run.listeners)
        return FitResult(net, history, {"start_score_": score})

    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        return lambda x, rows, fraction: self._bound(net, x, generator)

    def _start(self, net: Networks, run: Run) -> tuple[list[Record], float]:
        """Pretrain, and give the prior its first clusters; what was trained, and the score of the assignment."""
        source, generator, listeners = run.source, run.generator, run.listeners
        history = pretrain(net, source, self.pretraining or Training(), generator, listeners)
        if isinstance(self.init, str) and self.init == "gmm":
            net.start(codes_of(net, source, run.rng), self.n_init, run.rng)
            return history, float("nan")
        start = find_start(net, source, self.init, self.n_clusters, run.rng)
        net.start_from(start.codes, start.proba)
        taught = self._training.shortened(0.25)
        beside = lambda x: self._bound(net, x, generator).value  # noqa: E731  alone it moves the codes from their decoder
        history += distill(net.log_q_y, net, source, start, taught, generator, listeners, beside)
        return history, start.score

    def _bound(self, net: Networks, x: Data, generator: torch.Generator) -> StepOutput:
        """L(x) per feature, by one draw of z, in the networks and in pi, mu, sigma alike."""
        noise = noise_like(x.new_empty(len(x), net.latent_dim), generator)
        terms, log_gamma = net.elbo(x, noise, self.std_floor)
        return StepOutput.of_bound(terms, x.shape[1], log_gamma)

    def _log_p_z(self, z: Float[Tensor, "M B Z"]) -> PerSample:
        return self.module_.prior.log_p_z(z)

    def _draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        return self.module_.prior.draw_y(n, rng)

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        z = self.module_.prior.draw(y, generator)
        return self.module_.draw(z, generator if noise else None, self.std_floor)

    def _prototypes(self) -> Float[Tensor, "K D"]:
        return self.module_.draw(self.module_.prior.loc, None, self.std_floor)
