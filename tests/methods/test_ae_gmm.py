"""AE+GMM against its equations; what it shares with every method is tested beside the base."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from autoencoders import NETWORK, K, random_mixture, rescale, some_x
from nvisa.fitting import initialization
from nvisa.fitting.training import Training
from nvisa.methods.ae_gmm import AEGMM
from nvisa.nets.autoencoder import MixtureAutoencoder
from oracles import TIGHT, build

STILL = Training(epochs=1, learning_rate=0.0)  # an epoch that moves nothing


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).randn(60, 4) * [1, 2, 3, 4] + np.repeat([[0], [5], [10]], 20, 0)


def test_labels_come_from_the_responsibilities_that_scikit_learn_computes(rng):
    how = {"likelihood": "gaussian_unit", "covariance": "diag"}
    net, x = build(lambda: MixtureAutoencoder(rescale(), K, NETWORK, **how), rng), some_x(rng, n=50)
    random_mixture(net.mixture, rng)
    judge = GaussianMixture(K, covariance_type="diag")
    judge.weights_ = net.mixture.logits.softmax(0).numpy()
    judge.means_, judge.covariances_ = net.mixture.loc.numpy(), net.mixture.log_scale.exp().square().numpy()
    judge.precisions_cholesky_ = 1 / np.sqrt(judge.covariances_)
    expected = torch.from_numpy(judge.predict_proba(net.code(x).detach().numpy()))
    assert_close(net.log_q_y(x).exp().detach(), expected, **TIGHT)
    order = torch.tensor([2, 0, 1])
    net.permute(order)
    assert_close(net.log_q_y(x).exp().detach(), expected[:, order], **TIGHT)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_the_mixture_is_as_likely_as_scikit_learn_s_of_the_same_codes(X, covariance):
    settings = {"network": NETWORK, "training": STILL, "covariance": covariance, "n_init": 10, "random_state": 0}
    model = AEGMM(3, **settings).fit(X)
    codes = model.transform(X)
    judge = GaussianMixture(3, covariance_type=covariance, n_init=20, tol=1e-7, max_iter=1000, random_state=1)
    best = judge.fit(codes).lower_bound_
    assert model.log_likelihood_ == pytest.approx(best, abs=0.02)  # nats
    shares = np.sort(model.predict_proba(X).mean(0))
    np.testing.assert_allclose(shares, np.sort(judge.weights_), atol=0.05)


def test_the_share_asked_for_is_what_the_clusterer_masks(X, monkeypatch):
    shares = []
    monkeypatch.setattr(initialization, "mask_inputs", lambda x, shift, share, generator: shares.append(share) or x)
    AEGMM(2, masked=0.3, network=NETWORK, training=STILL, random_state=0).fit(X)
    assert set(shares) == {0.3}
