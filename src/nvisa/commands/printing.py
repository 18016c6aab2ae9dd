"""What a command prints: its result as text or as one JSON document, and commands to type next."""

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "SAME_COMMAND",
    "Result",
    "command_line",
    "listed",
    "metrics_text",
    "next_text",
    "notes_lines",
    "print_result",
    "read_text",
    "shown",
    "sizes_text",
]

Result = dict[str, Any]
SAME_COMMAND = "the same command"  # in the message of an interruption: the command line is printed after it


def shown(text: str) -> str:
    r"""The text with control characters as they are written, "\x1b" for an escape: names of columns are data.

    Examples
    --------
    >>> print(shown("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def print_result(args: argparse.Namespace, result: Any, text: Callable[[Any], str] | None) -> None:
    """The result as one JSON document, or as text (None: what ran has already printed it)."""
    if args.json:
        print(json.dumps(result, allow_nan=False, indent=1))
    elif not args.quiet and text is not None:
        print(shown(text(result)))


def sizes_text(result: Result) -> str:
    """How many clusters are in use, and how many rows each has."""
    shown = ", ".join(map(str, result["sizes"][:20])) + (", ..." if len(result["sizes"]) > 20 else "")
    return f"{result['clusters_in_use']} of {len(result['sizes'])} clusters in use, of sizes {shown}"


def metrics_text(values: Mapping[str, float]) -> str:
    """Metrics in a line."""
    return "   ".join(f"{name} {value:.4f}" for name, value in values.items())


def next_text(result: Result) -> str:
    """The commands to type next, a line each."""
    return "\n".join(["next:", *(f"  {line}" for line in result["next"])])


def notes_lines(notes: Sequence[str]) -> list[str]:
    """What was understood without being said, a line each."""
    return [f"  read as    {note}" for note in notes]


def read_text(result: Result) -> str:
    """How many rows were read from where, and how."""
    return "\n".join([f"{result['n_rows']:,} rows from {result['source']}", *notes_lines(result["notes"])])


def listed(names: Sequence[str], limit: int = 8) -> str:
    """At most eight names, then how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


def command_line(*words: object) -> str:
    """A command as it can be typed here: ``nvisa`` where the shell finds it, else by its path."""
    return shlex.join([*_program(), *map(str, words)])


def _program() -> list[str]:
    script, found = Path(sys.argv[0]), shutil.which("nvisa")
    if script.name == "nvisa" and script.exists() and not (found and script.samefile(found)):
        near = os.path.relpath(script)
        return [str(script.absolute()) if near.startswith("..") else near]
    return ["python", "-m", "nvisa"] if script.name == "__main__.py" else ["nvisa"]
