"""Rows as images."""

import numpy as np
import pytest

from nvisa.report import pictures


def test_images_from_rows():
    X = np.array([[0.0, 0.5, 1.0, 1.2], [-0.1, 0, 0, 0]])
    assert pictures.as_images(X, (2, 2)).tolist() == [[[0, 0.5], [1, 1]], [[0, 0], [0, 0]]]
    assert pictures.as_images(X, (2, 2, 1)).shape == (2, 2, 2)
    assert pictures.as_images(np.array([[0.0, 255.0, 51.0]]), (1, 1, 3)).ravel().tolist() == [0, 1, 0.2]
    with pytest.raises(ValueError, match=r"expected images of shape .* got \(2, 2, 2\)"):
        pictures.as_images(np.zeros((1, 8)), (2, 2, 2))
