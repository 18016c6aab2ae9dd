"""Rows in two groups, and a clusterer fitted to them."""

import numpy as np
import pytest

from report_pages import fitted_to, two_groups


@pytest.fixture
def random():
    return np.random.RandomState(1)


@pytest.fixture(scope="module")
def rows():
    return two_groups()


@pytest.fixture(scope="module")
def fitted(rows):
    return fitted_to(rows)
