"""Who looks on while a fit is trained: scikit-learn's callbacks, early stopping, and the log.

All of them are called with the clusterer and the record of an epoch, as ``clusterer.on_epoch`` has it, and each may end
the stage by answering True. During a fit ``clusterer.history_`` has the records of the stage so far.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Any, TypeVar

import numpy as np

from nvisa.fitting.progress import EpochProgress, describe, is_tenth
from nvisa.fitting.run import Record, Report
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


__all__ = ["LOG", "EarlyStopping", "EpochTasks", "WatchedFit", "fit_tasks", "log_epoch", "with_callbacks"]

Callback = Callable[[Any, Record], Any]  # (clusterer, an epoch's record) -> True to end the stage
Watched = TypeVar("Watched", bound="WatchedFit")
LOG = logging.getLogger("nvisa")


@dataclass
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


class WatchedFit(CallbackSupportMixin):
    """A clusterer whose fit others look on at."""

    verbose: int
    module_: Any
    history_: list[Record]
    _callback: Callback | None

    def on_epoch(self: Watched, callback: Callback | None) -> Watched:
        """Call ``callback(clusterer, record)`` after every epoch of :meth:`fit`; None removes it. Returns self.

        The clusterer can predict inside, and ``history_`` has the records of the stage so far. A callback that returns
        True ends the stage, such as :class:`nvisa.EarlyStopping`. It is not a setting: ``clone`` and ``save`` drop it.
        Callbacks of scikit-learn, from 1.9 on, are given to ``set_callbacks``.
        """
        self._callback = callback
        return self

    @contextmanager
    def _progress_shown(self, X: Any = None, y: Any = None) -> Iterator[Report | None]:
        """What is called with the networks and the records of a stage, for those who look on; None: nobody does."""
        with ExitStack() as stack:
            callbacks: list[Callback] = [log_epoch] if LOG.isEnabledFor(logging.INFO) else []
            if self.verbose:
                callbacks.append(stack.enter_context(EpochProgress()))
            if (callback := getattr(self, "_callback", None)) is not None:
                callbacks.append(callback)
            if X is not None and (hasattr(self, "_skl_callbacks") or hasattr(self, "_parent_callback_ctx")):
                callbacks.append(stack.enter_context(fit_tasks(self, X, y)))
            yield self._reporting(*callbacks) if callbacks else None

    def _reporting(self, *callbacks: Callback) -> Report:
        def report(module: Any, history: list[Record]) -> bool:
            """Let them look, the networks in evaluation mode while they do; whether one of them answers True."""
            self.module_, self.history_ = module.eval(), history
            answers = [callback(self, history[-1]) for callback in callbacks]
            module.train()
            return any(isinstance(answer, (bool, np.bool_)) and answer for answer in answers)  # not a number of bytes

        return report

    def _unwatched(self: Watched) -> Watched:
        """The same for another process, to which callbacks do not go."""
        other = copy(self)
        other.__dict__.pop("_skl_callbacks", None)
        return other
