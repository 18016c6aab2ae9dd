"""The layout of the neighbor graph: its equations, autograd of its cross entropy, and what it must not mix."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

from nvisa.fitting.graph import nearest
from nvisa.fitting.layout import (
    REPULSION,
    A,
    B,
    attraction,
    fuzzy_graph,
    graph_layout,
    incidence,
    memberships,
    repulsion,
    spectral_points,
)


@pytest.fixture
def random() -> np.random.RandomState:
    return np.random.RandomState(7)


def log_q(squared):
    return -torch.log1p(A * squared**B)


def log_not_q(squared):
    return torch.log(A * squared**B) + log_q(squared)


def gradient(value, points):
    return torch.autograd.grad(value, points)[0].numpy()


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_memberships_sum_to_log2_k(random):
    distances = nearest(random.randn(60, 3), 12)[1]
    weights = memberships(distances)
    np.testing.assert_allclose(weights.sum(1), np.log2(12), rtol=1e-9)
    np.testing.assert_array_equal(weights[:, 0], 1.0)
    assert (np.diff(weights, axis=1) <= 0).all()


def test_duplicates_count_fully_and_rho_is_the_first_positive_distance():
    weights = memberships(np.array([[0.0, 0.5, 1.0, 2.0, 3.0, 4.0], [1.0] * 6, [0.0] * 6]))
    np.testing.assert_array_equal(weights[0, :2], 1.0)
    np.testing.assert_allclose(weights[0].sum(), np.log2(6), rtol=1e-9)
    np.testing.assert_array_equal(weights[1:], 1.0)  # no sigma can make them less


def test_weights_are_the_probabilistic_union_of_both_directions(random):
    rows, distances = nearest(random.randn(30, 2), 5)
    w = np.zeros((30, 30))
    np.put_along_axis(w, rows, memberships(distances), 1)
    np.testing.assert_allclose(fuzzy_graph(rows, distances).toarray(), 1 - (1 - w) * (1 - w.T), atol=1e-7)


def test_the_graph_of_permuted_rows_is_the_permuted_graph(random):
    x, order = random.randn(40, 3), random.permutation(40)
    graph, permuted = (fuzzy_graph(*nearest(points, 6)).toarray() for points in (x, x[order]))
    np.testing.assert_allclose(permuted, graph[order][:, order], rtol=1e-6)


def test_q_is_fitted_to_a_min_dist_of_zero():
    distance = np.linspace(0, 3, 300)
    target = np.exp(-distance)

    def error(a, b):
        return np.square(1 / (1 + a * distance ** (2 * b)) - target).sum()

    assert all(error(A, B) < error(A + da, B + db) for da, db in [(0.01, 0), (-0.01, 0), (0, 0.005), (0, -0.005)])


# ---- forces ----------------------------------------------------------------------------------------------------------


def test_the_forces_are_the_gradient_of_the_cross_entropy(random):
    graph = fuzzy_graph(*nearest(random.randn(25, 3), 6))
    points, samples = random.randn(25, 4), random.randn(9, 4) + 0.5
    y, w = torch.tensor(points, requires_grad=True), torch.tensor(graph.toarray(), dtype=torch.float64)
    i, j = torch.triu_indices(25, 25, 1)
    together = (w[i, j] * log_q((y[i] - y[j]).square().sum(1))).sum()
    np.testing.assert_allclose(attraction(points, *incidence(graph)), gradient(together, y), rtol=1e-5, atol=1e-6)
    apart = log_not_q((y[:, None] - torch.tensor(samples)).square().sum(2)).mean(1).sum()
    np.testing.assert_allclose(repulsion(points, samples), gradient(apart, y), rtol=1e-9)


def test_a_row_among_its_samples_is_not_moved_by_itself(random):
    points = random.randn(6, 3)
    others = repulsion(points[:1], points[1:])
    np.testing.assert_allclose(6 * repulsion(points[:1], points), 5 * others, rtol=1e-9)


def test_two_rows_come_to_rest_where_their_forces_balance():
    """With all rows as samples, one pair at distance d: ``2ab d^(2b-1) = 2.5 (2b / d) / 2``."""
    x = np.array([[0.0], [1.0]])
    squared = REPULSION / 2 / A  # d^(2b) at rest
    points = np.array([[0.0, 0.0], [squared ** (0.5 / B), 0.0]])
    graph = fuzzy_graph(*nearest(x, 1))
    total = attraction(points, *incidence(graph)) + REPULSION * repulsion(points, points)
    np.testing.assert_allclose(total, 0.0, atol=1e-5)


# ---- layouts ---------------------------------------------------------------------------------------------------------


def test_the_start_is_spanned_by_the_lowest_eigenvectors(random):
    graph = fuzzy_graph(*nearest(np.repeat([[0.0], [6.0], [12.0]], 12, 0) + random.randn(36, 1), 14))
    points = spectral_points(graph, 2, random, n_steps=2000)
    dense = graph.toarray().astype(float)
    degrees = dense.sum(1)
    values, vectors = np.linalg.eigh(np.eye(36) - dense / np.sqrt(np.outer(degrees, degrees)))
    assert values[1] > 1e-6  # connected
    basis = vectors[:, 1:3]
    scaled = points * np.sqrt(degrees)[:, None]
    np.testing.assert_allclose(basis @ (basis.T @ scaled), scaled, atol=1e-3 * np.abs(scaled).max())


def test_components_stay_apart(random):
    x, labels = make_blobs([40, 40, 15], centers=np.eye(3) * 50, random_state=0)
    points = graph_layout(*nearest(x, 10), 2, random, n_epochs=100)
    centers = np.array([points[labels == k].mean(0) for k in range(3)])
    gaps = np.linalg.norm(points[:, None] - centers, axis=2)
    np.testing.assert_array_equal(gaps.argmin(1), labels)


def test_neighbors_stay_neighbors(random):
    """On a circle, of which a layout in two dimensions has to lose nothing."""
    angle = 2 * np.pi * np.arange(300) / 300
    rows, distances = nearest(np.stack([np.cos(angle), np.sin(angle)], 1), 10)
    near = nearest(graph_layout(rows, distances, 2, random), 10)[0]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, near, strict=True)]) > 0.6


def test_a_seed_gives_one_layout(random):
    graph = nearest(random.randn(50, 3), 8)
    first, second, third = (graph_layout(*graph, 2, np.random.RandomState(seed), n_epochs=20) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - third).max() > 0.1


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("equal", [False, True])
def test_few_rows_get_a_layout(random, n, equal):
    x = np.zeros((n, 3)) if equal else random.randn(n, 3)
    graph = nearest(x, 20) if n > 1 else (np.zeros((1, 0), int), np.zeros((1, 0)))
    points = graph_layout(*graph, 10, random, n_epochs=20)
    assert points.shape == (n, 10)
    assert np.isfinite(points).all()
    assert len(np.unique(points, axis=0)) == n
