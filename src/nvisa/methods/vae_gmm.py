"""VAE+GMM: a variational autoencoder, then a Gaussian mixture of its posterior means.

    p(x, z) = N(z; 0, I) p(x|z),  q(z|x) = N(mu(x), diag sigma(x)^2)
    L(x) = E_q log p(x|z) - KL( q(z|x) || N(0, I) )                      z reparameterized, the KL in closed form
    sum_k pi_k N(mu(x); mu_k, Sigma_k)                                   EM, the most likely of several k-means starts
    q(y|x) = p(y|z) at z = mu(x)
    cluster of x = argmax_y q(y|x)

The VAE: Kingma & Welling, ICLR 2014 (arXiv:1312.6114). The baseline of the tables of LTVAE (Li et al., ICLR
2019) and NVISA (Li et al., IJCNN 2020). Every deviation from them is listed in docs/methods/vae_gmm.md.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.fitting.initialization import codes_of, pretrain
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import StepOutput, maximize
from nvisa.maths.distributions import kl_normal, log_normal, noise_like
from nvisa.maths.shapes import Data, Float, PerExample, PerSample, Tensor
from nvisa.methods.fitted import Record
from nvisa.methods.generative import CodingClusterer
from nvisa.methods.partial_fit import Objective, StreamingClusterer
from nvisa.nets.autoencoder import MixtureAutoencoder
from nvisa.nets.layers import Network
from nvisa.nets.units import Rescale
from nvisa.settings import AtLeast, OneOf

__all__ = ["VAEGMM", "Networks"]


class Networks(MixtureAutoencoder):
    """q(z|x), p(x|z), and the mixture of the posterior means."""

    def elbo(self, x: Data, noise: Float[Tensor, "B Z"], std_floor: float) -> dict[str, PerExample]:
        """The terms of L(x), with ``z = mu(x) + sigma(x) noise``; they add up. ``x`` in the user's units."""
        loc, scale = self.encoder.q_z(x)
        z = loc + scale * noise
        return {
            "log_p_x_given_z": self.log_p_x_given_z(x, z[None], std_floor)[0],
            "minus_kl_z": -kl_normal(loc, scale, torch.zeros_like(loc), torch.ones_like(scale)),
        }


class VAEGMM(StreamingClusterer, CodingClusterer):
    """Variational autoencoder, then a Gaussian mixture of its posterior means.

    ``score_samples`` is the density of the VAE, whose prior is N(0, I); ``sample`` draws z from the mixture,
    which knows the clusters.

    Parameters
    ----------
    covariance
        Of the mixture's clusters: "full", or "diag" as in the papers.
    n_init
        k-means starts of the mixture; the most likely is kept.
    pretraining
        None: the VAE starts from random weights. Or the schedule of an autoencoder that it starts from, or a fitted
        clusterer whose autoencoder is taken, as in LTVAE's table.
    network, training
        Sizes, and schedule of the VAE; None: ``Network(hidden=(500, 500, 2000), batch_norm=False)`` and
        ``Training()``.

    Attributes
    ----------
    log_likelihood_ : float
        Of the posterior means under the mixture, the mean of the rows it was fitted to, in nats.

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> model = VAEGMM(3, training=Training(epochs=5), random_state=0).fit(X)
    >>> rows, clusters = model.sample(20)
    >>> rows.shape
    (20, 4)
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)

    covariance: Annotated[str, OneOf("full", "diag")] = "full"
    n_init: Annotated[int, AtLeast(1)] = 10
    pretraining: Any = None

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        return Networks(
            rescale, self.n_clusters, self._network,
            likelihood=self.likelihood, covariance=self.covariance, variational=True,
        )  # fmt: skip

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        history: list[Record] = []
        if self.pretraining is not None:
            history = pretrain(net, run.source, self.pretraining, run.generator, run.listeners)
            net.whiten(codes_of(net, run.source, run.rng))
        history += self._train(net, run)
        log_likelihood = net.fit_mixture(codes_of(net, run.source, run.rng), self.n_init, run.rng)
        return FitResult(net, history, {"log_likelihood_": log_likelihood})

    def _train(self, net: Networks, run: Run) -> list[Record]:
        """Maximize L(x) per feature."""
        objective = self._objective(net, len(run.source), run.generator)
        return maximize(objective, net, run.source, self._training, run.generator, run.listeners)

    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        def objective(x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
            noise = noise_like(x.new_empty(len(x), net.latent_dim), generator)
            return StepOutput.of_bound(net.elbo(x, noise, self.std_floor), x.shape[1])

        return objective

    def _log_p_z(self, z: Float[Tensor, "M B Z"]) -> PerSample:
        return log_normal(z, torch.zeros_like(z), torch.ones_like(z))

    def _draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        return self.module_.mixture.draw_y(n, rng)

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        z = self.module_.mixture.draw(y, generator)
        return self.module_.draw(z, generator if noise else None, self.std_floor)

    def _prototypes(self) -> Float[Tensor, "K D"]:
        return self.module_.draw(self.module_.mixture.loc, None, self.std_floor)
