"""Heads and their floors, layers and what changes their units, against their equations."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.maths import products
from nvisa.maths.products import perceptron
from nvisa.nets.layers import (
    LIKELIHOODS,
    BernoulliHead,
    Decoder,
    GaussianHead,
    Network,
    SharedGaussianHead,
    UnitGaussianHead,
    build,
    change_axes,
    initialize,
    inverse_softplus,
    mlp,
    standardize,
    torch_device,
)
from nvisa.nets.priors import MixturePrior
from nvisa.settings import SettingError, check_settings
from oracles import TIGHT, assert_same_function, binary_vectors, gradients, grid, normal, upstream
from oracles import build as random_weights
from oracles import log_normal as log_normal_oracle

H = 4
FLOORS = pytest.mark.parametrize("floor", [0.0, 1e-4, 1.0])
GAUSSIANS = pytest.mark.parametrize("kind", [GaussianHead, SharedGaussianHead])


def scale_of(head, h, floor):
    """sigma' as the head states it, one a row and feature."""
    return head(h, floor)[1] if isinstance(head, GaussianHead) else head.scale(floor).expand(*h.shape[:-1], -1)


# ---- the std floor ---------------------------------------------------------------------------------------------------


@FLOORS
@GAUSSIANS
def test_the_scale_is_softplus_plus_the_floor_and_never_below_it(rng, kind, floor):
    head, h = random_weights(lambda: kind(H, 3), rng, spread=20.0), normal(rng, 50, H)
    raw = head.raw_scale(h) if kind is GaussianHead else head.raw_scale.expand(50, -1)
    scale = scale_of(head, h, floor)
    assert (scale >= floor).all()
    assert raw.min() < -15  # so far down that the floor alone is left
    assert_close(scale, torch.log1p(raw.exp()) + floor, **TIGHT)


@GAUSSIANS
def test_floor_zero_is_no_annealing(rng, kind):
    head, x, h = random_weights(lambda: kind(H, 3), rng), normal(rng, 5, 3), normal(rng, 2, 5, H)
    raw = head.raw_scale(h) if kind is GaussianHead else head.raw_scale
    plain = log_normal_oracle(x, h @ head.loc.weight.T + head.loc.bias, F.softplus(raw))
    assert_close(head.log_prob(x, h, 0.0), plain, **TIGHT)


@pytest.mark.parametrize("floor", [0.1, 1.0])
def test_a_wider_floor_is_what_the_likelihood_uses_and_bernoulli_has_none(rng, floor):
    x, h = normal(rng, 5, 3), normal(rng, 2, 5, H)
    for kind in (GaussianHead, SharedGaussianHead):
        head = random_weights(lambda kind=kind: kind(H, 3), rng)
        loc = h @ head.loc.weight.T + head.loc.bias
        assert_close(head.log_prob(x, h, floor), log_normal_oracle(x, loc, scale_of(head, h, floor)), **TIGHT)
    head = random_weights(lambda: BernoulliHead(H, 3), rng)
    assert torch.equal(head.log_prob(x.sigmoid(), h, floor), head.log_prob(x.sigmoid(), h, 0.0))


# ---- likelihoods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_head_s_density_has_mass_one_and_the_mean_that_it_states(rng, name):
    head, h = random_weights(lambda: LIKELIHOODS[name](H, 2), rng), normal(rng, H)
    x, cell = (binary_vectors(2), 1.0) if name == "bernoulli" else grid(-25, 25, 401, 2)
    mass = cell * head.log_prob(x, h.expand(1, len(x), H), 0.3).exp().squeeze(0).detach()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-10)
    assert_close(mass @ x, head.mean(h).detach(), **TIGHT)


@FLOORS
@GAUSSIANS
def test_a_gaussian_draw_is_the_mean_plus_the_scale_times_the_generator_s_noise(rng, kind, floor):
    head, h = random_weights(lambda: kind(H, 3), rng), normal(rng, 2, 5, H)
    noise = normal(torch.Generator().manual_seed(7), 2, 5, 3)
    drawn = head.draw(h, torch.Generator().manual_seed(7), floor)
    assert_close(drawn, head.mean(h) + scale_of(head, h, floor) * noise, **TIGHT)


def test_bernoulli_draws_are_ones_as_often_as_the_mean_says(rng):
    head, h, n = random_weights(lambda: BernoulliHead(H, 3), rng), normal(rng, H), 20_000
    drawn = head.draw(h.expand(n, H), rng, 0.0)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    low, high = binom.interval(1 - 1e-9, n, head.mean(h).detach().numpy())
    ones = drawn.sum(0).detach().numpy()
    assert ((low <= ones) & (ones <= high)).all()


def test_shared_and_per_z_heads_agree_when_the_deviation_does_not_depend_on_z(rng):
    shared, free = (
        random_weights(lambda: SharedGaussianHead(H, 3), rng),
        random_weights(lambda: GaussianHead(H, 3), rng),
    )
    with torch.no_grad():
        free.loc.load_state_dict(shared.loc.state_dict())
        free.raw_scale.weight.zero_()
        free.raw_scale.bias.copy_(shared.raw_scale)
    x, h, floor = normal(rng, 5, 3), normal(rng, 2, 5, H), 0.2
    assert_close(shared.log_prob(x, h, floor), free.log_prob(x, h, floor), **TIGHT)
    for mine, theirs in zip(
        gradients(shared.log_prob(x, h, floor).sum(), [shared.loc.weight, shared.loc.bias, shared.raw_scale]),
        gradients(free.log_prob(x, h, floor).sum(), [free.loc.weight, free.loc.bias, free.raw_scale.bias]),
        strict=True,
    ):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("floor", [0.0, 0.2])
@GAUSSIANS
def test_a_head_begins_at_the_deviation_it_is_given_or_at_the_least_that_the_floor_leaves(rng, kind, floor):
    head, h = random_weights(lambda: kind(H, 3), rng), normal(rng, 5, H)
    head.init_scale(torch.tensor([0.5, 3.0, 0.1]).double(), floor)
    expected = [0.5, 3.0, 0.1] if floor == 0.0 else [0.5, 3.0, 0.21]
    assert_close(scale_of(head, h, floor), torch.tensor(expected).double().expand(5, 3), rtol=1e-6, atol=0)


def test_a_unit_head_is_squared_error_and_its_draws_have_unit_noise(rng):
    head, x, h = random_weights(lambda: UnitGaussianHead(H, 3), rng), normal(rng, 5, 3), normal(rng, 2, 5, H)
    squared = (x - head.mean(h)).square().sum(-1)
    assert_close(head.log_prob(x, h, 0.7), -0.5 * squared - 1.5 * math.log(2 * math.pi), **TIGHT)
    noise = normal(torch.Generator().manual_seed(7), 2, 5, 3)
    assert_close(head.draw(h, torch.Generator().manual_seed(7), 0.7), head.mean(h) + noise, **TIGHT)


# ---- multilayer perceptron -------------------------------------------------------------------------------------------


def test_mlp_is_linear_leaky_relu_repeated(rng):
    net, x = random_weights(lambda: mlp([3, 5, 4]), rng), normal(rng, 6, 3)
    expected = x.numpy()
    for layer in (net[0], net[2]):
        expected = expected @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        expected = np.where(expected > 0, expected, 0.2 * expected)
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["all", "few", "tiny"])
@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_the_perceptron_is_its_layers_one_after_the_other(rng, leak, kind, monkeypatch):
    monkeypatch.setattr(products, "MULTIPLE", 1)  # few rows are left out one by one
    layers = [random_weights(lambda n=n, m=m: nn.Linear(n, m), rng) for n, m in [(2, 5), (5, 4), (4, 3)]]
    z = normal(rng, 3, 4, 2).requires_grad_()
    plain = z
    for layer in layers:
        plain = F.leaky_relu(layer(plain), leak)
    weight = upstream(rng, (3, 4), kind)[..., None] * normal(rng, 3, 4, 3)
    inputs = [z, *(p for layer in layers for p in layer.parameters())]
    assert_same_function(perceptron(z, layers, leak), plain, weight, inputs)


def test_the_decoder_is_its_layers_whatever_axes_lead(rng):
    decoder, z = random_weights(lambda: Decoder([2, 5, 4]), rng), normal(rng, 3, 6, 2)
    assert_close(decoder(z), nn.Sequential(*decoder)(z.flatten(0, 1)).view(3, 6, 4), **TIGHT)
    assert_close(decoder(z[0]), decoder(z)[0], **TIGHT)


def test_batch_norm_stands_between_the_linear_layer_and_the_leaky_relu(rng):
    net = random_weights(lambda: mlp([3, 5], batch_norm=True), rng).train()
    x = normal(rng, 60, 3)
    a = net[0](x)
    a = (a - a.mean(0)) / (a.var(0, correction=0) + net[1].eps).sqrt() * net[1].weight + net[1].bias
    assert_close(net(x), F.leaky_relu(a, 0.2), **TIGHT)


def test_initial_weights_are_glorot_normal_from_the_generator_alone():
    def made(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # what torch's layers draw when built must not be left in them
            module = nn.ModuleList([nn.Linear(300, 500), MixturePrior(50, 40), nn.Embedding(80, 100)])
        initialize(module, torch.Generator().manual_seed(3))
        return module

    linear, prior, embedding = made(1)
    for mine, theirs in zip(made(1).parameters(), made(2).parameters(), strict=True):
        assert torch.equal(mine, theirs)
    # Standard error of a deviation from n draws: sigma / sqrt(2 n), below 0.2 % and 2 %.
    assert float(linear.weight.detach().std()) == pytest.approx(math.sqrt(2 / 800), rel=0.01)
    assert (linear.bias == 0).all()
    assert float(prior.loc.detach().std()) == pytest.approx(1, rel=0.06)
    assert (prior.scale == 1).all()
    assert float(embedding.weight.detach().std()) == pytest.approx(0.1, rel=0.04)


@pytest.mark.global_rng  # to see that it is not: what moves it here is the test itself
def test_a_module_is_built_from_the_generator_and_the_global_one_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = (build(lambda: nn.Linear(3, 4), torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.weight, other.weight)


def test_a_named_device_is_taken_at_its_word():
    assert torch_device("meta") == torch.device("meta")


@pytest.mark.parametrize("device", ["gpu0", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_by_name(device):
    with pytest.raises(SettingError, match=f"training.device must be .* a device of this machine .*, got '{device}'"):
        torch_device(device)


# ---- other units, the same function ----------------------------------------------------------------------------------


def around_a_code(rng):
    """The layer that makes the codes, the one that reads them, some h, and the codes."""
    last, first = (random_weights(lambda n=n, m=m: nn.Linear(n, m), rng) for n, m in [(H, 3), (3, 5)])
    h = normal(rng, 40, H)
    return last, first, h, last(h).detach()


def test_standardizing_gives_the_codes_mean_zero_and_deviation_one_and_changes_nothing_after_them(rng):
    last, first, h, codes = around_a_code(rng)
    before = first(codes).detach()
    told = standardize(last, first, codes.numpy())
    now = last(h).detach()
    np.testing.assert_allclose(told, now, atol=1e-12)
    assert_close(now.mean(0), torch.zeros(3).double(), **TIGHT)
    assert_close(now.std(0, correction=0), torch.ones(3).double(), **TIGHT)
    assert_close(first(now).detach(), before, **TIGHT)


def test_a_code_that_is_always_the_same_is_not_divided_by_nothing(rng):
    last, first, h, _ = around_a_code(rng)
    with torch.no_grad():
        last.weight[1] = 0.0
    before = first(last(h)).detach()
    told = standardize(last, first, last(h).detach().numpy())
    assert np.isfinite(told).all()
    assert_close(first(last(h)).detach(), before, rtol=1e-6, atol=1e-6)


def test_changing_axes_turns_the_codes_and_changes_nothing_after_them(rng):
    last, first, h, codes = around_a_code(rng)
    before, axes = first(codes).detach(), normal(rng, 3, 3)
    change_axes(last, first, axes.numpy())
    assert_close(last(h).detach(), codes @ axes.T, **TIGHT)
    assert_close(first(last(h)).detach(), before, rtol=1e-8, atol=1e-8)


def test_the_inverse_of_softplus_is_it_for_small_and_for_large():
    scale = torch.tensor([1e-6, 1e-2, 1.0, 30.0, 800.0]).double()
    assert_close(F.softplus(inverse_softplus(scale)), scale, rtol=1e-9, atol=0)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": ()}, "network.hidden must be a tuple, each of it a whole number of at least 1, got ()."),
        (
            {"hidden": (5, 0)},
            "network.hidden must be a tuple, each of it a whole number of at least 1, got (5, 0).",
        ),
        ({"latent_dim": 0}, "network.latent_dim must be a whole number of at least 1, got 0."),
        (
            {"scaling": "rows"},
            "network.scaling must be one of 'auto', 'global', 'columns', 'cosine', 'none', got 'rows'.",
        ),
        ({"prior_components": 0}, "network.prior_components must be a whole number of at least 1, got 0."),
        (
            {"prior_covariance": "tied"},
            "network.prior_covariance must be one of 'diag', 'full', 'identity', got 'tied'.",
        ),
    ],
    ids=str,
)
def test_networks_that_cannot_be_are_refused_by_the_name_of_the_setting(wrong, message):
    check_settings(Network(), "network.")
    with pytest.raises(SettingError) as caught:
        check_settings(Network(**wrong), "network.")
    assert str(caught.value) == message
