"""The temperature has the mean confidence that was asked for; agreement and thresholds are what they are called."""

import numpy as np
import pytest
import torch

from nvisa.fitting.calibration import SHARES, neighbor_agreement, quantiles, temperature, tempered, threshold


@pytest.fixture
def log_q():
    return torch.from_numpy(np.random.RandomState(0).randn(200, 4) * 3).log_softmax(1).numpy()


def test_tempering_is_a_power_and_moves_no_largest_entry(log_q):
    q = np.exp(log_q)
    np.testing.assert_allclose(tempered(log_q, 1.0), q)
    powers = q ** (1 / 2.5)
    np.testing.assert_allclose(tempered(log_q, 2.5), powers / powers.sum(1, keepdims=True))
    np.testing.assert_array_equal(tempered(log_q, 7.0).argmax(1), q.argmax(1))


@pytest.mark.parametrize("confidence", [0.4, 0.7, 0.97])
def test_at_the_temperature_the_mean_confidence_is_what_was_asked_for(log_q, confidence):
    assert tempered(log_q, temperature(log_q, confidence)).max(1).mean() == pytest.approx(confidence, abs=1e-6)


def test_beyond_what_any_temperature_reaches_it_stops(log_q):
    assert temperature(log_q, 1.0) == 0.1
    assert temperature(log_q, 0.1) == 20.0


def test_agreement_is_accuracy_where_predictions_are_calibrated():
    """Rows of a place x have the class k with chance p_k(x), and a neighbor's cluster is drawn from the same p(x).

    E p_argmax = chance that the cluster argmax p(x) is right = chance that the neighbor agrees with it.
    """
    rng = np.random.RandomState(0)
    p = rng.dirichlet([0.5] * 4, size=50_000)
    labels = np.concatenate([p.argmax(1), (rng.rand(len(p), 1) > p.cumsum(1)).sum(1)])
    other = np.arange(50_000)
    near = np.concatenate([other + 50_000, other])[:, None]  # each the other's
    assert neighbor_agreement(labels, near) == pytest.approx(p.max(1).mean(), abs=5e-3)


def test_an_overconfident_q_gets_its_confidence_back():
    """q is p at a quarter of its temperature; neighbors' clusters are drawn from p: T is 4."""
    rng = np.random.RandomState(1)
    p = rng.dirichlet([0.5] * 4, size=50_000)
    log_q = 4 * np.log(np.maximum(p, 1e-12))
    log_q -= np.logaddexp.reduce(log_q, axis=1, keepdims=True)
    drawn = (rng.rand(len(p), 1) > p.cumsum(1)).sum(1)
    assert temperature(log_q, float((drawn == log_q.argmax(1)).mean())) == pytest.approx(4, rel=0.05)


def test_as_many_rows_lie_below_a_threshold_as_it_says():
    values = np.random.RandomState(0).randn(5000)
    kept = quantiles(values)
    assert len(kept) == len(SHARES)
    for share in (0.001, 0.01, 0.0137, 0.3, 0.5):
        assert (values < threshold(kept, share)).mean() == pytest.approx(share, abs=2e-3)
