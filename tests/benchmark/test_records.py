"""Records: where they stand, who made them, and that those of the version before are read under today's names."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmark.made_records import record
from nvisa.benchmark import RECORDS, tables
from nvisa.benchmark.current import is_current
from nvisa.benchmark.figures import losses
from nvisa.benchmark.page import write_records_report
from nvisa.benchmark.records import load_records, read_record, record_path, upgrade
from nvisa.methods import METHODS

ROOT = Path(__file__).parents[2]
BEFORE = Path(__file__).parent / "before"  # two records as the version before wrote them, their history cut short


def test_every_record_was_made_by_a_commit_of_this_history():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    if git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("not a whole clone")
    history = git("rev-list", "HEAD").splitlines()
    made = {record["commit"] for record in load_records(ROOT / RECORDS)}
    assert {commit for commit in made if not any(full.startswith(commit) for full in history)} == set()


@pytest.mark.parametrize(
    ("recipe", "file"),
    [
        ("default", "nvisa-default-seed3.json"),
        ("paper/gmm", "nvisa-paper-gmm-seed3.json"),
        ("imsat/restarts", "imsat-restarts-seed3.json"),
        ("dec/default", "dec-default-seed3.json"),
        ("vade/bernoulli", "vade-bernoulli-seed3.json"),
        ("ltvae_full/bernoulli", "ltvae_full-bernoulli-seed3.json"),
    ],
)
def test_a_record_is_named_after_its_method(tmp_path, recipe, file):
    assert record_path(tmp_path, "digits", recipe, 3) == tmp_path / "digits" / file


def test_every_record_stands_where_its_run_is_looked_for_and_is_current():
    for path in sorted((ROOT / RECORDS).rglob("*.json")):
        if "recipe" in (found := read_record(path)):
            recipe, seed = found["recipe"], found["seed"]
            assert record_path(ROOT / RECORDS, found["dataset"], recipe, seed) == path
            assert is_current(path, recipe, seed), path.name


# ---- the version before ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "before", "method", "recipe"),
    [
        ("nvisa-bound_alone-gmm-seed0.json", "bound_alone/gmm", "nvisa", "paper/gmm"),
        ("vat-default-seed0.json", "vat/default", "imsat", "imsat/default"),
    ],
)
def test_a_record_of_before_is_read_under_todays_names(file, before, method, recipe):
    path = BEFORE / file
    written, read = json.loads(path.read_text()), read_record(path)
    assert (written["recipe"], read["recipe"], read["method"]) == (before, recipe, method)
    assert read["neighbor_information"] == written["neighbour_information"]
    today = set(METHODS[method]().get_params())
    assert {name for name in read["params"] if "__" not in name} == today, "the settings of today's class, and no other"
    assert is_current(path, recipe, 0)
    assert not is_current(path, recipe, 1)
    assert upgrade(read) == read, "and once is enough"
    kept = ("metrics", "seconds", "cpu_seconds", "commit", "dataset_digest", "versions", "machine", "start_score")
    assert all(read[name] == written[name] for name in kept), "no number is another one"


def test_records_of_before_are_shown_under_todays_names(tmp_path):
    records = load_records(BEFORE)
    rows = {row[0]: row[1] for row in tables.TABLES["table1"](records).rows}
    assert rows["NVISA (paper), AE+GMM start"].endswith(" [1]")
    assert dict(row[:2] for row in tables.TABLES["beyond"](records).rows)["IMSAT"].endswith(" [1]")
    text = write_records_report([BEFORE], out=tmp_path / "r.html").read_text()
    assert "NVISA (paper), AE+GMM start" in text
    assert "imsat/default" in text
    assert not any(name in text for name in ("bound_alone", "vat/default", "neighbour"))
    (paper,) = [one for one in records if one["recipe"] == "paper/gmm"]
    assert len(losses(paper)[1]) > 1


def test_every_name_of_before_has_todays():
    params = {
        "inference": "vimco", "n_init": 2, "reparameterise": False, "init": "umap", "init__n_init": 3,
        "std_floor": "StdFloor(relative=True, settled=True)", "consistency": "(VAT(pull=1.0), Augment(pull=0.0))",
    }  # fmt: skip
    old = record(recipe="two_starts", params=params, start={"recipe": "vat/restarts", "seconds": 1.0})
    restarts = [{"seed": 5, "neighbour_information": 1.5}]
    new = upgrade(old | {"history": [{"log_q_of_maker": -1.0}], "restarts": restarts, "neighbour_information": 1.5})
    assert new["params"] == {
        "inference": "vimco", "n_restarts": 2, "reparameterize": False, "std_annealing": "StdAnnealing(relative=True)",
        "init": "WarmStart('umap', masked=0.3)", "init__n_init": 3,
        "consistency": "(VAT(bound_gradient=1.0), Augment(bound_gradient=0.0))",
    }  # fmt: skip
    assert new["start"] == {"recipe": "imsat/restarts", "seconds": 1.0}
    assert (new["restarts"], new["neighbor_information"]) == ([{"seed": 5, "neighbor_information": 1.5}], 1.5)
    assert new["history"] == [{"log_q_of_generated": -1.0}]
    tuple_of_starts = "('umap', NVISA(inference=None, init='random', n_clusters=20, n_init=3, random_state=1))"
    new = upgrade(record(params=params | {"init": tuple_of_starts, "std_floor": "None"}))["params"]
    assert new["init"] == "('umap', IMSAT(n_clusters=20, n_restarts=3, random_state=1))"
    assert new["std_annealing"] == "None"
    assert upgrade(record(recipe="from_consistency"))["recipe"] == "from_imsat"
    assert upgrade(record(recipe="pulled"))["recipe"] == "bound_gradient"
    gan = upgrade(record(method="gm_gan", recipe="gm_gan/default", params={"recognition": "None", "std_floor": 0.1}))
    assert gan["params"] == {"classifier_training": "None", "std_floor": 0.1}
    assert upgrade({"kind": "performance", "note": "20 centres"}) == {"kind": "performance", "note": "20 centers"}


def test_a_record_that_is_none_is_refused(tmp_path):
    timeless = json.dumps(record() | {"seconds": None})
    for text, message in (
        ("{", "in JSON"),
        ("[]", "other JSON"),
        ('{"recipe": 1}', "other JSON"),
        (timeless, "whole record, got another kind of seconds"),
    ):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_records(tmp_path)
