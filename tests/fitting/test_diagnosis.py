"""The fit beside k-means and a mixture: criteria by hand, and when a simpler clustering is preferred."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from nvisa.fitting.diagnosis import diagnose, diagnosis_text


@pytest.fixture
def blobs():
    X, y = make_blobs(300, centers=3, cluster_std=0.5, random_state=2)
    return X.astype(np.float32), y


def test_a_fit_that_agrees_is_preferred(blobs):
    X, y = blobs
    found = diagnose(X, y, 3, np.random.RandomState(0))
    assert found["preferred"] == "fit"
    assert found["agreement"] == {"kmeans": 1.0, "mixture": 1.0}
    assert found["cut"] == {"fit": 0.0, "kmeans": 0.0, "mixture": 0.0}
    assert found["information"]["fit"] == pytest.approx(np.log(3), abs=1e-9)


def test_a_fit_that_is_worse_by_both_criteria_says_so(blobs):
    X, y = blobs
    wrong = np.where(X[:, 0] < np.median(X[:, 0]), 0, np.where(y == y[0], 1, 2))
    found = diagnose(X, wrong, 3, np.random.RandomState(0))
    assert found["preferred"] in ("kmeans", "mixture")
    assert "prefer" in diagnosis_text(found)
    assert "prefer" not in diagnosis_text(found | {"preferred": "fit"})
