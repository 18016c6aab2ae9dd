"""Who looks on while a fit is trained: scikit-learn's callbacks, early stopping, and the log.

All of them are called with the clusterer and the record of an epoch, as ``clusterer.on_epoch`` has it, and each may end
the stage by answering True. During a fit ``clusterer.history_`` has the records of the stage so far.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Any

from nvisa.fitting.progress import describe, is_tenth
from nvisa.settings import AtLeast, NotNegative, OneOf, SettingError, check_settings

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Its place where scikit-learn has no callbacks yet."""

        def set_callbacks(self, *callbacks: Any) -> Any:
            """Not before scikit-learn 1.9: ``on_epoch`` works with all versions."""
            raise ImportError("set_callbacks: expected scikit-learn 1.9 or newer. Upgrade it, or try on_epoch.")

    def with_callbacks(method: Any) -> Any:
        """The method itself."""
        return method


__all__ = ["LOG", "CallbackSupportMixin", "EarlyStopping", "EpochTasks", "fit_tasks", "log_epoch", "with_callbacks"]

Record = dict[str, Any]
LOG = logging.getLogger("nvisa")


@dataclass(frozen=True)
class EarlyStopping:
    """End a stage of training once a number of its records no longer improves; for ``clusterer.on_epoch``.

    The default does not need it: its schedule shortens once labels have settled (:class:`nvisa.Training`). A bound
    rises by itself while std floors fall, so a stop in the middle of annealing is a model with higher floors.

    Parameters
    ----------
    monitor
        What to look at: a key of ``history_``, such as "bound", "objective", "label_change".
    min_delta
        A smaller change is none.
    patience
        How many epochs without a better one are waited for.
    mode
        "max" or "min": which of two is better.
    stage
        Of which stage; the others are left alone.

    Raises
    ------
    nvisa.SettingError
        While the fit is trained, if ``monitor`` is none of the stage's records.

    Examples
    --------
    >>> from nvisa import NVISA, Training
    >>> X = [[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]]
    >>> model = NVISA(2, init="random", training=Training(epochs=50), random_state=0)
    >>> len(model.on_epoch(EarlyStopping("label_change", mode="min", patience=5)).fit(X).history_) < 50
    True
    """

    monitor: str = "bound"
    min_delta: Annotated[float, NotNegative] = 0.0
    patience: Annotated[int, AtLeast(1)] = 10
    mode: Annotated[str, OneOf("max", "min")] = "max"
    stage: str = "training"

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, clusterer: Any, record: Record) -> bool:
        """Whether the stage is over; the same after a checkpoint, since the history says it all."""
        if record["stage"] != self.stage:
            return False
        records = [*takewhile(lambda r: r["stage"] == self.stage, reversed(clusterer.history_))][::-1]
        values = [r[self.monitor] for r in records if self.monitor in r]
        if not values and len(records) > 1:  # the first epoch has no label_change
            known = ", ".join(key for key, value in record.items() if isinstance(value, float))
            raise SettingError("monitor", f"one of {known}", self.monitor)
        return self._is_over([-v for v in values] if self.mode == "min" else values)

    def _is_over(self, values: list[float]) -> bool:
        best, since = -float("inf"), 0
        for value in values:
            best, since = (value, 0) if value > best + self.min_delta else (best, since + 1)
        return since >= self.patience


def log_epoch(clusterer: Any, record: Record) -> None:
    """To the logger "nvisa": every epoch at DEBUG, every tenth of a stage at INFO."""
    level = logging.INFO if is_tenth(record["epoch"], record["n_epochs"]) else logging.DEBUG
    LOG.log(level, "%s %d/%d: %s", record["stage"], record["epoch"], record["n_epochs"], describe(record))


@contextmanager
def fit_tasks(clusterer: Any, X: Any, y: Any) -> Iterator["EpochTasks"]:
    """Tell scikit-learn's callbacks that the fit of X begins; what its epochs are handed to; and that it has ended."""
    context, given = clusterer._init_callback_context(max_subtasks=None), {"X": X, "y": y}
    context.call_on_fit_task_begin(estimator=clusterer, **given)
    yield (tasks := EpochTasks(context, given))
    tasks.end_stage(clusterer)
    context.call_on_fit_task_end(estimator=clusterer, reconstruction_attributes={}, **given)


@dataclass
class EpochTasks:
    """The epochs of a fit as the tasks of scikit-learn's callbacks: fit, its stages, their epochs.

    An epoch's task begins and ends with its record: a callback that takes the time sees it between two ends.

    Parameters
    ----------
    context
        Of the fit, a ``sklearn.callback.CallbackContext``.
    given
        X and y of the fit, as the callbacks get them.
    """

    context: Any
    given: dict[str, Any]
    stage: Any = None
    last: Record = field(default_factory=dict)

    def __call__(self, clusterer: Any, record: Record) -> bool:
        """Hand the epoch on; True if a callback asks to stop."""
        if self.stage is None or (record["stage"], self.last["epoch"] + 1) != (self.last["stage"], record["epoch"]):
            self.end_stage(clusterer)
            self.stage = self.context.subcontext(task_name=record["stage"], max_subtasks=record["n_epochs"])
            self.stage.call_on_fit_task_begin(estimator=clusterer, **self.given)
        self.last = record
        epoch = self.stage.subcontext(task_name="epoch")
        epoch.call_on_fit_task_begin(estimator=clusterer, **self.given)
        fitted = {"history_": [*clusterer.history_]}  # of a copy, whose networks are copied as for a pickle
        return bool(epoch.call_on_fit_task_end(estimator=clusterer, reconstruction_attributes=fitted, **self.given))

    def end_stage(self, clusterer: Any) -> None:
        """The stage is over: another begins, or the fit ends."""
        if self.stage is not None:
            self.stage.call_on_fit_task_end(estimator=clusterer, **self.given)
        self.stage = None
