"""Recipes: rows differ in what their names say, and controls are what they are called."""

import numpy as np

from nvisa.benchmark.recipes import ABLATION, RECIPES
from nvisa.benchmark.records import record_path
from nvisa.fitting.initialization import WarmStart
from nvisa.maths.metrics import accuracy
from nvisa.methods import METHODS
from nvisa.methods.imsat import IMSAT


def test_an_ablations_row_differs_in_what_its_name_says():
    common = RECIPES["ablation/vimco_annealed"].settings
    for row in ABLATION:
        settings = RECIPES[f"ablation/{row}"].settings
        differing = {key for key in settings if settings[key] != common.get(key)}
        named = {"inference", "likelihood", "std_annealing", "n_samples", "posterior", "init"} & set(ABLATION[row])
        assert differing <= named | ({"training"} if "1000" in row else set()), row
        assert (settings["training"].steps, settings["network"]) == (common["training"].steps, common["network"])


def test_the_controls_find_separate_blobs():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(150, 60)) + 20 * np.repeat(np.eye(3, 60), 50, axis=0)
    y = np.repeat([0, 1, 2], 50)
    for name in ("kmeans", "gmm"):
        assert accuracy(y, RECIPES[f"{name}/default"].build(3, 0).fit(X).predict(X)) == 1.0
    assert [RECIPES[f"kmeans/{name}"].build(3, 0).n_init for name in ("default", "one_start")] == [10, 1]


def test_imsat_has_its_defaults():
    assert RECIPES["imsat/default"].build(3, 0).get_params() == IMSAT(3, random_state=0).get_params()
    assert RECIPES["imsat/restarts"].build(3, 0).get_params() == IMSAT(3, n_restarts=3, random_state=0).get_params()


def test_the_start_of_nvisa_in_the_paper_is_kept():
    start = object()
    assert RECIPES["paper/gmm"].build(3, 0, start).init == WarmStart(start, masked=0.3)
    assert RECIPES["paper/umap"].build(3, 0).init == WarmStart("umap", masked=0.3)
    assert RECIPES["paper/random"].build(3, 0).init == "random"
    assert RECIPES["two_starts"].build(3, 0, start).init == ("umap", start)


def test_every_recipe_builds_its_method_and_no_two_share_a_record(tmp_path):
    for name, recipe in RECIPES.items():
        start = RECIPES[recipe.start].build(7, 0) if recipe.start else None
        if recipe.method in METHODS:  # or a control
            assert type(recipe.build(7, 0, start)) is METHODS[recipe.method], name
            assert recipe.build(7, 0, start).n_clusters == 7
    assert len({record_path(tmp_path, "digits", name, 0) for name in RECIPES}) == len(RECIPES)
    assert {recipe.method for recipe in RECIPES.values()} >= set(METHODS)
