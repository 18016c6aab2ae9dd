"""``nvisa completion``: a script that teaches the shell to complete nvisa's commands and options."""
# ruff: noqa: PLC0415  shtab is an extra, and cli.py imports this file

import argparse
from typing import Any

from nvisa.commands.options import add_command
from nvisa.commands.printing import print_result

__all__ = ["add"]


def add(commands: Any) -> None:
    """Options of the command."""
    text = "print a script that teaches the shell to complete nvisa"
    parser = add_command(commands, "completion", run, text)
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which shell")


def run(args: argparse.Namespace) -> None:
    """Print the script."""
    from nvisa.commands.cli import build_parser

    try:
        import shtab
    except ImportError as error:
        raise ValueError(
            f'expected shtab, which writes completion scripts, got: {error}. Try pip install "nvisa[completion]".'
        ) from error
    script = shtab.complete(build_parser(), args.shell)
    print_result(args, {"shell": args.shell, "script": script}, lambda result: result["script"])
