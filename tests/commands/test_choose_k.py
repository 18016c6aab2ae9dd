"""`nvisa choose-k`: the curve that it judges, on graphs and blobs whose number of clusters is known."""

import itertools
import json

import numpy as np
import pytest

from nvisa.commands import cli
from nvisa.fitting import graph


def blobs(n_clusters, seed=0, n=60):
    """Well apart: centers on a cube's scaled corners, 12 deviations from each other at least."""
    rng = np.random.RandomState(seed)
    corners = np.array(list(itertools.product([0, 12], repeat=4)))[rng.permutation(16)[:n_clusters]]
    return (np.repeat(corners, n, axis=0) + rng.randn(n * n_clusters, 4)).astype(np.float32)


def block_joint(sizes, n_micro):
    """Micro-clusters of equal size, n_micro of them in each group; neighbors spread evenly inside a group."""
    groups = [np.full((n_micro, n_micro), size / n_micro**2) for size in sizes]
    joint = np.zeros((n_micro * len(sizes),) * 2)
    for i, group in enumerate(groups):
        part = slice(i * n_micro, (i + 1) * n_micro)
        joint[part, part] = group
    return joint / joint.sum()


@pytest.mark.parametrize("n_groups", [2, 3, 5])
def test_the_curve_of_groups_that_share_no_neighbors(n_groups):
    """I(K) is log of the number of groups from there on, and the entropy of the merged groups before."""
    curve = graph.information_curve(block_joint(np.ones(n_groups), 4))
    assert len(curve) == 4 * n_groups
    np.testing.assert_allclose(curve[0], 0, atol=1e-12)
    np.testing.assert_allclose(curve[n_groups - 1 :], np.log(n_groups), atol=1e-9)
    assert graph.separation(curve).argmax() + 2 == n_groups


def test_the_curve_is_that_of_merging_to_each_k():
    rng = np.random.RandomState(0)
    joint = rng.gamma(0.3, size=(9, 9)) + 3 * np.eye(9)
    joint = (joint + joint.T) / (joint + joint.T).sum()
    for k, information in enumerate(graph.information_curve(joint), start=1):
        one_hot = np.eye(k)[graph.merge_by_information(joint, k)]
        np.testing.assert_allclose(graph.mutual_information(one_hot.T @ joint @ one_hot), information, atol=1e-12)


def test_separation_is_one_where_each_cluster_brings_its_share():
    np.testing.assert_allclose(graph.separation(0.3 * np.log(np.arange(1, 12))), 1.0)


@pytest.mark.parametrize("n_clusters", [2, 4, 9])
def test_blobs_are_counted(n_clusters, capsys):
    np.save("x.npy", blobs(n_clusters))
    assert cli.main(["choose-k", "x.npy", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["candidates"][0], result["is_clear"]) == (n_clusters, True)
    assert result["next"][0].endswith(f"fit x.npy --n-clusters {n_clusters} --out model")


def test_rows_without_clusters_have_no_clear_number(capsys):
    np.save("x.npy", np.random.RandomState(1).randn(600, 4).astype(np.float32))
    assert cli.main(["choose-k", "x.npy"]) == 0
    assert "No K stands out" in capsys.readouterr().out
    np.save("x.npy", np.zeros((20, 3), dtype=np.float32))
    assert cli.main(["choose-k", "x.npy"]) == 2
    assert "expected at least 25 rows" in capsys.readouterr().err
