"""The command line's frame: the list of commands, how one is run, and what its errors become."""

import argparse
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import nvisa
from nvisa.commands import (
    adopt,
    bench,
    choose_k,
    completion,
    data,
    demo,
    edit,
    evaluate,
    exit_codes,
    features,
    fit,
    predict,
    report,
    sample,
    serve,
    table,
)
from nvisa.commands.options import option
from nvisa.commands.printing import SAME_COMMAND, command_line, shown
from nvisa.interruption import Terminated, sigterm_raises
from nvisa.settings import SettingError

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS = (
    fit,
    adopt,
    choose_k,
    predict,
    evaluate,
    edit,
    serve,
    sample,
    report,
    data,
    features,
    bench,
    table,
    demo,
    completion,
)

SUMMARY = """\
nvisa clusters rows (pixels, embeddings, columns) without labels, by a Gaussian-mixture VAE.

  nvisa demo                                         see it on 1,797 handwritten digits, 1-3 minutes
  nvisa choose-k FILE                                how many clusters? .csv, .parquet, .npy, .npz, folder of images
  nvisa fit FILE --n-clusters 5 --out model          cluster them; "digits" in place of FILE: a data set with a name
  nvisa predict model FILE --out labels.csv --proba  the cluster of each row, and how sure
  nvisa report model --data FILE --out report.html   one page to look at: map, clusters, anomalies
  nvisa sample model -n 100 --out made-up.csv        rows that the model makes up (.png: pictures)
  nvisa evaluate model digits                        agreement with labels, where there are some
  nvisa fit --help                                   every option of a command; nvisa --help: every command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    run = args.run or (lambda _: print(SUMMARY, end=""))
    with warnings.catch_warnings(), sigterm_raises():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            code = run(args) or exit_codes.DONE
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return exit_codes.DONE
        except (Exception, KeyboardInterrupt) as error:
            code, message = _failed(error, argv, debug=args.debug)
            print(shown(message), file=sys.stderr)
            if args.json:
                print(json.dumps({"error": message.removeprefix("error: "), "exit_code": code}))
            return code
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = _Parser(
        prog="nvisa", description=SUMMARY, epilog=exit_codes.TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(run=None, debug=False, json=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(shown(message))  # a file's name, which the shell has put in for *.csv


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"nvisa {nvisa.__version__}")
        parser.exit()


# ---- errors ----------------------------------------------------------------------------------------------------------


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(shown(f"warning: {message}"), file=sys.stderr)


def _failed(error: BaseException, argv: Sequence[str], *, debug: bool) -> tuple[int, str]:
    """(the exit code, what went wrong); the traceback is shown for ``--debug`` only."""
    if debug:
        print(shown("".join(traceback.format_exception(error))), file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):  # before the import: one that was cut short cannot be repeated
        what = str(error) or "nothing was written, and what was there before still is"
        what += f":\n  {command_line(*argv)}" if SAME_COMMAND in what else ""
        if isinstance(error, Terminated):
            return exit_codes.TERMINATED, f"terminated: {what}"
        return exit_codes.INTERRUPTED, f"interrupted: {what}"
    if isinstance(error, (ValueError, OSError)):
        return exit_codes.WRONG_INPUT, f"error: {_in_options(error)}"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # NumPy's, torch's
        return exit_codes.WRONG_INPUT, f"error: MemoryError: {error}. Try fewer rows or columns, or a smaller network."
    from nvisa.fitting.run import DivergedError  # noqa: PLC0415  needs torch, which --help does not wait for

    if isinstance(error, DivergedError):
        return exit_codes.DIVERGED, f"error: {error}"
    return exit_codes.FAULT, f"error: {type(error).__name__}: {error} (a fault of nvisa's; --debug shows where)"


def _in_options(error: ValueError | OSError) -> str:
    """The message; a setting or an argument that the error names as a field has the name of its option here."""
    if isinstance(error, SettingError) and error.setting in fit.OPTION_OF:
        return SettingError(fit.OPTION_OF[error.setting], error.expected, error.got, error.hint).__str__()
    if hasattr(error, "told"):  # a DataError; its class would bring numpy
        return error.told(option)
    return str(error)
