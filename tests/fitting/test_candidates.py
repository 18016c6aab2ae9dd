"""The first clustering: which of the simple ones is taken, and that a mixture has to explain held-out rows."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from nvisa.fitting.candidates import (
    best_candidate,
    explaining_mixture,
    graph_clusters,
    graph_generalizes,
    held_out_density,
    held_out_information,
    kmeans,
    votes,
)
from nvisa.fitting.graph import (
    degree,
    informative_merges,
    joint_of_labels,
    mutual_information,
    neighbors,
    principal_components,
)


def chosen(X, k, seed=0):
    """The candidate of rows that are their own layout."""
    X = ((X - X.mean(0)) / X.std()).astype(np.float32)
    return best_candidate(X, X, neighbors(X, degree(len(X))), k, np.random.RandomState(seed))


def agreement(found, truth):
    return adjusted_rand_score(truth, found.proba.argmax(1))


@pytest.fixture
def stretched():
    """Three Gaussians that are no balls: k-means cuts across them."""
    X, y = make_blobs(600, random_state=170)
    return X @ np.array([[0.6, -0.6], [-0.4, 0.8]]), y


def test_unequal_groups_are_found_whatever_their_sizes():
    random = np.random.RandomState(0)
    y = np.repeat(np.arange(3), (950, 30, 20))
    X = random.randn(1000, 20) + (8 / 2**0.5) * np.eye(20)[y]
    found = chosen(X, 3)
    assert found.is_clear
    assert agreement(found, y) > 0.95


def test_moons_are_clear_to_the_graph_and_no_mixture_explains_them():
    X, y = make_moons(800, noise=0.05, random_state=1)
    found = chosen(X, 2)
    assert (found.kind, found.is_clear) == ("graph", True)
    assert agreement(found, y) == 1.0


def test_gaussians_are_explained_by_a_mixture(stretched):
    X, y = stretched
    found = chosen(X, 3)
    assert (found.kind, found.is_clear) == ("mixture", True)
    assert agreement(found, y) > 0.98
    np.testing.assert_allclose(found.proba.sum(1), 1, rtol=1e-5)
    assert set(found.summary()["cut"]) == {"kmeans", "graph", "mixture"}


@pytest.mark.parametrize("sizes", [(60, 8), (35, 5), (12, 10, 8, 6, 4)])
def test_groups_of_few_rows_are_found_though_they_have_fewer_than_ten(sizes):
    y = np.repeat(np.arange(len(sizes)), sizes)
    X = np.random.RandomState(0).randn(len(y), 5) + 6 * np.eye(5)[y]
    assert agreement(chosen(X, len(sizes)), y) == 1.0


def test_of_few_rows_what_is_not_clear_is_left_to_k_means_and_kept():
    X = np.random.RandomState(0).uniform(size=(59, 3))
    found = chosen(X, 3)
    assert found.gap > 0.6
    assert (found.kind, found.is_clear) == ("kmeans", True)


def test_what_has_no_groups_is_not_clear():
    found = chosen(np.random.RandomState(0).randn(600, 12), 4)
    assert not found.is_clear
    assert found.gap > 0.6


def test_the_graph_replaces_k_means_only_where_it_cuts_fewer_neighbors():
    X, y = make_blobs(400, centers=4, n_features=25, random_state=0)  # too many columns for full Gaussians
    found = chosen(X, 4)
    assert found.kind == "kmeans"
    assert found.cuts["kmeans"] == found.cuts["graph"] == 0.0
    assert agreement(found, y) == 1.0


def test_a_cluster_with_fewer_rows_than_its_gaussian_has_parameters_gets_no_mixture(stretched):
    X, y = stretched
    assert explaining_mixture(X, np.where(np.arange(600) < 4, 2, y % 2), 3, np.random.RandomState(0)) is None


def test_the_held_out_density_is_that_of_a_mixture_that_never_saw_the_row(stretched):
    X, y = stretched
    folds = np.random.RandomState(0).randint(3, size=600)
    expected = []
    for fold in range(3):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        moments = [(np.mean(y[train] == k), X[train][y[train] == k]) for k in range(3)]
        start = {
            "weights_init": [share for share, _ in moments],
            "means_init": [rows.mean(0) for _, rows in moments],
            "precisions_init": [np.linalg.inv(np.cov(rows.T, bias=True)) for _, rows in moments],
        }
        mixture = GaussianMixture(3, tol=1e-7, max_iter=500, **start).fit(X[train])
        density = sum(
            w * multivariate_normal(m, c).pdf(X[test])
            for w, m, c in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
        )
        expected.append(np.log(density))
    found = held_out_density(X, y, 3, folds, np.random.RandomState(0))
    assert found == pytest.approx(np.concatenate(expected).mean(), abs=2e-3)


def test_clusters_without_a_lost_neighbor_tell_new_rows_all_of_their_entropy():
    y = np.tile([0, 0, 0, 1], 100)  # three to one in both halves
    X = np.random.RandomState(0).randn(400, 3) + 20 * y[:, None]
    found = held_out_information(X[:200], X[200:], lambda part: (part[:, 0] > 10).astype(int), 2)
    assert found == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))


def test_clusters_of_noise_tell_less_of_new_rows_than_of_their_own_graph():
    rng = np.random.RandomState(0)
    X = rng.randn(1200, 15)

    def merged(part):
        return list(informative_merges(part, neighbors(part, 10), 5, rng))[0]

    own = mutual_information(joint_of_labels(merged(X[:600]), neighbors(X[:600], 10), 5))
    new = held_out_information(X[:600], X[600:], merged, 5)
    assert new < 0.8 * own


def test_k_means_is_kept_where_its_clusters_hold_for_new_rows_and_the_graphs_do_not():
    rng = np.random.RandomState(0)
    y = rng.randint(6, size=1500)
    X = (rng.randn(1500, 30) + 3 * np.eye(30)[y]).astype(np.float32)  # balls that touch: k-means' own case
    assert not graph_generalizes(X, 6, np.random.RandomState(0))
    assert adjusted_rand_score(y, kmeans(X, 6, rng)) > 0.7


def test_the_graph_is_taken_where_groups_are_no_balls():
    X = load_digits().data.astype(np.float32)
    assert graph_generalizes(principal_components(X, np.random.RandomState(0)), 10, np.random.RandomState(0))


def test_few_rows_have_clusters_too():
    X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]], np.float32)
    proba, gap = graph_clusters(X, neighbors(X, 2), 2, np.random.RandomState(0))
    assert proba.argmax(1).tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    assert 0 <= gap <= 1


def test_votes_are_shares_of_partitions_under_the_names_of_the_medoid():
    typical = np.repeat([0, 1, 2], 4)
    renamed = np.array([2, 0, 1])[typical]
    odd = typical.copy()
    odd[0] = 1
    shares = votes([typical, renamed, odd, typical], 3)
    assert shares[0].tolist() == [0.75, 0.25, 0.0]
    np.testing.assert_array_equal(shares[1:], np.eye(3)[typical[1:]])
