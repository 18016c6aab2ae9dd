"""A stream with a new group in it: the model gets a cluster more, and the old ones keep their numbers."""

import numpy as np
import pytest

from nvisa import NVISA, Network, SettingError, Training, grow, load

CENTERS = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0]])


def rows(k, n, seed):
    return CENTERS[k] + np.random.RandomState(seed).randn(n, 3)


@pytest.fixture(scope="module")
def model():
    old = np.concatenate([rows(0, 150, 0), rows(1, 100, 1)])
    settings = {"network": Network(hidden=(32,), latent_dim=3), "training": Training(epochs=40, batch_size=64)}
    return NVISA(2, random_state=0, **settings).fit(old).name(0, "the first")


def test_rows_of_old_groups_change_nothing(model):
    assert grow(model, np.concatenate([rows(0, 60, 2), rows(1, 60, 3)])) is model


def test_a_new_group_is_a_new_cluster_and_old_rows_keep_theirs(model, tmp_path):
    old, new = np.concatenate([rows(0, 200, 4), rows(1, 200, 5)]), rows(2, 80, 6)
    far = np.concatenate([new, rows(0, 20, 7)])  # some rows of the chunk are of an old group
    labels, proba = model.predict(old), model.predict_proba(old)
    grown = grow(model, far, at_least=0.3, n_replayed=400)
    assert grown is not model
    assert (grown.n_clusters_, model.n_clusters_) == (3, 2)
    assert (grown.predict(old) == labels).mean() > 0.99  # none of these rows was there
    assert (grown.predict(new) == 2).mean() > 0.9
    assert (grown.predict(rows(0, 50, 8)) == 0).mean() > 0.95
    assert grown._names == ["the first", "", ""]
    np.testing.assert_array_equal(model.predict_proba(old), proba)
    grown.partial_fit(new).save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(new), grown.predict(new))


def test_half_of_a_chunk_is_what_it_takes_unless_said_otherwise(model):
    few = np.concatenate([rows(2, 30, 9), rows(0, 90, 10)])
    assert grow(model, few) is model
    with pytest.raises(SettingError, match="at_least must be a number in"):
        grow(model, few, at_least=0.0)
