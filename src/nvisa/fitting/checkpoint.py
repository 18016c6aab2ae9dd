"""Checkpoints: a fit that was killed goes on after its last whole epoch, bit for bit as if nothing had happened.

    folder/checkpoint.json        format, schema, the fit's settings and data, NumPy's generator, the stages, a digest
    folder/<sha256>.safetensors   networks, optimizer, generator and objective of a stage after its last epoch
    folder/part-<n>/              the same of a restart in a process of its own
    folder/.lock                  who is at it

A fit is a row of stages (calls of :func:`nvisa.fitting.training.maximize`) with deterministic steps between them. To
resume is to replay: what lies between stages is computed again, a finished stage puts its last state back, the
unfinished one goes on. The writer is one of the loop's listeners, so a method does nothing for it, unless its objective
has a state of its own, which it then offers as torch does, by ``state_dict`` and ``load_state_dict``.

Every file is whole or not there (:mod:`nvisa.durable_files`), the manifest comes last; at most every ``EVERY``
seconds. A fit that is done leaves its checkpoint, from which the same call comes back at once: it is removed by
whatever puts the model on the disk, and not before (:meth:`CheckpointWriter.remove`). One fit at a time uses a folder.
"""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.random import RandomState
from torch import Tensor, nn

from nvisa.compatibility import upgrade_fit, upgrade_names, upgrade_tensors
from nvisa.durable_files import LockedError, is_temporary, locked, sweep_inside, write_file
from nvisa.fitting.run import Listener, StageState
from nvisa.fitting.stage_state import restore_state, state_tensors
from nvisa.interruption import Interruption, deferring
from nvisa.json_values import check_digest, encode, parse, with_digest, wrong_fields
from nvisa.nets.rows import Table, as_given, blocks
from nvisa.nets.sparse import SparseRows
from nvisa.persistence import ModelError
from nvisa.reading import read_file

__all__ = ["CheckpointWriter", "data_digest", "fingerprint", "open_checkpoint", "progress", "remove_checkpoint"]

MANIFEST, LOCK = "checkpoint.json", ".lock"
FORMAT, SCHEMA = "nvisa checkpoint", 1
KINDS: dict[str, type | tuple[type, ...]] = {"run": dict, "rng": dict, "stages": list}
SHA256 = re.compile(r"[0-9a-f]{64}")
STATE = re.compile(r"[0-9a-f]{64}\.safetensors(\.part)?")  # whole, or in part as the version before left it
PART = re.compile(r"part-\d+")
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
        self.interruption = Interruption()

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
            except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
                raise ModelError(
                    f"{self.folder}: expected the state of {state.name}, got another ({error}). {START_AGAIN}"
                ) from error
        state.history, state.finished = saved.history, saved.finished  # one list: what the loop appends is saved
        self.interruption.can_wait = True

    def end_epoch(self, state: StageState) -> None:
        """Write, if it is time to, or if the fit was told to end."""
        if self.is_due or self.interruption.kind is not None:
            self.stages[self.n_begun - 1].tensors = state_tensors(state)
            self.write()
        self.interruption.due()

    def end_stage(self, state: StageState) -> None:
        """Keep the last state, unless the stage was at its end already."""
        self.interruption.can_wait = False
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
                sha256 = hashlib.sha256(payload).hexdigest()
                write_file(self.folder / f"{sha256}.safetensors", payload)
                stage.sha256, stage.tensors = sha256, None
        _write_manifest(self.folder, self.run, self.first_state, [stage for stage in self.stages if stage.sha256])
        _remove_states(self.folder, keep={f"{stage.sha256}.safetensors" for stage in self.stages})
        self.written = time.monotonic()

    def read(self, stage: SavedStage) -> dict[str, Tensor]:
        """The state that was written of a stage."""
        if stage.tensors is not None:
            return stage.tensors
        path = self.folder / f"{stage.sha256}.safetensors"
        content = read_file(path) if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != stage.sha256:
            raise ModelError(f"{path}: expected what the checkpoint wrote, got a changed file or none. {START_AGAIN}")
        try:
            tensors = safetensors.torch.load(content)
        except Exception as error:  # safetensors has one class of error, torch others for unknown types
            raise ModelError(f"{path}: expected safetensors, got something else ({error}). {START_AGAIN}") from error
        return upgrade_tensors(tensors, self.run.get("class", ""))

    def remove(self) -> None:
        """Remove the checkpoint, now that the fit's result is safe elsewhere; not if another fit has taken it up."""
        with suppress(OSError, ModelError):
            if _manifest(self.folder)["run"] != self.run:
                return
        remove_checkpoint(self.folder)

    def child(self, number: int) -> tuple[Path, Record]:
        """Folder and run of a part of this fit that has a process of its own, for :func:`open_checkpoint`."""
        return self.folder / f"part-{number}", self.run


# ---- opening ---------------------------------------------------------------------------------------------------------


@contextmanager
def open_checkpoint(
    path: str | Path | None, run: Record, rng: RandomState, *, wait: bool = False
) -> Iterator[CheckpointWriter | None]:
    """A writer for the fit inside, in the folder ``path``; None without a path.

    Parameters
    ----------
    path
        A new path, an empty folder, or one that holds a checkpoint of the same fit, which then goes on.
    run
        The fit's settings and data as JSON: what a checkpoint must agree with.
    rng
        NumPy's generator of the fit.
    wait
        For another process that is at it; else it is refused.

    Raises
    ------
    nvisa.ModelError
        If the folder holds something else, or a checkpoint of other settings or data, or another fit is at it.
    """
    if path is None:
        yield None
        return
    folder = Path(path).expanduser().resolve()
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, wait=wait))
        except LockedError as error:
            raise ModelError(
                f"{folder}: expected a checkpoint that no other fit is at, got one in use by {error.holder}. "
                "Wait for it, or name another folder."
            ) from error
        writer = _open(folder, run, rng)
        writer.interruption = stack.enter_context(deferring())
        yield writer
        writer.write()


def _check_folder(folder: Path) -> None:
    """Raise a ModelError for a folder that holds no checkpoint, not even what a kill left of one, but other things."""
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    if not folder.is_dir() or not all(_is_ours(entry) for entry in folder.iterdir()):
        raise ModelError(f"{folder}: expected a new path, an empty folder or a checkpoint, got something else.")


def _is_ours(entry: Path) -> bool:
    name = entry.name
    if name in (LOCK, MANIFEST, f"{MANIFEST}.part") or STATE.fullmatch(name) or PART.fullmatch(name):
        return True
    return is_temporary(name)


def _open(folder: Path, run: Record, rng: RandomState) -> CheckpointWriter:
    """The writer of what the folder holds, or of a new one there."""
    run = json.loads(json.dumps(run))
    if (folder / MANIFEST).exists():
        return _resume(folder, run, rng)
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
        rng.set_state(_generator_state(manifest["rng"]))
        stages = [_stage(upgrade_names(stage)) for stage in manifest["stages"]]
    sweep_inside(folder)
    writer = CheckpointWriter(folder, run, rng)
    writer.stages = stages
    return writer


def _generator_state(state: Record) -> Record:
    """The state of NumPy's generator, which takes any number for its place in the key, and reads there."""
    inner = state["state"]
    if state["bit_generator"] == "MT19937" and not (len(inner["key"]) == 624 and 0 <= inner["pos"] <= 624):
        raise ValueError("expected the state of a generator")
    return state


def _stage(saved: Record) -> SavedStage:
    """A stage as the manifest lists it."""
    if wrong := wrong_fields(saved, {"name": str, "history": list, "finished": bool, "sha256": str}):
        raise ValueError(f"expected a stage with its fields, got one damaged at {', '.join(wrong)}")
    if not SHA256.fullmatch(saved["sha256"]):
        raise ValueError("expected a digest of its state")
    for number, record in enumerate(saved["history"], 1):
        lacking = wrong_fields(record, {"stage": str, "epoch": int, "n_epochs": int, "seconds": (int, float)})
        if lacking or record["epoch"] != number:
            raise ValueError(f"expected the record of epoch {number}")
    return SavedStage(**saved)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What goes wrong inside is the manifest's damage, and said so."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{folder}: expected {MANIFEST}, got something unreadable ({error}). {START_AGAIN}") from error


def _manifest(folder: Path) -> Record:
    with _readable(folder):
        manifest = parse(read_file(folder / MANIFEST), finite=False)
        known = (manifest["format"], manifest["schema"]) == (FORMAT, SCHEMA)
        missing = wrong_fields(manifest, KINDS)
    if not known:
        raise ModelError(f"{folder}: expected {FORMAT}, schema {SCHEMA}, got another. {START_AGAIN}")
    if missing:
        raise ModelError(f"{folder}: expected a whole {MANIFEST}, got one damaged at {missing[0]}. {START_AGAIN}")
    with _readable(folder):
        check_digest(manifest)
    return manifest


def _write_manifest(folder: Path, run: Record, rng: Record, stages: list[SavedStage]) -> None:
    listed = [{"name": s.name, "finished": s.finished, "sha256": s.sha256, "history": s.history} for s in stages]
    manifest = with_digest({"format": FORMAT, "schema": SCHEMA, "run": run, "rng": rng, "stages": listed})
    write_file(folder / MANIFEST, json.dumps(manifest, default=np.ndarray.tolist).encode())


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, and its folder if nothing else is in it; a kill on the way leaves one that can be used.

    Not if another fit is at it; and what cannot be removed is warned of.
    """
    if not (folder / MANIFEST).exists():
        return
    try:
        with locked(folder / LOCK):
            manifest = _manifest(folder)
            _write_manifest(folder, manifest["run"], manifest["rng"], [])  # before its states go
            _remove_states(folder, keep=set())
            for part in folder.iterdir():
                if PART.fullmatch(part.name):
                    remove_checkpoint(part)
            (folder / MANIFEST).unlink()
    except (LockedError, ModelError):
        return
    except OSError as error:
        warnings.warn(f"{folder}: this checkpoint is not needed any more, and cannot be removed: {error}", stacklevel=2)
    with suppress(OSError):  # the user's own files are in it
        folder.rmdir()


def _remove_states(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep and (STATE.fullmatch(path.name) or path.name == f"{MANIFEST}.part"):
            path.unlink(missing_ok=True)
    sweep_inside(folder)


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
    module = value if isinstance(value, nn.Module) else getattr(value, "module_", None)
    if isinstance(module, nn.Module):
        return safetensors.torch.save({name: t.cpu().contiguous() for name, t in module.state_dict().items()})
    if hasattr(value, "predict_proba"):
        return np.ascontiguousarray(value.predict_proba(as_given(X))).tobytes()
    raise ModelError(
        f"checkpoint: expected settings that tell one fit from another, got {value!r}. Try a name or a fitted "
        "clusterer, or fit without checkpoint."
    )
