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

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from nvisa.fitting.checks import at_least, one_of
from nvisa.fitting.consistency import information
from nvisa.fitting.initialization import centroids, codes_of, encode, pretrain, subset
from nvisa.fitting.training import Source, StepOutput, Training, maximize
from nvisa.maths.distributions import HALF_LOG_2PI, noise_like
from nvisa.maths.shapes import Data, Float, Int, LogClusters, PerExample, PerSample, Tensor
from nvisa.methods.base import Array, Rows, generator_from, stores
from nvisa.methods.generative import CodingClusterer
from nvisa.methods.ltvae.latent_tree import LatentTree
from nvisa.methods.ltvae.moves import OPERATORS, STATE_OPERATORS, Model, settle
from nvisa.methods.ltvae.search import Search
from nvisa.methods.ltvae.structure import Structure
from nvisa.nets.autoencoder import Autoencoder, Encoder
from nvisa.nets.layers import Network, Rescale

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
            "log_p_x_given_z": self.log_p_x(x, z[None], std_floor)[0],
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
    likelihood
        "gaussian_shared": a learned deviation per feature; "gaussian_unit": deviation 1 (squared error);
        "gaussian": sigma_x(z); "bernoulli": for x in [0, 1], as in the paper's MNIST row.
    std_floor
        Least deviation of p(x|z), in the networks' units. Constant features would drive it to zero.
    n_init
        k-means starts of the mixture of the codes; the one with the highest BIC gives the first tree.
    pretraining
        Schedule of the autoencoder, or a fitted clusterer whose autoencoder is taken; None: ``Training()``.
    network, training
        Sizes, and schedule of the ELBO; None: ``Network(hidden=(500, 500, 2000), batch_norm=False)`` and
        ``Training()``.
    random_state
        Seed of everything random; None draws from NumPy's global generator, as in scikit-learn.
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
    """

    DEFAULT_NETWORK = Network(hidden=(500, 500, 2000), batch_norm=False)

    @stores
    def __init__(
        self,
        n_clusters: int = 10,
        *,
        structure: str = "gmm",
        states: str = "fixed",
        n_searches: int = 2,
        search_rows: int = 4000,
        em_rate: float = 0.01,
        likelihood: str = "gaussian_shared",
        std_floor: float = 0.1,
        n_init: int = 5,
        pretraining: Any = None,
        network: Network | None = None,
        training: Training | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.structure = structure
        self.states = states
        self.n_searches = n_searches
        self.search_rows = search_rows
        self.em_rate = em_rate
        self.likelihood = likelihood
        self.std_floor = std_floor
        self.n_init = n_init
        self.pretraining = pretraining
        self.network = network
        self.training = training
        self.random_state = random_state
        self.verbose = verbose

    def _check(self, X: Array) -> None:
        super()._check(X)
        one_of("structure", self.structure, ("gmm", "search"))
        one_of("states", self.states, ("fixed", "search"))
        for name in ("n_init", "n_searches", "search_rows"):
            at_least(name, getattr(self, name), 1)
        check_scalar(self.em_rate, "em_rate", Real, min_val=0, max_val=1, include_boundaries="right")

    def _networks(self, rescale: Rescale) -> Networks:
        return Networks(rescale, Structure.read(self.structure_), self._network, likelihood=self.likelihood)

    def _recall(self, fitted: Mapping[str, Any]) -> None:
        self.structure_ = fitted["structure_"]

    @property
    def _n_found(self) -> int:
        return self.n_clusters_

    def _fit(self, X: Array, rng: RandomState) -> None:
        generator, source = generator_from(rng), Source(X, self._training.torch_device())
        rescale = self._rescale(X)
        self.structure_ = Structure.mixture(self.n_clusters, self._network.latent_dim, full=True).plain()
        self.moves_: list[dict[str, Any]] = []
        self.module_ = self._built(rescale, generator)
        self.history_ = pretrain(self.module_, source, self.pretraining or Training(), generator, self._report)
        self._start(source, rng)
        self._train(source, generator, rng)
        self._name_facets(X, source, rng)

    def _start(self, source: Source, rng: RandomState) -> None:
        """Whiten the codes, load the best mixture that EM finds there, and let q(z|x) start narrow."""
        white = self.module_.begin(codes_of(self.module_, source, rng, START_ROWS))
        self._set_tree(self._first_tree(torch.from_numpy(white).double(), rng).to(source.device, torch.float32))

    def _first_tree(self, z: Float[Tensor, "N Z"], rng: RandomState) -> LatentTree:
        """The mixture with the highest BIC of several k-means starts; before a search, of both kinds."""
        best: Model | None = None
        for _ in range(self.n_init):
            centers = torch.from_numpy(centroids(z.numpy(), self.n_clusters, rng, n_init=1))
            nearest = torch.eye(self.n_clusters).to(z)[torch.cdist(z, centers).argmin(1)]
            for full in (True, False) if self.structure == "search" else (True,):
                mixture = Structure.mixture(self.n_clusters, z.shape[1], full=full)
                found = settle(mixture, z, [nearest], START_STEPS, LEAST_VARIANCE)
                best = found if best is None or found.score > best.score else best
        assert best is not None  # n_init is at least 1
        return best.tree

    def _set_tree(self, tree: LatentTree) -> None:
        """Put a tree into the networks."""
        self.module_.tree, self.structure_ = tree, tree.structure.plain()

    def _train(self, source: Source, generator: torch.Generator, rng: RandomState) -> None:
        """Search and train in turn: each stage has its share of the schedule, from its first rate to its last."""
        rows, searched = subset(len(source), rng, self.search_rows), self.structure == "search"
        n_stages = self.n_searches if searched else 1
        for _ in range(n_stages):
            codes = self._codes(source, rows)
            if searched:
                self._search(codes)
            objective = Objective(self.module_, codes, self.em_rate, self.std_floor, generator)
            schedule = self._training.shortened(1 / n_stages)
            self.history_ += maximize(objective, self.module_, source, schedule, generator, on_epoch=self._report)

    def _codes(self, source: Source, rows: NDArray[np.integer]) -> Float[Tensor, "B Z"]:
        """``m(x)`` of these rows."""
        return torch.from_numpy(encode(self.module_.code, source, rows)).to(source.device)

    def _search(self, codes: Float[Tensor, "B Z"]) -> None:
        """Put the tree that the search finds into the networks."""
        operators = OPERATORS if self.states == "search" else tuple(o for o in OPERATORS if o not in STATE_OPERATORS)
        search = Search(codes.cpu().double(), operators, LEAST_VARIANCE, on_move=self._report_move)
        tree = search.run(self.module_.tree).tree
        self.moves_ += search.path
        self._set_tree(tree.to(codes))

    def _report_move(self, record: dict[str, Any]) -> None:
        """A move of the search is reported as an epoch is."""
        self.history_.append({"stage": "structure search", **record})
        self._report(self.history_[-1])

    def _name_facets(self, X: Array, source: Source, rng: RandomState) -> None:
        """Make the facet with the largest I(Y; Z) the root, and number the states of every facet by size."""
        z = self._codes(source, subset(len(source), rng))
        told = [float(information(posterior.log())) for posterior in self.module_.tree.marginals(z).posteriors]
        best = int(np.argmax(told))
        self._set_tree(self.module_.tree.rerooted(best))
        self.information_ = [told[best], *(value for j, value in enumerate(told) if j != best)]
        self.n_clusters_ = self.module_.tree.structure.states[0]
        labels = self._facets(X)
        for j, n in enumerate(self.module_.tree.structure.states):
            order = np.argsort(-np.bincount(labels[:, j], minlength=n), kind="stable")
            self.module_.tree.permute(j, torch.from_numpy(order).to(source.device))
        self.facets_ = self._facets(X)

    def _facets(self, X: Array) -> NDArray[np.int64]:
        def most_likely(x: Data) -> Tensor:
            posteriors = self.module_.tree.marginals(self.module_.code(x)).posteriors
            return torch.stack([posterior.argmax(1) for posterior in posteriors], 1).to(x)

        return self._blocks(most_likely, X).astype(np.int64)

    def predict_facets(self, X: Rows) -> NDArray[np.int64]:
        """``argmax p(y_j|z)`` of each row in every facet [N F]; column 0 is :meth:`predict`."""
        return self._facets(self._checked(X))

    def _log_p_z(self, z: Float[Tensor, "M B Z"]) -> PerSample:
        return self.module_.tree.log_p_z(z)

    def _draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        return self.module_.tree.draw_y(n, rng)

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        z = self.module_.tree.draw(y, generator)
        return self.module_.draw(z, generator if noise else None, self.std_floor)
