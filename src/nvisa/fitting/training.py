"""The one training loop: batches by index, clipping, a guard against non-finite numbers, history.

It maximizes any objective of the form ``(x, rows, fraction) -> StepOutput`` and knows no model. Data stay
where they are (an array or a memory map); a batch is gathered by index.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from nvisa.fitting.checkpoint import StageState
from nvisa.maths.metrics import clusters_in_use
from nvisa.maths.schedules import Constant, Cosine, Schedule
from nvisa.maths.shapes import Data, LogClusters, PerExample, Scalar, Tensor
from nvisa.nets.rows import take

__all__ = [
    "DivergedError",
    "StepOutput",
    "OnEpoch",
    "Source",
    "Training",
    "optimizer_step",
    "flush_denormals",
    "maximize",
]

Record = dict[str, Any]
OnEpoch = Callable[[Record], None]


class DivergedError(RuntimeError):
    """Training left the finite numbers (the slides' N/A). ``term`` names where; ``history`` is kept."""

    def __init__(self, term: str, history: Sequence[Record] = ()) -> None:
        super().__init__(term, list(history))  # what pickle hands to another process
        self.term, self.history = term, list(history)

    def __str__(self) -> str:
        return (
            f"Training diverged: {self.term} is not finite after {len(self.history)} whole epochs. Expected finite "
            "numbers. Try a std floor that stays higher, a smaller learning rate or clip_norm, or more samples."
        )


@dataclass(frozen=True)
class Training:
    """How long, how fast and where to train.

    Parameters
    ----------
    epochs
        Passes over the data; None: as many as make ``steps`` steps, at least one and at most ``max_epochs``.
    steps, max_epochs
        What ``epochs=None`` aims at, so that 500 rows and 10 million both get enough, and no more.
    batch_size
        B. A smaller data set is taken whole.
    learning_rate
        Of Adam; a schedule over the fraction of the run, or a number.
    clip_norm
        Largest norm of the whole gradient.
    device
        "auto": CUDA, then MPS, then CPU.
    """

    epochs: int | None = None
    steps: int = 2500
    max_epochs: int = 100
    batch_size: int = 256
    learning_rate: Schedule | float = field(default_factory=lambda: Cosine(2e-3))
    clip_norm: float = 10.0
    device: str = "auto"

    def n_epochs(self, n_rows: int) -> int:
        """Epochs for this many rows."""
        if self.epochs is not None:
            return self.epochs
        return min(max(1, round(self.steps / self.n_batches(n_rows))), self.max_epochs)

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
        )

    def rate(self, fraction: float) -> float:
        """Learning rate when ``fraction`` of the run is done."""
        rate = self.learning_rate
        return (rate if isinstance(rate, Schedule) else Constant(rate))(fraction)

    def torch_device(self) -> torch.device:
        """The device that ``device`` stands for on this machine."""
        if self.device != "auto":
            try:
                return torch.empty(0, device=self.device).device
            except (RuntimeError, AssertionError, TypeError) as error:
                raise ValueError(
                    f"Training.device must be 'auto' or a device of this machine, got {self.device!r} ({error})."
                ) from error
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


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


class Source:
    """Rows of an array or a memory map as float32 tensors on a device, gathered by index."""

    def __init__(self, X: np.ndarray, device: torch.device) -> None:
        self.X, self.device = X, device

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, rows: np.ndarray | slice) -> Data:
        return torch.from_numpy(take(self.X, rows, np.float32)).to(self.device)


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


def maximize(
    objective: Callable[[Data, np.ndarray, float], StepOutput | None],
    module: nn.Module,
    source: Source,
    training: Training,
    generator: torch.Generator,
    *,
    stage: str = "training",
    on_epoch: OnEpoch | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
) -> list[Record]:
    """Maximize the mean objective by Adam and return the history, one record an epoch.

    Parameters
    ----------
    objective
        ``(x [B D], rows [B], fraction) -> StepOutput``, or None once it has converged: training ends there.
    stage
        What this training is for; it stands in every record.
    on_epoch
        Called with each epoch's record: progress, logging.
    betas
        Of Adam.

    Raises
    ------
    DivergedError
        When the objective or its gradient is no longer finite.
    """
    trained = list(module.parameters())
    optimizer = torch.optim.Adam(trained, lr=training.rate(0.0), betas=betas, fused=True)
    n_epochs, n_batches = training.n_epochs(len(source)), training.n_batches(len(source))
    tally = _Tally(len(source))
    bookmark = StageState(stage, module, optimizer, generator, objective, tally)
    history = bookmark.history
    started = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    module.train()
    with flush_denormals(), _kept(history):
        for epoch in range(n_epochs if bookmark.finished else len(history), n_epochs):
            tally.start()
            for b, rows in enumerate(shuffled_batches(len(source), training.batch_size, generator)):
                fraction = (epoch + b / n_batches) / n_epochs
                optimizer.param_groups[0]["lr"] = training.rate(fraction)
                step = objective(source[rows], rows, fraction)
                if step is None:
                    break
                optimizer_step(step, optimizer, trained, training.clip_norm)
                tally.add(step, rows)
            if tally.n == 0:  # converged before the epoch's first step
                break
            seconds = time.perf_counter() - started
            record = {"stage": stage, "epoch": epoch + 1, "n_epochs": n_epochs, "seconds": seconds, **tally.means()}
            history.append(record)
            if on_epoch is not None:
                on_epoch(record)
            if step is None:
                break
            bookmark.end_epoch()
    module.eval()
    return bookmark.close()


@contextmanager
def _kept(history: list[Record]) -> Iterator[None]:
    """Hand the epochs so far to whoever catches a divergence."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(error.term, history) from None


def optimizer_step(
    step: StepOutput, optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], clip: float
) -> None:
    """One step up the objective, or an error that names the first term that is not finite."""
    loss = -step.value.mean()
    if not torch.isfinite(loss):
        raise DivergedError(next((k for k, term in step.terms.items() if not torch.isfinite(term).all()), "objective"))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(trained, clip)
    if not torch.isfinite(norm):
        raise DivergedError("gradient")
    optimizer.step()


class _Tally:
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
