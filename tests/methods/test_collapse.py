"""A fit that lost its clusters says so."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import nvisa
from nvisa.methods.base import collapse_message


@pytest.mark.parametrize(
    ("sizes", "n_used"),
    [
        ([50, 50], None),
        ([97, 3], None),  # rare, not lost
        ([100, 0], 1),
        ([50, 50, 0, 0], None),
        ([100, 0, 0, 0], 1),
        ([300, 300, 9, 0, 0, 0], 2),  # 9 of 609 rows: less than a tenth of an equal share
    ],
)
def test_lost_clusters(sizes, n_used):
    message = collapse_message(np.array(sizes))
    assert (message is None) is (n_used is None)
    if message:
        assert message.startswith(f"Only {n_used} of {len(sizes)} clusters are in use")


def test_a_collapsed_fit_warns():
    """Rows that are all alike leave one cluster, whatever the weights."""
    X = np.zeros((40, 3))
    X[:, 0] = 1e-9 * np.arange(40)
    network = nvisa.Network(hidden=(8,), batch_norm=False, scaling="none")
    quick = {"init": "random", "consistency": None, "network": network, "training": nvisa.Training(epochs=1)}
    clusterer = nvisa.NVISA(4, **quick, random_state=0)
    with (
        pytest.warns(UserWarning, match="columns are constant"),
        pytest.warns(ConvergenceWarning, match="Only 1 of 4 clusters are in use"),
    ):
        clusterer.fit(X)
    assert set(clusterer.labels_) == {0}
