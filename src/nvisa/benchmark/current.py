"""Whether a run would come out the same today: its record is compared with its recipe, setting by setting.

A setting that is younger than the record has its default there. The settings of what a recipe starts from count as its
own.
"""

import ast
import math
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.benchmark.records import read_record, without_nan
from nvisa.methods import SETTINGS

__all__ = ["as_text", "is_current", "params_of", "same_results"]

SAME_RESULTS = ("0.1.0",)  # versions whose runs come out as this one's do


def same_results(of: str) -> bool:
    """Whether a run of that version comes out as it does today."""
    return of in (version("nvisa"), *SAME_RESULTS)


def is_current(path: Path, recipe: str, seed: int) -> bool:
    """Whether the record is there and would come out the same today.

    A crashed run is to be tried again; one that diverged has ended.
    """
    if not path.exists():
        return False
    record, asked = read_record(path), RECIPES[recipe]
    if record["status"] == "crashed" or not same_results(record["versions"]["nvisa"]):
        return False
    if record.get("start", {}).get("recipe", "") != asked.start:
        return False
    start = RECIPES.get(asked.start)
    defaults = _settings(Recipe(asked.method), start and Recipe(start.method), seed)
    there = {name: as_text(value) for name, value in defaults.items()} | record["params"]
    return all(_same(there.get(name), value) for name, value in _settings(asked, start, seed).items())


def params_of(clusterer: Any) -> dict[str, Any]:
    """``get_params``, which looks into a clusterer as ``init``, and here also into a start that holds one."""
    params = clusterer.get_params()
    inside = [start.get_params() for start in _parts(params.get("init")) if hasattr(start, "get_params")]
    return params | {f"init__{name}": value for found in inside for name, value in found.items()}


def _parts(init: Any) -> list[Any]:
    """What a tuple of starts or a ``WarmStart`` holds."""
    if isinstance(init, tuple):
        return [part for start in init for part in (start, *_parts(start))]
    return [getattr(init, field.name) for field in fields(init)] if is_dataclass(init) else []


def as_text(value: Any) -> Any:
    """A setting as a record holds it."""
    return value if isinstance(value, (int, float, str)) else repr(value)


def _settings(recipe: Recipe, start: Recipe | None, seed: int) -> dict[str, Any]:
    """What ``params`` hold of a recipe, but for the start itself and what differs with K, which is the data's."""
    built = [params_of(recipe.build(k, seed, start and start.build(k, seed))) for k in (2, 3)]
    return {name: value for name, value in built[0].items() if value == built[1][name]}


def _same(there: Any, today: Any) -> bool:
    """Whether what a record holds is today's value, once what its text leaves out has its default."""
    if there == without_nan(as_text(today)):
        return True
    try:
        return isinstance(there, str) and bool(_parsed(ast.parse(there, mode="eval").body) == today)
    except (KeyError, SyntaxError, TypeError, ValueError):  # not a setting of ours, or not one of today's
        return False


def _parsed(node: ast.expr) -> Any:
    """The value whose ``repr`` this is; nothing but our settings' constructors is called."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=words):
            return SETTINGS[name](*map(_parsed, args), **{str(word.arg): _parsed(word.value) for word in words})
        case ast.Tuple(elts=parts):
            return tuple(map(_parsed, parts))
        case ast.Name(id="inf"):
            return math.inf
    return ast.literal_eval(node)
