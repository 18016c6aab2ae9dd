"""Counts in the networks' units: the way back is exact, axes are those of an SVD, the head is scipy's by hand."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_array
from torch.testing import assert_close

from nvisa.nets import layers
from nvisa.nets.counts import CountHead, CountUnits, GeneColumns, NegativeBinomial, check_counts
from nvisa.nets.sparse import SparseRows
from nvisa.settings import SettingError
from oracles import TIGHT, build, normal

N, D, H, M = 300, 6, 5, 3


def counts(n_genes=D, seed=0):
    rng = np.random.RandomState(seed)
    expression = rng.gamma(0.5, 4.0, n_genes) * rng.gamma(3.0, 1.0, (N, 1))
    return rng.poisson(rng.gamma(1.0, expression)) + np.eye(n_genes)[np.arange(N) % n_genes]


@pytest.fixture(params=[None, 2], ids=["one batch", "batches in column 2"])
def column(request):
    return request.param


@pytest.fixture
def X(column):
    x = counts()
    return (
        x
        if column is None
        else np.insert(x, column, np.random.RandomState(1).choice([3, 7, 8], N, p=[0.2, 0.5, 0.3]), 1)
    )


def units_of(X, column, scaling="auto"):
    return CountUnits.of(X, column, scaling, np.random.RandomState(0))


def test_the_way_back_is_exact_in_float32(X, column):
    X = X.copy()
    X[0, 0], X[1, 1] = 250_000, 31
    units, x = units_of(X, column), torch.from_numpy(X).float()
    u = units(x)
    assert u.shape == (N, units.width) == (N, D + 1 + (0 if column is None else 3))
    assert_close(units.inverse(u).round(), x, rtol=1e-5, atol=0.0)
    assert_close(units.inverse(u).round()[1:], x[1:], **TIGHT)


def test_the_units_are_log_normalized_counts_less_the_mean_of_the_batch(X, column):
    units = units_of(X, column).double()
    x, batch = (X, np.zeros(N)) if column is None else (np.delete(X, column, 1), X[:, column])
    library = x.sum(1, keepdims=True)
    level = np.log1p(x / library * np.median(library))
    for b in np.unique(batch):
        level[batch == b] -= level[batch == b].mean(0)
    expected = torch.from_numpy(level / np.sqrt((level**2).mean()))
    found = units(torch.from_numpy(X))
    assert_close(found[:, :D], expected, rtol=1e-5, atol=1e-5)
    assert_close(found[:, D], torch.from_numpy(np.log(library[:, 0])))
    assert_close(GeneColumns(D)(found), found[:, :D])
    assert_close(units.features(torch.from_numpy(X)), found[:, :D])
    own = units_of(X, column, "columns").double()(torch.from_numpy(X))[:, :D]
    assert_close(own.square().mean(0), torch.ones(D).double(), rtol=1e-5, atol=0.0)
    assert_close(units.log_det(found), torch.zeros(N).double())


def test_sparse_and_dense_counts_have_the_same_units(X, column):
    dense, sparse = units_of(X, column), units_of(SparseRows(csr_array(X)), column)
    for name, value in dense.state_dict().items():
        assert_close(sparse.state_dict()[name], value)


def test_distances_go_by_the_leading_singular_vectors_of_the_units():
    X = np.insert(counts(80), 0, np.arange(N) % 2, 1)
    units = units_of(X, 0)
    u = units(torch.from_numpy(X).float())[:, :80]
    vectors = torch.linalg.svd(u.double(), full_matrices=False)[2][:50]
    assert_close((vectors[:10].float() @ units.axes).abs()[:, :10], torch.eye(10), atol=2e-3, rtol=0.0)
    assert_close(units.axes.T @ units.axes, torch.eye(50), atol=1e-4, rtol=0.0)
    assert_close(units.features(torch.from_numpy(X).float()), u @ units.axes)


def test_a_file_gives_the_units_their_shapes(X, column):
    units = units_of(X, column)
    blank = CountUnits.blank(X.shape[1], len(units.batches), column, 0)
    blank.load_state_dict(units.state_dict())
    x = torch.from_numpy(X).float()
    assert_close(blank(x), units(x))


@pytest.mark.parametrize("zero_inflated", [False, True])
def test_the_head_is_scipys_negative_binomial_at_the_librarys_share(rng, X, column, zero_inflated):
    units = units_of(X, column).double()
    head = build(lambda: CountHead(H, units, zero_inflated=zero_inflated), rng)
    x, h = torch.from_numpy(X[:8]), normal(rng, M, 8, H)
    found = head.log_prob(units(x), h, 0.3)
    numbers, which = (
        (X[:8], np.zeros(8, int))
        if column is None
        else (
            np.delete(X[:8], column, 1),
            np.searchsorted([3, 7, 8], X[:8, column]),
        )
    )
    theta = head.log_theta.exp().detach().numpy()
    for m in range(M):
        for b in range(8):
            logits = h[m, b] @ head.weight.weight.T + head.offset
            logits = logits if column is None else logits + head.of_batch[which[b]]
            mean = (numbers[b].sum() * logits.softmax(0)).detach().numpy()
            p = stats.nbinom.pmf(numbers[b], theta, theta / (theta + mean))
            if zero_inflated:
                pi = head.zero_logits(h[m, b]).sigmoid().detach().numpy()
                p = pi * (numbers[b] == 0) + (1 - pi) * p
            assert_close(found[m, b].item(), float(np.log(p).sum()), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("zero_inflated", [False, True])
def test_draws_have_the_mean_that_is_stated(rng, X, column, zero_inflated):
    units = units_of(X, column).double()
    head = build(lambda: CountHead(H, units, zero_inflated=zero_inflated), rng)
    h = normal(rng, 1, H)
    drawn = units.inverse(head.draw(h.expand(40_000, H), torch.Generator().manual_seed(0), 0.0))
    mean = units.inverse(head.mean(h))[0]
    assert_close(drawn.round(), drawn, atol=1e-6, rtol=0.0)
    error = (drawn.mean(0) - mean).abs() / (drawn.std(0) / 200).clamp_min(1e-9)
    assert (error[mean > 0.01] < 5).all()
    if column is not None:
        assert (drawn[:, column] == 7).all()  # the most frequent
        assert mean[column] == 7


def test_genes_begin_at_their_share_of_all_counts(X, column):
    units = units_of(X, column)
    head = layers.build(lambda: CountHead(H, units, zero_inflated=False), torch.Generator().manual_seed(0))
    x = X if column is None else np.delete(X, column, 1)
    found = head.log_share(torch.zeros(1, H), units.share[None]).exp()[0]
    assert_close(found, torch.from_numpy(x.sum(0) / x.sum()).float(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("cell", "value", "said"),
    [
        ((4, 1), -1.0, "got -1 in row 4"),
        ((7, 0), 0.5, "got 0.5 in row 7.*raw counts"),
        ((5, 0), np.nan, "got nan in row 5"),
        ((9, slice(None)), 0.0, "none in row 9"),
    ],
)
def test_what_is_no_count_is_refused_with_its_place(cell, value, said):
    x = counts()
    check_counts(x, None)
    x[cell] = value
    for given in (x, SparseRows(csr_array(x))):
        with pytest.raises(ValueError, match=said):
            check_counts(given, None)


def test_a_batch_that_the_fit_has_not_seen_is_refused():
    x = np.c_[counts(), np.arange(N) % 2]
    check_counts(x, D, batches=[0.0, 1.0])
    x[3, D] = 5
    with pytest.raises(ValueError, match=r"batch of the fit \(0\.0, 1\.0\), got 5 in row 3"):
        check_counts(x, D, batches=[0.0, 1.0])


def test_the_column_of_the_batch_is_named_or_numbered():
    assert NegativeBinomial().column(4) is None
    assert NegativeBinomial(batch=-1).column(4) == 3
    assert NegativeBinomial(batch="b").column(3, ["a", "b", "c"]) == 1
    for wrong, names in ((4, None), ("d", ["a", "b"]), ("a", None)):
        with pytest.raises(SettingError, match="likelihood.batch"):
            NegativeBinomial(batch=wrong).column(2, names)
