"""Products of rounded factors: how wrong they are, beside float64, and that nothing else is rounded."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nvisa.maths import products
from nvisa.maths.distributions import log_normal_head, log_normal_linear
from nvisa.maths.products import (
    contributing_rows,
    factor_type,
    factors_in,
    linear,
    perceptron,
    residual,
    scatter_rows,
)
from oracles import build, gradients, normal

UNIT = 2.0**-8  # rounding of bfloat16, relative


def test_factors_are_float32_outside_and_only_float32_is_rounded_inside():
    single, double = torch.zeros(1), torch.zeros(1).double()
    with factors_in(torch.bfloat16):
        assert (factor_type(single), factor_type(double)) == (torch.bfloat16, torch.float64)
        with factors_in(torch.float32):
            assert factor_type(single) == torch.float32
    assert factor_type(single) == torch.float32


def test_a_product_is_that_of_the_rounded_factors(rng):
    """Exact in float64 for factors that bfloat16 holds: what is left is the last rounding."""
    x, weight, bias = (normal(rng, *shape).bfloat16().float() for shape in ((3, 7, 40), (50, 40), (50,)))
    x.requires_grad_(), weight.requires_grad_()
    upstream = normal(rng, 3, 7, 50).bfloat16().float()
    with factors_in(torch.bfloat16):
        y = linear(x, weight, bias)
        mine = [y, *gradients((upstream * y).sum(), [x, weight])]
    double = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    exact = F.linear(*double, bias.double())
    theirs = [exact, *gradients((upstream.double() * exact).sum(), double)]
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == torch.float32
        assert ((a - b).abs() <= UNIT * b.abs() + 1e-5).all()


@pytest.mark.parametrize("n_rows", [40, 300])
def test_the_decoder_s_gradient_is_float64_s_but_for_the_rounding(rng, n_rows):
    layers = [build(lambda: nn.Linear(6, 64), rng), build(lambda: nn.Linear(64, 64), rng, spread=0.1)]
    loc, raw = (build(lambda: nn.Linear(64, 30), rng, spread=0.1) for _ in range(2))
    x, z = normal(rng, n_rows, 30), normal(rng, 3, n_rows, 6)
    parameters = [p for layer in (*layers, loc, raw) for p in layer.parameters()]

    def found(kind):
        for layer in (*layers, loc, raw):
            layer.to(kind)
        log_p = log_normal_head(x.to(kind), perceptron(z.to(kind), layers, 0.2), loc, raw, 0.1)
        return log_p.double(), [g.double() for g in gradients(log_p.sum(), parameters)]

    with factors_in(torch.bfloat16):
        exact, slopes = found(torch.float64)
        mine, mine_slopes = found(torch.float32)
    assert (mine - exact).abs().mean() < 0.02 * exact.std(0).mean()  # beside what tells the samples apart
    for a, b in zip(mine_slopes, slopes, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_the_error_is_relative_to_what_is_left_of_x_and_not_to_x(rng):
    """Around means of about 1 a deviation of 0.002: rounded to bfloat16, W h would be wrong by as much."""
    h, floor = normal(rng, 1, 200, 64).bfloat16(), 0.002
    loc, raw = (build(lambda: nn.Linear(64, 20), rng, spread=spread) for spread in (0.125, 0.0))
    with torch.no_grad():
        loc.weight.copy_(loc.weight.bfloat16())
        mean, scale = loc(h[0].double()), floor + 1e-6
        raw.bias.fill_(math.log(math.expm1(1e-6)))
        x = mean + scale * normal(rng, 200, 20)
        exact = torch.distributions.Normal(mean, scale).log_prob(x).sum(-1)
        rounded = torch.distributions.Normal(mean.bfloat16().double(), scale).log_prob(x).sum(-1)
        with factors_in(torch.bfloat16):
            mine = log_normal_head(x.float(), h.float(), loc.float(), raw.float(), floor)[0]
    assert (mine - exact).abs().max() < 0.3
    assert (rounded - exact).abs().max() > 10


def test_the_gradient_of_a_gradient_is_there_too(rng):
    x, weight, bias = (normal(rng, *shape).float().requires_grad_() for shape in ((5, 40), (50, 40), (50,)))

    def penalty(x, weight, bias):
        (slope,) = torch.autograd.grad(linear(x, weight, bias).square().sum(), x, create_graph=True)
        return slope.square().sum()

    inputs = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    exact = gradients(penalty(*inputs), inputs)
    with factors_in(torch.bfloat16):
        mine = gradients(penalty(x, weight, bias), [x, weight, bias])
    for a, b in zip(mine, exact, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_what_is_left_of_x_has_the_value_and_the_gradient_of_the_rounded_factors(rng):
    inputs = [normal(rng, *shape).bfloat16().float() for shape in ((4, 50), (3, 4, 40), (50, 40), (50,))]
    upstream = normal(rng, 3, 4, 50).bfloat16().float()
    single, double = ([tensor.to(kind).requires_grad_() for tensor in inputs] for kind in (torch.float, torch.double))
    with factors_in(torch.bfloat16):
        mine = residual(*single)
        mine = [mine, *gradients((upstream * mine).sum(), single)]
    theirs = double[0] - double[1] @ double[2].T - double[3]
    theirs = [theirs, *gradients((upstream.double() * theirs).sum(), double)]
    for a, b in zip(mine, theirs, strict=True):
        assert ((a - b).abs() <= UNIT * b.abs() + 1e-5).all()


def test_one_deviation_for_all_z_is_the_normal_of_rounded_factors_too(rng):
    x, h, weight = normal(rng, 40, 30), normal(rng, 9, 40, 64), normal(rng, 30, 64) / 8
    bias, scale = normal(rng, 30), (0.3 * normal(rng, 30)).exp()
    exact = torch.distributions.Normal(h @ weight.T + bias, scale).log_prob(x).sum(-1)
    with factors_in(torch.bfloat16):
        mine = log_normal_linear(*[tensor.float() for tensor in (x, h, weight, bias, scale)])
    assert (mine - exact).abs().mean() < 0.02 * exact.std(0).mean()


# ---- rows that receive no gradient -----------------------------------------------------------------------------------


def test_only_rows_below_the_rounding_of_the_largest_are_left_out(monkeypatch):
    eps = torch.finfo(torch.float32).eps
    assert contributing_rows(torch.zeros(2 * products.MULTIPLE)) == slice(None)  # few: all
    monkeypatch.setattr(products, "MULTIPLE", 1)
    weight = torch.tensor([1.0, -0.5, 2 * eps, -2 * eps, 0.5 * eps, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert contributing_rows(weight).tolist() == [0, 1, 2, 3]
    assert contributing_rows(weight[:5]) == slice(None)  # 4 of 5: gathering would not pay
    assert contributing_rows(torch.zeros(3)).tolist() == []
    assert contributing_rows(torch.tensor([0.0, math.nan] + 8 * [0.0])) == slice(None)  # the guard shall see it
    monkeypatch.setattr(products, "MULTIPLE", 3)  # 4 rows count: the next two come along, whatever they are
    assert len(kept := contributing_rows(weight).tolist()) == 6
    assert kept[:5] == [0, 1, 2, 3, 4]


def test_rows_go_back_to_their_places_and_the_others_are_zero(rng):
    values, rows = normal(rng, 2, 3), torch.tensor([4, 1])
    scattered = scatter_rows(values, rows, 6)
    assert torch.equal(scattered[rows], values)
    assert (scattered[[0, 2, 3, 5]] == 0).all()
    assert scatter_rows(values, slice(None), 2) is values
