"""Sparse rows stand for the dense ones, and no dense copy is made of them."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch.testing import assert_close

from nvisa.nets.rows import Source, blocks, map_blocks, part, take
from nvisa.nets.sparse import SparseRows, leading_axes
from nvisa.nets.units import Rescaled, make_rescale, make_units

N, D = 700, 80


@pytest.fixture(scope="module")
def dense():
    return random_array((N, D), density=0.2, rng=np.random.default_rng(0)).toarray() * np.arange(1, D + 1)


@pytest.mark.parametrize("rows", [slice(3, 9), np.array([5, 2, 5])])
def test_what_is_taken_out_is_what_the_dense_rows_have(dense, rows):
    X = SparseRows(csr_array(dense))
    assert (len(X), X.shape, X.dtype, X.ndim) == (N, (N, D), np.float64, 2)
    np.testing.assert_array_equal(X[rows], dense[rows])
    assert take(X, rows, np.float32).dtype == np.float32
    assert_close(Source(X)[rows], Source(dense)[rows])


def test_parts_stay_sparse(dense):
    rows = np.array([1, 4])
    kept = part(SparseRows(csr_array(dense)), rows)
    assert isinstance(kept, SparseRows)
    assert_close(Source(kept)[:], Source(dense).part(rows)[:])


def test_blocks_are_all_rows_and_small_where_they_are_wide(dense):
    X = SparseRows(csr_array(dense))
    np.testing.assert_array_equal(np.concatenate([rows.copy() for rows in blocks(X, 100)]), dense)
    wide = SparseRows(csr_array((1000, 10**6)))
    assert next(blocks(wide)).nbytes <= 2**25


@pytest.mark.parametrize("scaling", ["global", "columns", "none", "auto"])
def test_units_are_those_of_the_dense_rows(dense, scaling):
    sparse, plain = (make_rescale(X, scaling) for X in (SparseRows(csr_array(dense)), dense))
    assert_close(sparse.shift, plain.shift)
    assert_close(sparse.scale, plain.scale)


def test_features_are_the_projection_on_the_leading_singular_vectors():
    rng = np.random.RandomState(0)
    signal = np.outer(rng.rand(N), rng.rand(D)) + np.outer(rng.rand(N), rng.rand(D))
    X = SparseRows(csr_array(signal))
    rescale = make_units(X, "global", rng)
    axes = torch.linalg.svd(torch.from_numpy(signal), full_matrices=False)[2][:2].float()
    assert_close(torch.linalg.norm(axes @ rescale.axes, dim=1), torch.ones(2), atol=1e-4, rtol=0.0)  # they lie in them
    assert_close(rescale.axes.T @ rescale.axes, torch.eye(50), atol=1e-4, rtol=0.0)
    x = torch.from_numpy(signal[:9]).float()
    assert_close(rescale.features(x), rescale(x) @ rescale.axes)
    np.testing.assert_allclose(Rescaled(X, rescale)[4:9], rescale.features(x)[4:].numpy(), atol=1e-5)
    assert map_blocks(rescale.features, Source(X), fixed=False).shape == (N, 50)


def test_few_columns_need_no_projection():
    assert leading_axes(SparseRows(csr_array(np.eye(50))), torch.ones(50), np.random.RandomState(0)) is None
