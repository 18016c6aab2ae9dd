"""The objective of consistency, alone and beside a bound, equals its module's formula; drift; settings."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.fitting.consistency import (
    BY_NAME,
    VAT,
    Augment,
    Consistency,
    ConsistencyObjective,
    augmented,
    drift_penalty,
)
from nvisa.fitting.training import StepOutput
from nvisa.nets.layers import mlp
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError, check_settings
from oracles import TIGHT, build, gradients, normal

B, D, K, H = 5, 4, 3, 6
ROWS = np.array([8, 0, 3, 5, 1])
LOOSE = {"rtol": 1e-8, "atol": 1e-9}


class Network(nn.Module):
    """q(y|x), as much of a method's networks as consistency asks for; units that are not the identity."""

    def __init__(self, shift, scale, *, batch_norm=False) -> None:
        super().__init__()
        self.rescale = Rescale(shift, scale)
        self.trunk, self.y_logits = mlp([D, H], batch_norm=batch_norm, leak=0.0), nn.Linear(H, K)

    def log_q_y_from(self, h):
        return self.y_logits(h).log_softmax(-1)

    def log_q_y(self, x):
        return self.log_q_y_from(self.trunk(self.rescale(x)))


class Quadratic:
    """A generative model's place: a bound that sees x, h, q(y|x), the fraction done and the generator."""

    def __init__(self, generator, state=0.0) -> None:
        self.generator, self.state = generator, state

    def bound(self, x, h, log_q_y, fraction):
        noise = torch.randn(len(x), generator=self.generator, dtype=x.dtype)
        value = x.square().sum(1) + h.sum(1) + 3 * log_q_y[:, 0] + fraction + noise
        return value, {"bound": value, "height": h.mean()}

    def state_dict(self):
        return {"state": torch.tensor(self.state)}

    def load_state_dict(self, state):
        self.state = float(state["state"])


@pytest.fixture
def network(rng):
    return build(lambda: Network(normal(rng, D), normal(rng, D).exp()), rng)


@pytest.fixture
def x(rng):
    return normal(rng, B, D)


def seeded():
    return torch.Generator().manual_seed(5)


def test_the_probe_has_no_gradient_in_the_parameters_and_the_rest_has(network, x, monkeypatch):
    """The direction is sought by a gradient in x alone: of the parameters it would cost as much again."""
    inside, look = [], network.log_q_y_from

    def looked(h):
        inside.append((network.trunk[0].weight.requires_grad, h.requires_grad))
        return look(h)

    monkeypatch.setattr(network, "log_q_y_from", looked)
    objective = ConsistencyObjective(network, (VAT(),), np.ones(9), seeded())
    step = objective(x, ROWS, 0.5)
    assert inside == [(True, True), (False, True), (True, True)]  # the rows, the probe, the neighbors
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(slope.abs().sum() > 0 for slope in gradients(step.value.mean(), list(network.parameters())))


# ---- the formula, a number at a time ---------------------------------------------------------------------------------


def entropy(p):
    return -(p * p.log()).sum(-1)


def mutual(p, balance):
    """``balance H[mean q] - mean H[q]``."""
    return balance * entropy(p.mean(0)) - entropy(p).mean()


def divergence(p, q):
    """``KL(p || q)`` of each row; p is the target, of which no gradient is taken."""
    return (p.detach() * (p.detach() / q).log()).sum(-1)


def adversarial(q, x, radius, probe, generator):
    """``r``: a probe along noise of unit length, the slope of the divergence there, stretched to the radius."""
    d = F.normalize(torch.randn(x.shape, generator=generator, dtype=x.dtype)).requires_grad_()
    (slope,) = gradients(divergence(q(x), q(x + probe[:, None] * d)).sum(), [d])
    return radius[:, None] * F.normalize(slope)


def expected_value(network, x, settings, distance, generator, bound=0.0):
    """The module's formula: bound per feature + sum_c weight_c (information_c (...) - mean KL)."""
    q = lambda x: network.log_q_y_from(network.trunk(x)).exp()  # noqa: E731
    scaled = (x - network.rescale.shift) / network.rescale.scale
    p, value = q(scaled), bound
    for item in settings:
        if isinstance(item, VAT):
            unit = distance[ROWS]
            moved = scaled + adversarial(q, scaled, item.radius * unit, item.probe * unit, generator)
        else:
            moved = (augmented(x, item, generator) - network.rescale.shift) / network.rescale.scale
        value = value + item.weight * (item.information * mutual(p, item.balance) - divergence(p, q(moved)).mean())
    return value


SETTINGS = {
    "vat": (VAT(weight=0.7, radius=0.5, information=0.3, balance=2.0, probe=1.1, bound_gradient=1.0),),
    "augment": (Augment(shift=0.3, rotation=40.0, weight=0.6, information=0.2, balance=3.0, bound_gradient=1.0),),
    "both": (VAT(bound_gradient=1.0), Augment(scale=0.5, weight=0.5, information=0.0, bound_gradient=1.0)),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("generative", [False, True])
def test_the_value_and_its_gradient_are_those_of_the_formula(network, x, name, generative):
    settings, distance = SETTINGS[name], torch.linspace(0.5, 4, 9)
    generator = seeded()
    model = Quadratic(generator) if generative else None
    step = ConsistencyObjective(network, settings, distance, generator, model)(x, ROWS, 0.25)

    generator, bound = seeded(), 0.0
    if generative:  # which draws first, and sees every second row
        scaled = network.rescale(x)
        h = network.trunk(scaled)
        log_q_y = network.log_q_y_from(h)
        bound = Quadratic(generator).bound(scaled[::2], h[::2], log_q_y[::2], 0.25)[0].mean() / D
    expected = expected_value(network, x, settings, distance, generator, bound)
    assert_close(step.value, expected, **TIGHT)
    assert_close(step.log_q_y, network.log_q_y(x), **TIGHT)
    tables = list(network.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, **LOOSE)
        assert mine.abs().max() > 0


def test_the_terms_are_what_the_value_is_made_of(network, x):
    vat, augment = VAT(information=0.3, balance=2.0), Augment(shift=0.3, information=0.2)
    distance, model = torch.linspace(0.5, 4, 9), Quadratic(generator := seeded())
    step = ConsistencyObjective(network, (vat, augment), distance, generator, model)(x, ROWS, 0.25)
    p = network.log_q_y(x).exp()
    assert list(step.terms) == ["bound", "height", "vat", "information", "augment"]
    assert_close(step.terms["information"], 0.3 * mutual(p, 2.0) + 0.2 * mutual(p, 4.0), **TIGHT)
    total = step.terms["bound"].mean() / D + step.terms["information"]
    assert_close(step.value, total - step.terms["vat"].mean() - step.terms["augment"].mean(), **TIGHT)
    assert step.terms["bound"].shape == (3,)  # of five rows, every second one
    assert (step.terms["vat"] > 0).all()
    assert (step.terms["augment"] > 0).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_the_bound_s_gradient_that_reaches_q_of_y(network, x, share):
    """With weight 0 the bound alone is left: the slope in the logits is the share of it, elsewhere all of it."""
    settings, distance = (
        (VAT(weight=0.0, bound_gradient=share), VAT(weight=0.0, bound_gradient=5.0)),
        torch.ones(9),
    )
    step = ConsistencyObjective(network, settings, distance, generator := seeded(), Quadratic(generator))(x, ROWS, 0.0)
    scaled = network.rescale(x)[::2]
    h = network.trunk(scaled)
    without = (scaled.square().sum(1) + h.sum(1)).mean() / D
    through = 3 * network.log_q_y_from(h)[:, 0].mean() / D
    tables = list(network.parameters())
    parts = zip(gradients(step.value, tables), gradients(without, tables), gradients(through, tables), strict=True)
    for mine, plain, of_q in parts:
        assert_close(mine, plain + share * of_q, **LOOSE)
        assert of_q.abs().max() > 0


@pytest.mark.parametrize("settings", [VAT(), Augment()])
def test_batch_norm_keeps_the_statistics_of_the_rows_and_not_of_their_neighbors(rng, x, settings):
    network = build(lambda: Network(torch.zeros(D), torch.ones(D), batch_norm=True), rng).train()
    linear, layer = network.trunk[:2]
    ConsistencyObjective(network, (settings,), torch.ones(9), rng)(x, ROWS, 0.5)
    assert_close(layer.running_mean, 0.1 * linear(x).mean(0).detach(), **TIGHT)  # from zero, at torch's momentum


# ---- what it says and keeps ------------------------------------------------------------------------------------------


def test_it_says_the_median_distance_if_it_has_one(network, rng):
    distance = torch.tensor([3.0, 1.0, 2.0])
    assert ConsistencyObjective(network, (VAT(),), distance, rng).found() == {"neighbor_distance_": 2.0}
    objective = ConsistencyObjective(network, (VAT(),), distance.double().numpy(), rng)  # as neighbor_radius gives it
    assert objective.neighbor_distance.dtype == torch.float32
    assert ConsistencyObjective(network, (Augment(),), None, rng).found() == {}


def test_its_state_is_that_of_the_bound(network, rng):
    model = Quadratic(rng, state=4.0)
    objective = ConsistencyObjective(network, (VAT(),), torch.ones(9), rng, model)
    assert objective.state_dict() == {"state": torch.tensor(4.0)}
    objective.load_state_dict({"state": torch.tensor(7.0)})
    assert model.state == 7.0
    assert ConsistencyObjective(network, (VAT(),), torch.ones(9), rng).state_dict() == {}


# ---- drift -----------------------------------------------------------------------------------------------------------


def test_drift_from_what_q_was_is_subtracted_and_reported(rng, x):
    network = build(lambda: Network(torch.zeros(D), torch.ones(D), batch_norm=True), rng).train()
    before = SimpleNamespace(log_q_y=lambda x: table)
    table = normal(rng, B, K).log_softmax(1).requires_grad_()

    def objective(x, rows, fraction):
        assert not network.trunk.training  # a chunk's mean and deviation are not the data's
        assert fraction == 0.4
        assert rows is ROWS
        log_q_y = network.log_q_y(x)
        return StepOutput(log_q_y[:, 0], {"first": log_q_y[:, 0]}, log_q_y)

    step = drift_penalty(before, network, objective)(x, ROWS, 0.4)
    network.eval()
    log_q_y = network.log_q_y(x)
    drift = divergence(table.exp(), log_q_y.exp())
    expected = log_q_y[:, 0].mean() - drift.mean()
    assert_close(step.value, expected, **TIGHT)
    assert_close(step.terms["drift"], drift, **TIGHT)
    assert_close(step.terms["first"], log_q_y[:, 0], **TIGHT)
    assert (drift > 0).all()
    tables = list(network.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, **LOOSE)
    assert (gradients(step.value, [table])[0] == 0).all()  # what it was is held


def test_without_drift_nothing_is_subtracted(network, x):
    objective = lambda x, rows, fraction: StepOutput(x.sum(1), {}, network.log_q_y(x))  # noqa: E731
    step = drift_penalty(network, network, objective)(x, ROWS, 0.0)
    assert_close(step.value, x.sum(1).mean(), **TIGHT)


# ---- settings --------------------------------------------------------------------------------------------------------


def test_what_a_consistency_may_be():
    assert {"vat": VAT(), "augment": Augment()} == BY_NAME
    for value in ("vat", "augment", VAT(), Augment(), ("vat", Augment()), [VAT(), VAT()]):
        assert Consistency.allows(value), value
    for value in (None, (), (None,), ("vat", None), "VAT", "", 3, VAT, ("vat", "none"), (("vat",),), object(), True):
        assert not Consistency.allows(value), value


@pytest.mark.parametrize("kind", [VAT, Augment])
def test_no_weight_is_negative_and_an_old_name_is_refused_with_the_new_one(kind):
    numbers = {"weight", "information", "balance", "bound_gradient"}
    numbers |= {"radius", "probe"} if kind is VAT else {"shift", "scale", "rotation"}
    for name in numbers:
        check_settings(kind(**{name: 0.0}))
        for wrong in (-0.1, float("nan")):
            with pytest.raises(SettingError, match=f"^{name} must be a number of at least 0, got {wrong}"):
                check_settings(kind(**{name: wrong}))
    with pytest.raises(TypeError, match=f"{kind.__name__}: pull is now bound_gradient"):
        kind(pull=1.0)
