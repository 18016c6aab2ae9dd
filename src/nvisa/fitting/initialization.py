"""Where training starts: an autoencoder, its codes, and a first assignment that no label chose.

``pretrain`` fits the encoder and the decoder as an autoencoder; ``find_start`` makes a first assignment
of a bounded number of rows, so that initialization is linear in N; ``distill`` teaches it to q(y|x).

Sources: "pretrained AE+GMM as an initialization" on the slides; the layout, McInnes et al. 2018 (``layout.py``);
clusters of a layout, McConville et al., N2D, ICPR 2020; the merging of micro-clusters is ours
(docs/methods/nvisa-default.md).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import nn
from torch.nn import functional as F

from nvisa.fitting.candidates import Candidate, best_candidate, kmeans
from nvisa.fitting.graph import degree, merged_microclusters, nearest, neighbor_information, principal_components
from nvisa.fitting.layout import graph_layout
from nvisa.fitting.optimizers import LBFGS
from nvisa.fitting.run import Listeners, Run
from nvisa.fitting.training import StepOutput, Training, maximize
from nvisa.maths.distributions import mean_squared_error
from nvisa.maths.mixtures import fit_mixture
from nvisa.maths.shapes import Data, Float, Int, LogClusters, PerExample, Tensor
from nvisa.nets.autoencoder import load_autoencoder
from nvisa.nets.rows import Source, Table, map_blocks, subset
from nvisa.settings import AnyOf, Fitted, InRange, OneOf, SettingError

__all__ = [
    "MAX_ROWS",
    "BoundBesideStart",
    "Reconstruction",
    "Start",
    "WarmStart",
    "bound_with_fixed_q_y",
    "centroids",
    "check_start",
    "codes_of",
    "distill",
    "find_start",
    "mask_inputs",
    "pretrain",
    "reconstruction_error",
    "refit_head",
    "start_from",
    "warm_start",
]

Array = NDArray[np.floating]
Record = dict[str, Any]
MAX_ROWS, MAX_NUMBERS = 40_000, 1 << 27  # that the mixture and the graph look at; of wide rows the second rules
# Of the run's steps: a mixture of the codes needs good codes, the graph none.
PRETRAINING = {"auto": 0.15, "umap": 0.15, "gmm": 0.6}


@dataclass(frozen=True)
class WarmStart:
    """A start that NVISA without consistency goes on from: otherwise its first epochs, of high floors, would lose it.

    See :func:`warm_start` for what is done to keep it.

    Parameters
    ----------
    init
        "gmm", "umap" or a fitted clusterer with ``predict_proba``.
    masked
        Share of a row's numbers that its autoencoder does not see while it learns: a denoising autoencoder.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> clusterer = NVISA(10, init=WarmStart("gmm", masked=0.3), consistency=None)
    """

    init: Annotated[Any, AnyOf(OneOf("umap", "gmm"), Fitted())] = "gmm"
    masked: Annotated[float, InRange(0, 1, open_high=True)] = 0.0


def check_start(init: Any, X: Table, n_clusters: int) -> None:
    """Raise a SettingError unless ``init`` is fitted and tells rows such as X apart into that many clusters."""
    try:
        n_found = init.predict_proba(X[:2]).shape[1]
    except NotFittedError as error:
        raise SettingError("init", "a fitted clusterer", init, "Fit it first.") from error
    if n_found != n_clusters:
        raise SettingError("init", f"a start of n_clusters={n_clusters} clusters", n_found)


@dataclass
class Start:
    """A first assignment: q(y|x) of ``rows`` as ``proba`` [n K], their ``codes`` [n Z], and a label-free score.

    ``candidate``: how ``init="auto"`` chose it.
    """

    rows: NDArray[np.integer]
    proba: Array
    codes: Array
    score: float
    candidate: Candidate | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the rows leave no doubt, so that training keeps it."""
        return self.candidate is not None and self.candidate.is_clear

    @property
    def is_given(self) -> bool:
        """Whether somebody's labels are the start (``supervision.py``)."""
        return self.candidate is not None and self.candidate.kind == "labels"

    @property
    def log_sizes(self) -> Float[Tensor, " K"]:
        """Logarithm of the sizes of clusters to expect: ``pi_k = ( n_k / n + 1 / K ) / 2``.

        The mean of the Dirichlet posterior whose prior counts as much as the rows: of a start that is not clear, the
        borders are not known, and so neither are the sizes.
        """
        sizes = torch.from_numpy(self.proba.mean(0))
        return (0.5 * sizes / sizes.sum() + 0.5 / len(sizes)).log()


def pretrain(
    module: Any,
    source: Source,
    training: Any,
    generator: torch.Generator,
    listeners: Listeners = (),
    *,
    share: float = 1.0,
    masked: float = 0.0,
) -> list[Record]:
    """Fit ``module`` as an autoencoder: maximize ``- ||x - x^||^2 / D`` in the networks' units.

    ``module`` needs ``rescale``, ``code`` (x -> z) and ``reconstruct`` (z -> x^). ``training`` is a schedule, or a
    fitted clusterer whose autoencoder is taken as it is: several methods can then start from one. ``share`` is the part
    of the schedule that is trained. ``masked`` is the share of the numbers that the encoder does not see, drawn anew at
    every step (a denoising autoencoder: Vincent et al., JMLR 2010): they stand at their column's shift, zero in the
    networks' units.
    """
    if not isinstance(training, Training):
        load_autoencoder(module, training)
        return []

    objective = Reconstruction(module, generator, masked)
    schedule = training if share == 1.0 else training.shortened(share)
    return maximize(objective, module, source, schedule, generator, listeners, stage="pretraining")


@dataclass
class Reconstruction:
    """The autoencoder's objective. A class, not a function inside another: processes that share a fit are sent it."""

    module: Any
    generator: torch.Generator
    masked: float = 0.0

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """``- ||x - x^||^2 / D`` of the batch."""
        seen = mask_inputs(x, self.module.rescale.shift, self.masked, self.generator) if self.masked else x
        error = reconstruction_error(self.module, x, seen)
        return StepOutput(-error, {"reconstruction_error": error})


def mask_inputs(x: Data, shift: Float[Tensor, " D"], share: float, generator: torch.Generator) -> Data:
    """``x`` with about this share of its numbers replaced by ``shift``."""
    uniform = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device)
    return torch.where(uniform < share, shift, x)


def reconstruction_error(module: Any, x: Data, seen: Data | None = None) -> PerExample:
    """``||x - x^||^2 / D`` in the networks' units, x^ decoded from the code of x, or of what is ``seen`` of it.

    In the mean over what is observed of x, where it has gaps. Of counts it is ``-log p(x|z) / D`` at the code: squared
    errors of their logarithms hardly see rare ones.
    """
    target = module.rescale(x)
    code = module.code(x if seen is None else seen)
    if module.rescale.has_counts:
        return -module.log_p_x_given_z(target, code[None], 0.0)[0] / target.shape[1]
    return mean_squared_error(target, module.reconstruct(code), -1)


def codes_of(module: Any, source: Source, rng: RandomState, limit: int = 100_000) -> Array:
    """``module.code`` of at most ``limit`` random rows: what k-means and mixtures of codes are fitted to."""
    return map_blocks(module.code, source, rows=subset(len(source), rng, limit), fixed=False)


def centroids(codes: Array, n_clusters: int, rng: RandomState, *, n_init: int = 20) -> Array:
    """k-means' centers [K Z], the tightest of ``n_init`` starts (DEC, sec. 3.2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(n_clusters, n_init=n_init, random_state=rng).fit(codes).cluster_centers_


def find_start(module: Any, source: Source, init: Any, n_clusters: int, rng: RandomState) -> Start:
    """Cluster a subset of the rows by ``module``, an autoencoder (:func:`pretrain`).

    ``init`` is "auto" (:func:`nvisa.fitting.candidates.best_candidate`), "gmm" (full-covariance mixture of the codes),
    "umap" (merged micro-clusters of the neighbor graph's layout, :func:`nvisa.fitting.layout.graph_layout`), or a
    fitted clusterer, whose ``predict_proba`` is taken.

    Of a table with categories "auto" is k-means: many of its rows are equally far from each other, or equal, and what a
    graph then calls groups are combinations of categories.
    """
    width = module.rescale.n_axes or source.X.shape[1]
    rows = subset(len(source), rng, min(MAX_ROWS, max(MAX_NUMBERS // width, 2_000)))
    codes = map_blocks(module.code, source, rows=rows, fixed=False)
    graph_space = principal_components(
        map_blocks(module.rescale.features, source, rows=rows, fixed=False), rng, overwrite=True
    )
    k = degree(len(rows))
    near, distances = nearest(graph_space, 2 * k)
    graph = near[:, :k]
    if module.rescale.has_categories and init == "auto":
        proba = np.eye(n_clusters, dtype=np.float32)[kmeans(graph_space, n_clusters, rng)]
        return Start(
            rows, proba, codes, neighbor_information(proba, graph), Candidate(proba, "kmeans", is_clear=False, gap=1.0)
        )
    if isinstance(init, str) and init in ("auto", "umap"):
        points = graph_layout(near, distances, min(10, graph_space.shape[1]), rng)
        if init == "auto":
            found = best_candidate(graph_space, points, graph, n_clusters, rng)
            return Start(rows, found.proba, codes, neighbor_information(found.proba, graph), found)
        proba, score = merged_microclusters(points, graph, n_clusters, rng)
        return Start(rows, proba, codes, score)
    if isinstance(init, str):
        proba = fit_mixture(codes, n_clusters, rng).predict_proba(codes)
    else:
        proba = init.predict_proba(source.as_given(rows))
    proba = proba.astype(np.float32)
    return Start(rows, proba, codes, neighbor_information(proba, graph))


def distill(
    log_q_y_of: Callable[[Data], LogClusters],
    module: nn.Module,
    source: Source,
    start: Start,
    training: Training,
    generator: torch.Generator,
    listeners: Listeners = (),
    beside: Callable[[Data], PerExample] | None = None,
) -> list[Record]:
    """Teach q(y|x) the first assignment: maximize ``sum_k r_k log q(k|x)`` over its rows.

    ``beside`` is added to it: what the trunk that q(y|x) shares shall not forget, or shall learn meanwhile.
    """
    objective = _Agreement(log_q_y_of, torch.from_numpy(start.proba).to(source.device), beside)
    labeled = source.part(start.rows)
    return maximize(objective, module, labeled, training, generator, listeners, stage="distillation")


@dataclass
class _Agreement:
    """What :func:`distill` maximizes."""

    log_q_y_of: Callable[[Data], LogClusters]
    target: Float[Tensor, "n K"]
    beside: Callable[[Data], PerExample] | None

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """``sum_k r_k log q(k|x)`` of the batch, and what stands beside it."""
        log_q_y = self.log_q_y_of(x)
        agreement = (self.target[torch.from_numpy(rows)] * log_q_y).sum(-1)
        value = agreement if self.beside is None else agreement + self.beside(x)
        return StepOutput(value, {"log_q_of_start": agreement}, log_q_y)


def start_from(
    init: Any, n_clusters: int, training: Training, run: Run, make_bound: Callable[[], Any]
) -> tuple[list[Record], Start]:
    """Give a :class:`~nvisa.nets.mixture_vae.MixtureVAE` its first clusters; what was trained, and the start.

    1. Fit the networks as an autoencoder, for the share of the run that ``PRETRAINING`` says.
    2. :func:`find_start`: a first assignment.
    3. Load p(z|y) with the moments of the codes and :func:`distill` the assignment into q(y|x), for 8 % of the run; or,
       for a :class:`WarmStart`, what keeps it (:func:`warm_start`).
    """
    module, kept = run.module, init if isinstance(init, WarmStart) else None
    init = init if kept is None else kept.init
    share = PRETRAINING.get(init, 0.3) if isinstance(init, str) else 0.3
    rows, generator, listeners = run.source, run.generator, run.listeners
    masked = 0.0 if kept is None else kept.masked
    history = pretrain(module, rows, training, generator, listeners, share=share, masked=masked)
    start = find_start(module, rows, init, n_clusters, run.rng)
    if kept is not None:
        return history + warm_start(module, rows, start, training, generator, listeners, make_bound), start
    module.load_codes(start.codes, start.proba)
    taught = training.shortened(0.08)
    return history + distill(module.log_q_y, module, rows, start, taught, generator, listeners), start


def warm_start(
    module: Any,
    source: Source,
    start: Start,
    training: Training,
    generator: torch.Generator,
    listeners: Listeners,
    make_bound: Callable[[], Any],
) -> list[Record]:
    """Load a start so that training goes on from it: with :func:`distill` alone it would be wiped out.

    1. :func:`distill` the assignment while the autoencoder goes on, for 8 % of the run.
    2. Load p(z|y) with the moments of the codes, and let the deviations begin at their optimum.
    3. Distill for a quarter of the run with the bound added, whose gradient does not reach q(y|x): a cluster of codes
       is no Gaussian with axes along the latent ones, and becomes one here instead of being cut into such.

    ``make_bound`` gives the bound (:class:`nvisa.methods.nvisa.Bound`), whose first floors count.
    """

    def taught(share: float, beside: Callable[[Data], PerExample]) -> list[Record]:
        part = training.shortened(share)
        return distill(module.log_q_y, module, source, start, part, generator, listeners, beside)

    history = taught(0.08, lambda x: -reconstruction_error(module, x))
    module.load_codes(map_blocks(module.code, source, rows=start.rows, fixed=False), start.proba)
    bound = make_bound()
    module.init_scales(source[start.rows[:4096]], bound.floor_x(0.0), bound.floor_z(0.0))
    return history + taught(0.25, lambda x: bound_with_fixed_q_y(bound, x))


def bound_with_fixed_q_y(bound: Any, x: Data) -> PerExample:
    """The bound per feature at the first floors, whose gradient does not reach q(y|x): p and q(z|y,x) learn it."""
    h = bound.network.trunk(x := bound.network.rescale(x))
    return bound.bound(x, h, bound.network.log_q_y_from(h).detach(), 0.0)[0] / x.shape[1]


@dataclass
class BoundBesideStart:
    """The bound, while q(y|x) keeps to a start: ``L(x) / D + sum_k r_k log q(k|x)``, for rows that the start knows.

    The gradient of the bound does not reach log q(y|x), as under consistency.
    """

    bound: Any
    proba: Float[Tensor, "n K"]  # of the rows that the start knows; the last is zero, of all others
    place: Int[Tensor, " N"]  # in it, of every row

    @classmethod
    def of(cls, bound: Any, start: Start, source: Source) -> "BoundBesideStart":
        """The bound beside this start, for training on the rows of ``source``."""
        n, proba = len(start.rows), torch.from_numpy(start.proba)
        place = torch.full((len(source),), n)
        place[torch.from_numpy(start.rows)] = torch.arange(n)
        return cls(bound, F.pad(proba, (0, 0, 0, 1)).to(source.device), place.to(source.device))

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """Value and terms of the batch ``x`` in the user's units."""
        net = self.bound.network
        h = net.trunk(x := net.rescale(x))
        log_q_y = net.log_q_y_from(h)
        bound, terms = self.bound.bound(x, h, log_q_y.detach(), fraction)
        agreement = (self.proba[self.place[torch.from_numpy(rows).to(x.device)]] * log_q_y).sum(-1)
        return StepOutput(bound / x.shape[1] + agreement, terms | {"log_q_of_start": agreement}, log_q_y)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the bound's."""
        return self.bound.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.bound.load_state_dict(state)


def refit_head(module: Any, source: Source, start: Start, *, ridge: float = 1e-4, n_steps: int = 100) -> None:
    """Fit the last layer of q(y|x) to a start on the trunk as it is, by L-BFGS: all else stays.

    ``min mean_n - sum_k r_nk log q(k|x_n) + ridge ||W||^2 / 2``: multinomial regression, which is convex. While the
    bound moves the trunk, the layer above lags behind; of a group of 2 % that can be all rows.
    """
    module.eval()
    h = torch.from_numpy(map_blocks(lambda x: module.trunk(module.rescale(x)), source, rows=start.rows, fixed=False))
    h, target = h.to(source.device), torch.from_numpy(start.proba).to(source.device)
    weight, bias = module.y_logits.weight, module.y_logits.bias
    optimizer = LBFGS([weight, bias], max_iter=n_steps, line_search_fn="strong_wolfe")

    def loss() -> float:
        """The loss, its gradient in the layer's parameters."""
        optimizer.zero_grad()
        log_q_y = module.log_q_y_from(h)
        value = -(target * log_q_y).sum(-1).mean() + 0.5 * ridge * weight.square().sum()
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
