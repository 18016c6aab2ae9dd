"""DeepClusterer: the scikit-learn surface of every method. It owns validation, seeds, restarts and streaming, no loop.

To write a method, subclass it, declare its settings (:class:`nvisa.settings.Settings`), and define

* ``_networks(rescale, fitted=None)``: the method's ``nn.Module``, a :class:`nvisa.nets.layers.LatentNetwork`;
* ``_fit_once(run)``: train it on the rows of a :class:`Run`, and return a :class:`FitResult`.

In return it gets fit, fit_predict, predict, predict_proba, transform, ``labels_``, save and the checks of bad
input. Methods that make rows subclass ``SamplingClusterer`` of generative.py and define ``_draw``; those with a density
``GenerativeClusterer``, and also define ``_log_p_x`` and ``_reconstruct``.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from nvisa.fitting.callbacks import LOG, WatchedFit, with_callbacks
from nvisa.fitting.checkpoint import CheckpointWriter, data_digest, fingerprint, open_checkpoint
from nvisa.fitting.config import in_processes, n_jobs_for
from nvisa.fitting.consistency import BY_NAME, VAT, Augment
from nvisa.fitting.graph import nearest, neighbor_information
from nvisa.fitting.initialization import WarmStart, check_start
from nvisa.fitting.levels import levels_of
from nvisa.fitting.run import FitResult, Report, Reporter, Run
from nvisa.fitting.supervision import Supervision, n_supervised
from nvisa.fitting.training import RANKS, Training, clusters_in_use
from nvisa.maths.products import training_factors
from nvisa.methods.fitted import FittedClusterer, Record
from nvisa.methods.input import Rows, check_shaped_and_counted, check_unit_interval
from nvisa.nets.layers import LatentNetwork, Network, build, generator_from, torch_device
from nvisa.nets.rows import Source, Table, label, map_blocks, part, subset
from nvisa.nets.units import Rescale, Rescaled
from nvisa.settings import AtLeast, InstanceOf, SettingError, Settings, check_settings

__all__ = ["DeepClusterer", "generator_from", "label"]

Fitted = TypeVar("Fitted", bound="DeepClusterer")  # not Self, which the shape checker cannot read


class DeepClusterer(
    FittedClusterer, Settings, WatchedFit, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin,
    BaseEstimator, ABC,
):  # fmt: skip
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
    TAKES_MODULES: ClassVar[bool] = False  # whether the networks may be convolutions, or the user's own

    n_clusters: Annotated[Any, AtLeast(2)] = 10
    network: Annotated[Network | None, InstanceOf(Network, None)] = None
    training: Annotated[Training | None, InstanceOf(Training, None)] = None
    random_state: Any = None
    verbose: int = 0

    # ---- what a method defines

    @abstractmethod
    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> LatentNetwork:
        """The networks that the settings describe, untrained; :func:`nvisa.load` fills them from the file."""

    @abstractmethod
    def _fit_once(self, run: Run) -> FitResult:
        """Train on checked rows."""

    def _check_data(self, X: Table) -> None:
        """Raise an error for settings that these rows do not allow: here none."""

    # ---- fit

    def fit(self: Fitted, X: Rows, y: object = None, *, checkpoint: str | Path | None = None) -> Fitted:
        """Cluster the rows of X.

        Parameters
        ----------
        X
            Rows [N D]: an array, a data frame, a memory map, a sparse matrix, or what else ``methods/input.py`` takes.
            NaN and categories for methods that have p(x|z) for them.
        y
            Ignored; here for scikit-learn's pipelines.
        checkpoint
            A folder for what a killed fit needs to go on, written every half minute and at the end. The same call then
            resumes after the last whole epoch written, and gives what it would have given. :meth:`save` removes it
            once the model is on the disk; until then the same call comes back without training. Without one, a fit
            that fails or is interrupted leaves the clusterer as it was, and nothing else.

        Raises
        ------
        nvisa.SettingError
            A ValueError and a TypeError: on a setting of another kind than expected.
        ValueError
            On infinity, or NaN where the method takes no gaps; on fewer rows than clusters.
        DivergedError
            When training leaves the finite numbers; it names the term.

        Warns
        -----
        ConvergenceWarning
            If fewer than half of the clusters are in use at the end, or only one.
        """
        with self._unchanged_on_failure():
            self._fit_watched(X, y, checkpoint)
        sizes = np.bincount(self.labels_, minlength=self.n_clusters_)
        LOG.info("%s: sizes of clusters %s", type(self).__name__, sizes.tolist())
        if (2 * clusters_in_use(sizes) < len(sizes) and not self._sizes_are_of_start) or (sizes > 0).sum() < 2:
            warnings.warn(_collapse_message(sizes), ConvergenceWarning, stacklevel=2)
        return self

    @with_callbacks  # type: ignore[untyped-decorator]  # scikit-learn's
    def _fit_watched(self, X: Rows, y: object, checkpoint: str | Path | None) -> None:
        """The fit, top to bottom, with those who look on."""
        with self._progress_shown(X, y) as report:
            for name in [name for name in vars(self) if name.endswith("_")]:  # another fit's
                delattr(self, name)
            self._check_settings()
            rng = check_random_state(self.random_state)
            X, rescale = self._learn_input(X, self._scaling, rng, at_least=self._least_rows)
            self.n_clusters_ = self._n_wanted(X, rescale)
            self._check_rows(X)
            self._checkpoint: CheckpointWriter | None = None
            with self._checkpointing(checkpoint, X, rng) as writer:
                rng = rng if writer is None else writer.rng
                if self._n_restarts is None:
                    result = self._fit_numbered(X, rescale, rng, 0, report, writer)
                else:
                    result = self._fit_restarts(X, rescale, rng, self._n_restarts, report, writer)
                self.module_, self.history_, self.n_iter_ = result.module, result.history, len(result.history)
                for name, value in result.attributes.items():
                    setattr(self, name, value)
                self.labels_ = _labels(self.module_, X)
                some = part(X, subset(len(X), RandomState(0), 2_000))
                self.reject_quantiles_ = self._reject_quantiles(some)
                factors = training_factors(self.module_.rescale.shift.device)
                self.precision_ = str(factors).removeprefix("torch.")
            self._checkpoint = writer

    def _check_settings(self) -> None:
        """Raise a SettingError for settings that no rows can be fitted with."""
        check_settings(self)
        plain, kind = Network(), type(self._network)
        if kind is not Network and not self.TAKES_MODULES:
            raise SettingError(
                "network", f"a Network with {type(self).__name__}: {kind.__name__} is NVISA's", self.network
            )
        for name in () if self.READS_PRIOR else ("prior_components", "prior_covariance"):
            value, expected = getattr(self._network, name), getattr(plain, name)
            if value != expected:
                method = type(self).__name__
                raise SettingError(
                    f"network.{name}", f"{expected!r} with {method}: it is NVISA's", value, "Leave it out."
                )
        if self._network.batch_norm and self._training.batch_size < 3:  # of two, the last of an odd number has one
            raise SettingError(
                "training.batch_size",
                "at least 3 with network.batch_norm",
                self._training.batch_size,
                "Try a larger one, or Network(batch_norm=False).",
            )

    def _check_rows(self, X: Table) -> None:
        """Raise an error for rows that the settings do not allow."""
        if self._is_bernoulli:
            if self.categories_:
                raise SettingError("likelihood", "another than 'bernoulli' beside categories", "bernoulli")
            if self.fills_gaps_ and self.likelihood == "bernoulli_binarized":
                raise SettingError("likelihood", "'bernoulli' for rows with gaps", "bernoulli_binarized")
            check_unit_interval(X)
        for start in (item.init if isinstance(item, WarmStart) else item for item in self._starts):
            if hasattr(start, "predict_proba"):
                check_start(start, X, self.n_clusters_)
        for term in self._consistency_terms:
            if isinstance(term, Augment):
                term.shape_of(X.shape[1])
                if self.fills_gaps_:
                    expected = "another than Augment for rows with gaps or categories"
                    raise SettingError("consistency", expected, term, "Try 'vat'.")
        if hasattr(self, "count_batches_") or type(self._network) is not Network:
            check_shaped_and_counted(self, self._starts, self._consistency_terms)
        self._check_data(X)

    @property
    def _supervision(self) -> Supervision | None:
        """What ``init`` gives of the clusters of rows, if it does."""
        given = getattr(self, "init", "")
        return None if isinstance(given, str) else Supervision.of(given)

    @property
    def _starts(self) -> tuple[Any, ...]:
        """The starts in the setting ``init``, which restarts take in turn; empty where there is none."""
        given = getattr(self, "init", ())
        return tuple(given) if isinstance(given, (tuple, list)) and self._supervision is None else (given,)

    @property
    def _consistency_terms(self) -> tuple[VAT | Augment, ...]:
        """The setting ``consistency`` as a tuple, without names; empty where there is none."""
        given = getattr(self, "consistency", None) or ()
        items = given if isinstance(given, (tuple, list)) else (given,)
        return tuple(BY_NAME[item] if isinstance(item, str) else item for item in items)

    @property
    def _is_bernoulli(self) -> bool:
        return str(getattr(self, "likelihood", "")).startswith("bernoulli")

    @property
    def _scaling(self) -> str:
        """The networks' units of the data: ``Network.scaling``, or as they are for a Bernoulli likelihood."""
        return "none" if self._is_bernoulli else self._network.scaling

    def _fit_numbered(
        self,
        X: Table,
        rescale: Rescale,
        rng: RandomState,
        number: int,
        report: Report | None,
        checkpoint: CheckpointWriter | None,
    ) -> FitResult:
        """One fit, whose largest cluster then has number 0, empty clusters come last; given ones keep their numbers."""
        generator, device = generator_from(rng), torch_device(self._training.device)
        module: Any = build(lambda: self._networks(rescale), generator, device)
        reporter = None if report is None else Reporter(module, report)
        listeners = [listener for listener in (reporter, checkpoint) if listener is not None]
        run = Run(
            X, Source(X, device, vars(self).get("origin_")), rescale, module, rng, generator, number, report, listeners
        )
        result = self._fit_once(run)
        if not isinstance(result, FitResult):
            raise TypeError(f"{type(self).__name__}._fit_once must return a FitResult, got {type(result).__name__}.")
        if result.attributes.get("classes_") is not None:
            return result
        n_clusters = result.attributes.get("n_clusters_", self.n_clusters_)
        order = np.argsort(-np.bincount(_labels(result.module, X), minlength=n_clusters), kind="stable")
        result.module.permute(torch.from_numpy(order).to(device))
        return result

    def _fit_restarts(
        self,
        X: Table,
        rescale: Rescale,
        rng: RandomState,
        n_restarts: int,
        report: Report | None,
        checkpoint: CheckpointWriter | None,
    ) -> FitResult:
        """Whole fits, each from a seed of its own; the one with the largest neighbor information. No label is used."""
        rows = np.sort(rng.permutation(len(X))[:10_000])
        seeds = [int(rng.randint(2**31 - 1)) for _ in range(n_restarts)]
        n_jobs = 1 if n_restarts == 1 else n_jobs_for(n_restarts)
        if n_jobs == 1:
            results = [
                self._fit_numbered(X, rescale, RandomState(seed), i, report, checkpoint) for i, seed in enumerate(seeds)
            ]
        else:
            children = [None if checkpoint is None else checkpoint.child(i) for i in range(n_restarts)]
            calls = [(X, rescale, seed, i, children[i]) for i, seed in enumerate(seeds)]
            found = in_processes(self._unwatched()._fit_alone, calls, n_jobs)
            results = [self._replayed(result, report) for result in found]
        looked_at = Source(X, results[0].module.rescale.shift.device).part(rows)
        probas = [np.exp(map_blocks(result.module.log_q_y, looked_at)) for result in results]
        graph = nearest(Rescaled(X, rescale)[rows], 10)[0]
        scores = [neighbor_information(proba, graph) for proba in probas]
        best = results[int(np.argmax(scores))]
        listed = [{"seed": s, "neighbor_information": i} for s, i in zip(seeds, scores, strict=True)]
        return FitResult(
            best.module, best.history, best.attributes | {"neighbor_information_": max(scores), "restarts_": listed}
        )

    def _fit_alone(
        self, X: Table, rescale: Rescale, seed: int, number: int, child: tuple[Path, Record] | None
    ) -> FitResult:
        """A restart in a process of its own, with a checkpoint of its own."""
        folder, run = child or (None, {})
        with open_checkpoint(folder, run, RandomState(0), wait=True) as checkpoint:
            return self._fit_numbered(X, rescale, RandomState(seed), number, None, checkpoint)

    def _replayed(self, result: FitResult, report: Report | None) -> FitResult:
        """The result of another process, which had no callback: its epochs are reported now."""
        if report is not None:
            for n in range(len(result.history)):
                report(result.module, result.history[: n + 1])
            result.module.eval()
        return result

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
    def _checkpointing(self, path: str | Path | None, X: Table, rng: RandomState) -> Iterator[CheckpointWriter | None]:
        """A checkpoint that belongs to fits of these settings to these rows; None without a path."""
        if path is None:
            yield None
            return
        params = {name: fingerprint(value, X) for name, value in self.get_params(deep=False).items()}
        params.pop("verbose", None)
        run = {"class": type(self).__name__, "params": params, "data": data_digest(X)}
        with open_checkpoint(path, run, rng) as writer:
            yield writer

    @property
    def _sizes_are_of_start(self) -> bool:
        """Whether small clusters are what the rows have: their start left no doubt."""
        start = getattr(self, "diagnosis_", {}).get("start")
        return start is not None and bool(start["is_clear"])

    @property
    def _n_found(self) -> int:
        """Number of clusters: those asked for, unless the fit has found it."""
        return getattr(self, "n_clusters_", self.n_clusters)

    @property
    def _least_rows(self) -> int:
        """A row for each cluster that was asked for."""
        return self.n_clusters if self._supervision is None and self.n_clusters != "auto" else 2

    def _n_wanted(self, X: Table, rescale: Rescale) -> int:
        """Number of clusters to fit: the setting, what somebody has given, or what the rows have."""
        found = 2
        if self.n_clusters == "auto" and (self._supervision is None or self._supervision.start != "labels"):
            levels = levels_of(X, rescale)
            self.__dict__ |= levels.attributes()
            found = levels.n_clusters
        if self._supervision is None:
            return found if self.n_clusters == "auto" else self.n_clusters
        return n_supervised(self._supervision, len(X), self.n_clusters, type(self).n_clusters, found)

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


def _labels(module: LatentNetwork, X: Table) -> NDArray[np.int64]:
    """``argmax_y q(y|x)`` of each row [N], by all processes that share the fit."""
    ranks = RANKS.get()
    return label(module, X) if ranks is None else ranks.label(module, X)


def _collapse_message(sizes: NDArray[np.integer]) -> str:
    """What to say when fewer than half of the clusters are in use, or only one has rows."""
    return (
        f"Only {clusters_in_use(sizes)} of {len(sizes)} clusters are in use at the end of the fit; expected at least "
        "half of them, and two. Try fewer clusters, another random_state, longer training, or a start other than "
        "random weights."
    )
