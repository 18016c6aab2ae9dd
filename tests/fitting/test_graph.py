"""Radii against all pairs; the information of neighbors, its merges and its moves, against brute force."""

import math
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from nvisa.fitting.graph import (
    _distances,
    _merges,
    intrinsic_dimension,
    joint_of_labels,
    merge_by_information,
    merged_microclusters,
    mutual_information,
    neighbor_information,
    neighbor_joint,
    neighbor_radius,
    neighbors,
    principal_components,
    refine_by_information,
)
from oracles import information as information_oracle
from oracles import sorted_distances


@pytest.fixture
def random() -> np.random.RandomState:
    return np.random.RandomState(7)


def symmetric_joint(random, k):
    """A random joint distribution of two neighbors, with zeros in it."""
    joint = random.gamma(0.5, size=(k, k)) * (random.rand(k, k) < 0.7)
    return (joint + joint.T) / (2 * joint.sum())


def merged(joint, a, b):
    """The joint after b became a, by summing every cell."""
    name = [a if i == b else i for i in range(len(joint))]
    out = np.zeros_like(joint)
    for i in range(len(joint)):
        for j in range(len(joint)):
            out[name[i], name[j]] += joint[i, j]
    return out


def renamed(labels, other):
    """Whether two labelings are the same partition."""
    return len(set(zip(labels, other, strict=True))) == len(set(labels)) == len(set(other))


# ---- distances -------------------------------------------------------------------------------------------------------


def test_neighbors_are_the_nearest_other_rows(random):
    X = random.randn(80, 3)
    rows = neighbors(X, 4)
    own = np.linalg.norm(X[:, None] - X[rows], axis=-1)
    np.testing.assert_allclose(np.sort(own, 1), sorted_distances(X)[:, :4], rtol=1e-12)
    assert not (rows == np.arange(80)[:, None]).any()


@pytest.mark.parametrize("n", [12, 300])
def test_the_radius_is_the_distance_to_the_kth_other_row_when_all_rows_are_reference(random, n):
    X = random.randn(n, 3)
    np.testing.assert_allclose(neighbor_radius(X, random, k=10, n_reference=300), sorted_distances(X)[:, 9], rtol=1e-9)


def test_with_fewer_than_k_others_the_radius_is_the_distance_to_the_farthest(random):
    X = random.randn(5, 2)
    np.testing.assert_allclose(neighbor_radius(X, random, k=10), sorted_distances(X)[:, -1], rtol=1e-9)


@pytest.mark.parametrize("dims", [1, 2, 4, 10])
def test_the_radius_from_a_sample_is_right_within_five_per_cent_in_the_median(random, dims):
    X = random.randn(1600, dims)
    ratio = neighbor_radius(X, random, k=10, n_reference=400) / sorted_distances(X)[:, 9]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


def test_the_dimension_that_counts_is_the_data_s_not_the_number_of_columns(random):
    X = random.randn(1600, 2) @ np.linalg.qr(random.randn(20, 2))[0].T
    ratio = neighbor_radius(X, random, k=10, n_reference=400) / sorted_distances(X)[:, 9]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 1e-3)])
def test_distances_to_a_sample_are_those_of_the_definition_far_from_the_origin_too(random, dtype, tolerance):
    x, reference = (3.0 + random.normal(size=(n, 20)) for n in (7, 30))
    exact = np.sort(np.linalg.norm(x[:, None] - reference, axis=2), 1)[:, :4]
    found = _distances(x.astype(dtype), reference.astype(dtype), 4)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, exact, rtol=tolerance)
    assert _distances(x, x, 2)[:, 0] == pytest.approx(0, abs=1e-6)


def test_noise_in_the_columns_beyond_the_leading_components_does_not_lengthen_the_radius(random):
    signal = random.randn(900, 3)
    turn = np.linalg.qr(random.randn(400, 400))[0]
    noisy = np.hstack([5 * signal, 0.2 * random.randn(900, 397)]) @ turn
    radius = neighbor_radius(noisy, random, n_components=3)
    np.testing.assert_allclose(radius, sorted_distances(5 * signal)[:, 9], rtol=0.15)
    assert np.median(neighbor_radius(noisy, random, n_components=400) / radius) > 2  # what the noise would do


def test_the_radius_in_as_many_components_as_columns_is_that_of_the_rows(random):
    X = random.randn(300, 60)
    found = neighbor_radius(X, random, n_components=60)
    np.testing.assert_allclose(found, sorted_distances(X)[:, 9], rtol=1e-9)
    assert (neighbor_radius(X, random, n_components=50) < found).all()


def test_the_leading_components_are_those_about_the_mean(random):
    X = random.randn(400, 60) * 0.9 ** np.arange(60)
    here, there = (neighbor_radius(X + at, np.random.RandomState(1), n_components=2) for at in (0.0, 50.0))
    np.testing.assert_allclose(there, here, rtol=1e-6)


def test_the_radius_scales_with_the_data(random):
    X = random.randn(500, 3)
    small, large = (neighbor_radius(c * X, np.random.RandomState(1), n_reference=100) for c in (1.0, 8.0))
    np.testing.assert_allclose(large, 8 * small, rtol=1e-9)


class Counted:
    """Rows that count how often they are read."""

    def __init__(self, X):
        self.X, self.reads = X, np.zeros(len(X), int)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        self.reads[rows] += 1
        return self.X[rows]


@pytest.mark.parametrize("n", [1000, 10_000])
def test_every_row_is_read_once_and_the_reference_rows_twice(random, n):
    X = Counted(random.randn(n, 2))
    neighbor_radius(X, random, n_reference=300)
    assert np.bincount(X.reads).tolist() == [0, n - 300, 300]


@pytest.mark.parametrize("dims", [1.0, 3.0, 20.0])
def test_the_dimension_is_the_maximum_likelihood_of_the_power_law(random, dims):
    """T_j = (j-th of k uniform order statistics)^(1/d), the law of distances in d dimensions.

    (The median of the rows' means is used, which lies (k - 1) / (k - 4/3) above the mean: 4 % at k = 10.)
    """
    distances = np.sort(random.rand(20_000, 10), 1) ** (1 / dims)
    assert intrinsic_dimension(distances) == pytest.approx(dims * 9 / (9 - 1 / 3), rel=0.02)


def test_duplicates_leave_the_dimension_where_it_is(random):
    """A third of the rows has a double: its distance is zero, and that row's mean logarithm infinite."""
    distances = 10 * np.sort(random.rand(3000, 10).astype(np.float32), 1)
    means = np.log(distances[:, -1:] / distances[:, :-1]).mean(1)
    means[::3], distances[::3, 0] = np.inf, 0.0
    assert intrinsic_dimension(distances) == pytest.approx(1 / np.median(means), rel=1e-5)


# ---- information -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 5])
def test_mutual_information_is_its_definition(random, k):
    joint = symmetric_joint(random, k)
    assert mutual_information(joint) == pytest.approx(information_oracle(joint), abs=1e-12)


def test_the_joint_counts_edges_both_ways(random):
    proba, rows = random.dirichlet(np.ones(3), 9), np.array([random.permutation(9)[:2] for _ in range(9)])
    expected = np.zeros((3, 3))
    for i in range(9):
        for j in rows[i]:
            expected += (np.outer(proba[i], proba[j]) + np.outer(proba[j], proba[i])) / (2 * 9 * 2)
    np.testing.assert_allclose(neighbor_joint(proba, rows), expected, rtol=1e-12)


@pytest.fixture
def blocks(random):
    """Four separate groups of 30 and the neighbors of their rows: no edge leaves its group."""
    truth = np.repeat(np.arange(4), 30)
    return truth, neighbors(random.randn(120, 2) + 100 * truth[:, None], 5)


def test_neighbor_information_is_log_k_at_best_zero_for_one_cluster_and_blind_to_names(random, blocks):
    truth, rows = blocks
    one_hot = np.eye(4)[truth]
    assert neighbor_information(one_hot, rows) == pytest.approx(math.log(4), abs=1e-12)
    assert neighbor_information(np.eye(4)[np.zeros(120, int)], rows) == pytest.approx(0, abs=1e-12)
    soft = 0.5 * one_hot + 0.5 * random.dirichlet(np.ones(4), 120)
    value = neighbor_information(soft, rows)
    assert value < math.log(4)
    assert neighbor_information(soft[:, [2, 0, 3, 1]], rows) == pytest.approx(value, abs=1e-12)


def test_merging_two_groups_or_cutting_one_costs_information(random, blocks):
    truth, rows = blocks
    best = neighbor_information(np.eye(4)[truth], rows)
    together = np.where(truth == 1, 0, truth)
    assert neighbor_information(np.eye(4)[together], rows) == pytest.approx(best - 0.5 * math.log(2), abs=1e-12)
    cut = np.where(truth == 1, random.choice([0, 1], 120), truth)
    assert neighbor_information(np.eye(4)[cut], rows) < best - 0.1


# ---- merging ---------------------------------------------------------------------------------------------------------


def sparse_joint(random, k):
    """A symmetric joint distribution in which most pairs of clusters are no neighbors."""
    p = random.rand(k, k) * (random.rand(k, k) < 0.3) + np.diag(random.rand(k))
    return (p + p.T) / (2 * p.sum())


@pytest.mark.parametrize("make", [symmetric_joint, sparse_joint])
@pytest.mark.parametrize("k", [2, 3, 6, 12])
def test_every_merge_is_the_cheapest_and_changes_the_information_by_what_it_says(random, k, make):
    joint = current = make(random, k)
    alive = list(range(k))
    for a, b, change in _merges(joint):
        i, j = alive.index(a), alive.index(b)
        before = information_oracle(current)
        changes = {
            pair: information_oracle(merged(current, *pair)) - before for pair in combinations(range(len(alive)), 2)
        }
        assert change == pytest.approx(changes[i, j], abs=1e-12)
        assert change == pytest.approx(max(changes.values()), abs=1e-12)
        assert change <= 1e-12  # merging never gains information
        current = np.delete(np.delete(merged(current, i, j), j, 0), j, 1)
        alive.remove(b)
    assert len(alive) == 1


def test_micro_clusters_merge_in_the_memory_of_their_joint(random):
    """A hundred clusters have a thousand of them: all pairs times all columns would be eight gigabytes."""
    k = 300
    joint = sparse_joint(random, k)
    tracemalloc.start()
    merge_by_information(joint, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * joint.nbytes  # all pairs times all columns: 300


def test_the_joint_of_labels_is_that_of_their_one_hot_rows(random):
    labels, rows = random.randint(4, size=9), np.array([random.permutation(9)[:2] for _ in range(9)])
    np.testing.assert_array_equal(joint_of_labels(labels, rows, 5), neighbor_joint(np.eye(5)[labels], rows))


def test_merging_takes_the_cheapest_pair_each_time(random):
    joint = symmetric_joint(random, 7)
    partition, current = [{i} for i in range(7)], joint
    while len(partition) > 3:
        a, b = max(combinations(range(len(partition)), 2), key=lambda ab: information_oracle(merged(current, *ab)))
        current = np.delete(np.delete(merged(current, a, b), b, 0), b, 1)
        partition[a] |= partition.pop(b)
    group = merge_by_information(joint, 3)
    assert {frozenset(np.flatnonzero(group == g)) for g in range(3)} == {frozenset(part) for part in partition}


def test_merging_recovers_planted_blocks(random):
    truth = random.permutation(np.repeat(np.arange(4), 5))
    joint = 0.01 * random.rand(20, 20) + np.where(truth[:, None] == truth, random.rand(20, 20), 0)
    group = merge_by_information((joint + joint.T) / (2 * joint.sum()), 4)
    assert renamed(group, truth)
    assert set(group) == set(range(4))


# ---- refining --------------------------------------------------------------------------------------------------------


def test_refining_never_loses_information():
    """All rows move at once, so on a graph without structure a round can lose: it must then be taken back."""
    for seed in range(60):
        random = np.random.RandomState(seed)
        rows = np.array([random.choice(np.delete(np.arange(12), i), 2, replace=False) for i in range(12)])
        labels = random.randint(3, size=12)
        after = refine_by_information(labels, rows, 3)
        before, now = (neighbor_information(np.eye(3)[found], rows) for found in (labels, after))
        assert now >= before - 1e-12


def test_refining_heals_a_damaged_partition(random, blocks):
    truth, rows = blocks
    damaged = np.where(random.rand(120) < 0.3, random.randint(4, size=120), truth)
    assert (refine_by_information(damaged, rows, 4) == truth).all()


def test_refining_gives_no_row_to_a_cluster_that_has_none(blocks):
    truth, rows = blocks
    assert (refine_by_information(truth, rows, 5) == truth).all()


def test_refining_moves_a_row_where_the_information_grows_fastest_in_its_own_assignment(random, blocks):
    truth, rows = blocks
    k, step = 4, 1e-6
    labels = np.where(random.rand(120) < 0.4, random.randint(k, size=120), truth)
    one_hot = np.eye(k)[labels]
    slope = np.zeros((120, k))
    for i in range(120):
        for a in range(k):
            up, down = one_hot.copy(), one_hot.copy()
            up[i, a] += step
            down[i, a] -= step
            slope[i, a] = neighbor_information(up, rows) - neighbor_information(down, rows)
    moved = refine_by_information(labels, rows, k, n_rounds=2)  # the second round only judges the first
    assert (moved == slope.argmax(1)).all()
    assert (moved != labels).any()


# ---- micro-clusters, merged ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fineness", [(1, 3, 10), (10, 3, 1)])
def test_of_several_cuts_the_one_with_the_most_neighbor_information_is_kept(fineness):
    random = np.random.RandomState(0)
    points = make_blobs(300, centers=4, cluster_std=1.5, random_state=0)[0]
    graph = neighbors(points, 10)
    alone = [merged_microclusters(points, graph, 4, random, per_cluster=(n,))[1] for n in fineness]
    proba, score = merged_microclusters(points, graph, 4, np.random.RandomState(0), per_cluster=fineness)
    assert score == max(alone) > min(alone)
    assert neighbor_information(proba, graph) == pytest.approx(score)


def test_principal_components_keep_the_distances_that_the_leading_directions_make(random):
    X = random.randn(80, 3) @ random.randn(3, 60)  # 60 columns, of three directions
    found = principal_components(X, random)
    assert found.shape == (80, 50)
    np.testing.assert_allclose(sorted_distances(found), sorted_distances(X), rtol=1e-6)
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-9)


def test_rows_that_are_all_equal_have_components_and_no_warning(random):
    assert np.abs(principal_components(np.ones((30, 3), np.float32), random)).max() == 0
