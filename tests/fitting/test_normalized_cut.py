"""The normalized cut: its definition, merging and moving by it, and that it does not know sizes."""

from itertools import combinations

import numpy as np
import pytest

from nvisa.fitting.graph import joint_of_labels, neighbors
from nvisa.fitting.normalized_cut import (
    cut_curve,
    cut_merges,
    merge_by_cut,
    normalized_cut,
    refine_by_cut,
    relative_gap,
)


@pytest.fixture
def random():
    return np.random.RandomState(3)


@pytest.fixture
def unequal(random):
    """Groups of 190, 6 and 4 rows that stand apart, and the neighbors of their rows."""
    truth = np.repeat(np.arange(3), (190, 6, 4))
    return truth, neighbors(random.randn(200, 2) + 100 * truth[:, None], 3)


def cut_oracle(joint):
    """A walker on the clusters leaves a for another with ``1 - P(a -> a)``: summed over a, from the transitions."""
    return sum(1 - transitions[a] for a, transitions in enumerate(joint / joint.sum(1, keepdims=True)))


def merged(joint, i, j):
    union = np.delete(np.eye(len(joint)), j, 0)
    union[i, j] = 1
    return union @ joint @ union.T


def symmetric_joint(random, k):
    p = random.rand(k, k) + 3 * np.diag(random.rand(k))
    return (p + p.T) / (p + p.T).sum()


def test_the_cut_is_the_chance_to_leave_summed_over_clusters(random):
    joint = symmetric_joint(random, 5)
    assert normalized_cut(joint) == pytest.approx(cut_oracle(joint), abs=1e-12)
    order = random.permutation(5)
    assert normalized_cut(joint[np.ix_(order, order)]) == pytest.approx(normalized_cut(joint), abs=1e-12)


def test_an_empty_cluster_costs_one():
    assert normalized_cut(np.diag([0.5, 0.5, 0.0])) == 1.0


@pytest.mark.parametrize("k", [2, 3, 7])
def test_every_merge_leaves_the_smallest_cut_and_says_it(random, k):
    joint = current = symmetric_joint(random, k)
    alive = list(range(k))
    for a, b, cut in cut_merges(joint):
        i, j = alive.index(a), alive.index(b)
        after = {pair: cut_oracle(merged(current, *pair)) for pair in combinations(range(len(alive)), 2)}
        assert cut == pytest.approx(after[i, j], abs=1e-12)
        assert cut == pytest.approx(min(after.values()), abs=1e-12)
        current = merged(current, i, j)
        alive.remove(b)
    assert len(alive) == 1


def test_the_curve_is_the_cut_at_every_number_of_clusters(random):
    joint = symmetric_joint(random, 6)
    curve = cut_curve(joint)
    for k in range(1, 7):
        one_hot = np.eye(k)[merge_by_cut(joint, k)]
        assert curve[k - 1] == pytest.approx(normalized_cut(one_hot.T @ joint @ one_hot), abs=1e-12)


def test_a_small_group_that_stands_alone_is_kept_where_information_would_halve_the_large_one(unequal):
    truth, rows = unequal
    micro = np.concatenate([np.arange(190) % 10, np.full(6, 10), np.full(4, 11)])  # ten pieces of the large group
    group = merge_by_cut(joint_of_labels(micro, rows, 12), 3)
    assert (group[micro][:, None] == group[micro]).tolist() == (truth[:, None] == truth).tolist()


def test_the_gap_is_small_at_the_number_of_groups_and_about_one_elsewhere(random):
    truth = np.repeat(np.arange(4), 100)
    points = random.randn(400, 3) + 20 * np.eye(4)[truth][:, :3]
    rows = neighbors(points, 8)
    micro = 6 * truth + random.randint(6, size=400)
    curve = cut_curve(joint_of_labels(micro, rows, 24))
    assert relative_gap(curve, 4) < 0.05
    assert all(relative_gap(curve, k) > 0.6 for k in (2, 3, 6, 7, 8))
    assert relative_gap(curve, 1) == relative_gap(curve, 24) == 1.0


def test_refining_heals_a_damaged_partition_and_gives_no_row_to_an_empty_cluster(random, unequal):
    truth, rows = unequal
    damaged = np.where(random.rand(200) < 0.1, 0, truth)
    damaged[194:196] = 1
    assert (refine_by_cut(damaged, rows, 3) == truth).all()
    assert (refine_by_cut(truth, rows, 5) == truth).all()


def test_refining_never_cuts_more():
    for seed in range(60):
        random = np.random.RandomState(seed)
        rows = np.array([random.choice(np.delete(np.arange(12), i), 2, replace=False) for i in range(12)])
        labels = random.randint(3, size=12)
        after = refine_by_cut(labels, rows, 3)
        before, now = (normalized_cut(joint_of_labels(found, rows, 3)) for found in (labels, after))
        assert now <= before + 1e-12


def test_a_row_moves_where_the_cut_falls_fastest_in_its_own_assignment(random):
    truth = np.repeat(np.arange(3), 20)
    rows = neighbors(random.randn(60, 2) + 4 * truth[:, None], 5)
    labels = np.where(random.rand(60) < 0.3, random.randint(3, size=60), truth)
    edges = np.zeros((60, 60))
    for i, near in enumerate(rows):
        edges[i, near] += 1
        edges[near, i] += 1

    def kept(soft):
        joint = soft.T @ edges @ soft / edges.sum()
        return (np.diag(joint) / (edges.sum(1) @ soft / edges.sum())).sum()  # sizes by their rows, linear in each

    step, slope = 1e-6, np.zeros((60, 3))
    for i in range(60):
        for a in range(3):
            up, down = np.eye(3)[labels], np.eye(3)[labels]
            up[i, a] += step
            down[i, a] -= step
            slope[i, a] = kept(up) - kept(down)
    moved = refine_by_cut(labels, rows, 3, n_rounds=2)  # the second round only judges the first
    assert (moved == slope.argmax(1)).all()
    assert (moved != labels).any()
