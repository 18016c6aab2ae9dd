"""Every method's clusters can be joined, parted, renumbered and named; nobody else's row moves."""

from copy import deepcopy

import numpy as np
import pytest

from nvisa import SettingError, load
from nvisa.methods.generative import GenerativeClusterer, SamplingClusterer


@pytest.fixture
def edited(fitted):
    return deepcopy(fitted)


def test_a_split_parts_one_cluster_and_a_merge_undoes_it(blobs, fitted, edited, tmp_path):
    X = blobs[0]
    assert edited.split(0, X) is edited
    was = fitted.labels_
    assert edited.n_clusters_ == 4
    assert set(edited.labels_[was == 0]) == {0, 3}
    np.testing.assert_array_equal(edited.labels_[was != 0], was[was != 0])
    np.testing.assert_allclose(
        edited.predict_proba(X)[:, [0, 3]].sum(1), fitted.predict_proba(X)[:, 0], rtol=1e-4, atol=1e-6
    )
    edited.save(tmp_path / "m")
    same = load(tmp_path / "m")
    np.testing.assert_array_equal(same.predict(X), edited.labels_)
    assert [next(iter(edit)) for edit in same.edits_] == ["split"]
    edited.merge(3, 0)
    np.testing.assert_array_equal(edited.labels_, was)
    np.testing.assert_array_equal(edited.predict(X), was)


def test_a_merge_joins_two_and_moves_the_numbers_above(blobs, fitted, edited):
    X = blobs[0]
    edited.name(0, "low").name(2, "high")
    edited.merge(1, 0)
    np.testing.assert_array_equal(edited.labels_, np.array([0, 0, 1])[fitted.labels_])
    np.testing.assert_array_equal(edited.predict(X), edited.labels_)
    assert edited.cluster_names_ == ["low", "high"]
    edited.relabel([1, 0])
    np.testing.assert_array_equal(edited.predict(X), 1 - np.array([0, 0, 1])[fitted.labels_])
    assert edited.cluster_names_ == ["high", "low"]
    with pytest.raises(SettingError, match="of more than two in all"):
        edited.merge(0, 1)


def test_a_dropped_cluster_is_gone_and_nobody_else_moves(blobs, fitted, edited, tmp_path):
    X, was = blobs[0], fitted.labels_
    with pytest.raises(SettingError, match=r"X must be the rows of labels_, of which cluster 1 has \d+, got None"):
        edited.drop(1)
    edited.name(2, "last").drop(1, X)
    np.testing.assert_array_equal(edited.labels_[was != 1], np.array([0, 0, 1])[was[was != 1]])
    np.testing.assert_array_equal(edited.labels_, fitted.predict_proba(X)[:, [0, 2]].argmax(1))
    assert edited.cluster_names_ == ["", "last"]
    edited.save(tmp_path / "m")
    np.testing.assert_array_equal(load(tmp_path / "m").predict(X), edited.labels_)
    if isinstance(edited, SamplingClusterer):
        x, y = edited.sample(40, random_state=0)
        assert set(y) == {0, 1}
        assert len(x) == 40
    with pytest.raises(SettingError, match="i must be a cluster of more than two in all"):
        edited.drop(0, X)


def test_a_cluster_without_rows_is_dropped_without_any(blobs, fitted, edited):
    X = blobs[0][fitted.labels_ != 1]
    edited.labels_ = fitted.predict(X)  # as after a chunk of a stream
    assert fitted.drift(X)["sizes"]["empty"] == [1]
    edited.drop(1)
    np.testing.assert_array_equal(edited.labels_, edited.predict(X))


def test_a_part_of_a_split_cluster_is_not_dropped(blobs, edited):
    edited.split(0, blobs[0])
    with pytest.raises(SettingError, match="i must be a cluster that is no part of a split one, got 3"):
        edited.drop(3, blobs[0])


def test_density_stays_and_samples_are_of_the_clusters_as_they_are(blobs, fitted, edited):
    X = blobs[0]
    edited.merge(0, 1)
    if isinstance(edited, GenerativeClusterer):
        np.testing.assert_array_equal(edited.score_samples(X), fitted.score_samples(X))
        assert edited.prototypes() is None or edited.prototypes().shape == (2, X.shape[1])
    if isinstance(edited, SamplingClusterer):
        x, y = edited.sample(60, random_state=0)
        assert set(y) == {0, 1}
        assert (edited.sample(20, cluster=1, random_state=0)[1] == 1).all()
        with pytest.raises(ValueError, match=r"cluster must be in 0\.\.1, got 2"):
            edited.sample(1, cluster=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, X: c.merge(0, 3), r"j must be a cluster in 0\.\.2, got 3"),
        (lambda c, X: c.merge(1, 1), "j must be another cluster than i"),
        (lambda c, X: c.split(True, X), r"i must be a cluster in 0\.\.2, got True"),
        (lambda c, X: c.split(0, X[c.labels_ == 1]), "X must be rows of which at least two are in cluster 0, got 0"),
        (lambda c, X: c.relabel([0, 0, 1]), r"order must be each of 0\.\.2 once"),
        (lambda c, X: c.drop(3, X), r"i must be a cluster in 0\.\.2, got 3"),
        (lambda c, X: c.name(-1, "a"), r"i must be a cluster in 0\.\.2, got -1"),
    ],
)
def test_what_cannot_be_edited_is_refused_and_left(blobs, fitted, edited, call, message):
    with pytest.raises(SettingError, match=message):
        call(edited, blobs[0])
    assert not hasattr(edited, "edits_")
