"""The page's numbers against direct computation."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest

from nvisa.maths.metrics import contingency
from nvisa.nets.rows import blocks
from nvisa.report import cluster_statistics as statistics

N, K = 60, 4


@pytest.fixture
def q(random):
    return random.dirichlet(np.full(K, 0.3), size=N)


def test_effective_clusters_at_its_limits():
    assert statistics.effective_clusters(np.array([7, 7, 7, 0])) == pytest.approx(3)
    assert statistics.effective_clusters(np.array([9, 0, 0])) == pytest.approx(1)


def test_typical_rows_are_the_nearest_in_the_clusters_own_deviations(random):
    z, labels = random.randn(N, 3), random.randint(0, 3, N)
    found = statistics.typical(z, labels, 4, 5)
    for k in range(3):
        own = np.flatnonzero(labels == k)
        far = [np.sum(((z[i] - z[own].mean(0)) / z[own].std(0)) ** 2) for i in own]
        assert found[k].tolist() == own[np.argsort(far)[:5]].tolist()
    assert len(found[3]) == 0
    stretched = statistics.typical(z * [1, 100, 1e-4] + 3, labels, 4, 5)
    assert [rows.tolist() for rows in stretched] == [rows.tolist() for rows in found]


def test_a_traversal_goes_along_the_axis_of_most_variance(random):
    """Against the largest eigenvector of the covariance."""
    z = random.randn(500, 3) * [1.0, 4.0, 2.0] @ np.linalg.qr(random.randn(3, 3))[0] + [5.0, -2.0, 0.5]
    variance, axes = np.linalg.eigh(np.cov(z.T, bias=True))
    walked = statistics.traversal(z, 5)
    np.testing.assert_allclose(walked[2], z.mean(0), atol=1e-12)
    step = walked[3] - walked[2]
    assert np.linalg.norm(step) == pytest.approx(variance[-1] ** 0.5)
    assert abs(step @ axes[:, -1]) == pytest.approx(variance[-1] ** 0.5)
    assert step[np.abs(step).argmax()] > 0
    np.testing.assert_allclose(walked - z.mean(0), -(walked - z.mean(0))[::-1], atol=1e-12)


def test_uncertain_rows_are_those_of_their_cluster_with_the_smallest_maximum(q):
    labels = q.argmax(1)
    for k, found in enumerate(statistics.uncertain(q, labels, 3)):
        own = sorted((q[i].max(), i) for i in range(N) if labels[i] == k)
        assert found.tolist() == [i for _, i in own[:3]]


def test_overlap_is_the_joint_distribution_of_two_draws(q):
    joint = statistics.overlap(q)
    for a in range(K):
        for b in range(K):
            assert joint[a, b] == pytest.approx(sum(q[i, a] * q[i, b] for i in range(N)) / N)
    assert joint.sum() == pytest.approx(1)
    # P(second is the other | first in {a, b}), by enumeration of the four outcomes.
    first = joint[0].sum() + joint[2].sum()
    assert statistics.confusion_rate(joint, 0, 2) == pytest.approx((joint[0, 2] + joint[2, 0]) / first)


def test_certain_clusters_do_not_overlap():
    joint = statistics.overlap(np.eye(3)[[0, 0, 1, 2]])
    assert joint.tolist() == np.diag([0.5, 0.25, 0.25]).tolist()
    assert statistics.confused_pairs(joint, 5) == []


def test_pairs_come_in_the_order_of_their_overlap(q):
    joint = statistics.overlap(q)
    pairs = statistics.confused_pairs(joint, 10)
    assert pairs == sorted(combinations(range(K), 2), key=lambda pair: -joint[pair])


def test_rows_between_two_clusters():
    q = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.4, 0.2, 0.4]])
    assert statistics.between(q, 0, 1, 2).tolist() == [1, 0]
    assert statistics.between(q, 0, 2, 1).tolist() == [3]


def test_contrasts_against_direct_means(random, monkeypatch):
    monkeypatch.setattr(statistics, "blocks", partial(blocks, size=7))  # so that they are cut in the middle
    X, labels = random.randn(N, 5).astype(np.float32), random.randint(0, 3, N)
    X[:, 4] = 0.1
    inside, outside, contrast = statistics.contrasts(X, labels, 4)
    for k in range(3):
        here, there = X[labels == k].mean(0), X[labels != k].mean(0)
        np.testing.assert_allclose(inside[k], here, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outside[k], there, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(contrast[k, :4], (here - there)[:4] / X[:, :4].std(0), rtol=1e-4, atol=1e-6)
    assert (contrast[:, 4] == 0).all()  # constant
    assert (contrast[3] == 0).all()  # empty


def test_deviations_have_unit_variance(random):
    X = 5 + 3 * random.randn(N, 4)
    far = statistics.deviations(X, np.arange(N))
    np.testing.assert_allclose(far.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(far.std(0), 1)


def test_beyond_the_limit_the_worst_reconstructed_rows_are_scored(random):
    X = random.randn(200, 3)
    X[17] = 40.0  # which a model that reconstructs zeros misses most
    found = statistics.scores(lambda x: -(x**2).sum(1), np.zeros_like, X, np.random.RandomState(0), 50)
    scored = np.isfinite(found)
    assert scored[17]
    assert 45 <= scored.sum() <= 50
    np.testing.assert_allclose(found[scored], -(X[scored] ** 2).sum(1))
    assert np.isfinite(statistics.scores(lambda x: x[:, 0], np.zeros_like, X, random, 200)).all()


def test_the_confusion_table_of_a_renamed_partition_is_diagonal(random):
    y = random.randint(0, 4, N)
    names = np.array([2, 0, 4, 1])
    counts = contingency(y, names[y], 6)
    order = statistics.matched_order(counts)
    assert order[:4].tolist() == names.tolist()
    assert counts[:, order][:, :4].tolist() == np.diag(np.bincount(y)).tolist()
    assert sorted(order) == list(range(6))  # two of them without a row


def test_more_classes_than_clusters():
    assert sorted(statistics.matched_order(np.array([[3, 0], [0, 2], [1, 0]]))) == [0, 1]


def test_gaps_have_no_part_in_what_sets_a_cluster_apart():
    """As if each column had only the rows that it has."""
    random = np.random.RandomState(0)
    X, labels = random.randn(40, 3), random.randint(2, size=40)
    holes = np.where(random.rand(40, 3) < 0.4, np.nan, X)
    inside, outside, contrast = statistics.contrasts(holes, labels, 2)
    for d in range(3):
        seen = ~np.isnan(holes[:, d])
        alone = statistics.contrasts(X[seen][:, [d]], labels[seen], 2)
        for whole, part in zip((inside, outside, contrast), alone, strict=True):
            np.testing.assert_allclose(whole[:, d], part[:, 0])
    far = statistics.deviations(holes, np.arange(40))
    assert (far[np.isnan(holes)] == 0).all()
    seen = ~np.isnan(holes)
    expected = (holes - np.nanmean(holes, 0)) / np.nanstd(holes, 0)
    np.testing.assert_allclose(far[seen], expected[seen])
