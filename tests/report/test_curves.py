"""A history as charts."""

import numpy as np
import pytest

from nvisa import GMVAE, LTVAE, NVISA, VAEGMM, VaDE
from nvisa.report import curves
from report_pages import QUICK


def test_a_history_becomes_charts_with_its_stages():
    history = [{"stage": "pretraining", "epoch": 1, "seconds": 1.0, "objective": -1.0}]
    history += [{"stage": "training", "epoch": e, "seconds": 2.0, "bound": -e, "clusters_in_use": 3} for e in (1, 2)]
    drawn = {chart["title"]: chart for chart in curves.charts_of_history(history)}
    assert list(drawn) == ["Bound on log p(x)", "Clusters in use", "Objective that is maximized"]
    assert drawn["Bound on log p(x)"]["series"] == [{"name": "bound", "x": [2, 3], "y": [-1, -2]}]
    assert drawn["Bound on log p(x)"]["marks"] == [{"x": 0.5, "text": "pretraining"}, {"x": 1.5, "text": "training"}]


def drawn_bound(model):
    """Of the joint training: the bound of each epoch, and the sum of the terms that are drawn beside it."""
    drawn = {chart["title"]: chart["series"] for chart in curves.charts_of_history(model.history_)}
    (bound,), terms = drawn["Bound on log p(x)"], drawn["What the bound is made of"]
    assert all(term["x"] == bound["x"] for term in terms)
    return np.array(bound["y"]), np.sum([term["y"] for term in terms], 0)


@pytest.mark.parametrize(
    "model",
    [GMVAE(2, init="random", **QUICK), LTVAE(2, **QUICK), VaDE(2, **QUICK), VAEGMM(2, **QUICK),
     NVISA(2, init="random", inference="nvil", **QUICK)],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_the_terms_that_are_drawn_add_up_to_the_bound(model, rows):
    bound, total = drawn_bound(model.fit(rows))
    np.testing.assert_allclose(total, bound, rtol=1e-5)


def test_vimcos_bound_lies_above_its_terms_by_jensens_inequality(rows):
    bound, total = drawn_bound(NVISA(2, init="random", inference="vimco", **QUICK).fit(rows))
    assert (bound > total).all()


def test_every_part_of_the_consistency_is_drawn(rows):
    history = NVISA(2, init="random", consistency=("vat", "augment"), **QUICK).fit(rows).history_
    (drawn,) = [chart for chart in curves.charts_of_history(history) if chart["title"] == "Consistency of q(y|x)"]
    assert [line["y"] for line in drawn["series"]] == [[history[0][key]] for key in ("vat", "augment", "information")]


def test_the_clock_runs_on_when_a_stage_starts_anew():
    clock = ((1, 1.0), (2, 3.0), (1, 4.0), (2, 5.0), (1, 1.0))
    history = [{"epoch": epoch, "seconds": seconds} for epoch, seconds in clock]
    assert curves.running(history) == [1.0, 3.0, 7.0, 8.0, 9.0]


@pytest.mark.parametrize("key", ["log_q_of_generated", "log_q_of_maker"])
def test_the_game_of_a_model_of_any_version_is_drawn(key):
    """What version 0.1.0 called the maker is the generator now."""
    (drawn,) = curves.charts_of_history([{"log_fooled": -1.0, key: -2.0}])
    assert [line["name"] for line in drawn["series"]] == ["log D(x) of generated rows", "log q(y|x) of generated rows"]
