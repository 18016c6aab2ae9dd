"""Checkpoints: a fit that was killed goes on after its last whole epoch, bit for bit as if nothing had happened.

    folder/checkpoint.json        format, schema, the fit's settings and data, NumPy's generator, the stages
    folder/<sha256>.safetensors   networks, optimizer, generator and objective of a stage after its last epoch

A fit is a row of stages (calls of :func:`nvisa.fitting.training.maximize`) with deterministic steps between them. To
resume is to replay: what lies between stages is computed again, a finished stage puts its last state back, the
unfinished one goes on. The writer is one of the loop's listeners, so a method does nothing for it, unless its objective
has a state of its own, which it then offers as torch does, by ``state_dict`` and ``load_state_dict``.

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
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.random import RandomState
from torch import Tensor, nn

from nvisa.compatibility import upgrade_fit, upgrade_names, upgrade_tensors
from nvisa.fitting.training import Listener, StageState
from nvisa.json_values import encode
from nvisa.nets.rows import Table, as_given, blocks
from nvisa.nets.sparse import SparseRows
from nvisa.persistence import ModelError, write_file

__all__ = ["CheckpointWriter", "data_digest", "fingerprint", "open_checkpoint", "progress"]

MANIFEST = "checkpoint.json"
FORMAT, SCHEMA = "nvisa checkpoint", 1
KINDS = {"run": dict, "rng": dict, "stages": list}
OURS = re.compile(r"[0-9a-f]{64}\.safetensors")  # a state, whole or in part: other files of the folder are the user's
EVERY = 30.0  # seconds between two writings: what a kill can cost, and nothing beside what they cost
START_AGAIN = "Remove the folder to start again, or name another one."

Record = dict[str, Any]


@dataclass
class SavedStage:
    """A stage in the folder: a record an epoch, and the file of its state; ``tensors`` until that is written."""

    name: str
    history: list[Record] = field(default_factory=list)
    finished: bool = False
    sha256: str = ""
    tensors: dict[str, Tensor] | None = None


class CheckpointWriter(Listener):
    """The stages of one fit, in the order in which they run, and the folder that keeps them.

    Attributes
    ----------
    rng
        NumPy's generator of the fit: a fit that goes on takes the one that it was started with.
    """

    def __init__(self, folder: Path, run: Record, rng: RandomState) -> None:
        self.folder, self.run, self.rng = folder, run, rng
        self.first_state = rng.get_state(legacy=False)
        self.stages: list[SavedStage] = []
        self.n_begun = 0
        self.written = time.monotonic()

    # ---- what the training loop calls

    def begin_stage(self, state: StageState) -> None:
        """Find the next stage as it was left, and put its state back; or note a new one."""
        if self.n_begun == len(self.stages):
            self.stages.append(SavedStage(state.name))
        saved = self.stages[self.n_begun]
        if saved.name != state.name:
            raise ModelError(f"{self.folder}: expected a checkpoint of {state.name}, got {saved.name}. {START_AGAIN}")
        self.n_begun += 1
        if saved.sha256:
            tensors = self.read(saved)
            try:
                restore_state(state, tensors)
            except (RuntimeError, KeyError, ValueError, AttributeError) as error:
                raise ModelError(
                    f"{self.folder}: expected the state of {state.name}, got another ({error}). {START_AGAIN}"
                ) from error
        state.history, state.finished = saved.history, saved.finished  # one list: what the loop appends is saved

    def end_epoch(self, state: StageState) -> None:
        """Write, if it is time to."""
        if self.is_due:
            self.stages[self.n_begun - 1].tensors = state_tensors(state)
            self.write()

    def end_stage(self, state: StageState) -> None:
        """Keep the last state, unless the stage was at its end already."""
        saved = self.stages[self.n_begun - 1]
        if not saved.finished:
            saved.finished, saved.tensors = True, state_tensors(state)
            if self.is_due:
                self.write()

    # ---- the folder

    @property
    def is_due(self) -> bool:
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
        manifest = {"format": FORMAT, "schema": SCHEMA, "run": self.run, "rng": self.first_state, "stages": stages}
        _replace(self.folder / MANIFEST, json.dumps(manifest, default=np.ndarray.tolist).encode())
        self._remove(keep={f"{s.sha256}.safetensors" for s in self.stages})
        self.written = time.monotonic()

    def read(self, stage: SavedStage) -> dict[str, Tensor]:
        """The state that was written of a stage."""
        if stage.tensors is not None:
            return stage.tensors
        path = self.folder / f"{stage.sha256}.safetensors"
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != stage.sha256:
            raise ModelError(
                f"{path}: expected what the checkpoint wrote, got a changed or missing file. {START_AGAIN}"
            )
        return upgrade_tensors(safetensors.torch.load(content), self.run.get("class", ""))

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

    def child(self, number: int) -> tuple[Path, Record]:
        """Folder and run of a part of this fit that has a process of its own, for :func:`open_checkpoint`."""
        return self.folder / f"part-{number}", self.run


# ---- opening ---------------------------------------------------------------------------------------------------------


@contextmanager
def open_checkpoint(
    path: str | Path | None, run: Record, rng: RandomState, *, keep: bool = False
) -> Iterator[CheckpointWriter | None]:
    """A writer for the fit inside, in the folder ``path``; None without a path.

    Parameters
    ----------
    path
        A new path, an empty folder, or one that holds a checkpoint of the same fit, which then goes on. The
        files are removed once the fit is done.
    run
        The fit's settings and data as JSON: what a checkpoint must agree with.
    rng
        NumPy's generator of the fit.
    keep
        Leave the files, with every stage: of a :meth:`~CheckpointWriter.child`, which the fit that it belongs to
        removes.

    Raises
    ------
    nvisa.ModelError
        If the folder holds something else, or a checkpoint of other settings or data.
    """
    writer = None if path is None else _open(Path(path).expanduser().resolve(), run, rng)
    yield writer
    if writer is not None:
        writer.write() if keep else writer.close()


def _open(folder: Path, run: Record, rng: RandomState) -> CheckpointWriter:
    """The writer of what the folder holds, or of a new one there."""
    run = json.loads(json.dumps(run))
    if (folder / MANIFEST).exists():
        return _resume(folder, run, rng)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ModelError(f"{folder}: expected a new path, an empty folder or a checkpoint, got something else.")
    folder.mkdir(parents=True, exist_ok=True)
    writer = CheckpointWriter(folder, run, rng)
    writer.write()  # the folder is ours from now on, and one that cannot be written to is said at once
    return writer


def _resume(folder: Path, run: Record, rng: RandomState) -> CheckpointWriter:
    manifest = _manifest(folder)
    with _readable(folder):
        before = upgrade_fit(manifest["run"])
    if different := _differences(before, run):
        raise ModelError(
            f"{folder}: expected a checkpoint of this fit, got one that differs in {', '.join(different)}. "
            f"Give the same settings and data to go on. {START_AGAIN}"
        )
    rng = deepcopy(rng)
    with _readable(folder):
        rng.set_state(manifest["rng"])
        stages = [SavedStage(**upgrade_names(stage)) for stage in manifest["stages"]]
    writer = CheckpointWriter(folder, run, rng)
    writer.stages = stages
    return writer


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What goes wrong inside is the manifest's damage, and said so."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
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


def progress(path: str | Path) -> str | None:
    """How far the fit came whose checkpoint this is, in words; None if nothing has been written."""
    folder = Path(path).expanduser()
    if not (folder / MANIFEST).exists() or not (stages := _manifest(folder)["stages"]):
        return None
    return f"{stages[-1]['name']}, epoch {len(stages[-1]['history'])}"


def data_digest(X: Table) -> Record:
    """Size and SHA-256 of the rows, read block by block."""
    digest = hashlib.sha256()
    for rows in X.contents() if isinstance(X, SparseRows) else blocks(X):
        digest.update(np.ascontiguousarray(rows).data)
    return {"shape": list(X.shape), "type": X.dtype.str, "sha256": digest.hexdigest()}


def fingerprint(value: Any, X: Table) -> Any:
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
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: fingerprint(getattr(value, f.name), X) for f in fields(value)}
        return {"$type": type(value).__name__, **parts}
    notes: dict[str, str] = {}
    encoded = encode(value, "", notes)
    is_whole = not notes or isinstance(value, RandomState)
    return encoded if is_whole else {"$digest": hashlib.sha256(_content(value, X)).hexdigest()}


def _content(value: Any, X: Table) -> bytes:
    if isinstance(module := getattr(value, "module_", None), nn.Module):
        return safetensors.torch.save({name: t.cpu().contiguous() for name, t in module.state_dict().items()})
    if hasattr(value, "predict_proba"):
        return np.ascontiguousarray(value.predict_proba(as_given(X))).tobytes()
    raise ModelError(
        f"checkpoint: expected settings that tell one fit from another, got {value!r}. Try a name or a fitted "
        "clusterer, or fit without checkpoint."
    )


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    write_file(part, content)
    os.replace(part, path)


# ---- the state of a stage as tensors ---------------------------------------------------------------------------------


def state_tensors(state: StageState) -> dict[str, Tensor]:
    """Copies of all tensors."""
    tensors = {f"module.{name}": value for name, value in state.module.state_dict().items()}
    for i, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
    tensors["generator"] = state.generator.get_state()
    for part, other in _others(state).items():
        if hasattr(other, "state_dict"):
            tensors |= {f"{part}.{name}": value for name, value in other.state_dict().items()}
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def restore_state(state: StageState, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`state_tensors` has copied."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in ("module", "optimizer", "generator", *_others(state))}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        i, _, key = name.partition(".")
        moments.setdefault(int(i), {})[key] = value
    state.module.load_state_dict(parts["module"])
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.generator.set_state(tensors["generator"])
    for part, other in _others(state).items():
        if parts[part]:
            other.load_state_dict(parts[part])


def _others(state: StageState) -> dict[str, Any]:
    return {"objective": state.objective, "tally": state.tally}
