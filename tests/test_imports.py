"""Imports run one way, and take what is in ``__all__``.

The order below is ARCHITECTURE.md's; a diagram that is not tested becomes fiction.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nvisa"

ORDER = [  # a room imports only from rooms on lines above its own
    {"shapes"},
    {"distributions", "products"},
    {"fused"},
    {"bounds", "checkpoint", "consistency", "gaussian_em", "mixtures", "nets", "schedules", "latent_tree"},
    {"training", "scaling", "machine", "autoencoders", "convolutions", "priors", "tree_moves"},
    {"mixture_vae"},
    {"checks", "initialization", "tree_search"},
    {"methods.base"},
    {"methods.generative"},
    {"methods.*"},  # one method, one file: none imports another
    {"methods"},  # methods/__init__.py, the registry
    {""},  # nvisa/__init__.py, the names that a user imports
    {"benchmark"},
    {"report"},
    {"commands"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LEAVES = {
    "mapped",
    "metrics",
    "datasets",
    "features",
    "persistence",
    "graph",
    "progress",
    "pictures",
    "tree_structure",
}  # import nothing of ours
READ_DATA = {"benchmark", "report", "commands", "demo", "cli"}  # everyone else takes arrays

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def room(module: str) -> str:
    """Where a dotted name below `nvisa` lives: its first part, or its first two inside `methods`."""
    return ".".join(module.split(".")[: 2 if module.startswith("methods.") else 1])


def rank(name: str) -> int:
    """Line of a room in ORDER; -1, below all of them, for a leaf."""
    return RANK.get(name, RANK["methods.*"] if name.startswith("methods.") else -1)


def has_place(name: str) -> bool:
    return name in LEAVES or rank(name) >= 0


def imports(file: Path, source: Path) -> Iterator[str]:
    """Modules below `nvisa` that a file imports, anywhere in it, absolute or relative."""
    package = ["nvisa", *file.relative_to(source).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            module = [*start, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names]
            names = [name if is_module(source.joinpath(*name[1:])) else module for name in names]
        else:
            continue
        yield from (".".join(name[1:]) for name in names if name[0] == "nvisa")


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def wrong(source: str, target: str) -> str | None:
    """Why room `source` may not import room `target`; None if it may."""
    if source == target:
        return None
    if source in LEAVES:
        return "a leaf imports nothing of nvisa's"
    if target == "datasets":
        return None if source in READ_DATA else "only benchmark, report, demo and cli read data sets"
    return None if rank(target) < rank(source) else "the arrow runs the wrong way"


def wrong_arrows(source: Path) -> list[str]:
    found = []
    for file in sorted(source.rglob("*.py")):
        here = ".".join(file.relative_to(source).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if not has_place(room(here)):
            found.append(f"{here}: no place yet; give it one in ORDER or LEAVES and in ARCHITECTURE.md")
            continue
        for there in imports(file, source):
            if why := wrong(room(here), room(there)):
                found.append(f"{here or '__init__'} -> {there or '__init__'}: {why}")
    return found


def test_imports_run_one_way():
    assert list(SOURCE.rglob("*.py")), f"no module under {SOURCE}"
    assert wrong_arrows(SOURCE) == []


FILES = [
    *("__init__", "__main__", "shapes", "distributions", "bounds", "consistency", "nets", "schedules"),
    *("training", "initialization", "methods/__init__", "methods/base", "methods/nvisa", "methods/vade"),
    *("benchmark/__init__", "benchmark/run", "report/page", "demo", "cli"),
    *("metrics", "graph", "persistence", "features/__init__", "datasets/__init__", "datasets/mnist"),
]


@pytest.fixture
def tree(tmp_path):
    for name in FILES:
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("distributions", "from nvisa.bounds import vimco", "wrong way"),
        ("distributions", "import nvisa.nets", "wrong way"),
        ("bounds", "from nvisa.nets import mlp", "wrong way"),
        ("nets", "import nvisa", "wrong way"),
        ("nets", "import math, nvisa.training as t", "wrong way"),
        ("nets", "from nvisa.report.not_written_yet import html", "wrong way"),
        ("training", "def f():\n    from nvisa.initialization import umap", "wrong way"),
        (
            "training",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nvisa import methods",
            "wrong way",
        ),
        ("methods/base", "from nvisa.methods.nvisa import NVISA", "wrong way"),
        ("methods/vade", "from nvisa.methods.nvisa import Densities", "wrong way"),
        ("methods/vade", "from nvisa.methods import nvisa", "wrong way"),
        ("methods/vade", "from .nvisa import Densities", "wrong way"),
        ("methods/vade", "from . import nvisa", "wrong way"),
        ("methods/vade", "from ..cli import main", "wrong way"),
        ("methods/vade", "from nvisa import NVISA", "wrong way"),
        ("methods/vade", "from nvisa.datasets import load", "data sets"),
        ("methods/vade", "from nvisa.datasets.mnist import load", "data sets"),
        ("benchmark/run", "from nvisa.report.page import html", "wrong way"),
        ("demo", "from nvisa import cli", "wrong way"),
        ("metrics", "from nvisa.shapes import Data", "a leaf"),
        ("graph", "from nvisa import shapes", "a leaf"),
        ("datasets/mnist", "from nvisa.metrics import accuracy", "a leaf"),
        ("attic", "import math", "no place"),
    ],
)
def test_a_wrong_arrow_is_found(tree, file, line, why):
    (tree / f"{file}.py").write_text(line)
    (found,) = wrong_arrows(tree)
    assert why in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("distributions", "import math\nfrom nvisa.shapes import Data"),
        ("training", "from nvisa import bounds, schedules"),
        ("methods/vade", "from .base import DeepClusterer\nfrom nvisa.graph import neighbors"),
        ("methods/vade", "from nvisa.methods.base import DeepClusterer"),
        ("methods/__init__", "from nvisa.methods.vade import VaDE\nfrom .nvisa import NVISA"),
        ("__init__", "from nvisa.methods import NVISA"),
        ("datasets/__init__", "from nvisa.datasets.mnist import load\nfrom . import mnist"),
        ("benchmark/run", "from nvisa.datasets import load\nfrom nvisa import NVISA, metrics"),
        ("cli", "from nvisa.demo import run\nimport nvisa.datasets.mnist"),
        ("methods/base", "from nvisa.persistence import save\nfrom nvisa.graph import neighbors"),
        ("methods/nvisa", "import numpy as np\nfrom umap import UMAP"),
    ],
)
def test_a_right_arrow_is_not(tree, file, line):
    (tree / f"{file}.py").write_text(line)
    assert wrong_arrows(tree) == []


# ---- names -----------------------------------------------------------------------------------------------------------

ALIASES = {"Array", "Rows"}  # of methods.base, which docs/api.md shows: "alias of Any" would say nothing there


def exported(file):
    """What stands in a module's ``__all__``; nothing without one."""
    assigned = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Assign)]
    lists = [node.value for node in assigned if ast.unparse(node.targets[0]) == "__all__"]
    return {name for names in lists for name in ast.literal_eval(names)}


def unlisted(source):
    """Public names that a module imports from one of ours whose ``__all__`` lacks them."""
    found = set()
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "nvisa"):
                continue
            there = source.joinpath(*node.module.split(".")[1:])
            names = {alias.name for alias in node.names if not is_module(there / alias.name)}
            names -= exported(there / "__init__.py" if there.is_dir() else there.with_suffix(".py"))
            found |= {f"{node.module}.{name}" for name in names - ALIASES if not name.startswith("_")}
    return sorted(found)


def test_what_another_module_imports_is_in_all():
    assert unlisted(SOURCE) == []


def test_a_name_that_is_not_in_all_is_found(tree):
    (tree / "bounds.py").write_text('__all__ = ["vimco"]')
    (tree / "training.py").write_text("from nvisa.bounds import nvil, vimco, _signal\nfrom nvisa import bounds")
    assert unlisted(tree) == ["nvisa.bounds.nvil"]
