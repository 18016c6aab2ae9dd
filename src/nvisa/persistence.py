"""The model directory: arrays in safetensors, everything else in a JSON manifest. No pickle, no code.

    model/model.safetensors   "module.*": the networks' state; "fitted.*": labels_ and other arrays
    model/manifest.json       format, schema, class, params, fitted, omitted, extra, versions, sha256 of the arrays,
                              digest of all the rest

In ``params`` a settings object (a frozen dataclass of nvisa's) is ``{"$type": name, ...fields}`` and a float
that is not finite ``{"$float": "inf"}``; it is rebuilt from a closed table of classes that the reader
passes in, never by import path. In ``fitted``, null is a number that is not finite.
"""

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from nvisa.compatibility import upgrade_manifest
from nvisa.durable_files import replacing_folder, sweep
from nvisa.json_values import Notes, check_digest, encode, parse, plain, revive, with_digest, wrong_fields
from nvisa.reading import read_file

__all__ = [
    "ModelError",
    "check_state",
    "check_target",
    "decode",
    "encode",
    "is_model",
    "plain",
    "read",
    "read_manifest",
    "restore",
    "save",
    "warn_of_versions",
]

ARRAYS, MANIFEST = "model.safetensors", "manifest.json"
FORMAT, SCHEMA = "nvisa model", 2
LONGEST_NAME = 255  # bytes, on every file system in use
PACKAGES = ("nvisa", "torch", "numpy", "scikit-learn", "safetensors")
MOST_TRIES = 20  # readings of a model that others keep replacing
AGAIN = "Copy the model again, or train it again."
KEYS: dict[str, type | tuple[type, ...]] = {
    "schema": int, "class": str, "params": dict, "fitted": dict, "omitted": dict, "extra": dict, "sha256": str,
}  # fmt: skip

FITTED: dict[str, type | tuple[type, ...]] = {"n_features_in_": int, "n_iter_": int, "history_": list}
FOUND: dict[str, type | tuple[type, ...]] = {  # by some methods
    "precision_": str, "stop_reason_": str, "converged_": bool, "diagnosis_": dict, "restarts_": list,
    "neighbor_information_": (int, float), "feature_names_in_": np.ndarray, "n_clusters_": int, "n_axes_": int,
    "fills_gaps_": bool, "categories_": dict, "origin_": np.ndarray, "temperature_": (int, float), "edits_": list,
    "reject_quantiles_": dict, "std_floor_x_": (int, float), "std_floor_z_": (int, float),
}  # fmt: skip
EPOCH: dict[str, type | tuple[type, ...]] = {"stage": str, "epoch": int, "n_epochs": int, "seconds": (int, float)}

Manifest = dict[str, Any]


class ModelError(ValueError):
    """A model directory that cannot be read, or a place where none can be written.

    Examples
    --------
    >>> import nvisa
    >>> nvisa.load("no-such-folder")
    Traceback (most recent call last):
        ...
    nvisa.persistence.ModelError: ...
    """


# ---- settings -------------------------------------------------------------------------------------------------


def decode(value: Any, settings: Mapping[str, type]) -> Any:
    """The setting that `encode` wrote; sequences come back as tuples.

    Parameters
    ----------
    value
        Parsed JSON.
    settings
        Every class that ``$type`` may name.

    Raises
    ------
    ModelError
        On an unknown type or unknown fields.
    """
    if isinstance(value, list):
        return tuple(decode(item, settings) for item in value)
    if not isinstance(value, dict):
        return value
    if value.get("$float") in ("inf", "-inf", "nan"):
        return float(value["$float"])
    if isinstance(value.get("$array"), list):
        return np.array(decode(value["$array"], settings))
    name = value.get("$type")
    if not isinstance(name, str) or name not in settings:
        raise ModelError(f"expected settings among {', '.join(sorted(settings))}, got {name!r}. Upgrade nvisa?")
    parts = {key: decode(item, settings) for key, item in value.items() if key != "$type"}
    try:
        return settings[name](**parts)
    except (TypeError, ValueError) as error:
        raise ModelError(f"expected the settings of {name}, got others ({error}).") from error


# ---- what fit has found ---------------------------------------------------------------------------------------


def _fitted(clusterer: Any, notes: Notes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(arrays, everything else) among the attributes whose name ends with an underscore."""
    arrays: dict[str, Tensor] = {}
    others: dict[str, Any] = {}
    for name, value in vars(clusterer).items():
        if not _is_fitted_name(name):
            continue
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            arrays[f"fitted.{name}"] = torch.from_numpy(np.array(value))
        elif isinstance(value, np.ndarray):
            others[name] = {"$strings": [str(item) for item in value.ravel()]}
        else:
            others[name] = plain(value, name, notes)
    return arrays, others


def _is_fitted_name(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_") and name != "module_"


# ---- writing --------------------------------------------------------------------------------------------------


def save(clusterer: Any, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a fitted clusterer's model directory, all of it or nothing.

    It is written beside ``path`` and takes that name once it is on the disk. A model that is there already is replaced
    in the same moment; other files in its folder stay.

    Parameters
    ----------
    clusterer
        Anything with ``get_params``, a ``module_`` and fitted attributes.
    path
        A new path, an empty folder, or a model directory.
    extra
        What the caller knows besides: source of the data, its digest, the shape of one image.

    Raises
    ------
    ModelError
        If ``path`` is something else.
    OSError
        If the disk is full, for example; what was at ``path`` is there as before.

    Warns
    -----
    UserWarning
        Of what the manifest cannot hold; and if the model is there, and what it replaced cannot be removed.
    """
    target, notes = check_target(path), Notes()
    params = {name: encode(value, name, notes) for name, value in clusterer.get_params(deep=False).items()}
    arrays, others = _fitted(clusterer, notes)
    state = {f"module.{name}": value.detach().cpu() for name, value in clusterer.module_.state_dict().items()}
    payload = safetensors.torch.save({name: value.contiguous() for name, value in (state | arrays).items()})
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "class": type(clusterer).__name__,
        "params": params,
        "fitted": others,
        "extra": plain(dict(extra or {}), "extra", notes),
        "omitted": notes,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    for where, note in notes.items():
        if not where.startswith("network."):  # a module of the user's, which load asks for
            warnings.warn(f"{path}: {where} is a {note}; the loaded model will have None there.", stacklevel=3)
    content = json.dumps(with_digest(manifest), indent=1, allow_nan=False).encode()
    with replacing_folder(target, (ARRAYS, MANIFEST)) as folder:
        (folder / ARRAYS).write_bytes(payload)
        (folder / MANIFEST).write_bytes(content)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_model(path: Path) -> bool:
    """Whether ``path`` is a folder whose manifest is nvisa's."""
    try:
        return parse(read_file(path / MANIFEST))["format"] == FORMAT
    except (OSError, ValueError, TypeError, LookupError):
        return False


def check_target(path: str | Path) -> Path:
    """``path`` resolved, if a model may be written there.

    Raises
    ------
    ModelError
        If it is a file, a folder with anything else than a model, or in a folder that is read-only.
    """
    target = Path(path).expanduser().resolve()
    if len(os.fsencode(target.name)) > LONGEST_NAME:
        raise ModelError(f"{path}: expected a name of at most {LONGEST_NAME} bytes, got a longer one. Shorten it.")
    if target.exists() and not (target.is_dir() and (is_model(target) or not any(target.iterdir()))):
        raise ModelError(
            f"{path}: expected a new path, an empty folder or a model directory to replace, got "
            f"{'a folder with other files' if target.is_dir() else 'a file'}. Choose another path."
        )
    if target.is_mount():
        raise ModelError(f"{path}: expected a folder that can be replaced, got a mount point. Try one inside it.")
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    for folder in {existing, target.parent if target.exists() else existing}:
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise ModelError(f"{path}: expected a folder that can be written to, got {folder}. Choose another path.")
    return target


# ---- reading --------------------------------------------------------------------------------------------------


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a model directory, checked for its format, its schema and its keys.

    Raises
    ------
    ModelError
        If it is missing, damaged, or of a schema that this version does not know.
    """
    content = _content(Path(path).expanduser(), MANIFEST)
    try:
        manifest = parse(content)
    except ValueError as error:
        raise ModelError(f"{path}: expected {MANIFEST} in JSON, got something else ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path}: expected the manifest of an nvisa model, got another file of that name.")
    schema = manifest.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelError(f"{path}: written by a newer nvisa (schema {schema}), this one reads {SCHEMA}: upgrade.")
    wrong = wrong_fields(manifest, KEYS)
    if wrong or schema not in (1, SCHEMA):
        raise ModelError(f"{path}: expected a whole manifest, got one damaged at {', '.join(wrong) or 'schema'}.")
    try:
        check_digest(manifest)
    except ValueError as error:
        raise ModelError(f"{path}, {MANIFEST}: {error} after saving. {AGAIN}") from error
    return manifest


def read(path: str | Path) -> tuple[Manifest, dict[str, Tensor]]:
    """(manifest, arrays) of a model directory, the arrays being those that the manifest was written with.

    A model that is replaced while it is read is read again.

    Raises
    ------
    ModelError
        If a file is missing, cut, changed or of a newer schema.
    """
    folder = Path(path).expanduser()
    sweep(folder.resolve(), (ARRAYS, MANIFEST))
    for _ in range(MOST_TRIES):
        before = _identity(folder)
        try:
            return _read(path)
        except ModelError:
            if _identity(folder) == before:
                raise
    return _read(path)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What another folder of this name has not: its number on the disk and its time."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read(path: str | Path) -> tuple[Manifest, dict[str, Tensor]]:
    manifest = read_manifest(path)
    content = _content(Path(path).expanduser(), ARRAYS)
    got = hashlib.sha256(content).hexdigest()
    if got != manifest["sha256"]:
        raise ModelError(
            f"{path}: expected {ARRAYS} with SHA-256 {manifest['sha256']}, got {got} ({len(content)} bytes): it was "
            f"cut or changed after saving. {AGAIN}"
        )
    try:
        arrays = safetensors.torch.load(content)
    except Exception as error:  # safetensors has one class of error, torch others for unknown types
        raise ModelError(f"{path}: expected {ARRAYS} in safetensors, got something else ({error}).") from error
    if manifest["schema"] == SCHEMA:
        return manifest, arrays
    try:
        return upgrade_manifest(manifest, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: expected a whole manifest of schema 1, got one damaged at {error}.") from error


def _content(folder: Path, name: str) -> bytes:
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        raise ModelError(f"{folder}: expected a model directory, got {got}. Check the path.")
    try:
        return read_file(folder / name)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ModelError(
            f"{folder}: expected a model directory with {MANIFEST} and {ARRAYS}, got {reason} for {name}. "
            "Copy the whole folder, or train again."
        ) from error


def restore(clusterer: Any, module: nn.Module, manifest: Manifest, arrays: Mapping[str, Tensor]) -> None:
    """Give a new clusterer what its manifest and arrays hold.

    Parameters
    ----------
    clusterer
        Built with the manifest's settings.
    module
        Its networks, of the right shapes; on the meta device, since every tensor is replaced.

    Raises
    ------
    ModelError
        If the tensors are not the module's.
    """
    state = {name.removeprefix("module."): t for name, t in arrays.items() if name.startswith("module.")}
    check_state(module.state_dict(), state)
    module.load_state_dict(state, assign=True)
    found = {name.removeprefix("fitted."): t.numpy() for name, t in arrays.items() if name.startswith("fitted.")}
    found |= {name: revive(value) for name, value in manifest["fitted"].items()}
    if strange := [name for name in found if not _is_fitted_name(name)]:
        raise ModelError(f"expected fitted attributes, got {', '.join(strange)}.")
    _check_fitted(found)
    for name, value in found.items():
        setattr(clusterer, name, value)
    clusterer.module_ = module.eval()


def _check_fitted(found: Mapping[str, Any]) -> None:
    """Raise a ModelError for attributes that every method has, if they are of another kind than a fit gives them."""
    wrong = wrong_fields(found, FITTED)
    wrong += [name for name, kind in FOUND.items() if name in found and wrong_fields(found, {name: kind})]
    history, labels = found.get("history_"), found.get("labels_")
    if not wrong and not all(isinstance(record, dict) and not wrong_fields(record, EPOCH) for record in history or ()):
        wrong.append("history_")
    if not wrong and (found["n_iter_"] != len(history or ()) or found["n_features_in_"] < 1):
        wrong.append("n_iter_, n_features_in_")
    if not wrong and (labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0):
        wrong.append("labels_")
    if wrong:
        raise ModelError(f"expected what a fit finds, got another kind of {', '.join(wrong)}.")


def warn_of_versions(path: str | Path, manifest: Manifest) -> None:
    """Warn of a model that was written with another nvisa or torch: its numbers are not equal to the last bit."""
    versions = manifest.get("versions")
    there = versions if isinstance(versions, dict) else {}
    names = [name for name in ("nvisa", "torch") if there.get(name, _version(name)) != _version(name)]
    if names:
        listed = ", ".join(f"{name} {there[name]} (here {_version(name)})" for name in names)
        warnings.warn(
            f"{path}: written with {listed}. Labels are the same, but for rows between two clusters, whose largest "
            "q(y|x) is below 0.6.",
            stacklevel=3,
        )


def check_state(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Raise a ModelError unless the tensors ``got`` have the names, shapes and types of those ``expected``."""
    if expected.keys() != got.keys():
        names = ", ".join(sorted(expected.keys() ^ got.keys())[:5])
        raise ModelError(f"expected the networks that the settings describe, got others (differing in {names}).")
    for name, tensor in expected.items():
        if (tensor.shape, tensor.dtype) != (got[name].shape, got[name].dtype):
            raise ModelError(
                f"expected {name} of shape {tuple(tensor.shape)} and type {tensor.dtype} from the settings, got "
                f"{tuple(got[name].shape)} and {got[name].dtype}."
            )
