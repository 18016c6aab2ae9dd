"""DEC: refine an autoencoder's codes by their own confident assignments.

    z_i  = f(x_i)                                                        the encoder of a pretrained autoencoder
    q_ij = (1 + ||z_i - mu_j||^2)^-1 / sum_j' (...)                      Student t with one degree of freedom
    p_ij = (q_ij^2 / f_j) / sum_j' (...),  f_j = sum_i q_ij              over the whole data set, fixed for a while
    L    = KL(P || Q) = sum_i sum_j p_ij log(p_ij / q_ij)                minimized in f and mu
    cluster of x = argmax_j q_ij

Source: Xie, Girshick, Farhadi, "Unsupervised Deep Embedding for Clustering Analysis", ICML 2016
(arXiv:1511.06335), sec. 3. Every deviation from it is listed in docs/methods/dec.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import nn

from nvisa.fitting.initialization import centroids, codes_of, pretrain
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import StepOutput, Training, maximize
from nvisa.maths.distributions import kl_categorical
from nvisa.maths.mixtures import fit_mixture
from nvisa.maths.schedules import Constant
from nvisa.maths.shapes import Data, Float, Int, LogClusters, Tensor
from nvisa.methods.base import DeepClusterer
from nvisa.methods.fitted import Array
from nvisa.nets.autoencoder import Autoencoder, Encoder
from nvisa.nets.layers import Network, build
from nvisa.nets.rows import map_blocks
from nvisa.nets.units import Rescale
from nvisa.settings import AtLeast, NotNegative, OneOf

__all__ = ["DEC", "Networks", "Refinement", "log_assignments", "target_distribution"]


def log_assignments(z: Float[Tensor, "B Z"], loc: Float[Tensor, "K Z"]) -> LogClusters:
    """``log q_ij``, the similarity ``(1 + ||z_i - mu_j||^2)^-1`` normalized over j."""
    squared = (z[:, None] - loc).square().sum(-1)
    return (-squared.log1p()).log_softmax(-1)


def target_distribution(q: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """``p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j')``; q holds every row of the data, for f_j is their sum."""
    weighted = q.square() / q.sum(0).clamp_min(torch.finfo(q.dtype).tiny)
    return weighted / weighted.sum(1, keepdim=True)


class Networks(Encoder):
    """The encoder and the centroids; the decoder is thrown away after pretraining."""

    def __init__(self, rescale: Rescale, n_clusters: int, network: Network) -> None:
        super().__init__(rescale, network)
        self.centroids = nn.Parameter(torch.zeros(n_clusters, network.latent_dim))

    def log_q_y(self, x: Data) -> LogClusters:
        """``log q_ij`` of each row."""
        return log_assignments(self.code(x), self.centroids)

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        self.centroids.copy_(self.centroids[order])


@dataclass
class Refinement:
    """The objective ``-KL(P || Q)`` of a batch; every ``update_interval`` steps P is made anew from all rows.

    It has converged when, between two refreshes, at most the share ``tol`` of the rows changed their label.
    """

    networks: Networks
    all_log_q: Callable[[], Array]
    update_interval: int
    tol: float
    step: int = 0
    changed: float = 1.0
    labels: NDArray[np.integer] | None = None
    target: Float[Tensor, "N K"] | None = None

    @property
    def converged(self) -> bool:
        """Whether the labels have come to rest."""
        return self.changed <= self.tol

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput | None:
        """StepOutput of the batch ``x`` (user's units), rows of the data ``rows``; None once converged."""
        if self.step % self.update_interval == 0:
            self.refresh()
            if self.converged:
                return None
        self.step += 1
        assert self.target is not None  # made at step 0
        p = self.target[torch.from_numpy(rows)].to(x.device)
        log_q = self.networks.log_q_y(x)
        kl = kl_categorical(p.clamp_min(torch.finfo(p.dtype).tiny).log(), log_q)
        return StepOutput(-kl, {"kl": kl, "changed_labels": torch.tensor(self.changed)}, log_q)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: P, the labels behind it, and when it was made."""
        assert self.labels is not None  # made at step 0
        assert self.target is not None
        progress = torch.tensor([self.step, self.changed], dtype=torch.float64)
        return {"progress": progress, "labels": torch.from_numpy(self.labels), "target": self.target}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        step, self.changed = state["progress"].tolist()
        self.step, self.labels, self.target = int(step), state["labels"].numpy(), state["target"]

    def refresh(self) -> None:
        """P from q of all rows, and the share of the labels that changed since the last time."""
        self.networks.eval()
        log_q = self.all_log_q()
        self.networks.train()
        labels = log_q.argmax(1)
        self.changed = 1.0 if self.labels is None else float((labels != self.labels).mean())
        self.labels, self.target = labels, target_distribution(torch.from_numpy(np.exp(log_q)))


class DEC(DeepClusterer):
    """Deep embedded clustering.

    Parameters
    ----------
    update_interval
        Steps between refreshes of the target distribution.
    tol
        Stop when at most this share of the rows changed label between two refreshes.
    init
        The first centroids: "kmeans", as in the paper; or "mixture", the means of a Gaussian mixture with full
        covariances, for codes whose clusters are long and narrow.
    n_init
        k-means starts; the tightest gives the first centroids, or the mixture with the highest likelihood.
    pretraining
        Schedule of the autoencoder, or a fitted clusterer whose encoder is taken; None: ``Training()``.
    network, training
        Sizes, and schedule of the refinement; None: ``DEFAULT_NETWORK`` and ``DEFAULT_TRAINING``.

    Attributes
    ----------
    converged_ : bool
        Whether the labels came to rest before the schedule ended.

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> model = DEC(3, training=Training(epochs=5), pretraining=Training(epochs=5), random_state=0).fit(X)
    >>> model.predict_proba(X).shape
    (150, 3)
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)
    DEFAULT_TRAINING = Training(learning_rate=Constant(1e-3))

    update_interval: Annotated[int, AtLeast(1)] = 140
    tol: Annotated[float, NotNegative] = 1e-3
    init: Annotated[str, OneOf("kmeans", "mixture")] = "kmeans"
    n_init: Annotated[int, AtLeast(1)] = 20
    pretraining: Any = None

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        return Networks(rescale, self.n_clusters, self._network)

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        pretraining = self.pretraining or Training()
        learner: nn.Module = net  # all that is taken from a fitted clusterer
        if isinstance(pretraining, Training):
            learner = build(lambda: Autoencoder(net, self._network), run.generator, run.source.device)
        history = pretrain(learner, run.source, pretraining, run.generator, run.listeners)
        with torch.no_grad():
            codes = codes_of(net, run.source, run.rng)
            net.centroids.copy_(torch.from_numpy(self._first_centroids(codes, run.rng)))
        all_log_q = lambda: map_blocks(net.log_q_y, run.source)  # noqa: E731
        refinement = Refinement(net, all_log_q, self.update_interval, self.tol)
        history += maximize(
            refinement, net, run.source, self._training, run.generator, run.listeners, stage="refinement"
        )
        return FitResult(net, history, {"converged_": refinement.converged})

    def _first_centroids(self, codes: Array, rng: RandomState) -> Array:
        """What ``init`` says [K Z]."""
        if self.init == "kmeans":
            return centroids(codes, self.n_clusters, rng, n_init=self.n_init)
        return fit_mixture(codes, self.n_clusters, rng, n_init=self.n_init).means_
