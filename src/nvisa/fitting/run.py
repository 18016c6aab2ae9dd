"""What one fit works with, what it finds, and who looks on: what the training loop and the methods share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.random import RandomState
from torch import nn

from nvisa.nets.rows import Source, Table
from nvisa.nets.units import Rescale

__all__ = ["DivergedError", "FitResult", "Listener", "Listeners", "Record", "Report", "Reporter", "Run", "StageState"]

Record = dict[str, Any]
Report = Callable[[Any, list[Record]], bool]  # (networks, the records of the stage so far) -> whether to end it


class DivergedError(RuntimeError):
    """Training left the finite numbers (the slides' N/A). ``term`` names where; ``history`` is kept.

    Examples
    --------
    >>> error = DivergedError("log_p_x", history=[{"bound": -90.0}])
    >>> error.term, len(error.history)
    ('log_p_x', 1)
    """

    def __init__(self, term: str, history: Sequence[Record] = ()) -> None:
        super().__init__(term, list(history))  # what pickle hands to another process
        self.term, self.history = term, list(history)

    def __str__(self) -> str:
        return (
            f"Training diverged: {self.term} is not finite after {len(self.history)} whole epochs. Expected finite "
            "numbers. Try a std floor that stays higher, a smaller learning rate or clip_norm, or more samples."
        )


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
    listeners: "Listeners"


@dataclass
class StageState:
    """Where a stage of training stands: what changes from epoch to epoch, and its history so far.

    ``objective`` and ``tally`` have a state of their own if they have ``state_dict`` and ``load_state_dict``.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    objective: Any
    tally: Any  # of an epoch's terms and labels
    history: list[Record] = field(default_factory=list)
    finished: bool = False


class Listener:
    """What is called back as a stage of training begins, after each of its epochs, and when it ends."""

    def begin_stage(self, state: StageState) -> None:
        """Before the first step; may put the state back to where it was left."""

    def end_epoch(self, state: StageState) -> bool | None:
        """After each epoch, whose record is the last of ``state.history``; True ends the stage."""

    def end_stage(self, state: StageState) -> None:
        """After the last epoch, with ``state.finished`` set."""


Listeners = Sequence[Listener]


@dataclass
class Reporter(Listener):
    """Hands the records of the stage on, with the networks."""

    module: Any
    report: Report

    def end_epoch(self, state: StageState) -> bool:
        """Whether one of those who look on has seen enough."""
        return self.report(self.module, state.history)
