"""Data-parallel training: several processes, *ranks*, make a part of every batch each. torch.distributed carries it.

    grad 1/B sum_b L_b  =  sum over ranks r of  grad 1/B sum_{b in part r} L_b

Rank 0 fits as one process does: units, start, checkpoint, progress and report are its own. At a stage of training
(:func:`nvisa.fitting.training.maximize`), and to label all rows, it sends the others what they need, and they go
along; at the end of each epoch they take its networks, and wait whether it goes on. So a checkpoint is that of one
process, and any number of ranks can go on from it. A stage on fewer rows than the fit's, a sample, is rank 0's alone.

All draw the same batch from the same generator, and rank r takes its part, which is computed as the part of the whole
that it is (:mod:`nvisa.fitting.whole_batch`): the steps are those of one process, up to rounding. Gradients, terms and
q(y|x) then travel in one sum.

Ranks trust each other: what they send is unpickled. Start them on machines of your own only.
"""

import io
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, distributed

from nvisa.fitting.config import config
from nvisa.fitting.run import DivergedError, Listener, Listeners, StageState
from nvisa.fitting.training import RANKS, StepOutput, Training, ascend, check_finite, maximize
from nvisa.fitting.whole_batch import WholeBatch
from nvisa.maths.products import factors_in, training_factors
from nvisa.nets.layers import torch_device
from nvisa.nets.rows import Source, Table, label, part
from nvisa.settings import SettingError

try:
    import cloudpickle
except ImportError:  # joblib before 1.6 has its own
    from joblib.externals import cloudpickle

__all__ = ["RankError", "Ranks", "fit_on_ranks", "in_ranks"]

PATIENCE = timedelta(
    days=7
)  # that others wait for rank 0: its start may take long; a rank that dies is noticed at once
SOURCE: ContextVar[Source] = ContextVar("source")  # the rows of a rank: they are not sent


class RankError(ConnectionError):
    """A rank has ended, or rank 0 has told the others to.

    Examples
    --------
    >>> issubclass(RankError, OSError)
    True
    """


def in_ranks() -> bool:
    """Whether torchrun, or another launcher that sets WORLD_SIZE, has started this process beside others.

    Examples
    --------
    >>> in_ranks()
    False
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def fit_on_ranks(clusterer: Any, X: Any, *, checkpoint: Any = None) -> Any:
    """``clusterer.fit(X, checkpoint=checkpoint)`` by all ranks: the fitted clusterer on rank 0, None on the others.

    Every rank calls this with the same settings and the same X, best a memory map, of which it reads its batches' part.

    Raises
    ------
    nvisa.SettingError
        For what cannot be shared: another method than NVISA, or several restarts.
    RankError
        If a rank has ended.
    """
    _check(clusterer)
    with _joined() as ranks:
        if ranks.rank:
            return ranks.follow(clusterer, X)
        with ranks.leading(X.shape[0] if hasattr(X, "shape") else len(X)):
            return clusterer.fit(X, checkpoint=checkpoint)


def _check(clusterer: Any) -> None:
    if not getattr(clusterer, "DATA_PARALLEL", False):
        raise SettingError("clusterer", "NVISA on several ranks", type(clusterer).__name__)
    if clusterer.n_restarts != 1:
        raise SettingError("n_restarts", "1 on several ranks", clusterer.n_restarts, "Try joblib for restarts.")


@contextmanager
def _joined() -> Iterator["Ranks"]:
    """The ranks that a launcher has started, by gloo, and nccl between GPUs."""
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


@contextmanager
def _named(others: str) -> Iterator[None]:
    """What torch says of a connection, as a RankError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not any(name in str(error) for name in ("gloo", "NCCL")):
            raise  # not of a connection
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RankError(
            f"expected an answer of {others}, got none: it has ended, and says why ({first}). The same command goes on "
            "from its checkpoint, with as many ranks as you like."
        ) from error


class Ranks:
    """One of ``size`` processes that train together, the one with this number."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.n_rows = 0
        self.others_wait = True  # for a message of rank 0

    # ---- messages: of rank 0, to all others

    def tell(self, kind: str, content: Any = None) -> None:
        """Send a message; the others wait for one."""
        payload = np.frombuffer(_pickled((kind, content)), np.uint8)
        with _named("every rank"):
            distributed.broadcast(torch.tensor([len(payload)]), 0)
            distributed.broadcast(torch.from_numpy(payload.copy()), 0)

    def hear(self, source: Source) -> tuple[str, Any]:
        """The next message."""
        with _named("rank 0"):
            distributed.broadcast(length := torch.zeros(1, dtype=torch.int64), 0)
            distributed.broadcast(payload := torch.empty(int(length), dtype=torch.uint8), 0)
        token = SOURCE.set(source)
        try:
            return _unpickled(payload.numpy().tobytes(), source.device)
        finally:
            SOURCE.reset(token)

    @contextmanager
    def leading(self, n_rows: int) -> Iterator[None]:
        """Rank 0's fit: stages on so many rows are shared, and the others hear of its end."""
        self.n_rows, token = n_rows, RANKS.set(self)
        reason = "rank 0 has ended"
        try:
            yield
            reason = ""
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            self.others_wait = self.others_wait or isinstance(error, DivergedError)  # it came to all of them
            raise
        finally:
            RANKS.reset(token)
            if self.others_wait:
                self.tell("end", reason)

    def follow(self, clusterer: Any, X: Any) -> None:
        """Go along with rank 0 until it ends."""
        own = clone(clusterer)
        rows, _ = own._learn_input(X, own._scaling, RandomState(0), at_least=1)
        source = Source(rows, torch_device(own._training.device), vars(own).get("origin_"))
        token = RANKS.set(self)
        try:
            with _signals_ignored():
                while (heard := self.hear(source))[0] != "end":
                    self._go_along(*heard, source)
        finally:
            RANKS.reset(token)
        if heard[1]:
            raise RankError(f"rank 0 has ended: {heard[1]}")

    def _go_along(self, kind: str, content: Any, source: Source) -> None:
        if kind == "label":
            self._labels(content, source.X)
            return
        own, precision, kept = content["call"], content["precision"], content["kept"]
        with config(precision=precision), suppress(DivergedError):  # rank 0 has it too, and says what follows
            maximize(source=source, listeners=[_Follower(self, source, kept)], **own)

    # ---- what training asks for

    def stage(self, n_rows: int, training: Training, betas: tuple[float, float]) -> "Ranks | None":
        """Who trains a stage on so many rows: all, or None, which is rank 0 alone."""
        if n_rows != self.n_rows and self.rank == 0:
            return None
        self.how = {"training": training, "betas": betas}
        return self

    def around(self, listeners: Listeners) -> Sequence[Listener]:
        """The listeners of a stage, and what keeps the others in step with them."""
        return listeners if self.rank else [_Leader(self, listeners)]

    def parts(self, n_rows: int) -> list[int]:
        """Where each rank's part of a batch begins, and the end; at even rows, for some take every second one."""
        if n_rows < 2 * self.size:
            raise SettingError(
                "training.batch_size", f"at least {2 * self.size} rows in each batch of {self.size} ranks", n_rows
            )
        return [*(2 * round(r * n_rows / (2 * self.size)) for r in range(self.size)), n_rows]

    def step(
        self, objective: Callable[..., StepOutput | None], source: Source, rows: NDArray[np.integer], fraction: float,
        optimizer: torch.optim.Optimizer, clip: float,
    ) -> StepOutput:  # fmt: skip
        """One step on a batch of which this rank computes its part; what comes back is of the whole batch."""
        bounds = self.parts(len(rows))
        own = rows[bounds[self.rank] : bounds[self.rank + 1]]
        trained = optimizer.param_groups[0]["params"]
        with _named("every rank"):
            with factors_in(training_factors(source.device)), WholeBatch(self.rank, bounds):
                step = objective(source[own], own, fraction)
            if step is None:
                raise NotImplementedError("an objective that ends training by itself, on several ranks")
            value = step.value.sum() / len(rows) if step.value.dim() else step.value / self.size
            optimizer.zero_grad(set_to_none=True)
            (-value).backward()
            whole = self._summed(step, value.detach(), trained, bounds)
        check_finite(whole.value, whole.terms)
        ascend(optimizer, trained, clip)
        return whole

    def _summed(self, step: StepOutput, value: Tensor, trained: list[Tensor], bounds: list[int]) -> StepOutput:
        """The gradients, and the output of the whole batch, by one sum over the ranks."""
        gradients = [p.grad for p in trained if p.grad is not None]
        terms = [t.detach().to(value) for t in step.terms.values()]
        sums = [torch.stack([t.sum() for t in terms]), value.new_tensor([t.numel() for t in terms]), value[None]]
        log_q = step.log_q_y
        slots = value.new_zeros(0) if log_q is None else value.new_zeros(bounds[-1], log_q.shape[1])
        if log_q is not None:
            slots[bounds[self.rank] : bounds[self.rank + 1]] = log_q.detach()
        pieces = [*gradients, *sums, slots]
        flat = torch.cat([piece.flatten() for piece in pieces])
        distributed.all_reduce(flat)
        found = [f.view_as(p) for f, p in zip(flat.split([p.numel() for p in pieces]), pieces, strict=True)]
        for gradient, summed in zip(gradients, found, strict=False):
            gradient.copy_(summed)
        total, count, value, slots = found[-4], found[-3], found[-2], found[-1]
        means = dict(zip(step.terms, total / count, strict=True))
        return StepOutput(value[0], means, None if log_q is None else slots, step.made)

    # ---- labels

    def label(self, module: Any, X: Table) -> NDArray[np.int64]:
        """:func:`nvisa.nets.rows.label`, a part of the rows on each rank; rank 0 asks for it."""
        self.others_wait = False
        self.tell("label", module)
        labels = self._labels(module, X)
        self.others_wait = True
        return labels

    def _labels(self, module: Any, X: Table) -> NDArray[np.int64]:
        bounds = [r * len(X) // self.size for r in range(self.size + 1)]
        start, stop = bounds[self.rank], bounds[self.rank + 1]
        labels = torch.zeros(len(X), dtype=torch.int64)
        if stop > start:
            own = X[start:stop] if isinstance(X, np.ndarray) else part(X, np.arange(start, stop))
            labels[start:stop] = torch.from_numpy(label(module, own))
        with _named("every rank"):
            distributed.all_reduce(labels)
        return labels.numpy()


# ---- in step with rank 0 ---------------------------------------------------------------------------------------------


class _Leader(Listener):
    """Rank 0's listeners, and the others in step with them: they get a stage, and hear after each epoch."""

    def __init__(self, ranks: Ranks, own: Listeners) -> None:
        self.ranks, self.own = ranks, own

    def begin_stage(self, state: StageState) -> None:
        """Send all of it, once a checkpoint has put it back to where it was."""
        for listener in self.own:
            listener.begin_stage(state)
        ranks = self.ranks
        call = {"objective": state.objective, "module": state.module, "generator": state.generator, "stage": state.name}
        kept = {"optimizer": state.optimizer.state_dict(), "labels": state.tally.labels}
        kept |= {"history": state.history, "finished": state.finished}
        factors = str(training_factors(next(state.module.parameters()).device)).removeprefix("torch.")
        ranks.tell("stage", {"call": call | ranks.how, "precision": factors, "kept": kept})
        ranks.others_wait = state.finished

    def end_epoch(self, state: StageState) -> bool:
        """Whether somebody has seen enough; the others hear it, and get these networks."""
        self.ranks.others_wait = True  # if a listener ends the fit, they can be told
        enough = any([listener.end_epoch(state) for listener in self.own])
        self.ranks.tell("go", enough)
        self.ranks.others_wait = False
        _send(state.module)
        return enough

    def end_stage(self, state: StageState) -> None:
        """They wait for whatever comes next."""
        self.ranks.others_wait = True
        for listener in self.own:
            listener.end_stage(state)


class _Follower(Listener):
    """Puts a stage to where rank 0 has it, and waits for it after each epoch."""

    def __init__(self, ranks: Ranks, source: Source, kept: dict[str, Any]) -> None:
        self.ranks, self.source, self.kept = ranks, source, kept

    def begin_stage(self, state: StageState) -> None:
        """Take over what was sent."""
        state.optimizer.load_state_dict(self.kept["optimizer"])
        state.tally.labels = self.kept["labels"]
        state.history, state.finished = self.kept["history"], self.kept["finished"]

    def end_epoch(self, state: StageState) -> bool:
        """Wait; what is no "go" is the end."""
        kind, content = self.ranks.hear(self.source)
        if kind != "go":
            raise RankError(f"rank 0 has ended: {content}")
        _send(state.module)
        return content


def _send(module: torch.nn.Module) -> None:
    """Give every rank the networks of rank 0: processors of two kinds round differently."""
    with _named("every rank"):
        for value in module.state_dict().values():
            distributed.broadcast(value, 0)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ctrl-C and SIGTERM reach every rank: rank 0 ends the epoch, keeps the state, and tells the others."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# ---- what is sent ----------------------------------------------------------------------------------------------------


class _Pickler(cloudpickle.Pickler):
    """Objectives are closures, which pickle cannot; and the rows stay where they are."""

    def reducer_override(self, value: Any) -> Any:
        """A rank's own rows in place of rank 0's."""
        return (_own_rows, ()) if isinstance(value, Source) else super().reducer_override(value)


def _own_rows() -> Source:
    return SOURCE.get()


def _pickled(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, pickle_module=SimpleNamespace(Pickler=_Pickler, __name__="pickle"))
    return file.getvalue()


def _unpickled(content: bytes, device: torch.device) -> Any:
    """On this rank's device what was on rank 0's."""

    def moved(storage: Any, place: str) -> Any:
        return storage if place == "cpu" else storage.to(device)

    return torch.load(io.BytesIO(content), moved, pickle, weights_only=False)
