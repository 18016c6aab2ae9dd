"""DeepClusterer: the scikit-learn surface of every method. It owns validation, seeds and streaming, no loop.

To write a method, subclass it, store settings in ``__init__``, and define

* ``_networks(rescale)``: the method's ``nn.Module``, with the members ``rescale``, ``latent_dim`` and ``permute``;
* ``_fit(X, rng)``: build it (``_built``), set ``module_``, train it, and set ``history_``;
* ``_log_q_y(x)``: log q(y|x) of a block [B D] of rows as the user gave them;
* ``_encode(x)``: the latent vector of each row [B Z].

In return it gets fit, fit_predict, predict, predict_proba, transform, ``labels_``, save and the checks of bad
input. Methods that make rows subclass ``SamplingClusterer`` of generative.py and define ``_draw``; those with a density
``GenerativeClusterer``, and also define ``_log_p_x`` and ``_reconstruct``.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import assert_all_finite, check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted, validate_data

from nvisa.fitting.checkpoint import checkpointing, data_digest, fingerprint
from nvisa.fitting.checks import at_least, check_batches, check_network, check_plain_prior, check_training
from nvisa.fitting.progress import EpochProgress
from nvisa.fitting.training import Source, Training
from nvisa.maths.metrics import clusters_in_use
from nvisa.maths.shapes import Data, Float, LogClusters, Tensor
from nvisa.nets.layers import Network, Rescale, build
from nvisa.nets.rows import blocks, is_mapped
from nvisa.nets.scaling import make_rescale, warn_of_units
from nvisa.persistence import ModelError, check_state, save

__all__ = ["DeepClusterer", "generator_from", "stores"]

Array = NDArray[np.floating]
Rows = Any  # whatever scikit-learn's validation accepts; it refuses the rest in its own words
Init = TypeVar("Init", bound=Callable[..., None])
Fitted = TypeVar("Fitted", bound="DeepClusterer")  # not Self, which the shape checker cannot read
BLOCK = 512  # rows of every inference product; a fixed shape makes each row's result independent of the others


def generator_from(rng: RandomState) -> torch.Generator:
    """A torch generator seeded by a draw of a NumPy one; torch's global generator is left alone."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def stores(init: Init) -> Init:
    """Mark a constructor that stores whatever it is given: ``fit`` checks it, the tests' type checker must not."""
    init.__no_type_check__ = True  # type: ignore[attr-defined]
    return init


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


class DeepClusterer(ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, BaseEstimator, ABC):
    """Abstract clusterer; see the module's text for what a method defines.

    Attributes
    ----------
    labels_ : ndarray of shape (N,)
        Cluster of each training row, equal to ``predict(X)``. Cluster 0 is the largest.
    module_ : torch.nn.Module
        The trained networks, usable alone.
    history_ : list of dict
        One record an epoch, of every stage (pretraining, distillation, training): the mean terms, and where q(y|x) of
        the rows is trained the clusters in use, the entropy of the mean assignment and the share of rows whose cluster
        is not that of the epoch before.
    n_iter_ : int
        Epochs trained, in all stages.
    n_features_in_ : int
    """

    DEFAULT_NETWORK: ClassVar[Network] = Network()
    DEFAULT_TRAINING: ClassVar[Training] = Training()
    READS_PRIOR: ClassVar[bool] = False  # whether p(z|y) is what ``Network.prior_*`` say

    n_clusters: int
    network: Network | None
    training: Training | None
    random_state: Any
    module_: Any
    history_: list[dict[str, Any]]
    labels_: NDArray[np.integer]

    @abstractmethod
    def _fit(self, X: Array, rng: RandomState) -> None:
        """Train on checked data; set ``module_`` and ``history_``."""

    @abstractmethod
    def _networks(self, rescale: Rescale) -> Any:
        """The networks that the settings describe, untrained; :func:`nvisa.load` fills them from the file."""

    def _recall(self, fitted: Mapping[str, Any]) -> None:
        """Take from a saved model what the shapes of its networks depend on besides the settings: here nothing."""

    @abstractmethod
    def _log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)``, without sampling."""

    @abstractmethod
    def _encode(self, x: Data) -> Float[Tensor, "B Z"]:
        """The latent vector of each row, without sampling."""

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
        ValueError, TypeError
            On NaN or infinity, fewer rows than clusters, fewer than two clusters, or a setting that is unknown or of
            another type than expected.
        DivergedError
            When training leaves the finite numbers; it names the term.

        Warns
        -----
        ConvergenceWarning
            If fewer than half of the clusters are in use at the end, or only one.
        """
        with self._restored_on_failure():
            checked = self._validated(X, reset=True)
            self._check(checked)
            run = {} if checkpoint is None else self._run(checked)
            with self._showing(), checkpointing(checkpoint, run, check_random_state(self.random_state)) as rng:
                self._fit(checked, rng)
                self.n_iter_ = len(self.history_)
                self.labels_ = self._labels(checked)
        if message := collapse_message(np.bincount(self.labels_, minlength=self._n_found)):
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    @contextmanager
    def _restored_on_failure(self) -> Iterator[None]:
        """After an error or an interruption the clusterer is what it was: never a half of this fit, never of two."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _run(self, X: Array) -> dict[str, Any]:
        """What decides the result of a fit, as JSON: a checkpoint belongs to one of it."""
        params = {name: fingerprint(value, X) for name, value in self.get_params(deep=False).items()}
        params.pop("verbose", None)
        return {"class": type(self).__name__, "params": params, "data": data_digest(X)}

    def _check(self, X: Array) -> None:
        """Settings and sizes that no method can train with."""
        at_least("n_clusters", self.n_clusters, 2)
        check_network(self.network or self.DEFAULT_NETWORK)
        if not self.READS_PRIOR:
            check_plain_prior(type(self).__name__, self._network)
        check_scalar(self.training or self.DEFAULT_TRAINING, "training", Training)
        for name, value in self.get_params(deep=False).items():
            if isinstance(value, Training):
                check_training(name, value)
        check_batches(self._training, self._network)
        if len(X) < self.n_clusters:
            raise ValueError(
                f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}: "
                "give more rows or ask for fewer clusters."
            )

    @property
    def _n_found(self) -> int:
        """Number of clusters: those asked for, unless the method finds it."""
        return self.n_clusters

    @property
    def _n_restarts(self) -> int:
        """Whole fits, of which the best is kept. The setting ``n_init`` of most methods counts k-means starts."""
        return 1

    @property
    def _network(self) -> Network:
        return self.network or self.DEFAULT_NETWORK

    @property
    def _training(self) -> Training:
        return self.training or self.DEFAULT_TRAINING

    def _rescale(self, X: Array) -> Rescale:
        """The networks' units of the data: those of ``Network.scaling``, or as they are for a Bernoulli likelihood."""
        bernoulli = getattr(self, "likelihood", None) == "bernoulli"
        return make_rescale(X, "none" if bernoulli else self._network.scaling)

    def _built(self, rescale: Rescale, generator: torch.Generator) -> Any:
        """The networks with fresh weights, on the device of the training."""
        return build(lambda: self._networks(rescale), generator).to(self._training.torch_device())

    def _number_by_size(self, X: Array) -> None:
        """Give the largest cluster number 0: labels are consecutive, empty clusters come last."""
        labels = self._labels(X)
        counts = np.bincount(labels, minlength=self.n_clusters)
        order = np.argsort(-counts, kind="stable")
        self.module_.permute(torch.from_numpy(order).to(next(self.module_.parameters()).device))

    def on_epoch(self: Fitted, callback: Callable[[Any, dict[str, Any]], None] | None) -> Fitted:
        """Call ``callback(clusterer, record)`` after every epoch of :meth:`fit`; None removes it. Returns self.

        The clusterer can predict inside. The callback is not a setting: ``clone`` and ``save`` drop it.
        """
        self._callback = callback
        return self

    def _report(self, record: dict[str, Any]) -> None:
        """Hand an epoch's record to the callback, with the networks in evaluation mode while it looks."""
        progress, callback = getattr(self, "_progress", None), getattr(self, "_callback", None)
        if progress is not None:
            progress(self, record)
        if callback is not None:
            self.module_.eval()
            callback(self, record)
            self.module_.train()

    def _told(self, found: dict[str, Any], *, elsewhere: bool) -> dict[str, Any]:
        """What a restart found, its epochs reported if another process made them, which had no callback."""
        if elsewhere:
            self.module_ = found["module_"]
            for record in found["history_"]:
                self._report(record)
            self.module_.eval()
        return found

    @contextmanager
    def _showing(self) -> Iterator[None]:
        """Show progress inside, if the method has a setting ``verbose`` and it is not 0."""
        if not getattr(self, "verbose", 0):
            yield
            return
        with EpochProgress() as self._progress:
            try:
                yield
            finally:
                del self._progress

    def predict(self, X: Rows) -> NDArray[np.int64]:
        """``argmax_y q(y|x)`` of each row [N]; deterministic, whatever the batch or the order of rows."""
        return self._labels(self._checked(X))

    def predict_proba(self, X: Rows) -> Array:
        """``q(y|x)`` [N K], rows summing to one, in the floating type of X."""
        checked = self._checked(X)
        proba = np.exp(self._blocks(self._log_q_y, checked).astype(np.float64))
        return (proba / proba.sum(1, keepdims=True)).astype(checked.dtype)

    def transform(self, X: Rows) -> Array:
        """Latent vector of each row [N Z], in the floating type of X."""
        return self._stream(self._encode, X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    @property
    def _n_features_out(self) -> int:
        return self.module_.latent_dim

    def _checked(self, X: Rows) -> Array:
        check_is_fitted(self)
        checked = self._validated(X, reset=False)
        warn_of_units(checked, self.module_.rescale)
        return checked

    def _validated(self, X: Rows, *, reset: bool) -> Array:
        """Scikit-learn's checks; a memory map is looked through block by block, and not copied if it is floating."""
        mapped = is_mapped(X)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=not mapped)
        for rows in blocks(checked) if mapped or checked.dtype == np.float64 else ():
            with np.errstate(over="ignore"):  # in the networks' float32 it would be infinite
                rows32 = rows.astype(np.float32, copy=False)
            assert_all_finite(rows32, estimator_name=type(self).__name__, input_name="X")
        return checked

    def _labels(self, X: Array) -> NDArray[np.int64]:
        """``argmax_y q(y|x)`` of checked rows; no array of N x K."""
        return self._blocks(lambda x: self._log_q_y(x).argmax(-1), X)

    def _stream(self, function: Callable[[Data], Tensor], X: Rows) -> Array:
        """``function`` of checked rows, block by block, in the floating type of X."""
        return self._blocks(function, checked := self._checked(X)).astype(checked.dtype, copy=False)

    @torch.inference_mode()
    def _blocks(self, function: Callable[[Data], Tensor], X: Array) -> NDArray[Any]:
        """Every block has the same shape (the last one padded), so no row depends on its neighbors' number."""
        source = Source(X, next(self.module_.parameters()).device)
        parts = []
        for start in range(0, len(X), BLOCK):
            x = source[slice(start, start + BLOCK)]
            padded = torch.cat([x, x[:1].expand(BLOCK - len(x), -1)]) if len(x) < BLOCK else x
            parts.append(function(padded)[: len(x)].cpu().numpy())
        return np.concatenate(parts)

    def save(self, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write the model directory (safetensors and a JSON manifest); :func:`nvisa.load` reads it.

        Parameters
        ----------
        path
            A new path, an empty folder, or a model directory, which is replaced once the new one is complete.
        extra
            What the manifest shall say besides, such as the source of the data.

        Raises
        ------
        nvisa.ModelError
            If ``path`` is something else, or settings were changed after the fit so that it could not be loaded.
        """
        check_is_fitted(self)
        try:
            with torch.device("meta"):
                described = self._networks(Rescale(torch.zeros(self.n_features_in_), torch.ones(self.n_features_in_)))
            check_state(described.state_dict(), self.module_.state_dict())
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # a setting that is none, or another's
            raise ModelError(f"{path}: {error} Set back what was changed after fit, or fit again.") from error
        save(self, path, extra=extra)

    def report(self, X: Rows = None, y: Any = None, *, out: str | Path = "report.html", **options: Any) -> Path:
        """Write one HTML page about the fit, and about the rows X if given, that opens offline.

        Map of the latent space, gallery of every cluster, anomalies, neighbors, curves, and the agreement with
        labels y if given. ``options`` are those of :func:`nvisa.report.write_report`, among them
        ``feature_shape`` for rows that are images. Needs the extra "report". Returns the path.
        """
        # By name: a page knows clusterers, and no clusterer imports a page.
        return import_module("nvisa.report").write_report(self, X, y, out=out, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with tensors on the CPU, so that a model trained on a GPU opens anywhere, and without callbacks."""
        state = {name: v for name, v in super().__getstate__().items() if name not in ("_callback", "_progress")}
        if "module_" in state:
            state["module_"] = deepcopy(state["module_"]).cpu()
        return state
