"""The tree of merges is one: levels are nested, the count is exact where groups are apart, whatever their sizes."""

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from nvisa import NVISA, Network, SettingError, Training, load, select_n_clusters
from nvisa.fitting.levels import count_borders


def groups(sizes, seed=0):
    """Gaussians of unit variance around corners of a cube of edge 12."""
    rng = np.random.RandomState(seed)
    corners = 12.0 * np.array(np.unravel_index(rng.permutation(16)[: len(sizes)], (2,) * 4)).T
    y = np.repeat(np.arange(len(sizes)), sizes)
    return corners[y] + rng.randn(len(y), 4), y


@pytest.fixture(scope="module")
def levels():
    X, y = groups([200, 100, 60, 30, 10])
    return select_n_clusters(X, max_clusters=12), y


def test_groups_are_counted_and_found_though_one_has_twenty_times_the_rows_of_another(levels):
    found, y = levels
    assert (found.n_clusters, found.is_clear) == (5, True)
    assert adjusted_rand_score(y, found.labels()) == 1.0
    assert np.bincount(found.labels()).tolist() == [200, 100, 60, 30, 10]


def test_each_level_merges_two_clusters_of_the_next_and_costs_no_less(levels):
    found, _ = levels
    for k in range(1, 12):
        pairs = set(zip(found.labels(k), found.labels(k + 1), strict=True))
        assert len(pairs) == k + 1  # every cluster of the finer level lies in one of the coarser
    table = found.table()
    assert [level["n_clusters"] for level in table] == list(range(1, 13))
    assert [table[0]["cut"], table[0]["border"]] == pytest.approx([0.0, 0.0], abs=1e-12)  # one cluster has no border
    totals = np.array([level["cut"] * level["n_clusters"] for level in table])
    np.testing.assert_allclose(np.diff(totals), [level["border"] for level in table[1:]], atol=1e-12)
    assert (np.diff(totals) >= -1e-9).all()


def test_one_group_has_no_cheap_border():
    found = select_n_clusters(np.random.RandomState(0).randn(400, 5), max_clusters=6)
    assert not found.is_clear
    assert found.n_clusters == 2
    assert count_borders(np.array([0.0, 0.11, 0.2])) == 1


def test_what_cannot_be_counted_is_refused(levels):
    for X in (np.zeros((20, 3)), np.zeros(50)):
        with pytest.raises(SettingError, match="at least 30 rows"):
            select_n_clusters(X)
    with pytest.raises(SettingError, match="finite numbers"):
        select_n_clusters(np.full((40, 2), np.inf))
    with pytest.raises(SettingError, match="numbers in every column"):
        select_n_clusters(np.full((40, 2), np.nan))
    with pytest.raises(SettingError, match=r"n_clusters must be a whole number in 1\.\.12, got 13"):
        levels[0].labels(13)


def test_a_fit_finds_the_number_and_keeps_the_levels(tmp_path):
    X, y = groups([80, 50, 30, 20])
    network, training = Network(hidden=(32,), latent_dim=2), Training(epochs=10, batch_size=64)
    model = NVISA("auto", network=network, training=training, random_state=0).fit(X)
    assert model.n_clusters_ == 4
    assert model.predict_proba(X).shape == (180, 4)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    model.save(tmp_path / "m")
    same = load(tmp_path / "m")
    assert (same.n_clusters, same.n_clusters_) == ("auto", 4)
    assert same.cluster_levels_ == model.cluster_levels_
    assert adjusted_rand_score(y[same.level_rows_], same.level_labels_[3]) == 1.0
    np.testing.assert_array_equal(same.predict(X), model.labels_)
    with pytest.raises(SettingError, match="n_clusters must be .* or one of 'auto', got 'many'"):
        NVISA("many").fit(X)


def test_gaps_sparse_rows_and_times_since_1970_have_levels_too():
    rng = RandomState(0)
    X = np.round(64 * (rng.randn(120, 4) + 20 * np.repeat(np.eye(4)[:3], 40, axis=0))) / 64
    expected = select_n_clusters(X, max_clusters=6)
    assert expected.n_clusters == 3
    gaps = X.copy()
    gaps[rng.rand(*X.shape) < 0.05] = np.nan
    for other in (X + 1.7e9, sparse.csr_array(X), torch.from_numpy(X), gaps):
        found = select_n_clusters(other, max_clusters=6)
        assert adjusted_rand_score(found.labels(), expected.labels()) > 0.95
