"""NVISA: a Gaussian-mixture VAE whose posterior keeps the cluster.

    p(x, y, z)   = p(y) p(z|y) p(x|z)
    q(y, z | x)  = q(y|x) q(z|y, x)                                      not mean-field
    L^M(x)       = E log 1/M sum_m p(x, y_m, z_m) / q(y_m, z_m | x)      VIMCO
    sigma'       = softplus(sigma) + epsilon(fraction of the run)        std annealing
    cluster of x = argmax_y q(y|x)

Source: Li, Zhao, Xu, Chen, Xu, Li, Pei, "Unsupervised Clustering through Gaussian Mixture Variational
AutoEncoder with Non-Reparameterized Variational Inference and Std Annealing", IJCNN 2020 (slides).

The densities and log w are in ``nvisa.nets.mixture_vae``, how they are trained is here. Every deviation from the
paper, with its reason and our numbers, is listed in docs/methods/nvisa.md.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from sklearn.utils import check_random_state

from nvisa.fitting.checkpoint import checkpointing
from nvisa.fitting.checks import at_least, check_likelihood, check_starts, check_std_floor, one_of
from nvisa.fitting.config import side_by_side
from nvisa.fitting.consistency import VAT, Augment, as_settings, augmented, checked_settings, information, vat
from nvisa.fitting.graph import neighbor_information, neighbor_radius, neighbors
from nvisa.fitting.initialization import distill, find_start, keep, pretrain, subset
from nvisa.fitting.training import Source, StepOutput, Training, maximize
from nvisa.maths.bounds import RunningMoments, enum_y, nvil_fitting, scaled_gradient, vimco
from nvisa.maths.distributions import kl_categorical
from nvisa.maths.schedules import Constant, Geometric, Halving, StdFloor
from nvisa.maths.shapes import Data, Float, LogClusters, PerExample, Tensor
from nvisa.methods.base import Array, Rows, generator_from, stores
from nvisa.methods.generative import GenerativeClusterer
from nvisa.nets.layers import Network, Rescale, frozen_statistics
from nvisa.nets.mixture_vae import Densities, draw, log_p_x, log_weights
from nvisa.nets.rows import take
from nvisa.nets.scaling import Rescaled, top_deviation

__all__ = ["NVISA", "StdFloor"]

HOT = StdFloor(x=Geometric(1.3, 0.02, until=0.8), z=Geometric(1.0, 0.05, until=0.8))
WARM = StdFloor(x=Geometric(0.43, 0.022, until=0.7), z=Geometric(0.5, 0.05, until=0.7))
PRESETS: dict[str, dict[str, Any]] = {
    # The slides and what is reported of the paper; epochs and batch are guesses.
    "paper": {
        "inference": "vimco",
        "n_samples": 15,
        "likelihood": "gaussian",
        "posterior": "joint",
        "std_floor": StdFloor(x=Halving(1.0, 1 / 30, 1e-4), z=Halving(1.0, 1 / 30, 1e-4), relative=False),
        "init": "random",
        "consistency": None,
        "network": Network(hidden=(500, 500), latent_dim=10, batch_norm=False, scaling="none"),
        "training": Training(epochs=3000, batch_size=128, learning_rate=Halving(1e-3, 1 / 10, 0.0)),
    }
}
MASKED = 0.3  # of a start that is kept, what its autoencoder does not see (docs/methods/ae_gmm.md)
FITTED = ("module_", "history_", "start_score_", "std_floor_x_", "std_floor_z_", "neighbor_distance_")  # of a restart
PRETRAINING = {"umap": 0.15, "gmm": 0.6}  # of the run's steps; a mixture of the codes needs good codes, UMAP none


@dataclass
class Objective:
    """The objective of one training step: the bound per feature, and the consistency of q(y|x) if asked for."""

    densities: Densities
    inference: str | None
    n_samples: int
    reparameterize: bool
    floor_x: Callable[[float], float]
    floor_z: Callable[[float], float]
    consistency: tuple[VAT | Augment, ...]
    neighbor_distance: Float[Tensor, " N"] | None
    generator: torch.Generator
    moments: RunningMoments

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """StepOutput of the batch ``x`` (user's units), rows of the data ``rows``."""
        user, x = x, self.densities.rescale(x)
        h = self.densities.trunk(x)
        log_q_y = self.densities.log_q_y(h)
        if not self.consistency:
            bound, terms = self.bound(x, h, log_q_y, fraction)
            return StepOutput(bound / x.shape[1], terms, log_q_y)
        # Consistency learns from the number of steps, the bound from the number of rows: with both, the bound is
        # estimated on every second row of the shuffled batch, which leaves its gradient unbiased at half the cost.
        pull = min(settings.pull for settings in self.consistency)
        bound, terms = self.bound(x[::2], h[::2], scaled_gradient(log_q_y, pull)[::2], fraction)
        value = bound.mean() / x.shape[1]
        for settings in self.consistency:
            if isinstance(settings, VAT):
                name, local = "vat", self._adversarial(settings, x, rows, log_q_y)
            else:
                name, local = "augment", self._augmented(settings, user, log_q_y)
            mutual = settings.information * information(log_q_y, settings.balance)
            value = value + settings.weight * (mutual - local.mean())
            terms |= {name: local, "information": terms.get("information", 0.0) + mutual}
        return StepOutput(value, terms, log_q_y)

    def bound(
        self, x: Data, h: Float[Tensor, "B H"], log_q_y: LogClusters, fraction: float
    ) -> tuple[PerExample, dict[str, Tensor]]:
        """The bound on ``log p(x)`` of x in the networks' units, and its terms; zero without inference."""
        if self.inference is None:
            return torch.zeros_like(x[:, 0]), {}
        floor_x, floor_z = self.floor_x(fraction), self.floor_z(fraction)
        enumerated = self.inference == "enum_y"  # which reparameterizes always
        drawn = draw(
            self.densities, h, log_q_y, floor_z, n_samples=None if enumerated else self.n_samples,
            reparameterize=self.reparameterize or enumerated, generator=self.generator,
        )  # fmt: skip
        terms = log_weights(self.densities, x, drawn, floor_x)
        log_w = torch.stack(list(terms.values())).sum(0)
        log_q = drawn.log_q_y if self.reparameterize else drawn.log_q_y + drawn.log_q_z
        if enumerated:
            bound = enum_y(log_w, drawn.log_q_y)
            terms = {name: enum_y(term.detach(), drawn.log_q_y.detach()) for name, term in terms.items()}
        elif self.inference == "vimco":
            bound = vimco(log_w, log_q)
        else:
            assert self.densities.baseline is not None  # built for inference='nvil'
            bound = nvil_fitting(log_w, log_q, self.densities.baseline(h.detach()).squeeze(-1), self.moments)
        floors = {"std_floor_x": torch.tensor(floor_x), "std_floor_z": torch.tensor(floor_z)}
        return bound, {"bound": bound, **terms, **floors}

    def held(self, x: Data) -> PerExample:
        """The bound per feature at the first floors, whose gradient does not reach q(y|x): p and q(z|y,x) learn it."""
        h = self.densities.trunk(x := self.densities.rescale(x))
        return self.bound(x, h, self.densities.log_q_y(h).detach(), 0.0)[0] / x.shape[1]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: NVIL's running moments."""
        return {"moments": torch.tensor([self.moments.mean, self.moments.variance], dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.moments.mean, self.moments.variance = state["moments"].tolist()

    def _adversarial(self, settings: VAT, x: Data, rows: np.ndarray, log_q_y: LogClusters) -> PerExample:
        """Divergence of each row from its adversarial neighbor."""
        assert self.neighbor_distance is not None  # made for VAT
        unit = self.neighbor_distance[torch.from_numpy(rows).to(x.device)]
        radius, probe = settings.radius * unit, settings.probe * unit
        with frozen_statistics(self.densities.trunk):
            return vat(self.densities.log_posterior, x, log_q_y, radius, probe, self.generator)

    def _augmented(self, settings: Augment, x: Data, log_q_y: LogClusters) -> PerExample:
        """Divergence of each image (user's units) from itself under a small affine map."""
        moved = self.densities.rescale(augmented(x, settings, self.generator))
        with frozen_statistics(self.densities.trunk):
            return kl_categorical(log_q_y.detach(), self.densities.log_posterior(moved))


class NVISA(GenerativeClusterer):
    """Gaussian-mixture VAE clustering with non-reparameterized inference and std annealing.

    Parameters
    ----------
    n_clusters
        K.
    inference
        Gradient estimator: "vimco", "nvil" or "enum_y". None is a control: q(y|x) by consistency alone, without a
        bound, so that p(x|z) and all that rests on it (``sample``, ``score_samples``) stay where they started.
    n_samples
        M, for VIMCO (at least 2) and NVIL. EnumY draws one z for each y.
    likelihood
        "gaussian_shared": a deviation per feature that all z share, the fast default; "gaussian":
        sigma_x(z), as in the slides; "bernoulli": for x in [0, 1].
    posterior
        "joint": q(y|x) q(z|y,x); "mean_field": q(y|x) q(z|x).
    reparameterize
        Let the gradient flow through z under VIMCO or NVIL, and score y alone. EnumY always does.
    std_floor
        The annealed floors; None: hot from random weights, warm from a start; ``StdFloor()`` is no annealing.
    init
        "umap": autoencoder, UMAP, micro-clusters merged by neighbor information; "gmm": autoencoder and
        full-covariance mixture of its codes; "random"; or a fitted clusterer with ``predict_proba``. Restarts take the
        starts of a tuple in turn: ``init=("umap", "random"), n_init=2``.
    consistency
        A :class:`nvisa.fitting.consistency.VAT`, for images an :class:`nvisa.fitting.consistency.Augment`, or a tuple of them; "vat",
        "augment" for their defaults; None for the paper's bound alone.
    n_init
        Restarts, side by side in ``with nvisa.config(n_jobs=...)``; the one with the largest neighbor information is
        kept. No label is used.
    network, training
        Sizes, and schedule of the optimization; None: ``Network()`` and ``Training(steps=4000)``.
    random_state
        Seed of everything random; None draws from NumPy's global generator, as in scikit-learn.
    verbose
        1 shows progress.

    Attributes
    ----------
    neighbor_information_ : float
        Label-free score of the fit, in nats; at most log K.
    neighbor_distance_ : float
        With VAT: median distance of a row to its 10th neighbor, in the networks' units.
    start_score_ : float
        The same score of the initial assignment (NaN for a random start).
    restarts_ : list of dict
        Seed and score of every restart.
    """

    READS_PRIOR = True
    DEFAULT_TRAINING = Training(steps=4000)  # At 2,500 the bound and the information still rose (docs/methods/nvisa.md)

    @stores
    def __init__(
        self,
        n_clusters: int = 10,
        *,
        inference: str | None = "vimco",
        n_samples: int = 3,
        likelihood: str = "gaussian_shared",
        posterior: str = "joint",
        reparameterize: bool = False,
        std_floor: StdFloor | None = None,
        init: Any = "umap",
        consistency: VAT | Augment | tuple[VAT | Augment, ...] | str | None = "vat",
        n_init: int = 1,
        network: Network | None = None,
        training: Training | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.inference = inference
        self.n_samples = n_samples
        self.likelihood = likelihood
        self.posterior = posterior
        self.reparameterize = reparameterize
        self.std_floor = std_floor
        self.init = init
        self.consistency = consistency
        self.n_init = n_init
        self.network = network
        self.training = training
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def preset(cls, name: str, n_clusters: int = 10, **settings: Any) -> "NVISA":
        """A named configuration; "paper" is the slides' (3000 epochs: days on two cores). ``settings`` override it."""
        one_of("preset", name, tuple(PRESETS))
        return cls(n_clusters, **(PRESETS[name] | settings))

    def _check(self, X: Array) -> None:
        super()._check(X)
        one_of("inference", self.inference, ("vimco", "nvil", "enum_y", None))
        one_of("posterior", self.posterior, ("joint", "mean_field"))
        check_starts(self._starts, ("umap", "gmm", "random"))
        consistency = checked_settings(self.consistency, X.shape[1])
        if self.inference is None and not consistency:
            raise ValueError(f"inference=None leaves only consistency, got {self.consistency!r}: try 'vat'.")
        check_std_floor(HOT if self.std_floor is None else self.std_floor)
        at_least("n_init", self.n_init, len(self._starts))
        at_least("n_samples", self.n_samples, 2 if self.inference == "vimco" else 1)

    @property
    def _n_restarts(self) -> int:
        return self.n_init

    @property
    def _starts(self) -> tuple[Any, ...]:
        return self.init if isinstance(self.init, tuple) else (self.init,)

    def _networks(self, rescale: Rescale) -> Densities:
        return Densities(
            rescale, self.n_clusters, self._network,
            likelihood=self.likelihood, posterior=self.posterior, baseline=self.inference == "nvil",
        )  # fmt: skip

    def _fit(self, X: Array, rng: RandomState) -> None:
        rescale = self._rescale(X)
        rows = subset(len(X), rng, 10_000)
        graph = neighbors(Rescaled(X, rescale)[rows], 10)
        seeds = [int(rng.randint(2**31 - 1)) for _ in range(self.n_init)]
        calls = [(X, seed, init, rescale, rows, graph) for seed, init in zip(seeds, cycle(self._starts), strict=False)]
        fits = [self._told(found, elsewhere=there) for found, there in side_by_side(self._fit_once, calls)]
        scores = [found["neighbor_information_"] for found in fits]
        self.restarts_ = [{"seed": s, "neighbor_information": i} for s, i in zip(seeds, scores, strict=True)]
        self.__dict__.update(fits[int(np.argmax(scores))])
        self._number_by_size(X)

    def _fit_once(self, X: Array, seed: int, init: Any, rescale: Rescale, rows: Rows, graph: Rows) -> dict[str, Any]:
        """One restart: networks, start, joint training; what it found, and how well it keeps neighbors together."""
        rng = RandomState(seed)
        generator = generator_from(rng)
        self.module_ = module = self._built(rescale, generator)
        source = Source(X, self._training.torch_device())
        self.history_: list[dict[str, Any]] = []
        self.start_score_ = float("nan")
        if init != "random":
            self._start(init, source, rng, generator)
        ascent = self._ascent(init, X, rng, generator)
        self.history_ += maximize(ascent, module, source, self._training, generator, on_epoch=self._report)
        self.std_floor_x_, self.std_floor_z_ = ascent.floor_x(1.0), ascent.floor_z(1.0)
        score = neighbor_information(np.exp(self._blocks(self._log_q_y, take(X, rows))), graph)
        return {name: getattr(self, name) for name in FITTED if hasattr(self, name)} | {"neighbor_information_": score}

    def _start(self, init: Any, source: Source, rng: RandomState, generator: torch.Generator) -> None:
        """Pretrain, find a first assignment, and load it into q(y|x) and p(z|y)."""
        module, kept = self.module_, self.std_floor is not None and self.std_floor.settled
        training = self._training.shortened(PRETRAINING.get(init, 0.3))
        self.history_ += pretrain(module, source, training, generator, self._report, masked=MASKED * kept)
        start = find_start(module, source, init, self.n_clusters, rng)
        self.start_score_ = start.score

        def teach(training: Training, also: Callable[[Data], PerExample] | None = None) -> None:
            self.history_ += distill(self._log_q_y, module, source, start, training, generator, self._report, also)

        if kept:
            keep(module, source, start, teach, self._training, lambda: self._ascent(init, source.X, rng, generator))
        else:
            module.load_codes(start.codes, start.proba)
            teach(self._training.shortened(0.08))

    def _ascent(self, init: Any, X: Array, rng: RandomState, generator: torch.Generator) -> Objective:
        """What is maximized, with the floors in the networks' units and the radius of every row."""
        module = self.module_
        rescaled = Rescaled(X, module.rescale)
        floor = self.std_floor or (HOT if init == "random" else WARM)
        unit = top_deviation(rescaled, rng) if floor.relative else 1.0
        consistency, distance = as_settings(self.consistency), None
        if any(isinstance(settings, VAT) for settings in consistency):
            distance = torch.from_numpy(neighbor_radius(rescaled, rng).astype(np.float32))
            self.neighbor_distance_ = float(distance.median())
            distance = distance.to(next(module.parameters()).device)
        return Objective(
            module, self.inference, self.n_samples, self.reparameterize,
            lambda t: unit * floor.x(t), floor.z, consistency, distance, generator, RunningMoments(),
        )  # fmt: skip

    def partial_fit(self, X: Rows, y: object = None) -> "NVISA":
        """Go on training with one pass over new rows [N D]; the clusters keep their numbers. Before any fit: ``fit``.

        The std floors and the batch norm stay as the fit has left them, the learning rate is a tenth of its first,
        balance is not rewarded (a chunk of rows tells nothing about the sizes of clusters), and ``q(y|x)`` is held to
        what it was before the call by ``-KL( q_before(y|x) || q(y|x) )``. ``labels_`` becomes that of X.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X)
        checked, net = self._checked(X), self.module_
        check_likelihood(self.likelihood, checked)
        generator = generator_from(rng := check_random_state(self.random_state))
        generator.manual_seed(generator.initial_seed() + self.n_iter_)  # other draws for every chunk
        source, before = Source(checked, next(net.parameters()).device), deepcopy(net)
        ascent = Objective(
            net, self.inference, self.n_samples, self.reparameterize,
            lambda t: self.std_floor_x_, lambda t: self.std_floor_z_,
            tuple(replace(settings, information=0.0) for settings in as_settings(self.consistency)),
            torch.full((len(checked),), getattr(self, "neighbor_distance_", 0.0), device=source.device),
            generator, RunningMoments(),
        )  # fmt: skip

        def held(x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
            """The fit's, less the drift of q(y|x) from what it was before the call."""
            net.trunk.eval()  # a chunk's mean and deviation are not the data's
            step = ascent(x, rows, fraction)
            assert step.log_q_y is not None
            drift = kl_categorical(before.log_posterior(before.rescale(x)).detach(), step.log_q_y)
            return StepOutput(step.value.mean() - drift.mean(), step.terms | {"drift": drift}, step.log_q_y)

        once = replace(self._training, epochs=1, learning_rate=Constant(0.1 * self._training.rate(0.0)))
        with checkpointing(None, {}, rng):
            self.history_ += maximize(held, net, source, once, generator, stage="partial_fit", on_epoch=self._report)
        self.n_iter_ = len(self.history_)
        self.labels_ = self._labels(checked)
        return self

    def _log_p_x(self, x: Data) -> PerExample:
        net = self.module_
        return log_p_x(net, net.rescale(x), self.std_floor_x_, self.std_floor_z_) + self._jacobian()

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        net = self.module_
        h = net.decoder(net.prior.draw(y, generator))
        x = net.x_head.draw(h, generator, self.std_floor_x_) if noise else net.x_head.mean(h)
        return net.rescale.inverse(x)

    def _prototypes(self) -> Float[Tensor, "K D"] | None:
        loc = self.module_.prior.loc  # [K C Z] when p(z|y) is a mixture itself, which has no middle
        return None if loc.dim() == 3 else self.module_.rescale.inverse(self.module_.reconstruct(loc))

    def _log_q_y(self, x: Data) -> LogClusters:
        return self.module_.log_posterior(self.module_.rescale(x))

    def _encode(self, x: Data) -> Float[Tensor, "B Z"]:
        """The mean of ``q(z|y,x)`` at the most probable y."""
        h = self.module_.trunk(self.module_.rescale(x))
        return self.module_.q_z(h, self.module_.log_q_y(h).argmax(-1)[None], self.std_floor_z_)[0][0]

    def _reconstruct(self, x: Data) -> Data:
        return self.module_.rescale.inverse(self.module_.reconstruct(self._encode(x)))
