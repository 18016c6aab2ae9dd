"""Both libraries multiply the same; float64, other layouts and torches without oneDNN's product take torch's path."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.maths import products
from nvisa.maths.products import Linear, gram, linear, product
from oracles import build, gradients, normal

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.skipif(not HAS_ONEDNN, reason="no oneDNN")), False])
def onednn(request, monkeypatch):
    """oneDNN for every size, whatever the processor, and never."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param)
    monkeypatch.setattr(products, "SMALL", 0)
    return request.param


def exact(function, *inputs):
    """The same in float64: the judge of float32."""
    return function(*[None if i is None else i.double() for i in inputs]).float()


def single(rng, *shape):
    return normal(rng, *shape).float()


@pytest.mark.parametrize("leak", [1.0, 0.2, 0.0])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_is_the_matrix_product_and_its_leaky_relu(rng, onednn, leak, turned, with_bias):
    a, b = single(rng, 7, 5), single(rng, 5, 6).T if turned else single(rng, 6, 5)
    bias = single(rng, 6) if with_bias else None
    judge = exact(lambda a, b, bias: F.leaky_relu(F.linear(a, b, bias), leak), a, b, bias)
    assert_close(product(a, b, bias, leak=leak), judge)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (70, 80)])
def test_a_gram_is_a_transposed_times_b(rng, onednn, shape):
    a, b = single(rng, 9, shape[0]), single(rng, 9, shape[1])
    assert_close(gram(a, b), exact(lambda a, b: a.T @ b, a, b))


def test_matrices_that_are_views_or_repeat_themselves_are_read_right(rng, onednn):
    wide = single(rng, 12, 20)
    for b in (wide[::2, ::2], wide[:1, :10].expand(6, 10), wide[:6, :1].expand(6, 10), wide[:6, 5:15]):
        a = wide[6:, 3:13]
        assert_close(product(a, b), exact(lambda a, b: a @ b.T, a, b))
        assert_close(gram(b, a), exact(lambda a, b: b.T @ a, a, b))
    assert product(wide[:0], wide).shape == (0, 12)


@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5)])
def test_a_layer_has_torch_s_value_and_gradients(rng, onednn, shape):
    judge, x = build(lambda: nn.Linear(5, 6), rng), single(rng, *shape).requires_grad_()
    layer = build(lambda: Linear(5, 6), rng).float()
    layer.load_state_dict(judge.state_dict())
    judge.load_state_dict(layer.state_dict())
    x_judge, weight = x.detach().double().requires_grad_(), normal(rng, *shape[:-1], 6)
    assert_close(layer(x), judge(x_judge).float())
    mine = gradients((weight.float() * layer(x)).sum(), [x, *layer.parameters()])
    theirs = gradients((weight * judge(x_judge)).sum(), [x_judge, *judge.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b.float())


def test_a_gradient_can_be_differentiated_again(rng, onednn):
    """As a penalty on a gradient asks, and so does GM-GAN: ``d/dW || d/dx f ||^2`` of two layers, a square between."""
    inputs = [single(rng, 4, 3), single(rng, 5, 3), single(rng, 5), single(rng, 2, 5)]

    def penalty(x, first, bias, last):
        value = linear(linear(x, first, bias).square(), last).sum()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return slope.square().sum()

    def second(dtype):
        tensors = [i.to(dtype).requires_grad_() for i in inputs]
        return gradients(penalty(*tensors), tensors)

    for a, b in zip(second(torch.float32), second(torch.float64), strict=True):
        assert_close(a, b.float(), rtol=1e-4, atol=1e-4)


def test_only_what_is_asked_for_is_differentiated(rng, onednn, monkeypatch):
    made = []
    monkeypatch.setattr(products, "gram", lambda a, b: made.append(a.T @ b) or made[-1])
    x, weight = single(rng, 7, 5).requires_grad_(), single(rng, 6, 5).requires_grad_()
    with products.inputs_only():
        (gradient,) = torch.autograd.grad(linear(x, weight).sum(), x)
    assert_close(gradient, weight.sum(0).expand(7, 5))
    assert made == []
    (gradient,) = torch.autograd.grad(linear(x.detach(), weight).sum(), weight)
    assert_close(gradient, x.sum(0).expand(6, 5))
    assert len(made) == onednn


def test_float64_is_torch_s_own_product_bit_for_bit(rng, onednn):
    x, weight, bias = normal(rng, 7, 5), normal(rng, 6, 5), normal(rng, 6)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert torch.equal(gram(x, x), x.T @ x)


def test_what_has_no_numbers_takes_torch_s_path(onednn):
    x, weight = torch.empty(7, 5, device="meta"), torch.empty(6, 5, device="meta")
    assert linear(x, weight).shape == (7, 6)


@pytest.mark.skipif(not HAS_ONEDNN, reason="no oneDNN")
def test_a_row_of_a_block_does_not_depend_on_the_others(rng, monkeypatch):
    """What inference rests on: blocks of one shape, whatever rows they hold and in which order."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    x, weight, bias = single(rng, 512, 300), single(rng, 200, 300), single(rng, 200)
    order = torch.randperm(512, generator=rng)
    whole = product(x, weight, bias)
    assert torch.equal(product(x[order], weight, bias), whole[order])
    assert torch.equal(product(x[:1].expand(512, -1), weight, bias), whole[:1].expand(512, -1))


@pytest.mark.parametrize("missing", ["vendor", "capability", "operation"])
def test_onednn_is_for_one_kind_of_processor_and_for_torches_that_have_it(monkeypatch, missing):
    monkeypatch.setattr(products.Path, "exists", lambda path: True)
    vendor = "GenuineIntel" if missing == "vendor" else "AuthenticAMD"
    monkeypatch.setattr(products.Path, "read_text", lambda path: f"vendor_id : {vendor}")
    level = "AVX2" if missing == "capability" else "AVX512"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    if missing == "operation":
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not products.prefers_onednn.__wrapped__()
