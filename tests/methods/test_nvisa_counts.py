"""NVISA on counts: groups of expression whatever the library, batches told apart from groups, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

import nvisa
from nvisa import NVISA, Augment, NegativeBinomial, Network, SettingError, Training, WarmStart
from nvisa.methods.exporting import Predictor

N, D = 240, 60
SMALL = {
    "network": Network(hidden=(32,), latent_dim=3),
    "training": Training(epochs=25, batch_size=60),
    "random_state": 0,
}


def cells(seed=0, batch=None):
    """Three groups of cells, whose libraries differ twentyfold, and each one's group."""
    rng = np.random.RandomState(seed)
    expression = rng.gamma(0.6, 1.0, D) * np.exp(1.5 * rng.randn(3, D) * (rng.uniform(size=(3, D)) < 0.4))
    y = rng.choice(3, N, p=[0.5, 0.3, 0.2])
    rate = expression[y] if batch is None else expression[y] * np.exp(1.5 * rng.randn(2, D))[batch]
    library = np.exp(rng.uniform(np.log(60), np.log(1200), N))
    rate = library[:, None] * rate / rate.sum(1, keepdims=True)
    X = rng.poisson(rate * rng.gamma(5.0, 0.2, (N, D)))
    X[:, 0] += 1  # a count in every row
    return X.astype(float), y


@pytest.fixture(scope="module")
def fitted():
    X, _ = cells()
    longer = SMALL | {"training": Training(epochs=80, batch_size=60)}
    return NVISA(3, likelihood="negative_binomial", **longer).fit(csr_array(X))


def test_groups_of_expression_are_found_whatever_the_library(fitted):
    X, y = cells()
    assert adjusted_rand_score(y, fitted.labels_) > 0.95
    few = np.random.RandomState(1).binomial(X.astype(int), 0.5)  # the same cells, half as deep
    assert (fitted.predict(few + (np.arange(D) == 0)) == fitted.labels_).mean() > 0.95


def test_dense_and_sparse_counts_have_the_same_clusters_and_densities(fitted):
    X, _ = cells()
    assert (fitted.predict(X) == fitted.labels_).all()
    np.testing.assert_allclose(fitted.score_samples(X), fitted.score_samples(csr_array(X)), rtol=1e-4)


def test_a_density_of_counts_is_a_probability_and_typical_rows_have_more(fitted):
    X, _ = cells()
    assert (fitted.score_samples(X) < 0).all()
    shuffled = np.random.default_rng(0).permuted(X, axis=1)
    assert fitted.score(X) > fitted.score(shuffled) + 10


def test_samples_are_counts_of_their_cluster(fitted):
    drawn, _ = fitted.sample(60)
    assert (drawn == np.rint(drawn)).all()
    assert (drawn >= 0).all()
    middle, y = fitted.sample(60, noise=False)
    assert (fitted.predict(np.rint(10 * middle)) == y).mean() > 0.9
    expected = fitted.reconstruct(cells()[0])
    assert np.median(np.abs(np.log(expected.sum(1) / np.median(cells()[0].sum(1))))) < 0.05


@pytest.mark.parametrize("column", ["donor", 0])
def test_batches_are_told_apart_from_groups(column, tmp_path):
    batch = np.random.RandomState(3).choice(2, N)
    X, y = cells(batch=batch)
    frame = pd.DataFrame(X, columns=[f"g{d}" for d in range(D)])
    frame.insert(0, "donor", np.array(["ann", "bob"])[batch])
    model = NVISA(3, likelihood=NegativeBinomial(zero_inflated=True, batch=column), **SMALL).fit(frame)
    assert adjusted_rand_score(y, model.labels_) > 0.9
    assert abs(adjusted_rand_score(batch, model.labels_)) < 0.1
    alone = NVISA(3, likelihood="negative_binomial", **SMALL).fit(X)
    assert adjusted_rand_score(y, alone.labels_) < 0.7  # unless it is told of them, donors are what differs
    model.save(tmp_path / "model")
    again = nvisa.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    assert set(model.sample(5)[0]["donor"]) == {["ann", "bob"][np.bincount(batch).argmax()]}
    with pytest.warns(UserWarning, match="not seen"), pytest.raises(ValueError, match="NaN in row 0, column 'donor'"):
        model.predict(frame.assign(donor="eve"))


@pytest.mark.parametrize(
    ("settings", "X", "said"),
    [
        ({}, np.log1p(cells()[0]), "Expected counts, whole numbers from 0, got .* in row"),
        ({}, np.where(np.arange(N * D).reshape(N, D) == 3, np.nan, cells()[0]), "got nan in row 0"),
        (
            {"consistency": Augment(image_shape=(6, 10))},
            cells()[0],
            "consistency must be another than Augment for counts",
        ),
        ({"init": WarmStart("gmm", masked=0.3)}, cells()[0], "init must be a start without masked counts"),
        (
            {"network": nvisa.Conv(image_shape=(6, 10), channels=(2,))},
            cells()[0],
            "network must be a Network for counts",
        ),
        ({"likelihood": NegativeBinomial(batch=99)}, cells()[0], "likelihood.batch must be a number below 60"),
        (
            {},
            pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "x"]}),
            "likelihood must be another .* beside categories, got",
        ),
    ],
)
def test_what_does_not_go_with_counts_is_refused(settings, X, said):
    with pytest.raises((SettingError, ValueError), match=said):
        NVISA(3, **{"likelihood": "negative_binomial", **SMALL, **settings}).fit(X)


def test_what_is_exported_of_counts_is_how_sure_the_clusters_are(fitted):
    X = torch.from_numpy(cells()[0]).float()
    proba, latent, score = Predictor(fitted)(X)
    np.testing.assert_allclose(proba.detach(), fitted.predict_proba(cells()[0]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(latent.detach(), fitted.transform(cells()[0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score.exp().detach(), proba.amax(1).detach(), rtol=1e-4)


def test_rows_without_counts_are_refused_in_a_prediction(fitted):
    with pytest.raises(ValueError, match="Expected a count in every row, got none in row 1"):
        fitted.predict(np.eye(3, D) * [[1], [0], [1]])
