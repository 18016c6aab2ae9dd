"""What a fitted clusterer does: predict, transform, save. It knows nothing of how it was fitted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from nvisa.fitting.calibration import SHARES, neighbor_agreement, quantiles, temperature, tempered, threshold
from nvisa.fitting.drift import low_drift, size_drift
from nvisa.fitting.edits import edited
from nvisa.fitting.graph import nearest, principal_components
from nvisa.maths.shapes import Data, Tensor
from nvisa.methods.editing import EditableClusterer
from nvisa.methods.exporting import write_onnx
from nvisa.methods.input import CheckedInput, Rows, blank_units
from nvisa.methods.lazily import lazy_of_dask
from nvisa.nets.layers import LatentNetwork
from nvisa.nets.rows import Source, Table, map_blocks, part, subset
from nvisa.nets.units import Rescale
from nvisa.persistence import ModelError, check_state, save
from nvisa.settings import InRange, SettingError

__all__ = ["Array", "FittedClusterer", "Record"]

Array = NDArray[np.floating]
Record = dict[str, Any]
Fitted = TypeVar("Fitted", bound="FittedClusterer")
NOT_KEPT = ("_callback", "_checkpoint", "_callback_fit_ctx", "_skl_callbacks_to_teardown")  # while a fit is running


class FittedClusterer(CheckedInput, EditableClusterer, ABC):
    """What a clusterer can do once it is fitted, by its networks alone.

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
    n_features_in_, categories_, fills_gaps_, origin_
        What the fit has learned of its rows (:class:`nvisa.methods.input.CheckedInput`).
    precision_ : str
        Of the factors of the fit's products, "float32" or "bfloat16" (:func:`nvisa.config`); predictions are float32.
    reject_quantiles_ : dict of lists
        Of log max q(y|x) and, where there is one, of the density, over at most 2,000 training rows: what
        :meth:`predict` refuses by.
    temperature_, calibration_
        After :meth:`calibrate`.
    restarts_ : list of dict
        Of methods with ``n_restarts``: seed and neighbor information of each.
    neighbor_information_ : float
        Of methods with ``n_restarts``: label-free score of the fit, in nats; at most log K.
    """

    _log_density: Callable[[Data], Tensor] | None = None  # of rows in the user's units [B], of methods with one
    DATA_PARALLEL: ClassVar[bool] = False  # whether several processes can share a batch (``fitting/distributed.py``)
    DENSITY_EXPORTS: ClassVar[bool] = False  # whether ``_log_density`` draws nothing, so that an export can hold it

    labels_: NDArray[np.integer]
    history_: list[Record]
    n_iter_: int
    precision_: str
    reject_quantiles_: dict[str, list[float]]
    temperature_: float
    calibration_: dict[str, Any]

    @abstractmethod
    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> LatentNetwork:
        """The networks that the settings describe, untrained; :func:`nvisa.load` fills them from a file.

        ``fitted`` are the fitted attributes of a model that is loaded or saved, since what a fit has found can decide
        their shapes.
        """

    @lazy_of_dask
    def predict(self, X: Rows, *, reject: float | None = None) -> NDArray[np.int64]:
        """``argmax_y q(y|x)`` of each row [N]; deterministic, whatever the batch or the order of rows.

        Parameters
        ----------
        X
            Rows [N D]; of a Dask array or data frame the answer is one too, as of all that predicts, and computed later
            (:mod:`nvisa.methods.lazily`).
        reject
            Answer -1 for a row whose largest q(y|x), or whose density where the method has one, is lower than that of
            this share of the training rows: 0.01 refuses about a row of a hundred such as those, by either.
        """
        checked = self._checked(X)
        labels = self._mapped(lambda x: self._log_q_y(x).argmax(-1), checked)
        if reject is not None:
            labels[self._is_refused(checked, reject)] = -1
        return labels

    def _is_refused(self, X: Table, share: float) -> NDArray[np.bool_]:
        """Whether a row is less sure, or less probable, than this share of the training rows."""
        if not (allowed := InRange(0, SHARES[-1], open_low=True)).allows(share):
            raise SettingError("reject", allowed.expected, share)
        if not hasattr(self, "reject_quantiles_"):
            raise SettingError(
                "reject", "None for a model of a version that kept no thresholds", share, "Fit it again."
            )
        values = self._typicality(X)
        return np.any([values[name] < threshold(q, share) for name, q in self.reject_quantiles_.items()], axis=0)

    def _typicality(self, X: Table) -> dict[str, Array]:
        """How sure the networks are of each row [N], and how probable it is, of a method with a density."""
        found = {"confidence": self._mapped(lambda x: self._log_q_y(x).amax(-1), X)}
        return found | {"log_density": self._mapped(self._log_density, X)} if self._log_density else found

    def _reject_quantiles(self, X: Table) -> dict[str, list[float]]:
        """What rows such as these are refused by."""
        return {name: quantiles(values) for name, values in self._typicality(X).items()}

    def _log_q_y(self, x: Data) -> Tensor:
        """``log q(y|x)`` of rows in the user's units, of the clusters as they are now [B K]."""
        log_q_y = self.module_.log_q_y(x)
        if not (edits := getattr(self, "edits_", [])):
            return log_q_y
        return edited(log_q_y, self.module_.encode(x) if any("split" in edit for edit in edits) else None, edits)

    @lazy_of_dask
    def predict_proba(self, X: Rows) -> Array:
        """``q(y|x)`` [N K], rows summing to one, in the floating type of X; of a calibrated model, tempered."""
        checked = self._checked(X)
        log_q = self._mapped(self._log_q_y, checked).astype(np.float64)
        return tempered(log_q, getattr(self, "temperature_", 1.0)).astype(checked.dtype)

    def calibrate(self: Fitted, X: Rows) -> Fitted:
        """Choose the temperature of :meth:`predict_proba` by rows that the fit has not seen [N D], without labels.

        The mean of the largest q(y|x) becomes the share of neighbor pairs that have one cluster
        (:mod:`nvisa.fitting.calibration`), by a neighbor a hundred rows, at most ten. No row changes its cluster.
        ``calibration_`` says what it was, and is. Refusals (:meth:`predict`) go by these rows from then on: a fit is
        surer of rows that it has seen.
        """
        checked = self._checked(X)
        if len(checked) < 50:
            raise ValueError(f"X: expected at least 50 rows to calibrate with, got {len(checked)}. Try more of them.")
        rows, source = subset(len(checked), RandomState(0), 5_000), Source(checked, self.module_.rescale.shift.device)
        x = map_blocks(self.module_.rescale.features, source, rows=rows, fixed=False)
        near = nearest(principal_components(x, RandomState(0)), min(10, max(1, len(rows) // 100)))[0]
        log_q = map_blocks(self._log_q_y, source, rows=rows).astype(np.float64)
        agreement = neighbor_agreement(log_q.argmax(1), near)
        self.temperature_ = temperature(log_q, agreement)
        self.reject_quantiles_ = self._reject_quantiles(part(checked, rows))
        before, after = (float(tempered(log_q, t).max(1).mean()) for t in (1.0, self.temperature_))
        self.calibration_ = {"n_rows": len(rows), "agreement": agreement, "before": before, "after": after}
        return self

    def drift(self, X: Rows) -> dict[str, dict[str, Any]]:
        """Whether rows X [N D] that come later are still like those of the fit (:mod:`nvisa.fitting.drift`), no label.

        Returns
        -------
        dict
            "confidence" and, where the method has one, "log_density": the ``share`` of X below the 5 % quantile of the
            fit's rows; "sizes": the ``distance`` of the sizes of clusters from those of ``labels_``, in [0, 1]. Each
            with its ``p_value``. Of sizes also the clusters that are ``empty``: no row of X is in them. A fit is surer
            of rows that it has seen: after :meth:`calibrate` the quantiles are those of other rows.
        """
        checked, n = self._checked(X), self.n_clusters_
        found = {name: low_drift(of, self.reject_quantiles_[name]) for name, of in self._typicality(checked).items()}
        labels = self._mapped(lambda x: self._log_q_y(x).argmax(-1), checked)
        sizes = (np.bincount(which, minlength=n) for which in (self.labels_, labels))
        return found | {"sizes": size_drift(*sizes)}

    @lazy_of_dask
    def transform(self, X: Rows) -> Array:
        """Latent vector of each row [N Z], in the floating type of X."""
        return self._stream(self.module_.encode, X)

    def _stream(self, function: Callable[[Data], Tensor], X: Rows) -> Array:
        """``function`` of checked rows, block by block, in the floating type of X."""
        return self._mapped(function, checked := self._checked(X)).astype(checked.dtype, copy=False)

    def _mapped(self, function: Callable[[Data], Tensor], X: Table) -> NDArray[Any]:
        return map_blocks(function, Source(X, self.module_.rescale.shift.device))

    @property
    def _n_features_out(self) -> int:
        return self.module_.latent_dim

    def save(self, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write the model directory (safetensors and a JSON manifest); :func:`nvisa.load` reads it.

        Once it is on the disk the checkpoint of the fit, if there is one, is not needed any more and is removed.

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
                described: Any = self._networks(blank_units(vars(self)), vars(self))
            check_state(described.state_dict(), self.module_.state_dict())
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:  # whatever a setting can be
            raise ModelError(f"{path}: {error} Set back what was changed after fit, or fit again.") from error
        save(self, path, extra=extra)
        if (checkpoint := self.__dict__.pop("_checkpoint", None)) is not None:
            checkpoint.remove()

    def to_onnx(self, path: str | Path) -> None:
        """Write ``x -> probabilities, latent, score`` as an .onnx file (:mod:`nvisa.methods.exporting`)."""
        check_is_fitted(self)
        write_onnx(self, path)

    @property
    def report(self) -> Any:
        """Not here any more: :func:`nvisa.write_report`."""
        raise AttributeError("clusterer.report(X) is now nvisa.write_report(clusterer, X).")

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without callback and checkpoint, tensors on the CPU: a model trained on a GPU opens anywhere."""
        own: Any = super().__getstate__()
        state = {name: value for name, value in own.items() if name not in NOT_KEPT}
        if "module_" in state:
            state["module_"] = deepcopy(state["module_"]).cpu()
        return state
