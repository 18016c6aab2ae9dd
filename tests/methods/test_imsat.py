"""IMSAT against its objective; what it shares with every method is tested in test_contract.py."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.testing import assert_close

from nvisa import IMSAT, VAT, Augment, Network, Training, load
from nvisa.fitting.consistency import ConsistencyObjective, adversarial_direction
from nvisa.maths.metrics import accuracy
from nvisa.methods.imsat import Networks
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError
from oracles import TIGHT, build, gradients, normal

B, D, K = 6, 4, 3
NETWORK = Network(hidden=(7, 5), batch_norm=False)


def networks(rng, rescale=None):
    units = rescale or Rescale(normal(rng, D), normal(rng, D).exp())
    return build(lambda: Networks(units, K, NETWORK), rng, spread=0.5)


def q_of_y(net, x):
    """``q(y|x)`` of a row in the networks' units, a layer at a time: rectifiers without a leak, then a softmax."""
    a = x
    for layer in (net.trunk[0], net.trunk[2]):
        a = (layer.weight @ a + layer.bias).clamp_min(0)
    logits = net.y_logits.weight @ a + net.y_logits.bias
    return logits.exp() / logits.exp().sum()


def test_the_objective_is_the_paper_s(rng):
    """``information ( balance H[mean q] - mean H[q] ) - mean KL( q(y|x) || q(y|x + r) )``, a row at a time."""
    net, x, rows = networks(rng), normal(rng, B, D), np.array([8, 0, 3, 5, 1, 2])
    settings, distance = VAT(radius=0.5, information=0.3, balance=2.0, probe=1.1), torch.linspace(0.5, 4, 9).double()
    objective = ConsistencyObjective(net, (settings,), distance, torch.Generator().manual_seed(3))
    step = objective(x, rows, 0.5)

    scaled, unit = (x - net.rescale.shift) / net.rescale.scale, distance[rows]
    direction = adversarial_direction(
        lambda x: net.log_q_y_from(net.trunk(x)), scaled, net.log_q_y(x), 1.1 * unit, torch.Generator().manual_seed(3)
    )
    q = torch.stack([q_of_y(net, row) for row in scaled])
    moved = torch.stack([q_of_y(net, row + 0.5 * u * d) for row, u, d in zip(scaled, unit, direction, strict=True)])
    entropy_of_mean = -(q.mean(0) * q.mean(0).log()).sum()
    mean_entropy = -(q * q.log()).sum(1).mean()
    divergence = (q.detach() * (q.detach().log() - moved.log())).sum(1)
    expected = 0.3 * (2.0 * entropy_of_mean - mean_entropy) - divergence.mean()
    assert_close(step.value, expected, **TIGHT)
    assert (divergence > 0).all()
    assert_close(step.log_q_y, q.log(), **TIGHT)
    tables = list(net.parameters())
    for mine, theirs in zip(gradients(step.value, tables), gradients(expected, tables), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@torch.no_grad()
def test_the_latent_vector_is_the_last_hidden_layer_and_renumbering_leaves_it(rng):
    net, x, order = networks(rng), normal(rng, B, D), torch.tensor([2, 0, 1])
    h, log_q_y = net.encode(x), net.log_q_y(x)
    assert h.shape[1] == net.latent_dim == 5
    assert_close((h @ net.y_logits.weight.T + net.y_logits.bias).log_softmax(1), log_q_y, **TIGHT)
    net.permute(order)
    assert_close(net.log_q_y(x), log_q_y[:, order], **TIGHT)
    assert torch.equal(net.encode(x), h)


# ---- fits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs():
    X, y = make_blobs(300, 5, centers=[[0] * 5, [6] * 5, [-6, 6] * 2 + [0]], random_state=0)
    return X.astype(np.float32), y


def make(epochs=40, **settings):
    small = {"network": Network(hidden=(16,)), "training": Training(epochs=epochs, batch_size=64), "random_state": 0}
    return IMSAT(3, **small | settings)


def test_what_is_trained_is_the_objective_with_the_settings_given(blobs):
    """Its weighted parts add up in every epoch, and nothing is there but q(y|x)."""
    model = make(2, consistency=VAT(weight=0.7, information=0.3)).fit(blobs[0])
    for record in model.history_:
        assert record["stage"] == "training"
        assert record["objective"] == pytest.approx(0.7 * (record["information"] - record["vat"]), rel=1e-4)
    assert {name.split(".")[0] for name in model.module_.state_dict()} == {"rescale", "trunk", "y_logits"}
    assert not hasattr(model, "sample")
    assert not hasattr(model, "score_samples")


def test_the_median_distance_to_the_tenth_neighbor_is_kept_for_vat_alone(blobs):
    X = blobs[0]
    distance = np.sort(np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1)), axis=1)[:, 10]
    model = make(1, network=Network(hidden=(16,), scaling="none")).fit(X)
    assert model.neighbor_distance_ == pytest.approx(float(np.median(distance)), rel=0.02)
    shaped = make(1, consistency=Augment(image_shape=(1, 5))).fit(X)
    assert not hasattr(shaped, "neighbor_distance_")


def test_several_restarts_find_separated_blobs_and_keep_the_one_with_the_most_neighbor_information(blobs, tmp_path):
    X, y = blobs
    model = make(n_restarts=3).fit(X)
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    assert accuracy(y, model.labels_) > 0.95
    assert len(set(scores)) == 3
    assert model.neighbor_information_ == max(scores)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.restarts_ == model.restarts_
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_restart_is_a_fit_of_its_own_whose_seed_decides_it(blobs, monkeypatch):
    """Other restarts neither change it nor come before it in the random numbers."""
    one, three = make(2, n_restarts=1).fit(blobs[0]), make(2, n_restarts=3).fit(blobs[0])
    assert three.restarts_[0] == one.restarts_[0]
    numbers, fit_once = [], IMSAT._fit_once
    monkeypatch.setattr(IMSAT, "_fit_once", lambda model, run: numbers.append(run.number) or fit_once(model, run))
    make(1, n_restarts=3).fit(blobs[0])
    assert numbers == [0, 1, 2]


@pytest.mark.parametrize("consistency", [None, (), "mixup", ("vat", 3), (None,)], ids=str)
def test_without_consistency_there_is_nothing_to_train(consistency, blobs):
    with pytest.raises(SettingError, match="consistency must be one of 'vat', 'augment' or"):
        make(1, consistency=consistency).fit(blobs[0])
