"""The page of criteria says what the records say; correlation, regret and what is left out are what they are called."""

from importlib import import_module
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def load(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks" / "rivals")
        patch.syspath_prepend(ROOT / "benchmarks")
        return import_module(name)


def record(data, ari, **criteria):
    """A pool of as many clusterings as numbers."""
    names = list(load("criteria").ALGORITHMS)[: len(ari)]
    pool = {
        name: {"ari": score, "accuracy": score} | {c: values[i] for c, values in criteria.items()}
        for i, (name, score) in enumerate(zip(names, ari, strict=True))
    }
    for member in pool.values():
        member.update({c: None for c in load("criteria_page").CRITERIA if c not in criteria})
    return {"data": data, "seed": 0, "pool": pool, "rule": {"ari": 0.5, "accuracy": 0.5}}


def test_the_page_holds_what_the_records_say():
    page = load("criteria_page")
    text = (ROOT / page.PAGE).read_text()
    assert page.rewrite(text, page.load_records(ROOT / page.FOLDER)) == text, "run `make table`"


def test_every_record_is_of_a_data_set_and_has_every_number():
    page, criteria = load("criteria_page"), load("criteria")
    for found in page.load_records(ROOT / page.FOLDER):
        assert found["data"] in criteria.NAMES
        assert set(page.FIXED) < set(found["pool"])
        assert all(set(page.CRITERIA) | {"ari", "accuracy"} == set(member) for member in found["pool"].values())


def test_rank_correlation_is_one_less_the_squared_differences_of_ranks():
    """``1 - 6 sum d^2 / (n^3 - n)`` where no two are equal."""
    rank_correlation, judged = load("criteria_page").rank_correlation, [0.1, 0.2, 0.4, 0.8]
    for order in permutations(range(4)):
        squared = sum((a - b) ** 2 for a, b in enumerate(order))
        found = rank_correlation(record("iris", judged, cut=[float(np.exp(a)) for a in order]), "cut")
        assert found == pytest.approx(1 - 6 * squared / 60)
    assert rank_correlation(record("iris", judged, cut=[1.0] * 4), "cut") == 0
    assert rank_correlation(record("iris", [0.3] * 4, cut=judged), "cut") is None
    assert rank_correlation(record("iris", judged, cut=[1.0, None, 2.0, 3.0]), "cut") is None


def test_regret_of_equal_choices_is_that_of_drawing_one():
    regret = load("criteria_page").regret
    assert regret(record("iris", [0.9, 0.6, 0.2], cut=[1.0, 2.0, 2.0]), "cut") == pytest.approx(0.9 - (0.6 + 0.2) / 2)
    assert regret(record("iris", [0.9, 0.6, 0.2], cut=[1.0, None, 0.5]), "cut") == 0
    assert regret(record("iris", [0.9, 0.6, 0.2]), "cut") is None


def test_what_is_left_out_has_no_part_in_the_choice():
    """On iris alone the cut is right; leaving iris out, information is, and is wrong on iris."""
    page, judged = load("criteria_page"), [0.1, 0.2, 0.4, 0.8]
    wrong = judged[::-1]
    records = [record("iris", judged, cut=judged, information=wrong)]
    records += [record(name, judged, cut=wrong, information=judged) for name in ("wine", "glass", "vowel")]
    for by in ("rank", "regret"):
        chosen = page.left_out(records, by=by)
        assert chosen["iris"] == ("information", pytest.approx(0.7))
        assert chosen["glass"] == ("information", 0)


def test_criteria_are_larger_for_the_true_groups():
    """Two groups far apart: their own labels leave no neighbor outside; labels drawn at random are worse by all."""
    criteria, rng = load("criteria"), np.random.RandomState(0)
    y = np.repeat([0, 1], 60)
    x = (rng.normal(size=(120, 3)) + 20 * y[:, None]).astype(np.float32)
    rows = criteria.Rows(x, criteria.nearest(x, 10)[0], x)
    true, drawn = (criteria.criteria(rows, labels, 2, 0) for labels in (y, rng.randint(2, size=120)))
    assert true["information"] == pytest.approx(np.log(2))
    assert (true["information_rate"], true["cut"]) == pytest.approx((1, 0))
    centered = x - np.stack([x[y == a].mean(0) for a in (0, 1)])[y]
    assert true["within"] == pytest.approx(-np.square(centered).sum() / 120, rel=1e-5)
    assert all(true[name] > drawn[name] for name in true if name not in ("dbcv", "density"))
