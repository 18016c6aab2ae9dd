"""The numbers of every table, against brute force and limits."""

import doctest
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvisa.maths import metrics
from nvisa.maths.metrics import accuracy, ari, calibration_error, evaluate, match_clusters, nmi, purity

LABELS = st.integers(1, 5).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, 4), st.integers(0, k - 1)), min_size=1, max_size=30)
)


def brute_force_accuracy(y_true, y_pred):
    """Best share of hits over all one-to-one renamings of 0..4, absent labels included."""
    return max(np.mean(np.array(renaming)[y_pred] == y_true) for renaming in permutations(range(5)))


@given(LABELS)
def test_accuracy_is_the_best_of_all_relabelings(pairs):
    y_true, y_pred = np.array(pairs).T
    assert accuracy(y_true, y_pred) == pytest.approx(brute_force_accuracy(y_true, y_pred), abs=1e-12)


@given(LABELS, st.permutations(range(5)))
def test_every_number_ignores_the_names_of_clusters(pairs, renaming):
    y_true, y_pred = np.array(pairs).T
    assert evaluate(y_true, np.array(renaming)[y_pred]) == pytest.approx(evaluate(y_true, y_pred))


@given(LABELS)
def test_purity_bounds_accuracy_from_above_and_both_lie_in_the_unit_interval(pairs):
    y_true, y_pred = np.array(pairs).T
    assert 0 < accuracy(y_true, y_pred) <= purity(y_true, y_pred) <= 1


@given(LABELS)
def test_the_matching_is_one_to_one_and_gives_the_accuracy(pairs):
    y_true, y_pred = np.array(pairs).T
    matched = match_clusters(y_true, y_pred)
    assert len(matched) == len(set(matched.values())) == min(len(set(y_true)), len(set(y_pred)))
    hits = np.mean([matched.get(k) == c for c, k in zip(y_true, y_pred, strict=True)])
    assert hits == pytest.approx(accuracy(y_true, y_pred))


def test_known_case_below_one():
    y_true, y_pred = [0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0]
    assert accuracy(y_true, y_pred) == pytest.approx(5 / 6)
    assert purity(y_true, y_pred) == pytest.approx(5 / 6)
    # 2 x 2 counts [[1 2], [3 0]]: pairs together in both 1 + 3 = 4; in classes 6, in clusters 7, of 15.
    expected = 6 * 7 / 15
    assert ari(y_true, y_pred) == pytest.approx((4 - expected) / ((6 + 7) / 2 - expected))
    h_true, h_pred = np.log(2), -(2 / 6 * np.log(2 / 6) + 4 / 6 * np.log(4 / 6))
    mutual = sum(p * np.log(p / (0.5 * q)) for p, q in [(1 / 6, 4 / 6), (2 / 6, 2 / 6), (3 / 6, 4 / 6)])
    assert nmi(y_true, y_pred) == pytest.approx(mutual / ((h_true + h_pred) / 2))
    names = {"accuracy": accuracy, "purity": purity, "nmi": nmi, "ari": ari}
    assert evaluate(y_true, y_pred) == {name: function(y_true, y_pred) for name, function in names.items()}


def test_splitting_a_class_costs_accuracy_but_not_purity():
    y_true = np.repeat([0, 1], 4)
    assert evaluate(y_true, np.arange(8))["purity"] == 1
    assert accuracy(y_true, np.arange(8)) == 2 / 8
    assert accuracy(y_true, np.zeros(8)) == purity(y_true, np.zeros(8)) == 4 / 8


def test_strings_and_gaps_are_labels_too():
    assert evaluate(["a", "b", "b"], [7, -1, -1]) == {"accuracy": 1, "purity": 1, "nmi": 1, "ari": 1}
    assert match_clusters(["a", "b", "b"], [7, -1, -1]) == {7: "a", -1: "b"}


def test_independent_labels_have_ari_near_zero():
    rng = np.random.default_rng(0)
    assert abs(ari(rng.integers(0, 5, 5000), rng.integers(0, 5, 5000))) < 0.01


# Calibration ------------------------------------------------------------------------------------------


def two_clusters(confidence, n_right, n_wrong):
    """(y, proba): both clusters with this confidence, right this often. Cluster 1 is class 0 and back."""
    y = [0] * n_right + [1] * n_wrong + [1] * n_right + [0] * n_wrong
    q = [[1 - confidence, confidence]] * (n_right + n_wrong) + [[confidence, 1 - confidence]] * (n_right + n_wrong)
    return np.array(y), np.array(q)


def test_calibrated_by_construction_is_zero():
    parts = [two_clusters(0.6, 6, 4), two_clusters(0.8, 8, 2), two_clusters(1.0, 5, 0)]
    y, q = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert calibration_error(y, q) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("confidence", "n_right", "gap"), [(0.9, 6, 0.3), (0.55, 10, 0.45), (1.0, 7, 0.3)])
def test_one_confidence_gives_its_distance_from_the_accuracy(confidence, n_right, gap):
    y, q = two_clusters(confidence, n_right, 10 - n_right)
    assert calibration_error(y, q) == pytest.approx(gap)


def naive_calibration_error(y, q, n_bins):
    matched = match_clusters(y, q.argmax(1))
    error = 0.0
    for b in range(n_bins):
        rows = [n for n in range(len(y)) if b / n_bins < q[n].max() <= (b + 1) / n_bins]
        if rows:
            hit = np.mean([matched.get(q[n].argmax()) == y[n] for n in rows])
            error += len(rows) / len(y) * abs(hit - np.mean([q[n].max() for n in rows]))
    return error


@pytest.mark.parametrize("n_bins", [1, 4, 15])
def test_calibration_error_equals_the_naive_loop(n_bins):
    rng = np.random.default_rng(1)
    q, y = rng.dirichlet([0.4] * 6, size=300), rng.integers(0, 4, size=300)  # K > C: some stay unmatched
    assert calibration_error(y, q, n_bins=n_bins) == pytest.approx(naive_calibration_error(y, q, n_bins))


def test_errors_in_two_bins_do_not_cancel():
    under, over = two_clusters(0.6, 10, 0), two_clusters(1.0, 6, 4)  # +0.4 and -0.4
    y, q = np.concatenate([under[0], over[0]]), np.concatenate([under[1], over[1]])
    assert calibration_error(y, q) == pytest.approx(0.4)
    assert calibration_error(y, q, n_bins=1) == pytest.approx(0, abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    parts = two_clusters(0.75, 10, 0), two_clusters(0.875, 5, 5)  # exact in binary; +0.25 and -0.375
    y, q = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert calibration_error(y, q, n_bins=4) == pytest.approx((0.25 + 0.375) / 2)


# Bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: accuracy([0, 1], [0]), "got 2 and 1"),
        (lambda: accuracy([], []), r"y_true: expected a non-empty vector.*shape \(0,\)"),
        (lambda: purity([0, 1], [[0.1, 0.9], [0.5, 0.5]]), r"y_pred.*argmax"),
        (lambda: nmi([0.0, np.nan], [0, 1]), "y_true.*NaN"),
        (lambda: ari(np.array([1, "a"], dtype=object), [0, 1]), "one type"),
        (lambda: calibration_error([0, 1], [0.5, 0.5]), r"\(N, K\)"),
        (lambda: calibration_error([0, 1], [[0.5, 0.5], [2.0, 1.0]]), "sums from 1 to 3"),
        (lambda: calibration_error([0, 1], [[0.5, 0.5], [1.5, -0.5]]), "entries from -0.5"),
        (lambda: calibration_error([0, 1], [[0.5, 0.5], [np.nan, 1.0]]), "nan"),
        (lambda: calibration_error([0, 1], [[0.5, 0.5], [0.0, 1.0]], n_bins=0), "n_bins"),
        (lambda: calibration_error([0], [[0.5, 0.5], [0.0, 1.0]]), "got 1 and 2"),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(metrics)
    assert result.attempted >= 2
    assert result.failed == 0
