"""LTVAE: a variational autoencoder whose prior is a pouch latent tree, found by structure search on the codes.

    p(x, z, y)   = p(y_0) prod_{(i,j)} p(y_j|y_i) prod_b N(z_b; mu_{b,y}, Sigma_{b,y}) p(x|z)
    q(z|x)       = N(m(x), diag sigma(x)^2)
    L(x)         = E_q log p(x|z) + E_q log p(z) + H[q(z|x)]         z reparameterized, one draw; the y summed out
    tree         = stepwise EM on every batch: s <- s + rate (s_batch - s), then its M step
    structure    = search by BIC on z = m(x) of a bounded number of rows, and training, in turn
    facet j of x = argmax p(y_j|z) at z = m(x); the cluster of x is facet 0, the one with the largest I(Y_j; Z)

``structure="gmm"`` is LTVAE-GMM: one latent of K states with one pouch, a full covariance each, and no search.

Source: Li, Chen, Poon, Zhang, "Learning latent superstructures in variational autoencoders for deep
multidimensional clustering", ICLR 2019 (arXiv:1803.05206). Every deviation from it is listed in docs/methods/ltvae.md.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.fitting.initialization import MAX_ROWS, centroids, codes_of, pretrain
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import StepOutput, Training, maximize
from nvisa.maths.distributions import HALF_LOG_2PI, information, noise_like
from nvisa.maths.shapes import Data, Float, Int, LogClusters, PerExample, PerSample, Tensor
from nvisa.methods.fitted import Record
from nvisa.methods.generative import CodingClusterer
from nvisa.methods.input import Rows
from nvisa.methods.ltvae.latent_tree import LatentTree
from nvisa.methods.ltvae.moves import OPERATORS, STATE_OPERATORS, Model, fit_from_posteriors
from nvisa.methods.ltvae.search import Search
from nvisa.methods.ltvae.structure import Structure
from nvisa.nets.autoencoder import Autoencoder, Encoder
from nvisa.nets.layers import Network
from nvisa.nets.rows import Source, map_blocks, subset
from nvisa.nets.units import Rescale
from nvisa.settings import AtLeast, InRange, OneOf

__all__ = ["LTVAE", "Networks"]

START_ROWS = 10_000  # that the first mixture is fitted to,
START_STEPS = 100  # in so many EM steps at the most
LEAST_VARIANCE = 0.01  # eigenvalue of a pouch's covariance, in variances of the first codes (the paper's floor)


class Networks(Autoencoder):
    """q(z|x), p(x|z), and the latent tree."""

    def __init__(self, rescale: Rescale, structure: Structure, network: Network, *, likelihood: str) -> None:
        super().__init__(Encoder(rescale, network, variational=True), network, likelihood)
        self.tree = LatentTree(structure)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log p(y_0|z)`` at ``z = m(x)``: what labels a row."""
        return self.tree.log_q_y(self.code(x))

    def elbo(
        self, x: Data, noise: Float[Tensor, "B Z"], std_floor: float
    ) -> tuple[dict[str, PerExample], LogClusters, Float[Tensor, "B Z"]]:
        """The terms of L(x), which add up, ``log p(y_0|z)``, and the ``z = m(x) + sigma(x) noise`` of both."""
        loc, scale = self.encoder.q_z(x)
        z = loc + scale * noise
        log_joint = self.tree.log_joint(z)
        terms = {
            "log_p_x_given_z": self.log_p_x_given_z(x, z[None], std_floor)[0],
            "log_p_z": log_joint.logsumexp(-1),
            "entropy_z": (scale.log() + 0.5 + HALF_LOG_2PI).sum(-1),
        }
        return terms, log_joint.log_softmax(-1), z

    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        self.tree.permute(0, order)


class Objective:
    """The objective of a stage: L(x) for the networks, and a step of stepwise EM for the tree on the same draws."""

    def __init__(
        self, net: Networks, codes: Float[Tensor, "N Z"], em_rate: float, std_floor: float, generator: torch.Generator
    ) -> None:
        self.net, self.em_rate, self.std_floor, self.generator = net, em_rate, std_floor, generator
        self.statistics = net.tree.statistics(codes)

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """L(x) per feature of a batch."""
        noise = noise_like(x.new_empty(len(x), self.net.latent_dim), self.generator)
        terms, log_q_y, z = self.net.elbo(x, noise, self.std_floor)
        step = StepOutput.of_bound(terms, x.shape[1], log_q_y)
        if torch.isfinite(step.value).all():  # the loop says what is not
            self.follow(z.detach())
        return step

    def follow(self, z: Float[Tensor, "B Z"]) -> None:
        """``s <- s + rate (s_batch - s)`` and the M step (LTVAE, eq. 8)."""
        self.statistics = self.statistics.towards(self.net.tree.statistics(z), self.em_rate)
        self.net.tree.load(self.statistics, LEAST_VARIANCE)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {str(i): tensor for i, tensor in enumerate(self.statistics.tensors())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        for i, tensor in enumerate(self.statistics.tensors()):
            tensor.copy_(state[str(i)])


class LTVAE(CodingClusterer):
    """Latent tree variational autoencoder.

    Parameters
    ----------
    n_clusters
        K: the states of the one latent that everything starts from.
    structure
        "gmm": it stays alone, with all of z in one pouch (LTVAE-GMM); "search": the structure is searched for
        (LTVAE-full).
    states
        Of a search. "fixed": every latent keeps K states, and ``labels_`` has K clusters; "search": states are
        introduced and deleted too, so that the number of clusters is found, ``n_clusters_``.
    n_searches
        Structure searches, each followed by its share of the training.
    search_rows
        Rows that a search looks at.
    em_rate
        Step of stepwise EM.
    n_init
        k-means starts of the mixture of the codes; the one with the highest BIC gives the first tree.
    pretraining
        Schedule of the autoencoder, or a fitted clusterer whose autoencoder is taken; None: ``Training()``.
    network, training
        Sizes, and schedule of the ELBO; None: ``Network(hidden=(500, 500, 2000), batch_norm=False)`` and
        ``Training()``.
    verbose
        1 shows progress, and before a search what one of its moves will take.

    Attributes
    ----------
    facets_ : ndarray of shape (N, F)
        The labeling of the training rows by each latent; column 0 is ``labels_``.
    information_ : list of float
        ``I(Y_j; Z)`` of each facet in nats. The largest comes first: that is why facet 0 labels.
    structure_ : dict
        The tree: ``states``, ``edges``, ``pouches``, ``homes``.
    n_clusters_ : int
        States of facet 0.
    moves_ : list of dict
        What the searches did: the move, the structure after it, its BIC.

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> short = Training(epochs=5)
    >>> model = LTVAE(3, training=short, pretraining=short, random_state=0).fit(X)
    >>> model.facets_.shape
    (150, 1)
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)

    structure: Annotated[str, OneOf("gmm", "search")] = "gmm"
    states: Annotated[str, OneOf("fixed", "search")] = "fixed"
    n_searches: Annotated[int, AtLeast(1)] = 2
    search_rows: Annotated[int, AtLeast(1)] = 4000
    em_rate: Annotated[float, InRange(0, 1, open_low=True)] = 0.01
    n_init: Annotated[int, AtLeast(1)] = 5
    pretraining: Any = None

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        """Of the structure that a fit has found, or of the mixture that every fit begins with."""
        if fitted is None or "structure_" not in fitted:
            structure = Structure.mixture(self.n_clusters, self._network.latent_dim, full=True)
        else:
            structure = Structure.read(fitted["structure_"])
        return Networks(rescale, structure, self._network, likelihood=self.likelihood)

    @property
    def _n_found(self) -> int:
        return self.n_clusters_

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        training = self.pretraining or Training()
        history = pretrain(net, run.source, training, run.generator, run.listeners)
        white = net.whiten(codes_of(net, run.source, run.rng, START_ROWS))
        tree = self._first_tree(torch.from_numpy(white).double(), run.rng)
        net.tree = tree.to(run.source.device, torch.float32)
        stages, moves = self._train(net, run)
        return FitResult(net, history + stages, {"moves_": moves} | name_facets(net, run))

    def _first_tree(self, z: Float[Tensor, "N Z"], rng: RandomState) -> LatentTree:
        """The mixture with the highest BIC of several k-means starts; before a search, of both kinds."""
        best: Model | None = None
        for _ in range(self.n_init):
            centers = torch.from_numpy(centroids(z.numpy(), self.n_clusters, rng, n_init=1))
            nearest = torch.eye(self.n_clusters).to(z)[torch.cdist(z, centers).argmin(1)]
            for full in (True, False) if self.structure == "search" else (True,):
                mixture = Structure.mixture(self.n_clusters, z.shape[1], full=full)
                found = fit_from_posteriors(mixture, z, [nearest], START_STEPS, LEAST_VARIANCE)
                best = found if best is None or found.score > best.score else best
        assert best is not None  # n_init is at least 1
        return best.tree

    def _train(self, net: Networks, run: Run) -> tuple[list[Record], list[Record]]:
        """Search and train in turn: each stage has its share of the schedule. What was trained, and the moves."""
        history: list[Record] = []
        moves: list[Record] = []
        rows, searched = subset(len(run.source), run.rng, self.search_rows), self.structure == "search"
        n_stages = self.n_searches if searched else 1
        for _ in range(n_stages):
            codes = codes_at(net, run.source, rows)
            if searched:
                found = self._search(net, codes, self._move_reporter(net, run, history))
                moves += found
            objective = Objective(net, codes, self.em_rate, self.std_floor, run.generator)
            schedule = self._training.shortened(1 / n_stages)
            history += maximize(objective, net, run.source, schedule, run.generator, run.listeners)
        return history, moves

    def _search(self, net: Networks, codes: Float[Tensor, "B Z"], on_move: Callable[[Record], None]) -> list[Record]:
        """Put the tree that the search finds into the networks; its moves."""
        operators = OPERATORS if self.states == "search" else tuple(o for o in OPERATORS if o not in STATE_OPERATORS)
        search = Search(codes.cpu().double(), operators, LEAST_VARIANCE, on_move=on_move)
        net.tree = search.run(net.tree).tree.to(codes)
        return search.path

    def _move_reporter(self, net: Networks, run: Run, history: list[Record]) -> Callable[[Record], None]:
        """A move of the search is reported as an epoch is."""

        def report(record: Record) -> None:
            history.append({"stage": "structure search", **record})
            if run.report is not None:
                run.report(net, history)

        return report

    def predict_facets(self, X: Rows) -> NDArray[np.int64]:
        """``argmax p(y_j|z)`` of each row in every facet [N F]; column 0 is :meth:`predict`."""
        return facets(self.module_, Source(self._checked(X), self.module_.rescale.shift.device))

    def _log_p_z(self, z: Float[Tensor, "M B Z"]) -> PerSample:
        return self.module_.tree.log_p_z(z)

    def _draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        return self.module_.tree.draw_y(n, rng)

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        z = self.module_.tree.draw(y, generator)
        return self.module_.draw(z, generator if noise else None, self.std_floor)


# ---- facets ----------------------------------------------------------------------------------------------------------


def codes_at(net: Networks, source: Source, rows: NDArray[np.integer]) -> Float[Tensor, "B Z"]:
    """``m(x)`` of these rows."""
    return torch.from_numpy(map_blocks(net.code, source, rows=rows, fixed=False)).to(source.device)


def facets(net: Networks, source: Source) -> NDArray[np.int64]:
    """``argmax p(y_j|z)`` of each row in every facet [N F]."""

    def most_likely(x: Data) -> Tensor:
        posteriors = net.tree.marginals(net.code(x)).posteriors
        return torch.stack([posterior.argmax(1) for posterior in posteriors], 1).to(x)

    return map_blocks(most_likely, source).astype(np.int64)


def name_facets(net: Networks, run: Run) -> dict[str, Any]:
    """Make the facet with the largest I(Y; Z) the root, and number the states of every facet by size.

    Returns the attributes that say so.
    """
    z = codes_at(net, run.source, subset(len(run.source), run.rng, MAX_ROWS))
    told = [float(information(posterior.log())) for posterior in net.tree.marginals(z).posteriors]
    best = int(np.argmax(told))
    net.tree = net.tree.rerooted(best)
    states = net.tree.structure.states
    labels = facets(net, run.source)
    for j, n in enumerate(states):
        order = np.argsort(-np.bincount(labels[:, j], minlength=n), kind="stable")
        net.tree.permute(j, torch.from_numpy(order).to(run.source.device))
    return {
        "structure_": net.tree.structure.plain(),
        "information_": [told[best], *(value for j, value in enumerate(told) if j != best)],
        "n_clusters_": states[0],
        "facets_": facets(net, run.source),
    }
