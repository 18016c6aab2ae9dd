"""Drift: what is counted, and how often it is called a drift when there is none."""

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from nvisa.fitting.calibration import quantiles
from nvisa.fitting.drift import SHARE, low_drift, size_drift


def test_the_chance_is_that_of_a_binomial():
    values = np.linspace(-3, 3, 80)
    reference = quantiles(np.linspace(-2, 4, 1001))
    found = low_drift(values, reference)
    n = int(np.sum(values < np.quantile(np.linspace(-2, 4, 1001), SHARE)))
    assert found["share"] == n / 80
    assert found["p_value"] == pytest.approx(binomtest(n, 80, SHARE, alternative="greater").pvalue)


def test_rows_of_the_same_law_are_no_drift_and_lower_ones_are():
    rng = np.random.RandomState(0)
    reference = quantiles(rng.randn(200_000))
    same = [low_drift(rng.randn(400), reference)["p_value"] for _ in range(300)]
    assert np.mean(np.array(same) < 0.05) < 0.08
    lower = [low_drift(rng.randn(400) - 0.7, reference)["p_value"] for _ in range(50)]
    assert np.mean(np.array(lower) < 0.05) > 0.9


def test_sizes_of_the_same_law_have_uniform_chances_and_a_lost_cluster_is_seen():
    rng, p = np.random.RandomState(1), [0.5, 0.3, 0.2]
    chances = [size_drift(rng.multinomial(900, p), rng.multinomial(300, p))["p_value"] for _ in range(300)]
    assert kstest(chances, "uniform").pvalue > 0.01
    found = size_drift(np.array([50, 30, 20, 0]), np.array([5, 5, 0, 0]))
    assert found["distance"] == pytest.approx(0.2)  # 0, 0.2 and 0.2, halved
    assert found["empty"] == [2, 3]
    assert size_drift(np.array([500, 300, 200]), np.array([60, 40, 0]))["p_value"] < 1e-4
    assert size_drift(np.array([7, 0]), np.array([3, 0])) == {"distance": 0.0, "p_value": 1.0, "empty": [1]}
