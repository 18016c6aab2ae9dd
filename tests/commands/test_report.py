"""`nvisa report` writes the page that Python writes."""

import json

import numpy as np
import pytest

from nvisa.commands import cli
from report_pages import decoded, fitted_to, payload_of, two_groups

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def fitted():
    return fitted_to(two_groups())


def test_the_command_writes_the_page_that_python_writes(fitted, tmp_path, monkeypatch, capsys):
    rows = two_groups()
    monkeypatch.chdir(tmp_path)
    fitted.save("model", extra={"feature_shape": (4, 4)})
    np.savez("rows.npz", X=rows, y=np.repeat(["a", "b"], 30))
    assert cli.main(["report", "model", "--data", "rows.npz", "--maps", "pca", "--out", "r.html", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"out": "r.html", "n_bytes": (tmp_path / "r.html").stat().st_size}
    held = payload_of(tmp_path / "r.html")
    np.testing.assert_array_equal(decoded(held["cluster"]), fitted.predict(rows.astype(np.float32)))
    assert held["classes"] == ["a", "b"]
    assert "sprites" in held  # the model knows that its rows are images
    assert "report model --out r.html --data rows.npz --maps pca" in (tmp_path / "r.html").read_text()
    assert cli.main(["report", "model", "--out", "bare.html"]) == 0
    assert "maps" not in payload_of(tmp_path / "bare.html")


def test_the_command_says_what_it_cannot_do(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fitted.save("model")
    record = {
        "method": "nvisa",
        "params": {},
        "versions": {},
        "seconds": 1.0,
        "recipe": "default",
        "dataset": "mnist",
        "seed": 0,
        "status": "diverged",
        "metrics": {},
        "history": [],
    }
    (tmp_path / "0.json").write_text(json.dumps(record))
    for argv, message in (
        (["model", "--out", "r.pdf"], "expected a name ending in .html"),
        (["nowhere"], "nowhere"),
        (["0.json", "--data", "rows.npz"], "expected one model directory with --data"),
    ):
        assert cli.main(["report", *argv]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["report", "0.json", "--out", "records.html"]) == 0
    assert not (tmp_path / "report.html").exists()
