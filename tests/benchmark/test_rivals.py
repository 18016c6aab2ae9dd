"""The page of rivals says what the records say; noise counts as it says; a made table is as it is described."""

from importlib import import_module
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "rivals"


def load(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return import_module(name)


@pytest.mark.parametrize("name", ["docs/rivals.md", "docs/rivals-in-full.md"])
def test_the_page_holds_what_the_records_say(name):
    page, text = load("page"), (ROOT / name).read_text()
    assert name in page.PAGES
    records = page.load_records(ROOT / page.FOLDER)
    assert page.rewrite(text, records) == text, "run `make table`"


def test_noise_is_wrong_and_a_cluster_or_in_the_nearest_cluster():
    y, labels = np.array([0, 0, 0, 1, 1, 1]), np.array([5, 5, -1, 7, -1, -1])
    found = load("scores").scores(y, labels, np.array([5, 5, 5, 7, 7, 7]))
    assert found["noise_nearest"] == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})
    assert found["noise_wrong"]["accuracy"] == pytest.approx(3 / 6)
    pairs = [(y[a] == y[b], labels[a] == labels[b]) for a, b in combinations(range(6), 2)]  # ari by its definition
    both, mine, theirs = (sum(map(of, pairs)) for of in (all, lambda p: p[0], lambda p: p[1]))
    expected = mine * theirs / len(pairs)
    assert found["noise_wrong"]["ari"] == pytest.approx((both - expected) / ((mine + theirs) / 2 - expected))


def test_rows_that_are_all_noise_have_no_row_right():
    y = np.array([0, 1, 1])
    found = load("scores").scores(y, np.full(3, -1), np.zeros(3, int))
    assert (found["noise_wrong"]["accuracy"], found["noise_nearest"]["accuracy"]) == (0, pytest.approx(2 / 3))


def test_a_row_of_noise_gets_the_cluster_of_the_nearest_row_that_has_one():
    nearest, z = load("clusterers").nearest, np.array([[0.0], [1.0], [1.4], [9.0], [5.5]])
    assert nearest(np.array([3, 8, -1, 4, -1]), z).tolist() == [3, 8, 8, 4, 4]
    assert nearest(np.array([2, 0, 1, 1, 0]), z).tolist() == [2, 0, 1, 1, 0]
    assert nearest(np.full(5, -1), z).tolist() == [0] * 5


@pytest.mark.parametrize("n", [2, 3, 5])
def test_centers_of_blobs_are_eight_deviations_apart(n):
    datasets = load("datasets")
    corners = datasets.simplex(n)
    assert corners.shape == (n, n - 1)
    assert [np.linalg.norm(a - b) for a, b in combinations(corners, 2)] == pytest.approx([8.0] * (n * (n - 1) // 2))
    X, y = datasets.blobs([4_000] * n, 6)
    means = [X[y == k].mean(0) for k in range(n)]
    assert [np.linalg.norm(a - b) for a, b in combinations(means, 2)] == pytest.approx([8.0] * (n * (n - 1) // 2), 0.02)
    assert (X - np.stack(means)[y]).std() == pytest.approx(1.0, abs=0.01)


def test_a_standardized_table_has_no_gap_and_no_constant_column(rng):
    X = np.random.RandomState(0).normal(3.0, 5.0, (50, 3))
    X[:, 1], X[7, 2] = 4.0, np.nan
    found, y = load("datasets").standardized(X, np.arange(50))
    assert found.shape == (49, 2)
    assert 7 not in y
    np.testing.assert_allclose((found.mean(0), found.std(0)), ([0, 0], [1, 1]), atol=1e-12)


def record(seed, wrong, near, start="warm", cpu=1.0, **more):
    metrics = {k: dict.fromkeys(("accuracy", "nmi", "ari"), v) for k, v in
               (("noise_wrong", wrong), ("noise_nearest", near))}  # fmt: skip
    return {"data": "iris", "rows": "all", "method": "evoc", "status": "ok", "seed": seed, "start": start,
            "cpu_seconds": cpu, "n_clusters": 3, "noise": 0.1, "metrics": metrics, **more}  # fmt: skip


def test_a_cell_is_the_mean_over_seeds_under_both_conventions():
    score = load("page").score
    assert score([record(0, 0.5, 0.7), record(1, 0.6, 0.8), record(0, 0.0, 0.0, "first")]) == "75.0 / 55.0"
    assert score([record(0, 0.5, 0.5)]) == "50.0"
    assert (score([]), score([{"status": "longer than 9 s"}])) == ("-", "failed")


def test_seconds_of_a_fit_after_other_rows_are_neither_warm_nor_cold():
    page = load("page")
    mine = [record(0, 1, 1, "between", 50.0), record(1, 1, 1, "warm", 2.0), record(2, 1, 1, "cold", 9.0)]
    assert page.times(mine) == "2 (9)"
    assert page.times([record(0, 1, 1, "between")]) == "-"


def test_the_summary_is_over_the_tables_that_every_quick_method_has():
    page = load("page")
    evoc = [record(0, 0.5, 0.7), record(0, 0.9, 0.9, data="wine")]
    means = [record(0, 0.695, 0.695, method="kmeans"), record(0, 0.1, 0.1, method="dec", data="wine")]
    assert page.summary([*evoc, *means]).rows == (
        ("EVoC", "70.0 / 50.0", "70.0 / 50.0", "70.0 / 50.0", "1 of 1", "1"),
        ("k-means", "69.5", "69.5", "69.5", "1 of 1", "1"),
    )
