"""What the documents link is there, and what they tell a reader to type is understood by the program as it is."""

import argparse
import re
import shlex
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nvisa.benchmark.experiments import EXPERIMENTS
from nvisa.benchmark.recipes import RECIPES
from nvisa.commands import bench, cli

ROOT = Path(__file__).parents[1]
BELOW = (path for top in ("benchmarks", "docs", "tests") for path in (ROOT / top).rglob("*.md"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for path in BELOW if path.parent != ROOT / "docs" / "api")])
FENCED = re.compile(r"^```(\S*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name_of(path):
    return str(path.relative_to(ROOT))


def subcommands(parser):
    """The parsers of the commands below this one, by name."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: command for action in found for name, command in action.choices.items()}


def understood(words, capsys, *, whole):
    """What the program makes of a command; of one that is not whole only what it says has to be right."""
    command, options = cli.build_parser(), {}
    for word in words:
        command = subcommands(command).get(word, command)
        options = command._option_string_actions
    unknown = [word for word in words if word.startswith("--") and word not in options and word != "--version"]
    assert not unknown, f"{shlex.join(words)}: no such option"
    try:
        args = cli.build_parser().parse_args(words)
    except SystemExit as end:
        said, code = capsys.readouterr().err, end.code
        if code != 0 and (whole or "arguments are required" not in said):
            pytest.fail(f"{shlex.join(words)}: {said}")
        return
    if args.run is bench.run and args.table != "paper":  # which is no table but one long run
        assert EXPERIMENTS[args.table].jobs(args.methods, args.datasets, args.seeds), shlex.join(words)


def heading_anchors(page):
    """GitHub's and MyST's name of every heading."""
    text = FENCED.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in heading_anchors(target), link


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_row_of_a_table_has_the_cells_of_its_head(page):
    """GitHub ends a cell at a bar within code too, unless a backslash stands before it, and drops what is too much."""
    for table in re.findall(r"(?:^\|.*\n?)+", FENCED.sub("", page.read_text()), re.MULTILINE):
        head, *rows = ([*re.finditer(r"(?<!\\)\|", line)] for line in table.splitlines())
        assert all(len(row) == len(head) for row in rows), table


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_commands_in_blocks_are_understood_as_they_stand(page, capsys):
    for _, block in FENCED.findall(page.read_text()):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if line.startswith("nvisa "):
                understood(shlex.split(line, comments=True)[1:], capsys, whole=True)


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_commands_in_sentences_exist_with_the_options_they_name(page, capsys):
    text = FENCED.sub("", page.read_text())
    for line in re.findall(r"`nvisa\s([^`|]*)`", text):
        understood(shlex.split(line.replace("...", "").replace("COMMAND", "fit")), capsys, whole=False)
    for names in re.findall(r"`python -m nvisa\.benchmark\.run --recipes\s([^`]*?)\s--", text):
        assert set(names.split()) <= set(RECIPES)


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_what_pip_is_told_to_install_is_what_pip_takes(page):
    """A name with extras that are ours, or the working folder with them; pip refuses "nvisa[all] @ ."."""
    extras = set(metadata("nvisa").get_all("Provides-Extra"))
    for line in re.findall(r"pip install ([^`\n]+)", page.read_text()):
        for word in shlex.split(line.split("--")[0], comments=True):
            wanted = Requirement(word.replace(".", "nvisa", 1) if word.startswith(".") else word)
            assert wanted.url is None, line
            assert wanted.name != "nvisa" or wanted.extras <= extras, line


def test_commands_of_the_makefile_are_understood(capsys):
    text = (ROOT / "Makefile").read_text()
    named = [name for names in re.findall(r"for table in ([^$;]+);", text) for name in names.split()]
    assert named
    lines = re.findall(r"bin/nvisa ([^|;\n]*)", text)
    assert any("$$table" in line for line in lines)
    for line in lines:
        for table in {*EXPERIMENTS, *named} if "$$table" in line else {""}:
            understood(shlex.split(line.replace("$$table", table).replace("$(ARGS)", "")), capsys, whole=True)


def test_the_page_of_the_command_line_has_every_command():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert sorted(re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE)) == sorted(subcommands(cli.build_parser()))
    assert page.count("<!-- help -->") == 1


METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))
HOMES: dict[str, list[str]] = {}  # the modules of a name, such as "mixtures"
for _path in sorted((ROOT / "src").rglob("*.py")):
    if _path.stem != "__init__":
        HOMES.setdefault(_path.stem, []).append(".".join(_path.relative_to(ROOT / "src").with_suffix("").parts))


def found_in(module, names):
    """Whether a module has this name, or this attribute of a name; a field of a dataclass is an annotation."""
    value = import_module(module)
    for name in names:
        if name in getattr(value, "__annotations__", {}):
            return True
        value = getattr(value, name, None)
    return value is not None


@pytest.mark.parametrize("page", METHODS, ids=name_of)
def test_files_and_names_of_the_code_that_a_method_page_gives_are_there(page):
    """``module.name`` anywhere, and beside an equation a class of the files that the page names."""
    text = page.read_text()
    files = [ROOT / file for file in re.findall(r"`(src/nvisa/[\w/]+(?:\.py)?)", text)]
    assert all(file.exists() for file in files), files
    paths = [path for file in files for path in ([file] if file.is_file() else file.glob("*.py"))]
    near = [module for path in paths for module in HOMES.get(path.stem, [])]
    tables = "".join(re.findall(r"\| on the page \| in the code \|\n(.*?)\n\n", text, re.DOTALL))
    cells = "".join(line.rsplit(" | ", 1)[-1] for line in tables.splitlines())
    dotted = [name for name in re.findall(r"`(\w+(?:\.\w+)+)`", text)]
    dotted = [name for name in dotted if name.split(".")[0] in HOMES and not name.endswith(".py")]
    for name in [*dotted, *re.findall(r"`([A-Z]\w*(?:\.\w+)*)`", cells)]:
        first, *rest = name.split(".")
        homes, words = (HOMES[first], rest) if first in HOMES else (near, [first, *rest])
        assert any(found_in(home, words) for home in homes), f"{name} is in none of {homes}"
