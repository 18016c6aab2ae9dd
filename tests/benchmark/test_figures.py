"""Figures: what is drawn is what the records and the models hold."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

import nvisa
from benchmark.made_records import reaching, record
from nvisa import data as datasets
from nvisa.benchmark import figures
from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.benchmark.records import model_path
from nvisa.fitting.training import Training
from nvisa.maths.metrics import accuracy
from nvisa.methods import METHODS
from nvisa.nets.layers import Network


def test_the_loss_is_minus_the_bound_of_the_joint_training():
    epochs = [("pretraining", 1, None), ("training", 1, -5.0), ("training", 2, 3.0), ("training", 3, None)]
    history = [{"stage": s, "epoch": e, "n_epochs": 4} | ({} if b is None else {"bound": b}) for s, e, b in epochs]
    assert figures.losses(record(history=history)) == ([0.25, 0.5], [5.0, -3.0])


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_figures_from_records_and_models(tmp_path, monkeypatch):
    tiny = {"init": "random", "consistency": None, "network": Network(hidden=(8,), latent_dim=2)}
    recipe = Recipe("nvisa", tiny | {"training": Training(epochs=1)})
    for name in figures.SAMPLED:
        monkeypatch.setitem(RECIPES, f"ablation/{name}", recipe)
    words = ["--records", str(tmp_path / "none"), "--models", str(tmp_path / "models"), "--out", str(tmp_path)]
    figures.main([*words, "--only", "samples"])
    assert imread(tmp_path / "samples.png").std() > 0.1
    model = nvisa.load(model_path(tmp_path / "models", "digits", "ablation/enum_y", 0))
    z, y, _ = figures.prior_points(model, 4000, np.random.RandomState(1))
    standard = (z - model.module_.prior.loc[y].detach().numpy()) / model.module_.prior.scale[y].detach().numpy()
    assert abs(standard.mean()) < 0.05  # 4 sigma of 8,000 normal numbers
    assert abs(standard.std() - 1) < 0.035


def test_the_losses_of_the_ablation_are_on_one_axis(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure.axes[0]))
    history = [{"stage": "training", "epoch": e, "n_epochs": 2, "bound": b} for e, b in ((1, -5.0), (2, 3.0))]
    digits = {"dataset": "digits", "history": history}
    records = [record(recipe="ablation/vimco", **digits), record(recipe="ablation/enum_y", **digits)]
    records += [record(recipe="ablation/nvil", **digits | {"seed": 1}), record(recipe="default", **digits)]
    figures.loss(records, tmp_path, tmp_path, None)
    assert [line.get_label() for line in drawn[0].lines] == ["EnumY, NVISA", "VIMCO, NVISA"]
    assert all(list(line.get_ydata()) == [5.0, -3.0] for line in drawn[0].lines)


def test_time_is_drawn_of_runs_that_ended(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure.axes[0]))
    curve = [{"stage": "training", "seconds": 4.0, "elapsed": 30.0, "accuracy": 0.25}]
    start = {"seconds": 20.0}
    records = [reaching(0.8, seconds=80.0, cpu_seconds=40.0, curve=curve, start=start)]
    records += [reaching(0.9, seed=1, seconds=60.0, cpu_seconds=60.0)]
    figures.time([*records, record(seed=2, status="diverged", metrics={})], tmp_path, tmp_path, None)
    point, *curves = drawn[0].lines
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (50.0, pytest.approx(85.0))
    assert [list(line.get_ydata()) for line in curves] == [[25.0], []]
    assert list(curves[0].get_xdata()) == [25.0]  # half of 20 + 30: two seconds of the clock were one of a core


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_the_latent_space_is_drawn_with_its_accuracies(tmp_path, monkeypatch):
    digits, drawn = datasets.load("digits"), []
    tiny = {"init": "random", "consistency": None, "network": Network(hidden=(8,), latent_dim=2), "random_state": 0}
    model = METHODS["nvisa"](training=Training(epochs=1), **tiny).fit(digits.X_train)
    split = replace(digits, X_test=digits.X_train[:90], y_test=digits.y_train[:90])
    monkeypatch.setattr(figures, "N_POINTS", 90)
    monkeypatch.setattr(figures, "fitted", lambda *_: (model, {}))
    monkeypatch.setattr(figures.datasets, "load", lambda *_: split)
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure.axes))
    figures.tsne([], tmp_path, tmp_path, None)
    test, prior = drawn[0]
    assert test.get_title() == f"test digits: accuracy {accuracy(split.y_test, model.predict(split.X_test)):.2%}"
    assert len(test.collections[0].get_offsets()) == len(prior.collections[0].get_offsets()) == 90
    np.testing.assert_array_equal(test.collections[0].get_array(), model.predict(split.X_test))
