"""A layout of the neighbor graph for clustering: UMAP's cross entropy (McInnes, Healy, Melville 2018), in whole steps.

``L(Y) = - sum_{i<j} w_ij log q_ij - 2.5 sum_i w_i mean_s log(1 - q_is)``, ``q_ij = 1 / (1 + a |y_i - y_j|^{2b})``,
with the degree ``w_i = sum_j w_ij`` and s among sampled rows, which are held. UMAP goes down one sampled edge a time,
which needs a compiler. Here all edges move their rows at once, and a block of rows is repelled by the same samples:
products of matrices. A row's gradient is divided by its degree, so that one step size suits all; momentum is what
carries large groups, whose own gradient is a small difference.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, triu
from scipy.sparse.csgraph import connected_components

from nvisa.fitting.graph import degree, nearest

__all__ = [
    "attraction",
    "fuzzy_graph",
    "graph_layout",
    "incidence",
    "memberships",
    "neighbor_layout",
    "repulsion",
    "spectral_points",
]

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer]
A, B = 1.929, 0.7915  # of q for min_dist = 0: the least squares fit of q to exp(-d) for d up to 3
REPULSION = 2.5  # UMAP draws five samples for an edge, and lets the edge move either end
MOMENTUM = 0.9


def memberships(distances: Array) -> Array:
    """``w_ij = exp( -max(0, d_ij - rho_i) / sigma_i )`` with ``sum_j w_ij = log2 k`` [N k].

    rho_i is the row's smallest positive distance (sec. 3.1); sigma_i is found by bisection. Where so many neighbors
    are no further than rho_i that the sum is too large for every sigma_i, the others get next to nothing.
    """
    rho = np.where(distances > 0, distances, np.inf).min(1, keepdims=True)
    gaps = np.maximum(distances - rho, 0.0)
    sigma = gaps.mean(1, keepdims=True) + np.finfo(gaps.dtype).tiny
    smallest, low, high = 1e-3 * sigma, np.zeros_like(sigma), np.full_like(sigma, np.inf)
    for _ in range(50):
        above = np.exp(-gaps / sigma).sum(1, keepdims=True) > np.log2(distances.shape[1])
        low, high = np.where(above, low, sigma), np.where(above, sigma, high)
        sigma = np.maximum(np.where(high < np.inf, (low + high) / 2, 2 * sigma), smallest)
    return np.exp(-gaps / sigma)


def fuzzy_graph(neighbor_rows: Rows, distances: Array) -> Any:
    """Symmetric weights ``w + w' - w w'`` of the memberships w and their transpose w', sparse [N N]."""
    n, k = neighbor_rows.shape
    heads = np.repeat(np.arange(n), k)
    w = csr_array((memberships(distances).ravel(), (heads, neighbor_rows.ravel())), shape=(n, n))
    return (w + w.T - w * w.T).tocsr().astype(np.float32)


def spectral_points(graph: Any, n_components: int, rng: np.random.RandomState, *, n_steps: int = 120) -> Array:
    """The slowest directions of the lazy random walk on a connected graph, without the constant one [N C].

    They are the lowest eigenvectors of the normalized Laplacian, by subspace iteration: a start of the layout needs
    few of their digits. They reach up to 1. What fewer than C + 1 rows leave over is zero.
    """
    n = graph.shape[0]
    root = np.sqrt(_degrees(graph))
    walk = diags_array(1 / root) @ graph @ diags_array(1 / root)
    block = rng.standard_normal((n, min(n, n_components + 7))).astype(np.float32)
    block[:, 0] = root  # stays first in QR: the walk's constant direction
    for step in range(n_steps):
        block = (block + walk @ block) / 2
        if step % 4 == 3:
            block = np.linalg.qr(block)[0]
    block = block[:, 1:]
    slowest = np.linalg.eigh(block.T @ (walk @ block))[1][:, ::-1][:, :n_components]
    points = np.zeros((n, n_components), np.float32)
    points[:, : slowest.shape[1]] = block @ slowest / root[:, None]
    return points / max(np.abs(points).max(), 1e-9)


def _degrees(graph: Any) -> Array:
    return np.maximum(graph.sum(1), 1e-9)


def _start(graph: Any, n_components: int, rng: np.random.RandomState) -> Array:
    """Spectral points of every connected component, up to 10 away from its center, and the centers as far apart."""
    n_parts, part_of = connected_components(graph, directed=False)
    centers = 10.0 * rng.standard_normal((n_parts, n_components)) * (n_parts > 1)
    points = (centers[part_of] + 0.01 * rng.standard_normal((len(part_of), n_components))).astype(np.float32)
    for part in np.split(np.argsort(part_of, kind="stable"), np.cumsum(np.bincount(part_of))[:-1]):
        points[part] += 10.0 * spectral_points(graph[part][:, part], n_components, rng)
    return points


def incidence(graph: Any) -> tuple[Any, Array]:
    """Ends of each edge e = (i, j), i < j, as +1 and -1, sparse [N E], and the edges' weights [E]."""
    edges = triu(graph, k=1).tocoo()
    n_edges = len(edges.data)
    signs, rows = np.repeat(np.array([1, -1], np.float32), n_edges), np.concatenate(edges.coords)
    return csr_array((signs, (rows, np.tile(np.arange(n_edges), 2))), shape=(graph.shape[0], n_edges)), edges.data


def attraction(points: Array, ends: Any, weights: Array) -> Array:
    """``sum_j w_ij d log q_ij / d y_i`` [N C]: each row toward its neighbors."""
    gaps = ends.T @ points
    squared = np.maximum(np.einsum("ec,ec->e", gaps, gaps), 1e-6)
    gaps *= (2 * A * B * weights * squared ** (B - 1) / (1 + A * squared**B))[:, None]
    return -(ends @ gaps)


def repulsion(points: Array, samples: Array) -> Array:
    """``mean_s d log(1 - q_is) / d y_i`` [n C]: each row away from the samples [S C]."""
    squared = points @ (-2 * samples.T)
    squared += np.einsum("nc,nc->n", points, points)[:, None]
    squared += np.einsum("sc,sc->s", samples, samples)
    np.maximum(squared, 1e-3, out=squared)  # a row among its own samples is not moved by itself
    force = (2 * B / len(samples)) / (squared * (1 + A * squared**B))
    return force.sum(1, keepdims=True) * points - force @ samples


def neighbor_layout(x: Array, rng: np.random.RandomState) -> tuple[Rows, Array]:
    """Neighbors of each row of x [n C], and the layout of the graph of twice as many, in at most ten dimensions."""
    k = degree(len(x))
    near, distances = nearest(x, 2 * k)
    return near[:, :k], graph_layout(near, distances, min(10, x.shape[1]), rng)


def graph_layout(
    neighbor_rows: Rows,
    distances: Array,
    n_components: int,
    rng: np.random.RandomState,
    *,
    n_epochs: int | None = None,
    n_samples: int = 100,
) -> Array:
    """Points [N C] whose distances show the clusters of the graph that :func:`nvisa.fitting.graph.nearest` returns.

    ``n_epochs``: None takes 100 for N >= 20,000 rows, up to 500 for fewer.
    """
    n = len(neighbor_rows)
    if neighbor_rows.shape[1] == 0:  # a row alone
        return np.zeros((n, n_components), np.float32)
    n_epochs = n_epochs or int(np.clip(2_000_000 / n, 100, 500))
    graph = fuzzy_graph(neighbor_rows, distances)
    (ends, weights), degrees = incidence(graph), _degrees(graph)[:, None]
    points = _start(graph, n_components, rng)
    velocity = np.zeros_like(points)
    for epoch in range(n_epochs):
        force = attraction(points, ends, weights) / degrees
        for start in range(0, n, 512):
            block = slice(start, start + 512)
            force[block] += REPULSION * repulsion(points[block], points[rng.randint(n, size=n_samples)])
        force *= 4.0 / np.maximum(np.linalg.norm(force, axis=1, keepdims=True), 4.0)
        velocity = MOMENTUM * velocity + (1 - epoch / n_epochs) ** 2 * force
        points = points + velocity
    return points
