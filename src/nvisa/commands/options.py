"""Options that several commands share: how each is declared, and what they say together."""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from nvisa.commands import exit_codes

__all__ = [
    "DATA_HELP",
    "ReadOptions",
    "Renamed",
    "add_command",
    "add_data_home",
    "add_model_and_data",
    "add_quote_formulas",
    "add_read_options",
    "add_records",
    "add_split",
    "option",
]

DATA_HELP = "a .csv, .parquet, .npy, .npz, a folder of images, or a data set's name (nvisa data list)"
SUBFOLDERS_HELP = "folder: labels are the subfolders' names"


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], object], text: str) -> Any:
    """A command with the options that all have; ``run`` may return an exit code."""
    parser = commands.add_parser(name, help=text, description=text + ".", epilog=exit_codes.TEXT)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors (and --json's document)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    return parser


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    """MODEL, DATA, and how DATA is read."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    add_split(parser)
    add_read_options(parser)


def add_split(parser: argparse.ArgumentParser) -> None:
    """--split."""
    parser.add_argument("--split", choices=("train", "test"), help="of a data set with a name (default test, if any)")


def add_data_home(parser: argparse.ArgumentParser) -> None:
    """--data-home."""
    parser.add_argument("--data-home", metavar="DIR", help="folder of data sets (default $NVISA_DATA_HOME, a cache)")


def add_quote_formulas(parser: argparse.ArgumentParser) -> None:
    """--quote-formulas."""
    text = "for a spreadsheet: an apostrophe before names that would be computed (=, +, -, @)"
    parser.add_argument("--quote-formulas", action="store_true", help=text)


def add_records(parser: argparse.ArgumentParser) -> None:
    """--records."""
    parser.add_argument("--records", default="benchmarks/records", metavar="DIR", help="default benchmarks/records")


# ---- how DATA is read ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadOptions:
    """How DATA is read; every field is an option."""

    label_column: str | None = None
    id_column: str | None = None
    drop: tuple[str, ...] = ()
    drop_text: bool = False
    drop_missing: bool = False
    header: bool | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    comment: str | None = None
    encoding: str | None = None
    skip_lines: int | None = None
    image_size: tuple[int, int] | None = None
    background: str | None = None
    labels_from_folders: bool = False
    data_home: str | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "ReadOptions":
        """As they were typed."""
        given = {field.name: getattr(args, field.name) for field in fields(cls)}
        return cls(**given | {"drop": tuple(given["drop"])})

    def said(self) -> dict[str, Any]:
        """What differs from the defaults; the folder of data sets belongs to the machine and is none of it."""
        values = {name: value for name, value in asdict(self).items() if name != "data_home"}
        return {name: value for name, value in values.items() if value != getattr(ReadOptions(), name)}

    @classmethod
    def remembered(cls, values: Mapping[str, Any]) -> "ReadOptions":
        """What :meth:`said` gave and a manifest kept, as far as this version knows it."""
        known = {field.name for field in fields(cls)}
        as_typed: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**{name: value for name, value in as_typed.items() if name in known})

    def over(self, others: "ReadOptions", names: tuple[str, ...]) -> "ReadOptions":
        """These, and those of ``others`` with one of the names where these say nothing."""
        mine, theirs = self.said(), others.said()
        return replace(self, **{name: theirs[name] for name in names if name in theirs and name not in mine})

    def words(self) -> list[str]:
        """The options as they are typed."""
        words = [word for name in self.drop for word in ("--drop", name)]
        for name, value in self.said().items():
            if name != "drop":
                words += option(name, value).split(" ", 1)
        return words + ([] if self.data_home is None else ["--data-home", self.data_home])


OF_TEXT = ("header", "separator", "decimal", "thousands", "comment", "encoding", "skip_lines")
OF_COLUMNS = ("label_column", "id_column", "drop", "drop_text", "drop_missing")
OF_IMAGES = ("image_size", "background", "labels_from_folders")


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """An option for every field of :class:`ReadOptions`."""
    add_data_home(parser)
    parser.add_argument("--label-column", metavar="NAME", help=".csv, .parquet: holds labels, not a feature")
    parser.add_argument("--id-column", metavar="NAME", help=".csv, .parquet: names the rows, not a feature")
    parser.add_argument("--drop", metavar="NAME", action="append", default=[], help=".csv, .parquet: leave it out")
    parser.add_argument("--drop-missing", action="store_true", help="leave out rows with missing values")
    parser.add_argument("--drop-text", action="store_true", help=".csv, .parquet: leave out what is not numeric")
    parser.add_argument("--image-size", type=_size, metavar="HxW", help="folder: resize every image, such as 28x28")
    parser.add_argument("--background", metavar="COLOR", help="folder: below transparent pixels (default white)")
    parser.add_argument("--labels-from-folders", action="store_true", help=SUBFOLDERS_HELP)
    text = parser.add_argument_group("how a .csv is written", "found in the file, and said, where it is not typed")
    text.add_argument(
        "--header", type=_yes_or_no, metavar="yes|no|auto", help="whether its first line names the columns"
    )
    text.add_argument("--separator", type=_mark, metavar="MARK", help="between cells: a character, tab or blanks")
    text.add_argument("--decimal", choices=(".", ","), help="the decimal mark")
    text.add_argument("--thousands", type=_mark, metavar="MARK", help="groups digits: a character, or none")
    text.add_argument("--comment", type=_mark, metavar="MARK", help="lines that begin so are no rows; or none")
    text.add_argument("--skip-lines", type=int, metavar="N", help="lines above the table that are none of it")
    text.add_argument("--encoding", metavar="NAME", help="such as cp1252")


MARKS = {"none": "", "tab": "\t", "blanks": r"\s+", "blank": " "}
MARK_NAMES = {mark: name for name, mark in MARKS.items()}


def _mark(text: str) -> str:
    return MARKS.get(text, text)


def _yes_or_no(text: str) -> bool | None:
    if text not in ("yes", "no", "auto"):
        raise argparse.ArgumentTypeError(f"expected yes, no or auto, got {text!r}")
    return {"yes": True, "no": False}.get(text)


def _size(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text.lower())):
        raise argparse.ArgumentTypeError(f"expected pixels such as 28x28, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


# ---- names of options ------------------------------------------------------------------------------------------------


def option(name: str, value: object = None) -> str:
    """An argument of a function, as the option that sets it.

    Examples
    --------
    >>> option("drop_text", True), option("image_size", (28, 27)), option("labels_from_folders", False)
    ('--drop-text', '--image-size 28x27', 'without --labels-from-folders')
    >>> option("header", False), option("thousands", "")
    ('--header no', '--thousands none')
    """
    word = "--" + name.replace("_", "-")
    if isinstance(value, tuple):
        return f"{word} {'x'.join(map(str, value))}"
    if name == "header" and value is not None:
        return f"{word} {'yes' if value else 'no'}"
    if value is None or isinstance(value, bool):
        return f"without {word}" if value is False else word
    return f"{word} {MARK_NAMES.get(value, value) if isinstance(value, str) else value}"


class Renamed(argparse.Action):
    """An option that had this name once: it is refused with the new one, ``const``."""

    def __init__(self, option_strings: list[str], dest: str, const: str) -> None:
        super().__init__(
            option_strings, dest, nargs="?", const=const, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )

    def __call__(
        self, parser: argparse.ArgumentParser, _args: object, _values: object, option_string: str | None = None
    ) -> None:
        """Refuse it."""
        parser.error(f"{option_string} is now {self.const}")
