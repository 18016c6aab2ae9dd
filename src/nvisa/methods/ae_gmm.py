"""AE+GMM: an autoencoder, then a Gaussian mixture of its codes.

    z = code(x),  x^ = reconstruct(z)        minimize ||x - x^||^2; the encoder may see x with parts masked
    p(z) = sum_k pi_k N(z; mu_k, Sigma_k)          EM, the most likely of several k-means starts
    q(y|x) = p(y|z) at z = code(x)
    cluster of x = argmax_y q(y|x)

The baseline of the tables of VaDE (Jiang et al., IJCAI 2017), LTVAE (Li et al., ICLR 2019) and NVISA (Li et
al., IJCNN 2020). Every deviation from them is listed in docs/methods/ae_gmm.md.
"""

from numbers import Real
from typing import Any

from numpy.random import RandomState
from sklearn.utils import check_scalar

from nvisa.fitting.checks import at_least, check_likelihood, one_of
from nvisa.fitting.initialization import codes_of, pretrain
from nvisa.fitting.training import Source, Training
from nvisa.maths.shapes import Data, Float, LogClusters, Tensor
from nvisa.methods.base import Array, DeepClusterer, generator_from, stores
from nvisa.nets.autoencoder import MixtureAutoencoder
from nvisa.nets.layers import Network, Rescale

__all__ = ["AEGMM"]


class AEGMM(DeepClusterer):
    """Autoencoder, then a Gaussian mixture of its codes.

    Parameters
    ----------
    n_clusters
        K.
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
    random_state
        Seed of everything random; None draws from NumPy's global generator, as in scikit-learn.
    verbose
        1 shows progress.

    Attributes
    ----------
    log_likelihood_ : float
        Of the codes under the mixture, the mean of the rows it was fitted to, in nats.
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)

    @stores
    def __init__(
        self,
        n_clusters: int = 10,
        *,
        likelihood: str = "gaussian_unit",
        covariance: str = "full",
        masked: float = 0.0,
        n_init: int = 10,
        network: Network | None = None,
        training: Training | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.likelihood = likelihood
        self.covariance = covariance
        self.masked = masked
        self.n_init = n_init
        self.network = network
        self.training = training
        self.random_state = random_state
        self.verbose = verbose

    def _check(self, X: Array) -> None:
        super()._check(X)
        one_of("likelihood", self.likelihood, ("gaussian_unit", "bernoulli"))
        check_likelihood(self.likelihood, X)
        at_least("n_init", self.n_init, 1)
        one_of("covariance", self.covariance, ("full", "diag"))
        check_scalar(self.masked, "masked", Real, min_val=0, max_val=1, include_boundaries="left")

    def _networks(self, rescale: Rescale) -> MixtureAutoencoder:
        return MixtureAutoencoder(
            rescale, self.n_clusters, self._network, likelihood=self.likelihood, covariance=self.covariance
        )

    def _fit(self, X: Array, rng: RandomState) -> None:
        generator, source = generator_from(rng), Source(X, self._training.torch_device())
        rescale = self._rescale(X)
        self.module_ = self._built(rescale, generator)
        self.history_ = pretrain(self.module_, source, self._training, generator, self._report, masked=self.masked)
        self.log_likelihood_ = self.module_.fit_mixture(codes_of(self.module_, source, rng), self.n_init, rng)
        self._number_by_size(X)

    def _log_q_y(self, x: Data) -> LogClusters:
        return self.module_.log_q_y(x)

    def _encode(self, x: Data) -> Float[Tensor, "B Z"]:
        return self.module_.code(x)
