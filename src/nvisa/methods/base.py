"""DeepClusterer: the scikit-learn surface of every method. It owns validation, seeds, restarts and streaming, no loop.

To write a method, subclass it, declare its settings (:class:`nvisa.settings.Settings`), and define

* ``_networks(rescale)``: the method's ``nn.Module``, a :class:`nvisa.nets.layers.LatentNetwork`;
* ``_fit_once(run)``: train it on the rows of a :class:`Run`, and return a :class:`FitResult`.

In return it gets fit, fit_predict, predict, predict_proba, transform, ``labels_``, save and the checks of bad
input. Methods that make rows subclass ``SamplingClusterer`` of generative.py and define ``_draw``; those with a density
``GenerativeClusterer``, and also define ``_log_p_x`` and ``_reconstruct``.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.validation import validate_data

from nvisa.fitting.checkpoint import CheckpointWriter, data_digest, fingerprint, open_checkpoint
from nvisa.fitting.config import in_processes, n_jobs_for
from nvisa.fitting.graph import nearest, neighbor_information
from nvisa.fitting.initialization import subset
from nvisa.fitting.progress import EpochProgress
from nvisa.fitting.training import FitResult, Run, Training, clusters_in_use
from nvisa.methods.fitted import Array, FittedClusterer, Record, Rows
from nvisa.nets.layers import LatentNetwork, Network
from nvisa.nets.rows import Rescale, Rescaled, Source, blocks, is_mapped, make_rescale, map_blocks, take
from nvisa.settings import AtLeast, InstanceOf, SettingError, Settings, check_settings

__all__ = ["DeepClusterer", "check_unit_interval", "generator_from", "label"]

Fitted = TypeVar("Fitted", bound="DeepClusterer")  # not Self, which the shape checker cannot read


def generator_from(rng: RandomState) -> torch.Generator:
    """A torch generator seeded by a draw of a NumPy one; torch's global generator is left alone."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def label(module: LatentNetwork, X: Array) -> NDArray[np.int64]:
    """``argmax_y q(y|x)`` of each row [N]; no array of N x K."""
    return map_blocks(lambda x: module.log_q_y(x).argmax(-1), Source(X, module.rescale.shift.device))


def collapse_message(sizes: NDArray[np.integer]) -> str | None:
    """What to say when fewer than half of the clusters are in use, or only one has rows; None if all is well."""
    n_clusters, n_used = len(sizes), clusters_in_use(sizes)
    if 2 * n_used >= n_clusters and (sizes > 0).sum() > 1:
        return None
    return (
        f"Only {n_used} of {n_clusters} clusters are in use at the end of the fit; expected at least half "
        "of them, and two. Try fewer clusters, another random_state, longer training, or a start other than random "
        "weights."
    )


class DeepClusterer(
    FittedClusterer, Settings, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, BaseEstimator, ABC
):
    """Abstract clusterer; see the module's text for what a method defines.

    Parameters
    ----------
    n_clusters
        Number of clusters, K.
    network, training
        Sizes, and schedule of the optimization; None: the method's own defaults.
    random_state
        Seed of everything random; None draws from NumPy's global generator, as in scikit-learn.
    verbose
        1 shows progress.
    """

    DEFAULT_NETWORK: ClassVar[Network] = Network()
    DEFAULT_TRAINING: ClassVar[Training] = Training()
    READS_PRIOR: ClassVar[bool] = False  # whether p(z|y) is what ``Network.prior_*`` say

    n_clusters: Annotated[int, AtLeast(2)] = 10
    network: Annotated[Network | None, InstanceOf(Network, None)] = None
    training: Annotated[Training | None, InstanceOf(Training, None)] = None
    random_state: Any = None
    verbose: int = 0

    # ---- what a method defines

    @abstractmethod
    def _networks(self, rescale: Rescale) -> LatentNetwork:
        """The networks that the settings describe, untrained; :func:`nvisa.load` fills them from the file."""

    @abstractmethod
    def _fit_once(self, run: Run) -> FitResult:
        """Train on checked rows."""

    def _check_data(self, X: Array) -> None:
        """Raise an error for settings that these rows, or other settings, do not allow: here none."""

    def _recall(self, fitted: Mapping[str, Any]) -> None:
        """Take from a saved model what the shapes of its networks depend on besides the settings: here nothing."""

    # ---- fit

    def fit(self: Fitted, X: Rows, y: object = None, *, checkpoint: str | Path | None = None) -> Fitted:
        """Cluster the rows of X.

        Parameters
        ----------
        X
            Array, data frame or memory map [N D] of finite numbers.
        y
            Ignored; here for scikit-learn's pipelines.
        checkpoint
            A folder for what a killed fit needs to go on, written every half minute and removed at the end. The same
            call then resumes after the last whole epoch written, and gives what it would have given. Without one, a
            fit that fails or is interrupted leaves the clusterer as it was, and nothing else.

        Raises
        ------
        nvisa.settings.SettingError
            A ValueError and a TypeError: on a setting that is unknown or of another kind than expected.
        ValueError
            On NaN or infinity, or fewer rows than clusters.
        DivergedError
            When training leaves the finite numbers; it names the term.

        Warns
        -----
        ConvergenceWarning
            If fewer than half of the clusters are in use at the end, or only one.
        """
        with self._unchanged_on_failure(), self._progress_shown() as report:
            X = self._validated(X, reset=True)
            self._check(X)
            rng, rescale = check_random_state(self.random_state), self._rescale(X)
            with self._checkpointing(checkpoint, X, rng) as writer:
                rng = rng if writer is None else writer.rng
                if self._n_restarts is None:
                    result = self._fit_once(self._run(X, rescale, rng, 0, report, writer))
                else:
                    result = self._fit_restarts(X, rescale, rng, report, writer)
                self._keep(result)
                self._number_by_size(X)
                self.labels_ = label(self.module_, X)
        if message := collapse_message(np.bincount(self.labels_, minlength=self._n_found)):
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def _check(self, X: Array) -> None:
        """Settings, and sizes, that no method can train with."""
        check_settings(self)
        if not self.READS_PRIOR:
            _check_plain_prior(type(self).__name__, self._network)
        if self._network.batch_norm and self._training.batch_size < 3:  # of two, the last of an odd number has one
            raise SettingError(
                "training.batch_size",
                "at least 3 with network.batch_norm",
                self._training.batch_size,
                "Try a larger one, or Network(batch_norm=False).",
            )
        if len(X) < self.n_clusters:
            raise ValueError(
                f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}: "
                "give more rows or ask for fewer clusters."
            )
        if getattr(self, "likelihood", None) == "bernoulli":
            check_unit_interval(X)
        self._check_data(X)

    def _rescale(self, X: Array) -> Rescale:
        """The networks' units of the data: those of ``Network.scaling``, or as they are for a Bernoulli likelihood."""
        bernoulli = getattr(self, "likelihood", None) == "bernoulli"
        return make_rescale(X, "none" if bernoulli else self._network.scaling)

    def _run(
        self,
        X: Array,
        rescale: Rescale,
        rng: RandomState,
        number: int,
        report: Callable[[Any, Record], None] | None,
        checkpoint: CheckpointWriter | None,
    ) -> Run:
        source = Source(X, self._training.torch_device())
        return Run(X, source, rescale, rng, generator_from(rng), number, report, checkpoint)

    def _fit_restarts(
        self,
        X: Array,
        rescale: Rescale,
        rng: RandomState,
        report: Callable[[Any, Record], None] | None,
        checkpoint: CheckpointWriter | None,
    ) -> FitResult:
        """Whole fits, each from a seed of its own; the one with the largest neighbor information. No label is used."""
        assert self._n_restarts is not None  # asked by fit
        rows = subset(len(X), rng, 10_000)
        graph = nearest(Rescaled(X, rescale)[rows], 10)[0]
        seeds = [int(rng.randint(2**31 - 1)) for _ in range(self._n_restarts)]
        calls = [(X, rescale, seed, i, rows, graph) for i, seed in enumerate(seeds)]
        n_jobs = 1 if len(calls) == 1 else n_jobs_for(len(calls))
        if n_jobs == 1:
            results = [self._restart(*call, report, checkpoint) for call in calls]
        else:
            children = repeat(None) if checkpoint is None else map(checkpoint.child, range(len(calls)))
            alone = [(*call, child) for call, child in zip(calls, children, strict=False)]
            results = [self._replayed(found, report) for found in in_processes(self._restart_alone, alone, n_jobs)]
        scores = [result.attributes["neighbor_information_"] for result in results]
        best = results[int(np.argmax(scores))]
        listed = [{"seed": s, "neighbor_information": i} for s, i in zip(seeds, scores, strict=True)]
        return FitResult(best.module, best.history, best.attributes | {"restarts_": listed})

    def _restart(
        self,
        X: Array,
        rescale: Rescale,
        seed: int,
        number: int,
        rows: NDArray[np.integer],
        graph: NDArray[np.integer],
        report: Callable[[Any, Record], None] | None,
        checkpoint: CheckpointWriter | None,
    ) -> FitResult:
        """One restart, and how well its clusters keep neighbors together."""
        result = self._fit_once(self._run(X, rescale, RandomState(seed), number, report, checkpoint))
        looked_at = Source(take(X, rows), self._training.torch_device())
        proba = np.exp(map_blocks(result.module.log_q_y, looked_at))
        result.attributes["neighbor_information_"] = neighbor_information(proba, graph)
        return result

    def _restart_alone(
        self,
        X: Array,
        rescale: Rescale,
        seed: int,
        number: int,
        rows: NDArray[np.integer],
        graph: NDArray[np.integer],
        child: tuple[Path, Record] | None,
    ) -> FitResult:
        """A restart in a process of its own, with a checkpoint of its own."""
        folder, run = child or (None, {})
        with open_checkpoint(folder, run, RandomState(0), keep=True) as checkpoint:
            return self._restart(X, rescale, seed, number, rows, graph, None, checkpoint)

    def _replayed(self, result: FitResult, report: Callable[[Any, Record], None] | None) -> FitResult:
        """The result of another process, which had no callback: its epochs are reported now."""
        if report is not None:
            for record in result.history:
                report(result.module, record)
            result.module.eval()
        return result

    def _keep(self, result: FitResult) -> None:
        """Become what the fit has found."""
        self.module_, self.history_, self.n_iter_ = result.module, result.history, len(result.history)
        for name, value in result.attributes.items():
            setattr(self, name, value)

    def _number_by_size(self, X: Array) -> None:
        """Give the largest cluster number 0: labels are consecutive, empty clusters come last."""
        counts = np.bincount(label(self.module_, X), minlength=self._n_found)
        order = np.argsort(-counts, kind="stable")
        self.module_.permute(torch.from_numpy(order).to(self.module_.rescale.shift.device))

    @contextmanager
    def _unchanged_on_failure(self) -> Iterator[None]:
        """After an error or an interruption the clusterer is what it was: never a half of this fit, never of two."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    @contextmanager
    def _checkpointing(self, path: str | Path | None, X: Array, rng: RandomState) -> Iterator[CheckpointWriter | None]:
        """A checkpoint that belongs to fits of these settings to these rows; None without a path."""
        if path is None:
            yield None
            return
        params = {name: fingerprint(value, X) for name, value in self.get_params(deep=False).items()}
        params.pop("verbose", None)
        run = {"class": type(self).__name__, "params": params, "data": data_digest(X)}
        with open_checkpoint(path, run, rng) as writer:
            yield writer

    # ---- who looks on

    def on_epoch(self: Fitted, callback: Callable[[Any, Record], None] | None) -> Fitted:
        """Call ``callback(clusterer, record)`` after every epoch of :meth:`fit`; None removes it. Returns self.

        The clusterer can predict inside. The callback is not a setting: ``clone`` and ``save`` drop it.
        """
        self._callback = callback
        return self

    @contextmanager
    def _progress_shown(self) -> Iterator[Callable[[Any, Record], None] | None]:
        """What is called with the networks and an epoch's record: progress bar and callback; None for neither."""
        callback = getattr(self, "_callback", None)
        if not self.verbose:
            yield None if callback is None else self._reporting(callback)
            return
        with EpochProgress() as progress:
            yield self._reporting(*(f for f in (progress, callback) if f is not None))

    def _reporting(self, *callbacks: Callable[[Any, Record], None]) -> Callable[[Any, Record], None]:
        def report(module: Any, record: Record) -> None:
            """Let them look, the networks in evaluation mode while they do."""
            self.module_ = module.eval()
            for callback in callbacks:
                callback(self, record)
            module.train()

        return report

    def _validated(self, X: Rows, *, reset: bool) -> Array:
        """Scikit-learn's checks; a memory map is looked through block by block, and not copied if it is floating."""
        mapped = is_mapped(X)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=not mapped)
        for rows in blocks(checked) if mapped or checked.dtype == np.float64 else ():
            with np.errstate(over="ignore"):  # in the networks' float32 it would be infinite
                rows32 = rows.astype(np.float32, copy=False)
            assert_all_finite(rows32, estimator_name=type(self).__name__, input_name="X")
        return checked

    @property
    def _n_found(self) -> int:
        """Number of clusters: those asked for, unless the method finds it."""
        return self.n_clusters

    @property
    def _n_restarts(self) -> int | None:
        """Whole fits, of which the best is kept; None for a method that has no such setting."""
        return getattr(self, "n_restarts", None)

    @property
    def _network(self) -> Network:
        return self.network or self.DEFAULT_NETWORK

    @property
    def _training(self) -> Training:
        return self.training or self.DEFAULT_TRAINING


def _check_plain_prior(method: str, network: Network) -> None:
    """Raise a SettingError if the network asks for another p(z|y) than the method has."""
    for name in ("prior_components", "prior_covariance"):
        value, plain = getattr(network, name), getattr(Network(), name)
        if value != plain:
            raise SettingError(f"network.{name}", f"{plain!r} with {method}: it is NVISA's", value, "Leave it out.")


def check_unit_interval(X: Array) -> None:
    """Raise a SettingError unless all numbers lie in [0, 1]."""
    low, high = np.array([(rows.min(), -rows.max()) for rows in blocks(X)]).min(0) * (1, -1)
    if low < 0 or high > 1:
        raise SettingError(
            "likelihood",
            f"another than 'bernoulli', which needs data in [0, 1], for data in {low:g} .. {high:g}",
            "bernoulli",
            "Rescale them, or use likelihood='gaussian_shared'.",
        )
