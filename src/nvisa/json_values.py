"""Settings and fitted values as JSON, which knows no NaN, no tuple and no object: a leaf."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["Notes", "encode", "plain", "revive"]

Notes = dict[str, str]  # where -> what stands there that has no form in JSON


def encode(value: Any, where: str, notes: Notes) -> Any:
    """A setting as JSON; what has no form there becomes null, and ``notes[where]`` says what it was."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [encode(item, f"{where}[{i}]", notes) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUO":
        return {"$array": encode(value.tolist(), where, notes)}
    if _is_setting(value):
        parts = {f.name: encode(getattr(value, f.name), f"{where}.{f.name}", notes) for f in fields(value)}
        return {"$type": type(value).__name__, **parts}
    notes[where] = f"{type(value).__name__} object, not stored"
    return None


def _is_setting(value: Any) -> bool:
    own = type(value).__module__.split(".")[0] == "nvisa"
    return own and is_dataclass(value) and not isinstance(value, type)


def plain(value: Any, where: str, notes: Notes) -> Any:
    """A fitted value as JSON: numbers that are not finite become null; what has no form there, too, with a note."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]", notes) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): plain(item, f"{where}.{key}", notes) for key, item in value.items()}
    notes[where] = f"{type(value).__name__} object, not stored"
    return None


def revive(value: Any) -> Any:
    """What `plain` wrote, with NaN for null and an array for names."""
    if value is None:
        return math.nan
    if isinstance(value, list):
        return [revive(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$strings"}:
            return np.array(value["$strings"], dtype=object)
        return {key: revive(item) for key, item in value.items()}
    return value
