"""Cosine geometry: what is looked at is the direction of a row, whatever its length; unit vectors are recognized."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch.testing import assert_close

import nvisa
from nvisa import NVISA, NegativeBinomial, Network, SettingError, Training
from nvisa.nets.sparse import SparseRows
from nvisa.nets.units import Directions, has_unit_rows, make_units

N, D = 200, 7


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(N, D) + np.eye(D)[np.arange(N) % 3] * 6


def units_of(X, scaling="cosine"):
    return make_units(X, scaling, np.random.RandomState(0)).double()


def test_distances_are_those_of_cosines_in_one_scale(X):
    units, x = units_of(X), torch.from_numpy(X)
    v = units.features(x)
    cosines = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
    squared = torch.cdist(v, v).square()
    assert_close(squared * units.scale[0] ** 2, 2 - 2 * cosines, rtol=1e-5, atol=1e-5)
    assert_close(v.square().mean(), torch.tensor(1.0).double(), rtol=1e-5, atol=0.0)
    assert_close(units(x * torch.linspace(0.1, 9, N)[:, None].double()), v, rtol=1e-6, atol=1e-6)
    assert_close(units.inverse(v).norm(dim=1), torch.ones(N).double(), rtol=1e-5, atol=1e-5)
    assert units(torch.zeros(1, D).double()).isfinite().all()


def test_sparse_rows_have_the_same_units(X):
    X = np.where(X > 1, X, 0.0) + np.eye(D)[np.zeros(N, int)]
    dense, sparse = units_of(X), units_of(SparseRows(csr_array(X)))
    assert isinstance(sparse, Directions)
    assert_close(sparse.shift, dense.shift)
    assert_close(sparse.scale, dense.scale)


def test_unit_rows_are_recognized_and_keep_the_proportions_of_their_columns(X):
    X[:, 0] *= 100
    assert not has_unit_rows(X)
    assert not has_unit_rows(np.ones((9, 1)))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert has_unit_rows(unit)
    assert has_unit_rows(SparseRows(csr_array(unit)))
    unit[50] *= 1.01
    assert not has_unit_rows(unit)
    unit[50] /= 1.01
    assert units_of(X, "auto").scale.unique().numel() == D  # a unit of its own for each column
    assert units_of(unit, "auto").scale.unique().numel() == 1


@pytest.mark.global_rng
def test_a_fit_by_cosines_does_not_see_lengths_and_comes_back(tmp_path):
    rng = np.random.RandomState(0)
    y = np.arange(120) % 3
    X = (np.eye(5)[y] + 0.1 * rng.randn(120, 5)) * np.exp(2 * rng.randn(120, 1))
    network = Network(hidden=(16,), latent_dim=2, scaling="cosine")
    model = NVISA(3, network=network, training=Training(epochs=15, batch_size=40), random_state=0).fit(X)
    assert len({(k, label) for k, label in zip(model.labels_, y, strict=True)}) == 3
    assert (model.predict(X * np.exp(rng.randn(120, 1))) == model.labels_).all()
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(nvisa.load(tmp_path / "model").predict_proba(X), model.predict_proba(X))
    for settings, rows, said in (
        ({}, np.where(np.arange(5) == np.arange(120)[:, None], np.nan, X), "another than 'cosine' for rows with gaps"),
        ({"likelihood": NegativeBinomial()}, np.ones((120, 5)), "another than 'cosine' for counts"),
    ):
        with pytest.raises(SettingError, match=said):
            NVISA(3, network=network, random_state=0, **settings).fit(rows)
