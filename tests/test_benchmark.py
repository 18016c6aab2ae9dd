"""Records, tables and documents: what a document says is what the records hold."""

import json
from pathlib import Path

import pytest

from nvisa.benchmark import paper, run, tables
from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.nets import Network
from nvisa.training import Training

ROOT = Path(__file__).parents[1]


def record(**changes):
    metrics = {"accuracy": 0.5, "purity": 0.5, "nmi": 0.25, "ari": 0.1}
    base = {"recipe": "default", "dataset": "mnist", "n_train": 60000, "n_test": 10000, "seed": 0, "status": "ok"}
    return base | {"seconds": 10.0, "metrics": {"test": metrics, "train": metrics}} | changes


@pytest.mark.parametrize("document", tables.DOCUMENTS)
def test_the_documents_hold_what_the_records_say(document):
    text = (ROOT / document).read_text()
    assert tables.PLACE.search(text)
    assert tables.rewrite(text, tables.load_records(ROOT / run.RECORDS)) == text, "run `make table`"


def test_a_cell_is_the_mean_and_the_sample_deviation():
    assert tables.cell([1.0, 2.0, 4.0]) == "2.33 ± 1.53"
    assert tables.cell([2.0]) == "2.00"
    assert tables.cell([]) == "-"


def test_a_diverged_run_is_shown_and_does_not_enter_the_mean():
    better = record(seed=1, metrics={"test": {"accuracy": 0.7, "nmi": 0.5}})
    rows = tables.TABLES["default"]([record(), better, record(seed=2, status="diverged", metrics={})])
    assert "60.00 ± 14.14 (diverged)" in rows
    assert "| 0, 1, 2 |" in rows
    assert paper.NVISA_MEAN_STD["mnist"] in rows


def test_a_table_without_records_says_so():
    assert all(table([]) == tables.NO_RECORD for table in tables.TABLES.values())


def test_rewriting_replaces_only_the_place():
    text = "before\n<!-- table default -->\nold\n<!-- end table -->\nafter\n"
    new = tables.rewrite(text, [record()])
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new
    assert "50.00" in new


def test_the_papers_cells_are_those_of_the_slides():
    assert paper.TABLE["NVISA(avg±std)"] == ("96.55±2.64", "62.63±2.92", "89.15±2.36", "71.37±2.79", "37.32±0.70")
    assert paper.TABLE["DEC"][0] == "84.30*"
    assert len(paper.TABLE) == 10
    assert len(paper.ABLATION) == 13


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_a_run_becomes_a_record_that_is_not_made_again(tmp_path, monkeypatch, capsys):
    tiny = {"init": "random", "network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1)}
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", tiny, curve=True))
    assert run._job("default", "digits", 3, None, tmp_path).startswith("digits default seed 3: ok")
    path = run.record_path(tmp_path, "digits", "default", 3)
    made = json.loads(path.read_text())
    assert made["metrics"]["train"]["accuracy"] > 0.1
    assert made["curve"][-1]["accuracy"] == pytest.approx(made["metrics"]["train"]["accuracy"])
    assert made["n_train"] == 1797
    assert made["seed"] == 3
    assert made["start_score"] is None
    before = path.stat().st_mtime_ns
    run.main(["--datasets", "digits", "--seeds", "3", "--records", str(tmp_path)])
    assert path.stat().st_mtime_ns == before


def test_a_run_that_fails_leaves_a_record(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"inference": "no such"}))
    run._job("default", "digits", 0, None, tmp_path)
    made = json.loads(run.record_path(tmp_path, "digits", "default", 0).read_text())
    assert made["status"] == "crashed"
    assert "no such" in made["error"]
    assert "metrics" not in made
