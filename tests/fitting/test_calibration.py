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


def test_an_overconfident_classifier_of_rows_in_groups_gets_its_accuracy_back():
    """Labels are wrong by chance in 5 % of rows, neighbors are of one group: c = sqrt(c^2 + shared errors)."""
    rng = np.random.RandomState(0)
    group = np.repeat(np.arange(20), 500)
    is_wrong = rng.rand(len(group)) < 0.05
    labels = np.where(is_wrong, (group + rng.randint(1, 20, len(group))) % 20, group)
    near = (np.arange(len(group)) // 500 * 500)[:, None] + rng.randint(500, size=(len(group), 10))
    assert neighbor_agreement(labels, near) ** 0.5 == pytest.approx(1 - is_wrong.mean(), abs=2e-3)


def test_as_many_rows_lie_below_a_threshold_as_it_says():
    values = np.random.RandomState(0).randn(5000)
    kept = quantiles(values)
    assert len(kept) == len(SHARES)
    for share in (0.001, 0.01, 0.0137, 0.3, 0.5):
        assert (values < threshold(kept, share)).mean() == pytest.approx(share, abs=2e-3)
