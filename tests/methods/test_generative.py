"""What methods that make rows, or have a density, do with them."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from nvisa import SettingError
from nvisa.methods import METHODS
from nvisa.methods.generative import GenerativeClusterer, SamplingClusterer


def test_which_methods_make_rows_and_which_have_a_density():
    sampling = {name for name, kind in METHODS.items() if issubclass(kind, SamplingClusterer)}
    generative = {name for name, kind in METHODS.items() if issubclass(kind, GenerativeClusterer)}
    assert sampling == set(METHODS) - {"imsat", "ae_gmm", "dec"}
    assert generative == sampling - {"gm_gan"}


def test_sampled_rows_belong_to_their_cluster(sampling):
    for cluster in range(3):
        x, y = sampling.sample(50, cluster=cluster, random_state=1)
        assert (y == cluster).all()
        assert (sampling.predict(x) == cluster).mean() > 0.9


def test_samples_are_those_of_the_seed_and_of_no_cluster_that_is_not_there(sampling):
    first, again, other = (sampling.sample(9, random_state=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    for cluster in (-1, 3):
        with pytest.raises(ValueError, match=rf"cluster must be in 0\.\.2, got {cluster}"):
            sampling.sample(1, cluster=cluster)
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        sampling.sample(0)


def test_without_noise_a_sample_is_a_mean(generative):
    """Of the same z, a draw of p(x|z) lies around the mean, as far as the deviation says."""
    y = torch.zeros(4000, dtype=torch.long)
    draw = lambda noise: generative._draw(y, torch.Generator().manual_seed(1), noise=noise)  # noqa: E731
    with torch.inference_mode():
        mean, drawn = draw(noise=False), draw(noise=True)
    spread = (drawn - mean).std(0)
    assert (spread > 0).all()
    assert ((drawn - mean).mean(0).abs() < 6 * spread / 4000**0.5).all()


def test_data_score_higher_than_noise(blobs, generative):
    X, _ = blobs
    noise = np.random.RandomState(0).uniform(-40, 40, X.shape).astype(np.float32)
    assert generative.score(X) > generative.score(noise) + 10
    assert generative.score(X) == pytest.approx(generative.score_samples(X).mean())


def test_reconstruction_explains_most_of_the_variance(blobs, generative):
    X, _ = blobs
    assert ((X - generative.reconstruct(X)) ** 2).mean() < 0.2 * X.var(0).mean()


def test_the_middle_of_a_cluster_is_near_its_rows(blobs, generative):
    prototypes = generative.prototypes()
    if type(generative).__name__ in ("GMVAE", "LTVAE"):  # a cluster is a mixture there, and has no middle
        assert prototypes is None
        return
    for k, row in enumerate(prototypes):
        assert np.linalg.norm(row - blobs[0][generative.labels_ == k].mean(0)) < 3.0


@pytest.mark.parametrize("name", ["vade", "gm_gan"])
def test_nothing_is_drawn_before_a_fit(name):
    with pytest.raises(NotFittedError):
        METHODS[name](3).sample()


def test_what_is_encoded_is_decoded_and_a_way_leads_from_one_row_to_another(blobs, fitted):
    X = blobs[0]
    if not hasattr(fitted, "reconstruct"):
        assert not hasattr(fitted, "decode")
        return
    np.testing.assert_allclose(fitted.decode(fitted.transform(X)), fitted.reconstruct(X), rtol=1e-4, atol=1e-4)
    way = fitted.interpolate(X[0], X[-1], n_steps=5)
    ends = fitted.reconstruct(X[[0, -1]])
    np.testing.assert_allclose(way[[0, -1]], ends, rtol=1e-4, atol=1e-4)
    middle = fitted.decode(fitted.transform(X[[0, -1]]).mean(0, keepdims=True))
    np.testing.assert_allclose(way[2:3], middle, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="expected 2 columns, as transform gives them, got 5"):
        fitted.decode(X)
    with pytest.raises(SettingError, match="n_steps must be a whole number of at least 2, got 1"):
        fitted.interpolate(X[0], X[1], n_steps=1)
