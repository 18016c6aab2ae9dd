"""Sphinx: guides, notebooks, methods, and a page for each name of the API. `make docs` builds build/docs."""

import argparse
import inspect
import json
import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

import nvisa
from nvisa.commands.cli import build_parser
from nvisa.methods.base import DeepClusterer

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
REQUESTS = [f"set_{name}_request" for name in ("fit", "partial_fit", "predict", "predict_proba", "transform", *SCORED)]
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "member-order": "bysource",
    # scikit-learn's metadata routing, which these methods do not take part in, and what only says where it went
    "exclude-members": ", ".join(["report", "set_output", "get_metadata_routing", *REQUESTS]),
}
autodoc_typehints = "none"  # jaxtyping's shapes stay in the source, one click away
myst_heading_anchors = 3

# ---- the API: what `import nvisa` has, by kind, then modules for those who look closer -----------------------------

FIRST = ["NVISA", "IMSAT"]
MODULES = {
    "Data, features and metrics": ["data", "data.features", "maths.metrics", "report", "tools"],
    "Mathematics": ["maths.bounds", "maths.distributions", "maths.counts", "maths.factors", "fitting.consistency"]
    + ["fitting.graph"],
    "Writing a method": ["methods.base", "methods.input", "methods.fitted", "methods.generative", "settings"],
    "Latent trees": ["methods.ltvae.latent_tree", "methods.ltvae.search"],
}


def kind_of(value: object) -> str:
    """The group that a public name belongs to."""
    if not inspect.isclass(value):
        return "Functions"
    if issubclass(value, DeepClusterer):
        return "Methods"
    return "Errors" if issubclass(value, Exception) else "Settings" if is_dataclass(value) else "Other"


def groups() -> dict[str, list[str]]:
    """Full names of the API, methods first, by group."""
    names = sorted(nvisa.__all__, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name.lower()))
    found: dict[str, list[str]] = {kind: [] for kind in ("Methods", "Settings", "Functions", "Errors", "Other")}
    for name in names:
        if not inspect.ismodule(value := getattr(nvisa, name)):
            found[kind_of(value)].append(f"nvisa.{name}")
    found |= {group: [f"nvisa.{name}" for name in modules] for group, modules in MODULES.items()}
    return {group: names for group, names in found.items() if names}


def directive(name: str) -> str:
    """How autodoc shows a name; a method's page has all its calls, those of the base class too."""
    value = named(name)
    if inspect.ismodule(value):
        elsewhere = [public for public in nvisa.__all__ if getattr(getattr(nvisa, public), "__module__", "") == name]
        return f".. automodule:: {name}" + (f"\n   :exclude-members: +{', '.join(elsewhere)}" if elsewhere else "")
    if not inspect.isclass(value):
        return f".. autofunction:: {name}"
    calls = "\n   :inherited-members: ClassNamePrefixFeaturesOutMixin" if kind_of(value) == "Methods" else ""
    return f".. autoclass:: {name}{calls}"


def named(name: str) -> object:
    """The object of a full name."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        home, _, last = name.rpartition(".")
        return getattr(import_module(home), last)


def write_api(folder: Path) -> None:
    """A page for each name; one that has not changed is left, so that Sphinx does not read it again."""
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.md": f"# {name.removeprefix('nvisa.')}\n\n```{{eval-rst}}\n{directive(name)}\n```\n"
             for names in groups().values() for name in names}  # fmt: skip
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def api_lists() -> Iterator[str]:
    """For each group its names with their first line, and the entries of the sidebar."""
    for group, names in groups().items():
        rows = [f"| [{name.removeprefix('nvisa.')}](api/{name}.md) | {first_line(name)} |" for name in names]
        entries = [f"{name.removeprefix('nvisa.')} <api/{name}>" for name in names]
        yield f"## {group}\n\n| name | what it is |\n|---|---|\n" + "\n".join(rows)
        yield "```{toctree}\n:hidden:\n" + "\n".join(entries) + "\n```"


def first_line(name: str) -> str:
    """The first line of a docstring, as a cell of a table."""
    return (inspect.getdoc(named(name)) or "").split("\n")[0].replace("``", "`").replace("|", "\\|")


# ---- pages that are made of something else -------------------------------------------------------------------------


def help_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A section for every command below this one: what ``--help`` prints."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for command in (command for action in found for command in action.choices.values()):
        yield f"## {command.prog}\n\n```text\n{command.format_help()}```\n"
        yield from help_of(command)


class NotebookParser(MystParser):
    """A notebook as a page: its prose, and its code as blocks. Outputs are not kept in the repository."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Read the cells as Markdown."""
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(inputstring)["cells"]]
        super().parse("\n\n".join(f"```python\n{t}\n```" if kind == "code" else t for kind, t in cells), document)


def fill(_: Sphinx, page: str, source: list[str]) -> None:
    """Put the help of every command, and the lists of the API, where a page has a place for them."""
    if page == "cli":
        source[0] = source[0].replace("<!-- help -->", "\n".join(help_of(build_parser())))
    if page == "api":
        source[0] = source[0].replace("<!-- api -->", "\n\n".join(api_lists()))


def escape(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """|Y| is a number of states, no substitution; "K." is a symbol, not the eleventh item of a list."""
    lines[:] = [re.sub(r"\|(Y_\w)\|", r"\\|\1\\|", line) for line in lines]
    lines[:] = [re.sub(r"^(\s*(?::\w+ [\w, ]+: )?)([A-Z])\.(?=\s|$)", r"\1\\\2.", line) for line in lines]


def leave_out(_app: Sphinx, _what: str, name: str, _obj: object, _skip: bool, _options: object) -> bool | None:  # noqa: FBT001
    """Scikit-learn makes ``set_predict_request`` and its like, which are its own to document."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Sphinx) -> None:
    """Write the pages of the API, and connect what fills and mends the others."""
    os.environ["COLUMNS"] = "100"  # how wide argparse writes
    write_api(Path(app.srcdir) / "api")
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    app.connect("source-read", fill)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("env-get-outdated", lambda *_: ["api", "cli"])  # their text comes from the code
    app.connect("autodoc-process-docstring", escape, priority=900)  # after napoleon
