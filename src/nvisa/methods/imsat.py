"""IMSAT: clusters that keep their rows together, without a model of the rows.

    q(y|x)                                                               one network, softmax of K logits
    R(x)         = KL( q(y|x) || q(y|x + r) ),  r = argmax_|r|<=e KL     virtual adversarial training
    maximize  information ( balance H[mean_x q(y|x)] - mean_x H[q(y|x)] ) - mean_x R(x)
    cluster of x = argmax_y q(y|x)

Sources: Hu, Miyato, Tokui, Matsumoto, Sugiyama, "Learning Discrete Representations via Information Maximizing
Self-Augmented Training", ICML 2017 (arXiv:1702.08720); Miyato, Maeda, Koyama, Ishii, "Virtual Adversarial Training",
TPAMI 2018 (arXiv:1704.03976). Every deviation from them is listed in docs/methods/imsat.md.

What NVISA's default adds to the slides' bound is this objective, on the same networks.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import nn

from nvisa.fitting.consistency import VAT, Consistency, ConsistencyObjective
from nvisa.fitting.graph import neighbor_radius
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import Training, maximize
from nvisa.maths.shapes import Data, Float, Int, LogClusters, Tensor
from nvisa.methods.base import DeepClusterer
from nvisa.methods.partial_fit import Objective, StreamingClusterer, consistent_with_bound
from nvisa.nets.layers import Network, mlp
from nvisa.nets.units import Rescale, Rescaled
from nvisa.settings import AtLeast

__all__ = ["IMSAT", "Networks"]


class Networks(nn.Module):
    """``q(y|x)``: a trunk and K logits."""

    def __init__(self, rescale: Rescale, n_clusters: int, network: Network) -> None:
        super().__init__()
        self.rescale, self.latent_dim = rescale, network.hidden[-1]
        sizes = [len(rescale.shift), *network.hidden]
        # Plain ReLU: with a leak, consistency lets whole clusters merge.
        self.trunk = mlp(sizes, batch_norm=network.batch_norm, leak=0.0)
        self.y_logits = nn.Linear(network.hidden[-1], n_clusters)

    def log_q_y_from(self, h: Float[Tensor, "B H"]) -> LogClusters:
        """``log q(y|x)`` from ``h = trunk(x)``."""
        return self.y_logits(h).log_softmax(-1)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)``, ``x`` in the user's units."""
        return self.log_q_y_from(self.encode(x))

    def encode(self, x: Data) -> Float[Tensor, "B H"]:
        """The last hidden layer, which is all that the clusters know of x."""
        return self.trunk(self.rescale(x))

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        for table in (self.y_logits.weight, self.y_logits.bias):
            table.copy_(table[order])


class IMSAT(StreamingClusterer, DeepClusterer):
    """Information maximizing self-augmented training: consistency of q(y|x) alone.

    Parameters
    ----------
    consistency
        A :class:`VAT`, for images an :class:`Augment`, or a tuple of them; "vat", "augment" for their defaults.
    n_restarts
        Whole fits, side by side in ``with nvisa.config(n_jobs=...)``; the one with the largest neighbor information is
        kept. No label is used.
    network, training
        Sizes, and schedule of the optimization; None: ``Network()`` and ``Training(steps=4000)``.

    Attributes
    ----------
    neighbor_information_ : float
        Label-free score of the fit, in nats; at most log K.
    neighbor_distance_ : float
        With VAT: median distance of a row to its 10th neighbor, in the networks' units.
    restarts_ : list of dict
        Seed and score of every restart.

    Examples
    --------
    >>> import numpy as np
    >>> from nvisa import Training
    >>> X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> IMSAT(2, training=Training(epochs=20), random_state=0).fit_predict(X).shape
    (6,)
    """

    DEFAULT_TRAINING = Training(steps=4000)

    consistency: Annotated[Any, Consistency] = "vat"
    n_restarts: Annotated[int, AtLeast(1)] = 1

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        return Networks(rescale, self.n_clusters, self._network)

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        rows, terms = Rescaled(run.X, run.rescale), self._consistency_terms
        distance = neighbor_radius(rows, run.rng) if any(isinstance(term, VAT) for term in terms) else None
        objective = ConsistencyObjective(net, terms, distance, run.generator)
        history = maximize(objective, net, run.source, self._training, run.generator, run.listeners)
        return FitResult(net, history, objective.found())

    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        return consistent_with_bound(self, net, n_rows, generator)
