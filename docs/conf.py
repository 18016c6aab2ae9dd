"""Sphinx: the guides, the pages of the methods, and the API from the docstrings. `make docs` builds build/docs."""

import argparse
import os
import re
from collections.abc import Iterator
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

from nvisa.commands.cli import _parser

project = "nvisa"
author = "nvisa developers"
version = release = version_of("nvisa")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"nvisa {version}"
html_show_copyright = False

# Docstrings are numpydoc; their `name` is a name in the code.
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "code"
SCORED = ["score", "score_samples", "sample", "reconstruct"]
REQUESTS = ["fit", "partial_fit", "predict", "predict_proba", "transform", *SCORED]
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "member-order": "bysource",
    # scikit-learn's metadata routing, which these methods do not take part in
    "exclude-members": ", ".join(["set_output", "get_metadata_routing", *(f"set_{name}_request" for name in REQUESTS)]),
}
autodoc_typehints = "none"  # jaxtyping's shapes stay in the source, one click away
myst_heading_anchors = 3


def help_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A section for every command below this one: what ``--help`` prints."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for command in (command for action in found for command in action.choices.values()):
        yield f"## {command.prog}\n\n```text\n{command.format_help()}```\n"
        yield from help_of(command)


def setup(app: Sphinx) -> None:
    """Write the help of every command where cli.md has a place for it; |Y| is a number of states, no substitution."""

    def fill(_: Sphinx, page: str, source: list[str]) -> None:
        if page == "cli":
            source[0] = source[0].replace("<!-- help -->", "\n".join(help_of(_parser())))

    def escape(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
        lines[:] = [re.sub(r"\|(Y_\w)\|", r"\\|\1\\|", line) for line in lines]

    os.environ["COLUMNS"] = "100"  # how wide argparse writes
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", escape)
