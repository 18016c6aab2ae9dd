"""AE+GMM: an autoencoder, then a Gaussian mixture of its codes.

    z = code(x),  x^ = reconstruct(z)        minimize ||x - x^||^2; the encoder may see x with parts masked
    p(z) = sum_k pi_k N(z; mu_k, Sigma_k)          EM, the most likely of several k-means starts
    q(y|x) = p(y|z) at z = code(x)
    cluster of x = argmax_y q(y|x)

The baseline of the tables of VaDE (Jiang et al., IJCAI 2017), LTVAE (Li et al., ICLR 2019) and NVISA (Li et
al., IJCNN 2020). Every deviation from them is listed in docs/methods/ae_gmm.md.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from nvisa.fitting.initialization import Reconstruction, codes_of, pretrain
from nvisa.fitting.run import FitResult, Run
from nvisa.methods.base import DeepClusterer
from nvisa.methods.partial_fit import Objective, StreamingClusterer
from nvisa.nets.autoencoder import MixtureAutoencoder
from nvisa.nets.layers import Network
from nvisa.nets.units import Rescale
from nvisa.settings import AtLeast, InRange, OneOf

__all__ = ["AEGMM"]


class AEGMM(StreamingClusterer, DeepClusterer):
    """Autoencoder, then a Gaussian mixture of its codes.

    Parameters
    ----------
    likelihood
        "gaussian_unit": squared error in the networks' units; "bernoulli": squared error of pixel probabilities, for x
        in [0, 1]. A method that shall start from this autoencoder needs the same kind of x.
    covariance
        Of the mixture's clusters: "full", or "diag" as in the papers.
    masked
        Share of a row's numbers that the encoder does not see while it learns: a denoising autoencoder.
    n_init
        k-means starts of the mixture; the most likely is kept.
    network, training
        Sizes, and schedule of the autoencoder; None: ``Network(hidden=(500, 500, 2000), batch_norm=False)``
        and ``Training()``.

    Attributes
    ----------
    log_likelihood_ : float
        Of the codes under the mixture, the mean of the rows it was fitted to, in nats.

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> AEGMM(3, training=Training(epochs=5), random_state=0).fit(X).predict_proba(X).shape
    (150, 3)
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)

    likelihood: Annotated[str, OneOf("gaussian_unit", "bernoulli")] = "gaussian_unit"
    covariance: Annotated[str, OneOf("full", "diag")] = "full"
    masked: Annotated[float, InRange(0, 1, open_high=True)] = 0.0
    n_init: Annotated[int, AtLeast(1)] = 10

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> MixtureAutoencoder:
        return MixtureAutoencoder(
            rescale, self.n_clusters, self._network, likelihood=self.likelihood, covariance=self.covariance
        )

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        listeners = run.listeners
        history = pretrain(net, run.source, self._training, run.generator, listeners, masked=self.masked)
        log_likelihood = net.fit_mixture(codes_of(net, run.source, run.rng), self.n_init, run.rng)
        return FitResult(net, history, {"log_likelihood_": log_likelihood})

    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        return Reconstruction(net, generator, self.masked)
