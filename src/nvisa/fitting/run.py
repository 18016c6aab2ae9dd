"""What one fit works with, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.fitting.convergence import has_settled, progress
from nvisa.fitting.training import Listener, Listeners, StageState, Training, clusters_in_use
from nvisa.nets.rows import Rescale, Source, Table

__all__ = ["FitResult", "Report", "Reporter", "Run", "collapse_message"]

Record = dict[str, Any]
Report = Callable[[Any, list[Record]], bool]  # (networks, the records of the stage so far) -> whether to end it


@dataclass
class FitResult:
    """What a fit has found: the trained networks, a record an epoch, and the attributes that the clusterer gets."""

    module: Any
    history: list[Record]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What one fit, or one of its restarts, works with.

    Parameters
    ----------
    X, source
        The checked rows, and the same as float32 tensors on the device of the training.
    rescale
        The networks' units of the data.
    module
        The networks with fresh weights.
    rng, generator
        All that is random comes from these two.
    number
        Of the restart, from 0.
    report
        Called with the networks and the records of the stage so far; True ends it. None: nobody looks.
    listeners
        Who is called back by the training loop: one that reports, and a checkpoint.
    """

    X: Table
    source: Source
    rescale: Rescale
    module: Any
    rng: RandomState
    generator: torch.Generator
    number: int
    report: Report | None
    listeners: Listeners

    def passed(self, history: list[Record], training: Training) -> float:
        """The fraction of the schedule that a stage has passed: 1, unless a callback has ended it."""
        settles = training.until_settled and training.epochs is None
        done, _ = progress(history, training.n_batches(len(self.source)), settles=settles)
        return min(done / training.n_epochs(len(self.source)), 1.0)

    def outcome(self, history: list[Record], training: Training) -> dict[str, Any]:
        """``converged_`` and ``stop_reason_`` of a stage: whether its labels have settled, and how it ended."""
        passed = self.passed(history, training)
        settled = has_settled(history, training.n_batches(len(self.source)))
        epochs, planned = len(history), training.n_epochs(len(self.source))
        if epochs < planned:
            why = "labels settled" if passed == 1.0 else "a callback ended it"
            reason = f"{why}: {epochs} epochs of {planned} planned"
        else:
            reason = f"all {planned} epochs" + ("" if settled else "; labels were still changing")
        return {"converged_": settled, "stop_reason_": reason}


@dataclass
class Reporter(Listener):
    """Hands the records of the stage on, with the networks."""

    module: Any
    report: Report

    def end_epoch(self, state: StageState) -> bool:
        """Whether one of those who look on has seen enough."""
        return self.report(self.module, state.history)


def collapse_message(sizes: NDArray[np.integer]) -> str:
    """What to say when fewer than half of the clusters are in use, or only one has rows."""
    return (
        f"Only {clusters_in_use(sizes)} of {len(sizes)} clusters are in use at the end of the fit; expected at least "
        "half of them, and two. Try fewer clusters, another random_state, longer training, or a start other than "
        "random weights."
    )
