"""Settings and fitted values as JSON, without NaN, tuple and object; and JSON that anybody may have written.

Every JSON file is read by :func:`parse`. A document with a digest of itself is changed nowhere without being noticed.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["Notes", "check_digest", "encode", "parse", "plain", "revive", "with_digest", "wrong_fields"]

Notes = dict[str, str]  # where -> what stands there that has no form in JSON
Json = dict[str, Any]
DIGEST = "digest"  # key of a document's own
LARGEST, DEEPEST = 1 << 26, 64  # bytes of a file; lists and objects one in another: ours have a dozen


# ---- what others may have written ------------------------------------------------------------------------------------


def parse(content: bytes, *, finite: bool = True) -> Any:
    """The JSON document in a file: of bounded size and depth, numbers that a machine has, text that can be written.

    Parameters
    ----------
    finite
        Refuse NaN and infinity, which JSON does not know and Python writes; False: they are numbers.

    Raises
    ------
    ValueError
        On anything else.

    Examples
    --------
    >>> parse(b'{"epochs": [1, 2.5]}')
    {'epochs': [1, 2.5]}
    >>> parse(b"[" * 100_000)
    Traceback (most recent call last):
        ...
    ValueError: lists or objects more than 64 deep
    """
    if len(content) > LARGEST:
        raise ValueError(f"{len(content):,} bytes, more than {LARGEST:,}")
    try:
        value = json.loads(content, parse_constant=_refuse if finite else None)
    except RecursionError:
        raise ValueError(f"lists or objects more than {DEEPEST} deep") from None
    _check(value, finite=finite)
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _check(value: Any, *, finite: bool) -> None:
    """Level by level, since a recursion is what a deep document is made against."""
    level = [value]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            else:
                _check_scalar(item, finite=finite)
        if not below:
            return
        level = below
    raise ValueError(f"lists or objects more than {DEEPEST} deep")


def _check_scalar(value: Any, *, finite: bool) -> None:
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair cannot be written anywhere
    elif isinstance(value, float) and finite and not math.isfinite(value):
        raise ValueError("a number larger than a float holds")
    elif isinstance(value, int) and abs(value) >= 1 << 128:  # the state of a generator has so many
        raise ValueError("a whole number of more than 128 bits")


def wrong_fields(document: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> list[str]:
    """The keys that are missing, or hold something of another kind; True is no number."""
    return [
        key
        for key, kind in kinds.items()
        if not isinstance(document.get(key), kind) or (isinstance(document[key], bool) and kind is not bool)
    ]


def with_digest(document: Json) -> Json:
    """The document with the SHA-256 of all that is in it."""
    return document | {DIGEST: _digest(document)}


def check_digest(document: Json) -> None:
    """Raise a ValueError if the document holds a digest that is not its own; those of before have none."""
    there, own = document.get(DIGEST), _digest({key: value for key, value in document.items() if key != DIGEST})
    if there not in (None, own):
        raise ValueError(f"expected the content that was written, with SHA-256 {there}, got {own}: it was changed")


def _digest(document: Json) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=np.ndarray.tolist)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- what we write ---------------------------------------------------------------------------------------------------


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
