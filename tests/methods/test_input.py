"""What is handed in becomes rows and their units, whatever it comes as; rows after the fit become the same."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import random as random_sparse

from nvisa import NVISA
from nvisa.methods.input import blank_units, category_levels
from nvisa.nets.rows import take

X = np.random.RandomState(0).randn(60, 4) * [1, 2, 3, 4]
GAPS = np.where(np.random.RandomState(1).rand(*X.shape) < 0.2, np.nan, X)
TABLE = pd.DataFrame(X[:, :2], columns=["a", "b"]).assign(c=list("uvw") * 20, d=[True, False] * 30)
SPARSE = random_sparse(60, 70, 0.2, random_state=0, format="csr")


def learned(given):
    """A clusterer that has been handed these rows by a fit, and what the fit goes on with."""
    clusterer = NVISA(2)
    return clusterer, *clusterer._learn_input(given, "columns", np.random.RandomState(0), at_least=2)


@pytest.mark.parametrize("given", [X, GAPS, TABLE, SPARSE], ids=["numbers", "gaps", "table", "sparse"])
def test_blank_units_have_the_shapes_of_those_that_were_learned(given):
    clusterer, _, units = learned(given)
    shapes = [{k: v.shape for k, v in made.state_dict().items()} for made in (units, blank_units(vars(clusterer)))]
    assert shapes[0] == shapes[1]


def test_columns_of_categories_are_known_by_their_number_of_values():
    clusterer, rows, _ = learned(TABLE)
    assert category_levels(vars(clusterer)) == [0, 0, 3, 2]
    assert_array_equal(rows[:3, 2:], [[0, 1], [1, 0], [2, 1]])  # u, v, w; False, True


@pytest.mark.parametrize("far", [0.0, 1e9])
def test_rows_after_the_fit_are_what_they_were_in_it_and_go_back_to_what_was_given(far):
    given = X + [far, 0, 0, 0]
    clusterer, rows, units = learned(given)
    clusterer.module_ = torch.nn.Module()
    clusterer.module_.rescale = units
    assert_array_equal(clusterer._checked(given), rows)
    assert hasattr(clusterer, "origin_") == bool(far)
    assert_allclose(clusterer._as_given(rows), given, rtol=1e-15)
    assert_allclose(units(torch.from_numpy(take(rows, slice(None), np.float32))).std(0, correction=0), 1, rtol=1e-5)


def test_a_second_fit_forgets_the_origin_of_the_first():
    clusterer, *_ = learned(X + [1e9, 0, 0, 0])
    clusterer._learn_input(X, "columns", np.random.RandomState(0), at_least=2)
    assert not hasattr(clusterer, "origin_")
