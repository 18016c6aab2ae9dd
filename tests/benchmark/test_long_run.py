"""A run that is killed goes on, its curve has every point once, and no label is seen by the fit."""

import json

import numpy as np
import pytest

import nvisa
from nvisa import Network, Training
from nvisa.benchmark import long_run, long_run_page
from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.data import Dataset
from nvisa.fitting import checkpoint
from nvisa.maths.metrics import accuracy

TINY = {"init": "random", "consistency": None, "network": Network(hidden=(8,), latent_dim=2, batch_norm=False)}


@pytest.fixture
def data(monkeypatch):
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1, 2], 20)
    X = (rng.randn(60, 3) + 5 * y[:, None]).astype(np.float32)
    data = Dataset("made_up", X, y, X[::2], y[::2], (3,), ("a", "b", "c"), "0")
    monkeypatch.setattr(long_run.datasets, "load", lambda name, home: data)
    monkeypatch.setitem(RECIPES, "slides/tiny", Recipe("nvisa", TINY | {"training": Training(epochs=12)}))
    return data


def points(folder):
    return json.loads((folder / "tiny-made_up-1" / "curve.json").read_text())["points"]


@pytest.mark.filterwarnings("ignore:Only")
def test_a_killed_run_goes_on_and_its_curve_is_that_of_one_that_was_not(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    whole = long_run.long_run("slides/tiny", "made_up", 1, tmp_path / "whole")
    look = long_run.Curve.__call__

    def killed(self, fitted, record):
        look(self, fitted, record)
        if record["epoch"] == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(long_run.Curve, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        long_run.long_run("slides/tiny", "made_up", 1, tmp_path / "killed")
    assert [point["epoch"] for point in points(tmp_path / "killed")] == [1, 5, 10]
    monkeypatch.setattr(long_run.Curve, "__call__", look)
    home = long_run.long_run("slides/tiny", "made_up", 1, tmp_path / "killed")
    assert home.name == "tiny-made_up-1"
    assert [point["epoch"] for point in points(tmp_path / "killed")] == [1, 5, 10, 12]
    for mine, theirs in zip(points(tmp_path / "killed"), points(tmp_path / "whole"), strict=True):
        assert {**mine, "cpu_seconds": 0} == {**theirs, "cpu_seconds": 0}
        assert mine["cpu_seconds"] > 0
    models = [nvisa.load(folder / "model") for folder in (home, whole)]
    assert np.array_equal(*[model.predict_proba(data.X_train) for model in models])
    assert not (home / "checkpoint").exists()
    assert long_run.long_run("slides/tiny", "made_up", 1, tmp_path / "killed") == home  # done: nothing happens


@pytest.mark.filterwarnings("ignore:Only")
def test_a_point_is_what_the_fitted_model_says_of_the_test_rows(data, tmp_path):
    home = long_run.long_run("slides/tiny", "made_up", 1, tmp_path)
    curve = json.loads((home / "curve.json").read_text())
    assert (curve["recipe"], curve["dataset"], curve["seed"]) == ("slides/tiny", "made_up", 1)
    model, last = nvisa.load(home / "model"), curve["points"][-1]
    q = model.predict_proba(data.X_test).astype(np.float64)
    assert last["accuracy"] == accuracy(data.y_test, q.argmax(1))
    assert last["entropy"] == pytest.approx(-(q * np.log(q)).sum(1).mean(), rel=1e-5)
    assert last["entropy_of_mean"] == pytest.approx(-(q.mean(0) * np.log(q.mean(0))).sum(), rel=1e-5)
    assert last["bound"] == model.history_[-1]["bound"]
    assert curve["products"] == model.precision_


def test_the_slides_recipe_is_their_preset_with_one_decoded_sample_and_layers_of_256():
    run, preset = RECIPES["slides/vimco_annealed"].build(10, 0), nvisa.NVISA.preset("paper", random_state=0)
    differing = {name for name, value in run.get_params().items() if value != preset.get_params()[name]}
    assert differing == {"inference", "network"}
    assert (run.n_samples, run.training.epochs, run.inference) == (15, 3000, nvisa.VIMCO(decoder_samples=1))


def test_the_table_says_where_a_run_stands_and_the_picture_has_a_panel_for_each_quantity(data, tmp_path):
    home = long_run.long_run("slides/tiny", "made_up", 1, tmp_path)
    curves = long_run_page.curves_in(tmp_path)
    last = json.loads((home / "curve.json").read_text())["points"][-1]
    (row,) = long_run_page.table(curves).rows
    assert row[:3] == ("tiny, made_up, seed 1", "12", "12")
    assert float(row[4]) == pytest.approx(100 * last["accuracy"], abs=0.005)
    long_run_page.draw(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_a_recipe_of_another_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"full length.*slides/vimco_annealed.*'slides/default'"):
        long_run.long_run("slides/default", "mnist", 0, tmp_path)


@pytest.mark.filterwarnings("ignore:Only", "ignore:.*not stored")
def test_a_run_from_a_start_keeps_the_start_beside_it(data, tmp_path, monkeypatch):
    settings = {"network": Network(hidden=(8,), latent_dim=2, batch_norm=False), "training": Training(epochs=2)}
    monkeypatch.setitem(RECIPES, "start", Recipe("ae_gmm", settings))
    again = Recipe("nvisa", {"consistency": None, **settings}, start="start", warm_start=True)
    monkeypatch.setitem(RECIPES, "slides/tiny", again)
    home = long_run.long_run("slides/tiny", "made_up", 1, tmp_path)
    start = nvisa.load(home / "start")
    monkeypatch.setitem(RECIPES, "start", Recipe("ae_gmm", {"training": Training(epochs=-1)}))  # is not fitted again
    for path in (home / "model", home / "curve.json"):
        (tmp_path / "before").mkdir(exist_ok=True)
        path.rename(tmp_path / "before" / path.name)
    long_run.long_run("slides/tiny", "made_up", 1, tmp_path)
    before, after = (nvisa.load(folder / "model") for folder in (tmp_path / "before", home))
    assert np.array_equal(before.predict_proba(data.X_train), after.predict_proba(data.X_train))
    assert start.predict(data.X_train).max() == 2


@pytest.mark.filterwarnings("ignore:Only", "ignore:.*not stored")
def test_a_run_starts_from_the_most_informative_of_three_fits_and_keeps_no_other(data, tmp_path, monkeypatch):
    short = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=2)}
    monkeypatch.setitem(RECIPES, "start/tiny", Recipe("ae_gmm", short))
    tiny = {name: value for name, value in TINY.items() if name != "init"} | {"training": Training(epochs=2)}
    monkeypatch.setitem(RECIPES, "slides/tiny", Recipe("nvisa", tiny, start="start/tiny"))
    told = iter((0.1, 0.3, 0.2))
    monkeypatch.setattr(long_run, "neighbor_information", lambda proba, graph: next(told))
    home = long_run.long_run("slides/tiny", "made_up", 1, tmp_path)
    found = json.loads((home / "starts.json").read_text())["neighbor_information"]
    assert found == {"1": 0.1, "101": 0.3, "201": 0.2}
    assert nvisa.load(home / "start").random_state == 101
    assert sorted(path.name for path in home.iterdir()) == ["curve.json", "model", "start", "starts.json"]
