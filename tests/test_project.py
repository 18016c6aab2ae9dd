"""What a public project says of itself in several files is the same in all; its release check refuses what it must."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
ROWS = WORKFLOWS["tests"]["jobs"]["tests"]["strategy"]["matrix"]["include"]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".github" / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_python_that_is_promised_is_tested_on_linux():
    promised = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert promised == {row["python"] for row in ROWS if row["os"].startswith("ubuntu")}
    assert f">={min(promised, key=lambda v: int(v[2:]))}" == PROJECT["requires-python"]


def test_rows_are_targets_of_the_makefile_and_one_is_everything():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {row["target"] for row in ROWS} <= set(targets)
    assert [row["versions"] for row in ROWS if row["target"] == "test"] == ["pinned"]
    assert {row["versions"] for row in ROWS} == {"pinned", "oldest", "newest"}


def test_a_workflow_may_read_and_a_job_that_may_more_says_so():
    more = {}
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
        more |= {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert more == {"publish": {"id-token": "write"}, "announce": {"contents": "write"}}


def test_the_oldest_versions_are_the_lower_bounds_and_otherwise_the_pins():
    found = script("oldest").oldest((ROOT / "pyproject.toml").read_text(), (ROOT / "constraints.txt").read_text())
    bounds = [line.split(">=") for line in PROJECT["dependencies"]]
    assert len(bounds) > 5
    assert {name: found[name] for name, _ in bounds} == dict(bounds)
    assert (found["pytest"], found["sphinx"]) == (PINS["pytest"], PINS["Sphinx"])
    assert {name.lower() for name in PINS} <= set(found)


def test_the_hooks_run_the_ruff_that_make_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["rev"] for repo in hooks if "ruff" in repo["repo"]] == [f"v{PINS['ruff']}"]


def test_one_repository_is_named_everywhere():
    home = PROJECT["urls"]["Homepage"]
    links = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text())["contact_links"]
    addresses = [*PROJECT["urls"].values(), *(link["url"] for link in links)]
    assert all(address.startswith(home) for address in addresses if "github.com" in address)


PYPROJECT, CITATION = '[project]\nversion = "0.2.0"\n', "title: x\nversion: 0.2.0\nlicense: y\n"
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-01-31

### Added

- A method.

## [0.1.0]

- All.
"""


@pytest.mark.parametrize(
    ("tag", "citation", "changelog", "wrong"),
    [
        ("v0.2.0", CITATION, CHANGELOG, []),
        ("v0.2.1", CITATION, CHANGELOG, ["expected v0.2.0"]),
        ("0.2.0", CITATION, CHANGELOG, ["expected v0.2.0"]),
        ("v0.2.0", CITATION.replace("0.2", "0.1"), CHANGELOG, ["CITATION.cff"]),
        ("v0.2.0", CITATION, CHANGELOG.replace("[0.2.0]", "[0.20]"), ["no section"]),
        ("v0.2.0", CITATION, "## [0.2.0]\n\n## [0.1.0]\n\n- All.\n", ["an empty one"]),
    ],
)
def test_a_tag_is_released_only_with_its_version_and_its_notes(tag, citation, changelog, wrong):
    found = script("check_release").problems(tag, PYPROJECT, citation, changelog)
    assert len(found) == len(wrong)
    assert all(part in said for part, said in zip(wrong, found, strict=True))


def test_the_notes_are_the_section_of_the_version_alone():
    assert script("check_release").section(CHANGELOG, "0.2.0") == "### Added\n\n- A method."
