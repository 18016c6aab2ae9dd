"""The decoded mean of every cluster."""

import numpy as np
import pytest
import torch

from nvisa import NVISA, VAEGMM, Network, VaDE
from report_pages import QUICK, two_groups


@pytest.fixture(scope="module")
def rows():
    return two_groups()


@pytest.mark.parametrize("kind", [NVISA, VaDE, VAEGMM])
def test_a_prototype_is_the_sample_of_a_cluster_without_spread(kind, rows):
    clusterer = kind(2, **QUICK, **({"init": "random"} if kind is NVISA else {})).fit(rows)
    table = dict(clusterer.module_.named_parameters()) | dict(clusterer.module_.named_buffers())
    (spread,) = (value for name, value in table.items() if name in ("prior.log_scale", "mixture.tril"))
    with torch.no_grad():
        spread.fill_(0.0 if kind is VAEGMM else -60.0)
    sampled = np.concatenate([clusterer.sample(1, cluster=k, noise=False)[0] for k in range(2)])
    np.testing.assert_allclose(clusterer.prototypes(), sampled, rtol=1e-5, atol=1e-6)


def test_a_cluster_of_several_gaussians_has_no_prototype(rows):
    two = Network(hidden=(8,), latent_dim=2, prior_components=2)
    assert NVISA(2, init="random", **QUICK | {"network": two}).fit(rows).prototypes() is None
