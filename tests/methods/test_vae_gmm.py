"""VAE+GMM against its equations; what it shares with every method is tested beside the base."""

import numpy as np
import pytest
from torch.testing import assert_close

from autoencoders import FLOOR, B, K, Z, log_p_x_given_z, mass, some_x, vae_networks
from nvisa.methods.vae_gmm import VAEGMM
from oracles import TIGHT, normal, vae_elbo

LIKELIHOODS = ("gaussian", "gaussian_shared", "gaussian_unit", "bernoulli")
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


@each_likelihood
def test_the_vae_s_terms_add_up_to_its_bound(rng, likelihood):
    net, x, noise = vae_networks(rng, likelihood), some_x(rng, likelihood), normal(rng, B, Z)
    terms = net.elbo(x, noise, FLOOR)
    loc, scale = net.encoder.q_z(x)
    expected = vae_elbo(log_p_x_given_z(net, x, loc + scale * noise, likelihood), loc, scale)
    assert_close(sum(terms.values()), expected, **TIGHT)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "gaussian_unit"])
def test_the_density_has_mass_one_in_the_user_s_units(rng, likelihood):
    fitted = VAEGMM(K, likelihood=likelihood, std_floor=FLOOR)
    assert mass(fitted, vae_networks(rng, likelihood, n_features=2)) == pytest.approx(1, abs=1e-6)


def test_the_vae_s_prior_is_a_standard_normal_and_its_clusters_are_the_mixture_s(rng):
    """``score_samples`` is of the VAE; ``sample`` draws y and z from the mixture of its codes."""
    fitted, z = VAEGMM(K), normal(rng, 2, B, Z)
    fitted.module_ = vae_networks(rng).float()
    assert_close(fitted._log_p_z(z), -(z.square() + np.log(2 * np.pi)).sum(-1) / 2, **TIGHT)
    share = np.bincount(fitted._draw_y(20_000, np.random.RandomState(0)), minlength=K) / 20_000
    np.testing.assert_allclose(share, fitted.module_.mixture.log_weights.exp(), atol=0.02)
