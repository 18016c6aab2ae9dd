"""Records: one JSON file a run. Every reader goes through :func:`read_record`, which knows the names of before.

Evidence is not rewritten: a record keeps the words of the version that wrote it, and :func:`upgrade` turns them into
today's when it is read.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nvisa.benchmark import RECORDS
from nvisa.benchmark.recipes import RECIPES
from nvisa.compatibility import IMSAT_SETTINGS, MASKED, NVISA_NAMES, upgrade_names
from nvisa.durable_files import write_file
from nvisa.json_values import parse, wrong_fields
from nvisa.reading import read_file

__all__ = [
    "Record",
    "load_records",
    "model_path",
    "read_record",
    "record_path",
    "upgrade",
    "without_nan",
    "write_record",
]

Record = dict[str, Any]


def record_path(folder: Path, dataset: str, recipe: str, seed: int) -> Path:
    """Where the record of this run stands."""
    method = RECIPES[recipe].name
    name = recipe.removeprefix(f"{method}/").replace("/", "-")
    return folder / dataset / f"{method}-{name}-seed{seed}.json"


def model_path(folder: Path, dataset: str, recipe: str, seed: int) -> Path:
    """Where the model of this run is kept, if it is."""
    return record_path(folder, dataset, recipe, seed).with_suffix("")


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_record(path: Path) -> Record:
    """The record in this file, under today's names.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        record = parse(read_file(path))
    except ValueError as error:
        raise ValueError(f"{path}: expected a record in JSON, got {error}. Try a folder of records.") from error
    if not isinstance(record, dict) or ("recipe" in record and not {"dataset", "seed", "status"} <= record.keys()):
        raise ValueError(f"{path}: expected a benchmark's record, got other JSON. Try a folder of records.")
    if "recipe" in record and (wrong := _wrong_kinds(record)):
        raise ValueError(f"{path}: expected a whole record, got another kind of {', '.join(wrong)}. Run it again.")
    return upgrade(record)


NUMBER = (int, float)
RUN: dict[str, type | tuple[type, ...]] = {  # in every record
    "recipe": str, "dataset": str, "seed": int, "status": str, "method": str, "params": dict, "versions": dict,
    "seconds": NUMBER,
}  # fmt: skip
PARTS: dict[str, type | tuple[type, ...]] = {  # where a run has got so far
    "dataset_digest": (str, type(None)), "n_train": int, "n_test": int, "commit": str, "machine": dict, "curve": list,
    "metrics": dict, "history": list,
    "cpu_seconds": NUMBER, "peak_memory_mb": (*NUMBER, type(None)), "start": dict, "restarts": list, "term": str,
    "error": str, "neighbor_information": (*NUMBER, type(None)), "neighbour_information": (*NUMBER, type(None)),
}  # fmt: skip
METRICS: dict[str, type | tuple[type, ...]] = {"accuracy": NUMBER, "nmi": NUMBER, "ari": NUMBER}
STATUSES = ("ok", "diverged", "crashed")


def _wrong_kinds(record: Record) -> list[str]:
    """The fields that hold something of another kind than a run writes."""
    wrong = wrong_fields(record, RUN)
    wrong += [key for key, kind in PARTS.items() if key in record and wrong_fields(record, {key: kind})]
    if wrong:
        return wrong
    epochs = [*record.get("history", ()), *record.get("curve", ())]
    found = {
        "status": record["status"] in STATUSES,
        "metrics": _are_metrics(record.get("metrics", {}), needed=record["status"] == "ok"),
        "history": all(_is_epoch(epoch) for epoch in epochs),
        "start": isinstance(record.get("start", {}).get("recipe", ""), str),
        "params": all(isinstance(value, (str, *NUMBER)) for value in record.get("params", {}).values()),
        "versions": all(isinstance(value, str) for value in record.get("versions", {}).values()),
    }
    return [key for key, is_right in found.items() if not is_right]


def _are_metrics(metrics: Record, *, needed: bool) -> bool:
    """Numbers of splits; what ended well has those of the training rows, or of a test."""
    measured = all(isinstance(values, dict) and not wrong_fields(values, METRICS) for values in metrics.values())
    return measured and (not needed or bool({"train", "test"} & metrics.keys()))


def _is_epoch(record: Any) -> bool:
    """An epoch's record: numbers, null for what was not finite, and the name of its stage."""
    return isinstance(record, dict) and all(
        isinstance(value, str) if key == "stage" else value is None or isinstance(value, NUMBER)
        for key, value in record.items()
    )


def load_records(folder: Path = RECORDS) -> list[Record]:
    """Every record of a run below the folder; records of speed are not among them."""
    return [record for path in sorted(folder.rglob("*.json")) if "recipe" in (record := read_record(path))]


# ---- names of before -------------------------------------------------------------------------------------------------

METHODS_BEFORE = {"vat": "imsat"}  # the same objective and the same q(y|x), from other draws of the weights
RECIPES_BEFORE = {
    "vat/default": "imsat/default",
    "vat/restarts": "imsat/restarts",
    "from_consistency": "from_imsat",
    "pulled": "bound_gradient",
}
NOTES_BEFORE = {"centres": "centers"}


def upgrade(record: Record) -> Record:
    """The record under today's names; one that has them comes back equal."""
    if "recipe" not in record:  # of speed
        return record | ({"note": _note(record["note"])} if "note" in record else {})
    new = upgrade_names(record) | {"recipe": _recipe(record["recipe"])}
    if new["recipe"] == "default" and record.get("params", {}).get("init") == "umap":
        new["recipe"] = "umap_start"  # the default before ``init="auto"``
    if "method" in record:
        new["method"] = METHODS_BEFORE.get(record["method"], record["method"])
    if "recipe" in record.get("start", {}):
        new["start"] = record["start"] | {"recipe": _recipe(record["start"]["recipe"])}
    if "params" in record:
        new["params"] = _params(record["params"])
    return new


def _note(text: str) -> str:
    return re.sub("|".join(NOTES_BEFORE), lambda found: NOTES_BEFORE[found[0]], text)


def _recipe(name: str) -> str:
    return RECIPES_BEFORE.get(name) or re.sub("^bound_alone/", "paper/", name)


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as text, those of a start behind ``init__``: each clusterer's are upgraded by themselves."""
    inner = {name: value for name, value in params.items() if name.startswith("init__")}
    own = {name: value for name, value in params.items() if name not in inner}
    start = _settings({name.removeprefix("init__"): value for name, value in inner.items()})
    return _settings(own) | {f"init__{name}": value for name, value in start.items()}


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Of one clusterer. NVISA's of before are known by ``reparameterise``; without inference it was IMSAT."""
    new = upgrade_names(params)
    if "reparameterise" not in params:
        return new
    new = {NVISA_NAMES.get(name, name): value for name, value in new.items()}
    if new["inference"] == "None":
        return {name: new[name] for name in IMSAT_SETTINGS}
    if "settled=True" in new["std_annealing"]:
        new["init"] = f"WarmStart({_quoted(new['init'])}, masked={MASKED})"
    return new | {name: _value(new[name]) for name in ("init", "std_annealing", "consistency")}


def _value(text: str) -> str:
    """The text of a setting, as ``repr`` writes it today."""
    text = re.sub(r"NVISA\(inference=None, init='random', (.*?)n_init=", r"IMSAT(\1n_restarts=", text)
    text = re.sub(", settled=(True|False)", "", text).replace("StdFloor(", "StdAnnealing(")
    return re.sub(r"\bpull=", "bound_gradient=", text)


def _quoted(init: str) -> str:
    """A start as ``repr`` shows it: a word stands in quotes, a clusterer does not."""
    return repr(init) if init.isidentifier() else init


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_record(path: Path, record: Record) -> None:
    """Write a record: it is whole, or it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(without_nan(record), indent=1, allow_nan=False) + "\n").encode())


def without_nan(value: Any) -> Any:
    """The same with Python's own numbers, eight digits of each, and null for what is not finite: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value
