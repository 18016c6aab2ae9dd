"""A decoder's heads against the plain densities under torch's own differentiation; skipping rows is exact."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nvisa.maths import distributions, products
from nvisa.maths.distributions import (
    _Quadratic,
    log_bernoulli_head,
    log_normal_head,
    log_normal_linear,
)
from oracles import assert_same_function, build, grid, normal, upstream
from oracles import log_bernoulli as log_bernoulli_oracle
from oracles import log_normal as log_normal_oracle

M, B, D, H = 3, 4, 40, 5


@pytest.fixture
def linear(rng):
    """x [B D], h [M B H], weight [D H], bias [D], scale [D], all to be differentiated."""
    inputs = [normal(rng, B, D), normal(rng, M, B, H), normal(rng, D, H), normal(rng, D), (0.5 * normal(rng, D)).exp()]
    return [i.requires_grad_() for i in inputs]


every_upstream = pytest.mark.parametrize("kind", ["all", "few", "tiny"])


@pytest.fixture(autouse=True)
def every_row_counts(monkeypatch):
    """Few rows are left out one by one."""
    monkeypatch.setattr(products, "MULTIPLE", 1)


@pytest.fixture(params=[2, 5, 512])
def chunk(request, monkeypatch):
    """Chunks that divide the 12 rows, that do not, and that hold them all."""
    monkeypatch.setattr(distributions, "CHUNK", request.param)
    monkeypatch.setattr(distributions, "FEW", 1)


@every_upstream
def test_the_gram_form_is_the_normal_in_value_and_in_every_gradient(linear, rng, kind):
    x, h, weight, bias, scale = linear
    direct = log_normal_oracle(x, h @ weight.T + bias, scale)
    gram = log_normal_linear(*linear)
    assert "_Quadratic" in names(gram)  # and not the plain form, which few samples take
    assert_same_function(gram, direct, upstream(rng, (M, B), kind), linear)


def names(tensor):
    """The operations in the graph of a tensor."""
    found, todo = "", [tensor.grad_fn]
    while todo:
        node = todo.pop()
        found += node.name() + " "
        todo += [parent for parent, _ in node.next_functions if parent is not None]
    return found


def test_the_quadratic_form_has_the_gradient_that_it_declares(rng):
    inputs = (normal(rng, 2, 3, 4), normal(rng, 5, 4), normal(rng, 3, 5))
    assert torch.autograd.gradcheck(_Quadratic.apply, [i.requires_grad_() for i in inputs])


def test_the_gram_form_integrates_to_one_over_x(rng):
    points, cell = grid(-15, 15, 201, 2)
    h = normal(rng, 1, 1, 3).expand(1, len(points), 3)
    scale = torch.tensor([0.6, 1.3]).double()
    log_p = log_normal_linear(points, h, normal(rng, 2, 3), normal(rng, 2), scale)
    assert log_p.exp().sum() * cell == pytest.approx(1, abs=1e-11)


@every_upstream
def test_a_deviation_per_z_in_chunks_is_the_normal(rng, chunk, kind):
    x, h = normal(rng, B, D), normal(rng, M, B, H).requires_grad_()
    loc, raw = (build(lambda: nn.Linear(H, D), rng) for _ in range(2))
    direct = log_normal_oracle(x, loc(h), F.softplus(raw(h)) + 0.3)
    parameters = [*loc.parameters(), *raw.parameters()]
    assert_same_function(log_normal_head(x, h, loc, raw, 0.3), direct, upstream(rng, (M, B), kind), [h, *parameters])


@every_upstream
def test_bernoulli_in_chunks_is_torch_s(rng, chunk, kind):
    x, h = torch.rand(B, D, generator=rng, dtype=torch.float64), normal(rng, M, B, H).requires_grad_()
    logits = build(lambda: nn.Linear(H, D), rng)
    direct = log_bernoulli_oracle(x, logits(h))
    assert_same_function(
        log_bernoulli_head(x, h, logits), direct, upstream(rng, (M, B), kind), [h, *logits.parameters()]
    )


def test_x_has_its_gradient_in_every_head(rng, chunk):
    x, h = torch.rand(B, D, generator=rng, dtype=torch.float64).requires_grad_(), normal(rng, M, B, H)
    loc, raw = (build(lambda: nn.Linear(H, D), rng) for _ in range(2))
    weight = upstream(rng, (M, B), "all")
    assert_same_function(
        log_normal_head(x, h, loc, raw, 0.3), log_normal_oracle(x, loc(h), F.softplus(raw(h)) + 0.3), weight, [x]
    )
    assert_same_function(log_bernoulli_head(x, h, loc), log_bernoulli_oracle(x, loc(h)), weight, [x])
