"""NVISA: a Gaussian-mixture VAE whose posterior keeps the cluster, trained without reparameterization.

    p(x, y, z)   = p(y) p(z|y) p(x|z)                                    model
    q(y, z | x)  = q(y|x) q(z|y, x)                                      posterior: not mean-field
    EnumY        = sum_y q(y|x) E_q(z|y,x) log p(x, y, z) / q(y, z | x)  y enumerated, z reparameterized
    NVIL         = E_q log p(x, y, z) / q(y, z | x)                      scored, less a baseline C(x) + c
    VIMCO        = E_q log 1/M sum_m p(x, y_m, z_m) / q(y_m, z_m | x)    scored, less a baseline of the others
    sigma'       = softplus(sigma) + epsilon(fraction of the run)        std annealing, in p(x|z) and q(z|y, x)
    cluster of x = argmax_y q(y|x)                                       prediction

Source: Li, Zhao, Xu, Chen, Xu, Li, Pei, "Unsupervised Clustering through Gaussian Mixture Variational
AutoEncoder with Non-Reparameterized Variational Inference and Std Annealing", IJCNN 2020 (slides).

The densities and log w are in ``nets/mixture_vae.py``, the estimators in ``maths/bounds.py``. What the default adds to
the slides is in ``fitting/``: a start (``initialization.py``) and consistency (``consistency.py``). It maximizes

    mean_{x in S} VIMCO(x) / D - 0.1 ( 4 KL( mean q(y|x) || pi ) + mean H[q(y|x)] ) - mean KL( sg q(y|x) || q(y|x + r) )

over batches, S every second row, D features, pi the start's sizes, sg a stopped gradient, r adversarial at a quarter of
the distance from x to its 10th neighbor. VIMCO's gradient stops at log q(y|x): the last layer of q(y|x) learns from
consistency alone, the trunk below it from both. From a start p(k|x) that is clear it maximizes

    mean_x VIMCO(x) / D + sum_k p(k|x) log q(k|x)

instead; so it does, for a quarter of its steps, where label-free criteria prefer k-means to what came out. Deviations
from the paper are listed in docs/methods/nvisa.md.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from nvisa.fitting.consistency import VAT, Consistency, ConsistencyObjective
from nvisa.fitting.diagnosis import diagnose_run, diagnosis_text
from nvisa.fitting.edits import n_before
from nvisa.fitting.graph import neighbor_radius
from nvisa.fitting.initialization import BoundBesideStart, Start, WarmStart, refit_head, start_from
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.supervision import (
    Given,
    Labels,
    Supervised,
    Supervision,
    given,
    start_from_supervision,
)
from nvisa.fitting.training import StepOutput, Training, maximize, outcome, share_passed
from nvisa.maths.bounds import (
    VIMCO,
    EnumY,
    RunningMoments,
    add_gradient,
    drawn_by_weight,
    enum_y,
    nvil_fitting,
    vimco,
)
from nvisa.maths.schedules import Constant, StdAnnealing
from nvisa.maths.shapes import Data, Float, LogClusters, PerExample, PerSample, Tensor
from nvisa.methods.fitted import Record
from nvisa.methods.generative import GenerativeClusterer
from nvisa.methods.partial_fit import Objective, StreamingClusterer, consistent_with_bound
from nvisa.methods.presets import HOT, PRESETS, WARM
from nvisa.nets.counts import COUNT_LIKELIHOODS, NegativeBinomial
from nvisa.nets.layers import BINARIZED, LIKELIHOODS
from nvisa.nets.mixture_vae import Drawn, MixtureVAE, draw, log_p_x, log_weights
from nvisa.nets.modules import with_shape
from nvisa.nets.units import Rescale, Rescaled, top_deviation
from nvisa.settings import AnyOf, AtLeast, Each, Fitted, InstanceOf, OneOf, SettingError

__all__ = ["NVISA", "Bound"]

CLEAR_SHARE = 0.25  # of the steps, where the start is clear: the labels stand, and the bound alone has to be learned
BY_NAME: dict[Any, Any] = {"vimco": VIMCO(), "enum_y": EnumY()}
Floor = Callable[[float], float]  # fraction of the run -> epsilon: std annealing


@dataclass
class Bound:
    """The slides' objective of one training step: a bound on log p(x), per feature, and its terms."""

    network: MixtureVAE
    inference: str | VIMCO | EnumY
    n_samples: int
    reparameterize: bool
    floor_x: Floor
    floor_z: Floor
    generator: torch.Generator
    moments: RunningMoments = field(default_factory=RunningMoments)

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """The bound of the batch ``x`` in the user's units."""
        x = self.network.as_trained(self.network.rescale(x), self.generator)
        log_q_y = self.network.log_q_y_from(h := self.network.trunk(x))
        bound, terms = self.bound(x, h, log_q_y, fraction)
        return StepOutput(bound / x.shape[1], terms, log_q_y)

    def bound(
        self, x: Data, h: Float[Tensor, "B H"], log_q_y: LogClusters, fraction: float
    ) -> tuple[PerExample, dict[str, Tensor]]:
        """The bound on ``log p(x)`` of x in the networks' units, by M draws from q(y, z | x), and its terms."""
        floor_x, floor_z = self.floor_x(fraction), self.floor_z(fraction)
        estimator = BY_NAME.get(self.inference, self.inference)
        enumerated = isinstance(estimator, EnumY)  # which reparameterizes always
        drawn = draw(
            self.network, h, log_q_y, floor_z, n_samples=None if enumerated else self.n_samples,
            reparameterize=self.reparameterize or enumerated, generator=self.generator,
        )  # fmt: skip
        n_decoded = estimator.decoder_samples if isinstance(estimator, VIMCO) else None
        tried = estimator.tried(drawn.log_q_y) if isinstance(estimator, EnumY) else None
        terms = log_weights(self.network, x, drawn, floor_x, tried=tried, decoded=n_decoded is None)
        log_w = torch.stack(list(terms.values())).sum(0)
        log_q = drawn.log_q_y if self.reparameterize else drawn.log_q_y + drawn.log_q_z
        if enumerated:
            bound = enum_y(log_w, drawn.log_q_y, tried)
            terms = {name: enum_y(term.detach(), drawn.log_q_y.detach(), tried) for name, term in terms.items()}
        elif estimator == "nvil":
            assert self.network.baseline is not None  # built for it
            bound = nvil_fitting(log_w, log_q, self.network.baseline(h.detach()).squeeze(-1), self.moments)
        else:
            bound = vimco(log_w, log_q)
        if n_decoded is not None:
            bound = add_gradient(bound, self._decoded(x, drawn, log_w, n_decoded, floor_x))
        floors = {"std_floor_x": torch.tensor(floor_x), "std_floor_z": torch.tensor(floor_z)}
        return bound, {"bound": bound, **terms, **floors}

    def _decoded(self, x: Data, drawn: Drawn, log_w: PerSample, n: int, floor_x: float) -> PerExample:
        """Mean ``log p(x|z_m)`` of n samples drawn by their weight: its gradient is ``sum_m w_m grad``, on average."""
        m = drawn_by_weight(log_w, n, self.generator)
        z = drawn.z.gather(0, m[:, :, None].expand(-1, -1, drawn.z.shape[-1]))
        return self.network.log_p_x_given_z(x, z, floor_x).mean(0)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: NVIL's running moments."""
        return {"moments": torch.tensor([self.moments.mean, self.moments.variance], dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.moments.mean, self.moments.variance = state["moments"].tolist()


ESTIMATOR = AnyOf(OneOf("vimco", "nvil", "enum_y"), InstanceOf(VIMCO, EnumY))
LIKELIHOOD = AnyOf(OneOf(*LIKELIHOODS, *BINARIZED, *COUNT_LIKELIHOODS), InstanceOf(NegativeBinomial))
START = AnyOf(OneOf("auto", "umap", "gmm", "random"), Fitted(), InstanceOf(WarmStart))


class NVISA(StreamingClusterer, GenerativeClusterer):
    """Gaussian-mixture VAE clustering with non-reparameterized inference and std annealing.

    Parameters
    ----------
    n_clusters
        K, or "auto": as many as the neighbor graph has cheap borders for (:mod:`nvisa.fitting.levels`), at most 50.
    inference
        Gradient estimator: "vimco", "nvil" or "enum_y"; cheaper ones are ``VIMCO(decoder_samples=1)``, unbiased with
        more noise, and ``EnumY(min_probability=3e-3)``.
    n_samples
        M, for VIMCO (at least 2) and NVIL. EnumY draws one z for each y.
    likelihood
        "gaussian_shared": a deviation per feature that all z share, the fast default; "gaussian":
        sigma_x(z), as in the slides; "bernoulli": for x in [0, 1], or as "bernoulli_binarized" drawn from them anew at
        each step; "negative_binomial" and "zero_inflated_negative_binomial": for counts, as of genes in cells; with
        batches a :class:`NegativeBinomial`.
    posterior
        "joint": q(y|x) q(z|y,x); "mean_field": q(y|x) q(z|x).
    reparameterize
        Let the gradient flow through z under VIMCO or NVIL, and score y alone. EnumY always does.
    std_annealing
        The annealed floors; None: from 1.3 of the data's largest deviation from random weights, from 0.43 of it from a
        start (``methods/presets.py``); ``StdAnnealing()`` is no annealing.
    init
        "auto": of k-means, merged micro-clusters of the neighbor graph, and a Gaussian mixture the one that label-free
        criteria prefer (:mod:`nvisa.fitting.candidates`), which training keeps where the rows leave no doubt; "umap":
        micro-clusters of a layout by UMAP's objective, merged by neighbor information; "gmm": full-covariance mixture
        of an autoencoder's codes; "random"; a fitted clusterer with ``predict_proba``; or a :class:`WarmStart`.
        Restarts take those of a tuple in turn: ``init=("auto", "random"), n_restarts=2``. Labels of any clustering,
        an array with -1 for unknown: the clusters become theirs; of some rows, or pairs: a :class:`Supervision`.
    consistency
        A :class:`VAT`, for images an :class:`Augment`, or a tuple of them; "vat", "augment" for their defaults; None:
        the slides' objective.
    n_restarts
        Whole fits, side by side in ``with nvisa.config(n_jobs=...)``; the one with the largest neighbor information is
        kept. No label is used.
    network, training
        Sizes, and schedule of the optimization; None: ``Network()``, and 4,000 steps until the labels have settled. For
        images :class:`Conv`, and :class:`Modules` for an encoder or decoder of your own.

    Attributes
    ----------
    neighbor_information_, restarts_
        Label-free score of the fit, in nats, at most log K; and that of every restart with its seed.
    start_score_ : float
        The same score of the initial assignment (NaN for a random start).
    diagnosis_ : dict
        With consistency, or a start that is kept: the fit beside k-means and a mixture, by criteria that see no label
        (:func:`nvisa.fitting.diagnosis.diagnose`); ``start``: what ``init="auto"`` chose, and why.
    converged_, stop_reason_
        Whether the labels have settled, and how training ended.
    n_clusters_ : int
        Number of clusters: that of the labels that ``init`` gives, or that was found, else ``n_clusters``.
    cluster_levels_, level_labels_, level_rows_
        With "auto": K, cut per cluster and last border of every level; clusters of the rows looked at [levels n], the
        numbers of these rows.
    classes_ : ndarray
        With labels: what they call each cluster, which has the number of its place here; clusters beyond are nameless.
    neighbor_distance_ : float
        With VAT: median distance of a row to its 10th neighbor, in the networks' units.

    Examples
    --------
    >>> import numpy as np
    >>> from nvisa import Training
    >>> X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> NVISA(2, init="random", training=Training(epochs=20), random_state=0).fit(X).predict_proba(X).shape
    (6, 2)
    """

    READS_PRIOR = TAKES_MODULES = True
    DATA_PARALLEL = DENSITY_EXPORTS = TAKES_CATEGORIES = TAKES_GAPS = True
    # 2,500 steps are too few on MNIST (benchmarks/lab-notes.md, "The length"); few rows are seen no more often.
    DEFAULT_TRAINING = Training(steps=4000, max_epochs=20, min_steps=300, until_settled=True)
    RENAMED: ClassVar = {"reparameterise": "reparameterize", "std_floor": "std_annealing", "n_init": "n_restarts"}
    TOGETHER: ClassVar = (
        (
            "n_samples",
            "at least 2 with inference='vimco'",
            lambda s: not isinstance(BY_NAME.get(s.inference), VIMCO) or s.n_samples >= 2,
        ),
        (
            "n_restarts",
            "at least the number of starts in init",
            lambda s: s.n_restarts >= len(s._starts),
        ),
    )

    n_clusters: Annotated[Any, AnyOf(AtLeast(2), OneOf("auto"))] = 10
    inference: Annotated[str | VIMCO | EnumY, ESTIMATOR] = "vimco"
    n_samples: Annotated[int, AtLeast(1)] = 3
    likelihood: Annotated[Any, LIKELIHOOD] = "gaussian_shared"
    posterior: Annotated[str, OneOf("joint", "mean_field")] = "joint"
    reparameterize: Annotated[bool, InstanceOf(bool)] = False
    std_annealing: Annotated[StdAnnealing | None, InstanceOf(StdAnnealing, None)] = None
    init: Annotated[Any, AnyOf(START, Each(START), Labels(), InstanceOf(Supervision))] = "auto"
    consistency: Annotated[Any, AnyOf(OneOf(None), Consistency)] = "vat"
    n_restarts: Annotated[int, AtLeast(1)] = 1

    @classmethod
    def preset(cls, name: str, n_clusters: int = 10, **settings: Any) -> "NVISA":
        """A named configuration; "paper" is the slides' (3000 epochs: days on two cores). ``settings`` override it."""
        if name not in PRESETS:
            raise SettingError("preset", OneOf(*PRESETS).expected, name)
        return cls(n_clusters, **(PRESETS[name] | settings))

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> MixtureVAE:
        n_clusters, found = self.n_clusters, vars(self) if fitted is None else fitted
        if self._supervision is not None or n_clusters == "auto":
            n_clusters = n_before(found["n_clusters_"], found.get("edits_", []))
        network, shape = self._network, found.get("image_shape_")
        return MixtureVAE(
            rescale, n_clusters, network if shape is None else with_shape(network, shape),
            likelihood=self.likelihood, posterior=self.posterior, baseline=self.inference == "nvil",
        )  # fmt: skip

    def _fit_once(self, run: Run) -> FitResult:
        """Start, joint training, and a look at what came of it."""
        init, training = self._starts[run.number % len(self._starts)], self._training
        known = None if self._supervision is None else given(self._supervision, len(run.X))
        history, start = self._start(init, known, run)
        if start is None:
            training = replace(training, until_settled=False)  # nothing moves while it is hot
        found: dict[str, Any] = {"start_score_": float("nan") if start is None else start.score}
        bound = self._bound(init, run)
        clear = start if start is not None and start.is_clear else None
        if clear is not None:
            training = training if training.epochs else training.shortened(CLEAR_SHARE)
            trained = self._train_beside(clear, bound, training, run, known)
        else:
            objective: Any = bound
            if self._consistency_terms:
                objective = self._consistent(bound, start, run)
                found |= objective.found()
            objective = objective if known is None else Supervised.of(objective, run.module, known, run)
            trained = maximize(objective, run.module, run.source, training, run.generator, run.listeners)
        found |= outcome(trained, training, len(run.source))
        passed = share_passed(trained, training, len(run.source))
        found |= {"std_floor_x_": bound.floor_x(passed), "std_floor_z_": bound.floor_z(passed)}
        if known is not None and known.classes is not None:
            found["classes_"] = known.classes
        if self._consistency_terms or clear is not None:
            trained += self._diagnose(start, bound, run, found)
        return FitResult(run.module, history + trained, found)

    def _start(self, init: Any, known: Given | None, run: Run) -> tuple[list[Record], Start | None]:
        """Where training starts, and what was trained for it; nothing of both from random weights."""
        how = (self.n_clusters_, self._training, run, lambda: self._bound(init, run))
        if self._supervision is not None and known is not None:
            return start_from_supervision(self._supervision, known, *how)
        return ([], None) if init == "random" else start_from(init, *how)

    def _diagnose(self, start: Start | None, bound: Bound, run: Run, found: dict[str, Any]) -> list[Record]:
        """Hold the fit against k-means and a mixture; if both criteria prefer one of them, go back to the start.

        What was trained for that; ``found`` gets the diagnosis. A schedule of one's own is left as it is, and so
        is what somebody has given.
        """
        candidate = None if start is None else start.candidate
        found["diagnosis_"] = diagnose_run(run, self.n_clusters_, candidate)
        trained: list[Record] = []
        if start is None or candidate is None or start.is_given or self._training.epochs:
            return trained
        if found["diagnosis_"]["preferred"] != "fit" and not start.is_clear:
            trained = self._train_beside(start, bound, self._training.shortened(CLEAR_SHARE), run)
            found["diagnosis_"] = diagnose_run(run, self.n_clusters_, candidate)
            found["stop_reason_"] += "; back to the start"
        if found["diagnosis_"]["preferred"] != "fit":
            warnings.warn(diagnosis_text(found["diagnosis_"]), UserWarning, stacklevel=2)
        return trained

    def _train_beside(
        self, start: Start, bound: Bound, training: Training, run: Run, known: Given | None = None
    ) -> list[Record]:
        """Train the bound while q(y|x) keeps to the start; beside labels of all rows also consistency."""
        objective: Any = BoundBesideStart.of(bound, start, run.source)
        if known is not None:
            if start.is_given and self._consistency_terms:
                objective = self._consistent(bound, start, run, information=0.0)
            objective = Supervised.of(objective, run.module, known, run)
        trained = maximize(objective, run.module, run.source, training, run.generator, run.listeners)
        refit_head(run.module, run.source, start)
        return trained

    def _consistent(self, bound: Bound, start: Start | None, run: Run, **changes: Any) -> ConsistencyObjective:
        """The bound beside consistency; the sizes of clusters are those of the start."""
        terms = tuple(replace(term, **changes) if changes else term for term in self._consistency_terms)
        is_local = any(isinstance(term, VAT) for term in terms)
        distance = neighbor_radius(Rescaled(run.X, run.rescale), run.rng) if is_local else None
        sizes = None if start is None else start.log_sizes.to(run.source.device)
        return ConsistencyObjective(run.module, terms, distance, run.generator, bound, sizes)

    def _bound(self, init: Any, run: Run) -> Bound:
        """The slides' objective, its floors in the networks' units."""
        annealing = self.std_annealing or (HOT if self._supervision is None and init == "random" else WARM)
        unit = top_deviation(Rescaled(run.X, run.rescale), run.rng) if annealing.relative else 1.0
        floors = (lambda fraction: unit * annealing.x(fraction), annealing.z)
        return Bound(run.module, self.inference, self.n_samples, self.reparameterize, *floors, run.generator)

    # ---- a density, samples: the slides' "Sample Generation"

    def _log_p_x(self, x: Data) -> PerExample:
        own = self.module_.rescale(x)
        return log_p_x(self.module_, own, self.std_floor_x_, self.std_floor_z_) + self.module_.rescale.log_det(x)

    def _log_density(self, x: Data) -> PerExample:
        """``log p(x, y, z)`` at the most probable y and the mean of q(z|y,x): one z a row where p(x) takes 32 K."""
        net, own = self.module_, self.module_.rescale(x)
        y = net.log_q_y_from(h := net.trunk(own)).argmax(-1)[None]
        z = net.q_z(h, y, self.std_floor_z_)[0]
        log_p_y_z = net.prior.log_p_y() + net.prior.log_p_z_given_y(z, y)
        return (net.log_p_x_given_z(own, z, self.std_floor_x_) + log_p_y_z)[0] + self.module_.rescale.log_det(x)

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        return self.module_.draw_x(
            self.module_.prior.draw(y, generator), generator if noise else None, self.std_floor_x_
        )

    def _prototypes(self) -> Float[Tensor, "K D"] | None:
        loc = self.module_.prior.loc  # [K C Z] when p(z|y) is a mixture itself, which has no middle
        return None if loc.dim() == 3 else self.module_.rescale.inverse(self.module_.reconstruct(loc))

    def _reconstruct(self, x: Data) -> Data:
        return self._decode(self.module_.encode(x))

    def _decode(self, z: Float[Tensor, "B Z"]) -> Data:
        return self.module_.rescale.inverse(self.module_.reconstruct(z))

    # ---- beyond the slides: more rows, later

    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        floors = (Constant(self.std_floor_x_), Constant(self.std_floor_z_))
        bound = Bound(net, self.inference, self.n_samples, self.reparameterize, *floors, generator)
        return consistent_with_bound(self, net, n_rows, generator, bound)
