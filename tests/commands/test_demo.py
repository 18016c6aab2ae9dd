"""The demonstration runs, compares, draws, saves, and prints commands that work."""

import io
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from nvisa import NVISA, load
from nvisa.commands import cli, demo
from nvisa.report import pictures

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The quick demonstration in a clean folder, as a user runs it: the folder, its exit code, what it printed."""
    folder, out, err = tmp_path_factory.mktemp("demo"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = cli.main(["demo", "--quick", "--out", "here"])
    return folder, code, out.getvalue(), err.getvalue()


def test_it_writes_a_model_and_two_pictures(ran):
    folder, code, *_ = ran
    assert code == 0
    assert sorted(path.name for path in (folder / "here").iterdir()) == ["generated.png", "latent.png", "model"]
    assert load(folder / "here" / "model").n_clusters == 10
    for name in ("generated.png", "latent.png"):
        with Image.open(folder / "here" / name) as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5


def test_it_prints_a_table_and_commands_that_work(ran, tmp_path, monkeypatch):
    folder, _, out, err = ran
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    rows = {line[:34].rstrip(): line[34:].split() for line in out.splitlines()}
    assert {"NVISA()", "k-means, best of 10", "Gaussian mixture, full, best of 5"} <= rows.keys()
    assert float(rows["k-means, best of 10"][0]) == pytest.approx(0.79, abs=0.02)
    assert "The labels were used for this table only." in out
    assert "training 2/2" in err
    assert "constant" not in err
    (first, *_) = [line for line in out.splitlines() if " sample " in line]
    words = shlex.split(first)
    assert cli.main(words[words.index("sample") :]) == 0
    assert (tmp_path / "copy" / "here" / "more.png").is_file()


def test_without_matplotlib_there_is_still_a_model(ran, tmp_path, monkeypatch, capsys):
    def absent(*_, **__):
        raise ImportError("No module named 'matplotlib'")

    fitted = load(ran[0] / "here" / "model")
    monkeypatch.setattr(demo, "_compare", lambda *_: (fitted, {}))
    monkeypatch.setattr(pictures, "save_grid", absent)
    demo.demo(str(tmp_path), quick=True, quiet=True)
    assert "No pictures: No module named 'matplotlib'. Try pip install \"nvisa[viz]\"." in capsys.readouterr().out
    assert (tmp_path / "model").is_dir()


def test_the_default_demo_is_the_default_clusterer():
    assert demo._clusterer(quick=False, quiet=True).get_params() == NVISA(random_state=0).get_params()
