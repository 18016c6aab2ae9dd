"""The one training loop: batches by index, clipping, a guard against non-finite numbers, history.

It maximizes any objective of the form ``(x, rows, fraction) -> StepOutput`` and knows no model. Data stay
where they are (an array or a memory map); a batch is gathered by index. Whoever wants to know of an epoch, or to put a
stage back to where it was (a checkpoint), is a :class:`Listener`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from nvisa.fitting.optimizers import Adam
from nvisa.fitting.run import DivergedError, Listeners, Record, StageState
from nvisa.maths.products import factors_in, training_factors
from nvisa.maths.schedules import Constant, Cosine, Schedule
from nvisa.maths.shapes import Data, LogClusters, PerExample, Scalar, Tensor
from nvisa.nets.rows import Source
from nvisa.settings import AnyOf, AtLeast, InstanceOf, NotNegative, Positive

__all__ = [
    "RANKS", "DivergedError", "StepOutput", "Training", "ascend", "check_finite", "clusters_in_use", "flush_denormals",
    "has_settled", "maximize", "optimizer_step", "outcome", "progress", "share_passed",
]  # fmt: skip

RANKS: ContextVar[Any] = ContextVar("ranks", default=None)  # processes that share this training (``distributed.py``)


@dataclass(frozen=True)
class Training:
    """How long, how fast and where to train.

    Parameters
    ----------
    epochs
        Passes over the data; None: as many as make ``steps`` steps, at least one and at most ``max_epochs``.
    steps, max_epochs, min_steps
        What ``epochs=None`` aims at, so that 500 rows and 10 million both get enough, and no more: so many steps, but
        no more passes than ``max_epochs``, unless these are fewer than ``min_steps``.
    batch_size
        B. A smaller data set is taken whole.
    learning_rate
        Of Adam; a schedule over the fraction of the run, or a number.
    clip_norm
        Largest norm of the whole gradient.
    device
        "auto": CUDA, then MPS, then CPU.
    until_settled
        Where ``epochs`` is None: once the labels have settled (:func:`nvisa.fitting.training.has_settled`), pass
        through the rest of the schedule eight times as fast. The rate and the floors still fall to their ends.

    Examples
    --------
    >>> Training(steps=4000).n_epochs(60_000)
    17
    >>> from nvisa import Cosine, NVISA
    >>> quick = NVISA(10, training=Training(epochs=5))
    >>> slow = NVISA(10, training=Training(epochs=300, batch_size=128, learning_rate=Cosine(1e-3)))
    """

    epochs: Annotated[int | None, AtLeast(1, optional=True)] = None
    steps: Annotated[int, AtLeast(1)] = 2500
    max_epochs: Annotated[int, AtLeast(1)] = 100
    min_steps: Annotated[int, AtLeast(1)] = 1
    batch_size: Annotated[int, AtLeast(1)] = 256
    learning_rate: Annotated[Schedule | float, AnyOf(InstanceOf(Schedule), NotNegative)] = field(
        default_factory=lambda: Cosine(2e-3)
    )
    clip_norm: Annotated[float, Positive] = 10.0
    device: str = "auto"
    until_settled: Annotated[bool, InstanceOf(bool)] = False

    def n_epochs(self, n_rows: int) -> int:
        """Epochs for this many rows."""
        if self.epochs is not None:
            return self.epochs
        n_batches = self.n_batches(n_rows)
        most = max(self.max_epochs, math.ceil(min(self.steps, self.min_steps) / n_batches))
        return min(max(1, round(self.steps / n_batches)), most)

    def n_batches(self, n_rows: int) -> int:
        """Steps of one epoch."""
        return max(1, math.ceil(n_rows / self.batch_size))

    def shortened(self, share: float) -> "Training":
        """The same for a share of the run, at least one epoch: pretraining and distillation."""
        epochs = None if self.epochs is None else max(1, round(share * self.epochs))
        return replace(
            self,
            epochs=epochs,
            steps=max(1, round(share * self.steps)),
            max_epochs=max(1, round(share * self.max_epochs)),
            min_steps=max(1, round(share * self.min_steps)),
        )

    def rate(self, fraction: float) -> float:
        """Learning rate when ``fraction`` of the run is done."""
        rate = self.learning_rate
        return (rate if isinstance(rate, Schedule) else Constant(rate))(fraction)


@dataclass
class StepOutput:
    """What one batch returns.

    ``value`` is maximized (its negative is the loss); ``terms`` are logged, and searched when the value
    is not finite; ``log_q_y`` lets the loop count the clusters in use, and the rows that changed theirs unless it is
    of rows that were ``made``, not of the batch's.
    """

    value: PerExample | Scalar
    terms: dict[str, Tensor]
    log_q_y: LogClusters | None = None
    made: bool = False

    @classmethod
    def of_bound(
        cls, terms: dict[str, PerExample], n_features: int, log_q_y: LogClusters | None = None
    ) -> "StepOutput":
        """A bound that is the sum of its terms, maximized per feature: one gradient clip for 5 columns and 5,000."""
        bound = torch.stack(list(terms.values())).sum(0)
        return cls(bound / n_features, {"bound": bound, **terms}, log_q_y)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero inside: tiny importance weights otherwise slow a step five times."""
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    before = bool(tiny * 1.0 == 0.0)  # torch can set the mode but not tell it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def shuffled_batches(n_rows: int, batch_size: int, generator: torch.Generator) -> list[np.ndarray]:
    """Row numbers of one epoch's batches, of sizes that differ by one at most."""
    order = torch.randperm(n_rows, generator=generator).numpy()
    return np.array_split(order, max(1, math.ceil(n_rows / batch_size)))


Objective = Callable[[Data, np.ndarray, float], StepOutput | None]

# ---- the loop --------------------------------------------------------------------------------------------------------


def maximize(
    objective: Objective,
    module: nn.Module,
    source: Source,
    training: Training,
    generator: torch.Generator,
    listeners: Listeners = (),
    *,
    stage: str = "training",
    betas: tuple[float, float] = (0.9, 0.999),
) -> list[Record]:
    """Maximize the mean objective by Adam and return the history, one record an epoch.

    Parameters
    ----------
    objective
        ``(x [B D], rows [B], fraction) -> StepOutput``, or None once it has converged: training ends there.
    listeners
        Called back, in this order: progress, the user's callback, a checkpoint.
    stage
        What this training is for; it stands in every record.
    betas
        Of Adam.

    Raises
    ------
    DivergedError
        When the objective or its gradient is no longer finite.
    """
    n_rows = len(source.X)
    n_epochs, n_batches = training.n_epochs(n_rows), training.n_batches(n_rows)
    optimizer = Adam(module.parameters(), lr=0.0, betas=betas, fused=True)  # every step sets its own rate
    state = StageState(stage, module, optimizer, generator, objective, Tally(n_rows))
    ranks = None if (others := RANKS.get()) is None else others.stage(n_rows, training, betas)
    listeners = listeners if ranks is None else ranks.around(listeners)
    for listener in listeners:
        listener.begin_stage(state)
    history, tally = state.history, state.tally
    settles = training.until_settled and training.epochs is None
    done, pace = progress(history, n_batches, settles=settles)
    started = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    make_step = _step if ranks is None else ranks.step
    module.train()
    with flush_denormals(), _kept(history):
        while done < n_epochs and not state.finished:
            tally.start()
            for b, rows in enumerate(shuffled_batches(n_rows, training.batch_size, generator)):
                fraction = min((done + pace * b / n_batches) / n_epochs, 1.0)
                optimizer.param_groups[0]["lr"] = training.rate(fraction)
                step = make_step(objective, source, rows, fraction, optimizer, training.clip_norm)
                if step is None:
                    break
                tally.add(step, rows)
            if tally.n == 0:  # converged before the epoch's first step
                break
            seconds = time.perf_counter() - started
            epoch = len(history) + 1
            history.append({"stage": stage, "epoch": epoch, "n_epochs": n_epochs, "seconds": seconds} | tally.means())
            done, pace = progress(history, n_batches, settles=settles)
            enough = [listener.end_epoch(state) for listener in listeners]
            if step is None or any(enough):
                break
    module.eval()
    state.finished = True
    for listener in listeners:
        listener.end_stage(state)
    return list(history)


@contextmanager
def _kept(history: list[Record]) -> Iterator[None]:
    """Hand the epochs so far to whoever catches a divergence."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(error.term, history) from None


def clusters_in_use(sizes: NDArray[np.integer]) -> int:
    """Number of clusters that have at least a tenth of an equal share of the rows.

    Examples
    --------
    >>> clusters_in_use(np.array([300, 300, 9, 1, 0]))
    2
    """
    return int((10 * len(sizes) * sizes >= sizes.sum()).sum())


def _step(
    objective: Objective, source: Source, rows: np.ndarray, fraction: float, optimizer: Optimizer, clip: float
) -> StepOutput | None:
    """One step up the objective of these rows."""
    trained = optimizer.param_groups[0]["params"]
    with factors_in(training_factors(trained[0].device)):
        step = objective(source[rows], rows, fraction)
    if step is not None:
        optimizer_step(step, optimizer, trained, clip)
    return step


def optimizer_step(step: StepOutput, optimizer: Optimizer, trained: list[nn.Parameter], clip: float) -> None:
    """One step up the objective, or an error that names the first term that is not finite."""
    loss = -step.value.mean()
    check_finite(loss, step.terms)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    ascend(optimizer, trained, clip)


def check_finite(value: Tensor, terms: dict[str, Tensor]) -> None:
    """Raise an error that names the first term that is not finite, unless the objective's value is."""
    if not torch.isfinite(value):
        raise DivergedError(next((k for k, term in terms.items() if not torch.isfinite(term).all()), "objective"))


def ascend(optimizer: Optimizer, trained: list[nn.Parameter], clip: float) -> None:
    """One step along the gradient, or along as much of it as ``clip`` leaves."""
    norm = nn.utils.clip_grad_norm_(trained, clip)
    if not torch.isfinite(norm):
        raise DivergedError("gradient")
    optimizer.step()


class Tally:
    """Running means of an epoch's terms and of the assignment, and the cluster of each row when it was last seen."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.labels: Tensor | None = None  # [N], -1 where not seen yet: the one thing that outlives an epoch
        self.start()

    def start(self) -> None:
        """An epoch begins."""
        self.n = 0
        self.sums: dict[str, Tensor] = {}
        self.mass: Tensor | None = None
        self.counts: Tensor | None = None
        self.moved: Tensor | None = None  # (rows that changed cluster, rows that had one)

    def add(self, step: StepOutput, rows: np.ndarray) -> None:
        """Fold in a batch; no number leaves the device before the epoch ends."""
        n = len(rows)
        self.n += n
        for name, value in {"objective": step.value, **step.terms}.items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + n * value.detach().mean()
        if step.log_q_y is not None:
            log_q_y = step.log_q_y.detach()
            labels = log_q_y.argmax(1)
            counts = torch.bincount(labels, minlength=log_q_y.shape[1])
            mass = log_q_y.exp().sum(0)
            self.counts = counts if self.counts is None else self.counts + counts
            self.mass = mass if self.mass is None else self.mass + mass
            if not step.made:
                self._compare(labels.int(), torch.from_numpy(rows).to(labels.device))

    def _compare(self, labels: Tensor, rows: Tensor) -> None:
        """Count the rows whose cluster is another than an epoch ago, and note the new one."""
        if self.labels is None:
            self.labels = labels.new_full((self.n_rows,), -1)
        self.labels = self.labels.to(labels.device)  # a checkpoint's come from the CPU
        before = self.labels[rows]
        known = before >= 0
        moved = torch.stack([(known & (before != labels)).sum(), known.sum()])
        self.moved = moved if self.moved is None else self.moved + moved
        self.labels[rows] = labels

    def means(self) -> Record:
        """The epoch's means, the clusters in use, the entropy of the mean assignment, and the label change."""
        record: Record = {name: float(value) / self.n for name, value in self.sums.items()}
        if self.counts is not None and self.mass is not None:
            record["clusters_in_use"] = clusters_in_use(self.counts.cpu().numpy())
            share = self.mass / self.mass.sum()
            record["assignment_entropy"] = float(torch.special.entr(share).sum())
        if self.moved is not None and self.moved[1] > 0:
            changed, known = self.moved.tolist()
            record["label_change"] = changed / known
        return record

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps at the end of an epoch."""
        return {} if self.labels is None else {"labels": self.labels}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.labels = state["labels"]


# ---- when labels have settled, and how much of the schedule is then left: one rule for all data ----------------------

SETTLED, WINDOW = 0.004, 100  # share of the rows that change cluster, all in all, in so many steps
HASTE = 8  # how much faster the schedule then runs


def has_settled(history: Sequence[Record], n_batches: int) -> bool:
    """Whether the labels stood still at some time: in 100 steps, at least two epochs, at most 0.4 % of rows changed.

    Examples
    --------
    >>> has_settled([{"label_change": 0.1}, {"label_change": 0.003}, {"label_change": 0.001}], n_batches=60)
    True
    """
    window = max(2, math.ceil(WINDOW / n_batches))
    changes = [record.get("label_change", 1.0) for record in history]
    return any(sum(changes[i : i + window]) <= SETTLED for i in range(len(changes) - window + 1))


def progress(history: Sequence[Record], n_batches: int, *, settles: bool) -> tuple[int, int]:
    """How many epochs of the schedule have passed, and how many the next one passes."""
    slow = next((n for n in range(len(history)) if settles and has_settled(history[:n], n_batches)), len(history))
    done = slow + HASTE * (len(history) - slow)
    return done, HASTE if settles and has_settled(history, n_batches) else 1


def share_passed(history: Sequence[Record], training: Training, n_rows: int) -> float:
    """The share of the schedule that a stage has passed: 1, unless a callback has ended it."""
    settles = training.until_settled and training.epochs is None
    done, _ = progress(history, training.n_batches(n_rows), settles=settles)
    return min(done / training.n_epochs(n_rows), 1.0)


def outcome(history: Sequence[Record], training: Training, n_rows: int) -> dict[str, Any]:
    """``converged_`` and ``stop_reason_`` of a stage: whether its labels have settled, and how it ended."""
    settled = has_settled(history, training.n_batches(n_rows))
    epochs, planned = len(history), training.n_epochs(n_rows)
    if epochs < planned:
        why = "labels settled" if share_passed(history, training, n_rows) == 1.0 else "a callback ended it"
        reason = f"{why}: {epochs} epochs of {planned} planned"
    else:
        reason = f"all {planned} epochs" + ("" if settled else "; labels were still changing")
    return {"converged_": settled, "stop_reason_": reason}
