"""Imports run downwards, whether by statement or by name; ARCHITECTURE.md draws the same order."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nvisa"
ORDER = [
    *(
        "settings",
        "compatibility",
        "deprecation",
        "interruption",
        "reading",
        "durable_files",
        "json_values",
        "persistence",
    ),
    *("maths", "nets", "fitting"),
    *("methods.presets", "methods.editing", "methods.exporting", "methods.categories", "methods.input"),
    "methods.lazily",
    *("methods.fitted", "methods.base", "methods.generative", "methods.partial_fit"),
    *("methods.*", "methods.growing", "methods.__init__", "tools", "data", "report", "hub", "__init__"),
    *("benchmark", "commands", "cli", "__main__"),
]
LEAVES = {"settings", "compatibility", "deprecation", "interruption", "reading", "durable_files", "json_values", "data"}
FOR_ALL = {"json_values", "durable_files", "reading"}  # but these: how files are read and written


def place(module):
    """Rank in ORDER, and the room: each method is one of its own, since it imports no other."""
    parts = [*module.split(".")[1:], "__init__"]
    room = ".".join(parts[:2]) if parts[0] == "methods" else parts[0]
    if parts[0] == "methods":
        return ORDER.index(room if room in ORDER else "methods.*"), room
    room = room if room in ORDER else "__init__"  # a name that the facade has
    return ORDER.index(room), room


def imports(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or 'nvisa'}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"nvisa(\.\w+)+", str(node.value)):
            yield node.value


def wrong_arrows(module, text):
    rank, room = place(module)
    targets = [(name, *place(name)) for name in imports(text) if name.split(".")[0] == "nvisa"]
    return [
        name
        for name, to, there in targets
        if there != room and (to >= rank or (room in LEAVES and there not in FOR_ALL))
    ]


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_run_downwards(file):
    module = ".".join(["nvisa", *file.relative_to(SOURCE).with_suffix("").parts])
    assert wrong_arrows(module, file.read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("methods.base", 'import_module("nvisa.report").write_report(self)'),  # a circle that was: methods -> report ->
        ("report.records", "from nvisa.benchmark.experiments import ROWS"),  # benchmark ->
        ("methods.vade", "from nvisa import load"),  # methods
        ("methods.vade", "from nvisa.methods.nvisa import Bound"),
        ("fitting.training", "def f():\n    from nvisa.methods import load"),
        ("data.files.table", "from nvisa.maths.metrics import accuracy"),
        ("durable_files", "from nvisa.json_values import parse"),
    ],
)
def test_a_wrong_arrow_is_found(module, line):
    assert len(wrong_arrows(f"nvisa.{module}", line)) == 1
