"""One run: from a recipe to its record."""

import fcntl
import json
from types import SimpleNamespace

import numpy as np
import pytest

import nvisa
from benchmark.made_records import KEYS
from nvisa import data as datasets
from nvisa.benchmark import run
from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.benchmark.records import model_path, record_path
from nvisa.fitting.training import Training
from nvisa.nets.layers import Network


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_a_run_becomes_a_record_that_is_not_made_again(tmp_path, monkeypatch, capsys):
    tiny = {"init": "random", "network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1)}
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", tiny, curve=True))
    run.main(["--datasets", "digits", "--seeds", "3", "--records", str(tmp_path), "--models", str(tmp_path / "m")])
    assert "digits default seed 3: ok" in capsys.readouterr().err
    model = nvisa.load(model_path(tmp_path / "m", "digits", "default", 3))
    assert model.random_state == 3
    path = record_path(tmp_path, "digits", "default", 3)
    made = json.loads(path.read_text())
    assert made["metrics"]["train"]["accuracy"] > 0.1
    assert made["curve"][-1]["accuracy"] == pytest.approx(made["metrics"]["train"]["accuracy"])
    assert made["n_train"] == 1797
    assert made["seed"] == 3
    assert made["start_score"] is None
    assert set(made) >= KEYS
    before = path.stat().st_mtime_ns
    run.main(["--datasets", "digits", "--seeds", "3", "--records", str(tmp_path)])
    assert path.stat().st_mtime_ns == before


def test_a_run_that_fails_leaves_a_record(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"inference": "no such"}))
    run.main(["--datasets", "digits", "--seeds", "0", "--records", str(tmp_path)])
    made = json.loads(record_path(tmp_path, "digits", "default", 0).read_text())
    assert made["status"] == "crashed"
    assert "no such" in made["error"]
    assert (made["metrics"], made["history"], set(made) >= KEYS) == ({}, [], True)
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"inference": "none such either"}))
    run.main(["--datasets", "digits", "--seeds", "0", "--records", str(tmp_path)])
    assert "none such either" in record_path(tmp_path, "digits", "default", 0).read_text(), "tried again"


def test_the_processor_has_a_name_on_every_system(monkeypatch):
    assert run.processor()
    monkeypatch.setattr(run.platform, "processor", lambda: "arm")
    monkeypatch.setattr(run.Path, "exists", lambda self: False)
    assert run.processor() == "arm"


def test_a_long_history_keeps_its_ends():
    thin = run._thinned([{"epoch": e} for e in range(1000)])
    assert len(thin) == run.LONGEST_HISTORY
    assert (thin[0]["epoch"], thin[-1]["epoch"]) == (0, 999)
    assert run._thinned(thin) == thin


def test_the_clock_of_a_curve_stands_still_while_people_look(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(run.time, "process_time", lambda: 0.5 * now[0])

    def slow(y, labels):
        now[0] += 50.0
        return float((y == labels).mean())

    monkeypatch.setattr(run, "accuracy", slow)
    y = np.array([0, 1, 1, 1])
    watch = run._Curve(datasets.Dataset("four", np.eye(4, dtype="f4"), y, None, None, (4,), ("a", "b"), ""))
    fitted = SimpleNamespace(predict=lambda X: X.argmax(1))  # row i is of cluster i
    for _ in range(2):
        now[0] += 3.0
        watch(fitted, {"stage": "training", "epoch": 1, "noise": 2.0})
    now[0] += 1.0
    assert [point["elapsed"] for point in watch.curve] == [3.0, 6.0]
    assert list(watch.elapsed()) == [7.0, 3.5]
    assert watch.curve[0] == {"stage": "training", "epoch": 1, "elapsed": 3.0, "accuracy": 0.5}


def test_a_curve_shows_the_accuracy_on_the_test_rows_where_there_are_some():
    train, test = np.zeros((4, 1), "f4"), np.ones((5, 1), "f4")
    y_train, y_test = np.array([0, 1, 0, 1]), np.array([0, 0, 0, 0, 1])
    watch = run._Curve(datasets.Dataset("split", train, y_train, test, y_test, (1,), ("a", "b"), ""))
    watch(SimpleNamespace(predict=lambda X: X[:, 0].astype(int)), {})  # all in one cluster
    assert watch.curve[0]["accuracy"] == 0.8


@pytest.mark.filterwarnings("ignore:.*columns are constant", "ignore:.*not stored")
def test_a_start_stands_after_the_one_that_the_settings_name(tmp_path, monkeypatch):
    tiny = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1)}
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", tiny | {"init": "random"}))
    two = Recipe("nvisa", tiny | {"init": "gmm", "n_restarts": 2}, start="default")
    monkeypatch.setitem(RECIPES, "two_starts", two)
    made = run.run("two_starts", "digits", 0, models=tmp_path)
    assert (made["status"], made["params"]["init__init"], len(made["restarts"])) == ("ok", "random", 2)
    assert made["neighbor_information"] == max(fit["neighbor_information"] for fit in made["restarts"])
    start = nvisa.load(model_path(tmp_path, "digits", "default", 0))
    assert two.build(10, 0, start).init == ("gmm", start)
    kept = nvisa.load(model_path(tmp_path, "digits", "two_starts", 0))
    assert kept.init == ("gmm", None), "a clusterer is not stored"


def test_rows_side_by_side_wait_for_the_start_that_they_share(tmp_path, monkeypatch):
    class HeldError(Exception):
        pass

    def start(recipe, data, seed, models):
        lock = model_path(models, data.name, recipe, seed).with_suffix(".lock")
        with lock.open() as another, pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise HeldError

    monkeypatch.setattr(run, "fitted", start)
    for _ in range(2):  # who fails lets go
        with pytest.raises(HeldError):
            run.run("vade/bernoulli", "digits", 0, models=tmp_path)


@pytest.mark.filterwarnings("ignore:.*columns are constant", "ignore:.*not stored")
def test_a_record_holds_the_cost_of_the_model_it_starts_from(tmp_path, monkeypatch):
    tiny = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1), "n_init": 1}
    monkeypatch.setitem(RECIPES, "ae_gmm/default", Recipe("ae_gmm", tiny))
    monkeypatch.setitem(RECIPES, "vade/default", Recipe("vade", tiny, start="ae_gmm/default"))

    def made(seed=0):
        record = run.run("vade/default", "digits", seed, models=tmp_path)
        return record, record["start"]

    first, start = made()
    model = model_path(tmp_path, "digits", "ae_gmm/default", 0)
    assert (first["status"], start["recipe"]) == ("ok", "ae_gmm/default")
    assert first["seconds"] > start["seconds"] > 0
    assert first["cpu_seconds"] > start["cpu_seconds"] > 0
    kept = (model / "manifest.json").read_bytes()

    again, same = made()
    assert same == start, "the model is there: it is taken, and its cost with it"
    assert (model / "manifest.json").read_bytes() == kept
    assert (again["metrics"], again["seconds"] > start["seconds"]) == (first["metrics"], True)
    manifest = {key: value for key, value in json.loads(kept).items() if key != "digest"}  # of before
    del manifest["params"]["network"]["prior_covariance"]
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert made()[1] == start, "a setting that is younger than the model has its default in it"
    assert made(seed=1)[1] != start, "every seed has its own"

    manifest["extra"]["dataset_digest"] = "of other rows"
    (model / "manifest.json").write_text(json.dumps(manifest))
    start, before = made()[1], start
    assert start != before, "a model of other data is no start"

    monkeypatch.setitem(RECIPES, "ae_gmm/default", Recipe("ae_gmm", tiny | {"n_init": 2}))
    assert made()[1] != start, "the recipe is another one: so is its model"
