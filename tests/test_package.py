"""What is published: wheel and sdist hold what a user needs and nothing else, and work where the clone is not."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

hatchling = pytest.importorskip("hatchling.builders.wheel")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = {
    path.relative_to(ROOT / "src").as_posix()
    for path in (ROOT / "src" / "nvisa").rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}


def build(target, root, folder):
    """The file that `python -m build` makes, without its environment."""
    argv = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(argv, cwd=root, check=True, capture_output=True)
    return next(folder.glob("*.whl" if target == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if name.startswith("nvisa/")}
    assert own == PACKAGE
    assert {"nvisa/py.typed", "nvisa/report/templates/page.js"} <= own
    rest = {re.sub(r"^nvisa-[^/]*\.dist-info/", "", name) for name in names - own}
    assert rest == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert "py3-none-any" in wheel.name


def test_the_wheel_of_the_sdist_is_the_wheel(wheel, tmp_path):
    sdist = build("sdist", ROOT, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert not (source / "benchmarks").exists()  # records: megabytes that nobody installs
    again = build("wheel", source, tmp_path)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {n: one.read(n) for n in one.namelist()} == {n: other.read(n) for n in other.namelist()}


@pytest.mark.slow
def test_the_demo_passes_where_the_clone_is_not(wheel, tmp_path):
    """The wheel, unpacked as pip does; its dependencies are those of this interpreter."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONWARNINGS": "default"}
    where = [sys.executable, "-c", "import nvisa; print(nvisa.__file__)"]
    demo = [sys.executable, "-m", "nvisa", "demo", "--quick", "--quiet", "--out", "demo"]
    found = subprocess.run(where, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()) == tmp_path / "site" / "nvisa" / "__init__.py"
    done = subprocess.run(demo, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "model" / "model.safetensors").exists()
    assert str(ROOT) not in done.stdout + done.stderr


# ---- other ways to install it ----------------------------------------------------------------------------------------


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    text = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text()
    recipe = yaml.safe_load(text)
    asked = {line.replace(">=", " >=").replace("torch ", "pytorch ") for line in PROJECT["dependencies"]}
    assert set(recipe["requirements"]["run"]) == asked | {f"python {PROJECT['requires-python']}"}
    assert recipe["context"]["version"] == PROJECT["version"]
    (script,) = recipe["build"]["python"]["entry_points"]
    assert script == f"nvisa = {PROJECT['scripts']['nvisa']}"
    assert recipe["about"]["license"] == PROJECT["license"]


def test_the_container_gets_what_the_build_reads():
    text = (ROOT / "packaging" / "Containerfile").read_text()
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    assert {"src", "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} == kept
    (extras,) = re.findall(r"\$wheel\[([a-z,]+)\]", text)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    images = set(re.findall(r"^FROM python:(\S+)-slim", text, re.MULTILINE))
    assert len(images) == 1
    assert f"Programming Language :: Python :: {images.pop()}" in PROJECT["classifiers"]
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
