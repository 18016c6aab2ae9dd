"""Checkpoints: a fit that was killed goes on after its last whole epoch, bit for bit as if nothing had happened.

    folder/checkpoint.json        format, schema, the fit's settings and data, NumPy's generator, the stages
    folder/<sha256>.safetensors   networks, optimizer, generator and objective of a stage after its last epoch

A fit is a row of stages (calls of :func:`nvisa.fitting.training.maximize`) with deterministic steps between them. To
resume is to replay: what lies between stages is computed again, a finished stage puts its last state back, the
unfinished one goes on. So a method does nothing for it, unless its objective has a state of its own, which it then
offers as torch does, by ``state_dict`` and ``load_state_dict``.

Every file is written beside its name and renamed, the manifest last; at most every ``EVERY`` seconds.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor, nn

from nvisa.nets.rows import blocks
from nvisa.persistence import ModelError, encode, write_file

__all__ = ["StageState", "Stage", "branch", "checkpointing", "data_digest", "fingerprint", "where"]

MANIFEST = "checkpoint.json"
FORMAT, SCHEMA = "nvisa checkpoint", 1
KINDS = {"run": dict, "rng": dict, "stages": list}
OURS = re.compile(r"[0-9a-f]{64}\.safetensors")  # a state, whole or in part: other files of the folder are the user's
EVERY = 30.0  # seconds between two writings: what a kill can cost, and nothing beside what they cost

Record = dict[str, Any]


@dataclass
class Stage:
    """One call of ``maximize``: a record an epoch, and the file of its state; ``tensors`` until that is written."""

    name: str
    history: list[Record] = field(default_factory=list)
    finished: bool = False
    sha256: str = ""
    tensors: dict[str, Tensor] | None = None


class CheckpointWriter:
    """The stages of one fit, in the order in which they run, and the folder that keeps them."""

    def __init__(self, folder: Path, run: Record, rng: RandomState) -> None:
        self.folder, self.run, self.rng = folder, run, rng
        self.start = rng.get_state(legacy=False)
        self.stages: list[Stage] = []
        self.entered = 0
        self.written = time.monotonic()

    def enter(self, name: str) -> Stage:
        """The next stage: as it was left, or new."""
        if self.entered == len(self.stages):
            self.stages.append(Stage(name))
        stage = self.stages[self.entered]
        if stage.name != name:
            raise ModelError(f"{self.folder}: expected a checkpoint of {name}, got {stage.name}. {START_AGAIN}")
        self.entered += 1
        return stage

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self.written >= EVERY

    def write(self) -> None:
        """Write what is new, then the manifest, then remove what it no longer names."""
        for stage in self.stages:
            if stage.tensors is not None:
                payload = safetensors.torch.save(stage.tensors)
                stage.sha256, stage.tensors = hashlib.sha256(payload).hexdigest(), None
                _replace(self.folder / f"{stage.sha256}.safetensors", payload)
        stages = [{"name": s.name, "finished": s.finished, "sha256": s.sha256, "history": s.history}
                  for s in self.stages if s.sha256]  # fmt: skip
        manifest = {"format": FORMAT, "schema": SCHEMA, "run": self.run, "rng": self.start, "stages": stages}
        _replace(self.folder / MANIFEST, json.dumps(manifest, default=np.ndarray.tolist).encode())
        self._remove(keep={f"{s.sha256}.safetensors" for s in self.stages})
        self.written = time.monotonic()

    def read(self, stage: Stage) -> dict[str, Tensor]:
        """The state that was written of a stage."""
        if stage.tensors is not None:
            return stage.tensors
        path = self.folder / f"{stage.sha256}.safetensors"
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != stage.sha256:
            raise ModelError(
                f"{path}: expected what the checkpoint wrote, got a changed or missing file. {START_AGAIN}"
            )
        return safetensors.torch.load(content)

    def _remove(self, keep: set[str]) -> None:
        for path in self.folder.glob("*.safetensors*"):
            if path.name not in keep and OURS.match(path.name):
                path.unlink()

    def close(self) -> None:
        """The fit is done: nothing is left to resume."""
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove(keep=set())
        for part in self.folder.glob("part-[0-9]*"):
            shutil.rmtree(part)
        with suppress(OSError):  # the user's own files are in it
            self.folder.rmdir()


START_AGAIN = "Remove the folder to start again, or name another one."
_JOURNAL: ContextVar[CheckpointWriter | None] = ContextVar(
    "journal", default=None
)  # of the fit that runs in this thread


@contextmanager
def checkpointing(
    path: str | Path | None, run: Record, rng: RandomState, *, keep: bool = False
) -> Iterator[RandomState]:
    """Keep a journal of the fit inside, in the folder ``path``; gives the generator that the fit shall use.

    Parameters
    ----------
    path
        A new path, an empty folder, or one that holds a checkpoint of the same fit, which then goes on. The
        files are removed once the fit is done. None keeps no journal.
    run
        The fit's settings and data as JSON: what a checkpoint must agree with.
    rng
        NumPy's generator of the fit; a fit that goes on takes the one it was started with.
    keep
        Leave the files, with every stage: of a :func:`branch`, which the journal that it belongs to removes.

    Raises
    ------
    nvisa.ModelError
        If the folder holds something else, or a checkpoint of other settings or data.
    """
    journal = None if path is None else _open(Path(path).expanduser().resolve(), run, rng)
    token = _JOURNAL.set(journal)
    try:
        yield rng if journal is None else journal.rng
    finally:
        _JOURNAL.reset(token)
    if journal is not None:
        journal.write() if keep else journal.close()


def branch(number: int) -> tuple[Path, Record] | None:
    """Folder and run of a part of the running fit that has a process of its own; None if no journal is kept."""
    journal = _JOURNAL.get()
    return None if journal is None else (journal.folder / f"part-{number}", journal.run)


def _open(folder: Path, run: Record, rng: RandomState) -> CheckpointWriter:
    """The journal that the folder holds, or a new one there."""
    run = json.loads(json.dumps(run))
    if (folder / MANIFEST).exists():
        return _resume(folder, run, rng)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ModelError(f"{folder}: expected a new path, an empty folder or a checkpoint, got something else.")
    folder.mkdir(parents=True, exist_ok=True)
    journal = CheckpointWriter(folder, run, rng)
    journal.write()  # the folder is ours from now on, and one that cannot be written to is said at once
    return journal


def _resume(folder: Path, run: Record, rng: RandomState) -> CheckpointWriter:
    manifest = _manifest(folder)
    if different := _differences(manifest["run"], run):
        raise ModelError(
            f"{folder}: expected a checkpoint of this fit, got one that differs in {', '.join(different)}. "
            f"Give the same settings and data to go on. {START_AGAIN}"
        )
    rng = deepcopy(rng)
    with _readable(folder):
        rng.set_state(manifest["rng"])
        stages = [Stage(**stage) for stage in manifest["stages"]]
    journal = CheckpointWriter(folder, run, rng)
    journal.stages = stages
    return journal


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What goes wrong inside is the manifest's damage, and said so."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}: expected {MANIFEST}, got something unreadable ({error}). {START_AGAIN}") from error


def _manifest(folder: Path) -> Record:
    with _readable(folder):
        manifest = json.loads((folder / MANIFEST).read_bytes())
        known = (manifest["format"], manifest["schema"]) == (FORMAT, SCHEMA)
        missing = [key for key, kind in KINDS.items() if not isinstance(manifest.get(key), kind)]
    if not known:
        raise ModelError(f"{folder}: expected {FORMAT}, schema {SCHEMA}, got another. {START_AGAIN}")
    if missing:
        raise ModelError(f"{folder}: expected a whole {MANIFEST}, got one damaged at {missing[0]}. {START_AGAIN}")
    return manifest


def _differences(before: Record, now: Record) -> list[str]:
    """Names of what differs, one level deep."""
    names = []
    for key in before.keys() | now.keys():
        a, b = before.get(key), now.get(key)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            names += [f"{key}.{name}" for name in a.keys() | b.keys() if a.get(name) != b.get(name)]
        elif a != b:
            names.append(key)
    return sorted(names)


def where(path: str | Path) -> str | None:
    """How far the fit came whose checkpoint this is, in words; None if nothing has been written."""
    folder = Path(path).expanduser()
    if not (folder / MANIFEST).exists() or not (stages := _manifest(folder)["stages"]):
        return None
    return f"{stages[-1]['name']}, epoch {len(stages[-1]['history'])}"


def data_digest(X: NDArray) -> Record:
    """Size and SHA-256 of the rows, read block by block."""
    digest = hashlib.sha256()
    for rows in blocks(X):
        digest.update(np.ascontiguousarray(rows).data)
    return {"shape": list(X.shape), "type": X.dtype.str, "sha256": digest.hexdigest()}


def fingerprint(value: Any, X: NDArray) -> Any:
    """A setting as JSON that two fits of X share only if it does the same to both.

    For what has no form in JSON there is a digest: of a fitted clusterer's networks, of the clusters of X that another
    model gives. A NumPy generator is like no seed: the fit goes on with the numbers that it was started with.

    Raises
    ------
    nvisa.ModelError
        If the setting is of another kind: a checkpoint of the fit could not be told from that of another.
    """
    if isinstance(value, (list, tuple)):
        return [fingerprint(item, X) for item in value]
    notes: dict[str, str] = {}
    encoded = encode(value, "", notes)
    is_whole = not notes or isinstance(value, RandomState)
    return encoded if is_whole else {"$digest": hashlib.sha256(_content(value, X)).hexdigest()}


def _content(value: Any, X: NDArray) -> bytes:
    if isinstance(module := getattr(value, "module_", None), nn.Module):
        return safetensors.torch.save({name: t.cpu().contiguous() for name, t in module.state_dict().items()})
    if hasattr(value, "predict_proba"):
        return np.ascontiguousarray(value.predict_proba(X)).tobytes()
    raise ModelError(
        f"checkpoint: expected settings that tell one fit from another, got {value!r}. Try a name or a fitted "
        "clusterer, or fit without checkpoint."
    )


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    write_file(part, content)
    os.replace(part, path)


# ---- one stage ------------------------------------------------------------------------------------------------


class StageState:
    """Where a stage of the running fit stands; without a journal it only holds the history.

    Parameters
    ----------
    name
        Of the stage.
    module, optimizer, generator, objective, tally
        What changes from epoch to epoch: put back here if the stage was left before, noted at ``end_epoch``.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        objective: Any,
        tally: Any,
    ) -> None:
        self.module, self.optimizer, self.generator = module, optimizer, generator
        self.others = {"objective": objective, "tally": tally}
        self.journal = _JOURNAL.get()
        self.stage = Stage(name) if self.journal is None else self.journal.enter(name)
        if self.journal is not None and self.stage.sha256:
            self._put_back(self.journal.read(self.stage))

    @property
    def history(self) -> list[Record]:
        """The records so far, for the loop to append to."""
        return self.stage.history

    @property
    def finished(self) -> bool:
        """Whether the stage was at its end already."""
        return self.stage.finished

    def end_epoch(self) -> None:
        """A whole epoch is done."""
        if self.journal is not None and self.journal.due:
            self.stage.tensors = self._state()
            self.journal.write()

    def close(self) -> list[Record]:
        """The stage is done; its history."""
        if self.journal is not None and not self.finished:
            self.stage.finished, self.stage.tensors = True, self._state()
            if self.journal.due:
                self.journal.write()
        return list(self.history)

    def _state(self) -> dict[str, Tensor]:
        """Copies of all tensors."""
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        for i, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
        tensors["generator"] = self.generator.get_state()
        for part, other in self.others.items():
            if hasattr(other, "state_dict"):
                tensors |= {f"{part}.{name}": value for name, value in other.state_dict().items()}
        return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}

    def _put_back(self, tensors: dict[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in ("module", "optimizer", "generator", *self.others)}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, _, key = name.partition(".")
            state.setdefault(int(i), {})[key] = value
        self.module.load_state_dict(parts["module"])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.generator.set_state(tensors["generator"])
        for part, other in self.others.items():
            if parts[part]:
                other.load_state_dict(parts[part])
