"""Sparse rows give what dense ones do, and stay sparse: memory is measured on 20,000 columns."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import nvisa
from nvisa import NVISA, Network, Training
from nvisa.methods import METHODS
from nvisa.nets.sparse import SparseRows
from small_methods import make, separated_blobs

SETTINGS = {"network": Network(hidden=(16,), latent_dim=2), "training": Training(epochs=3), "random_state": 0}


@pytest.fixture(scope="module")
def counts():
    """Words of three subjects, of which each has 20 of its own."""
    rng, y = np.random.RandomState(0), np.repeat([0, 1, 2], 100)
    rates = np.full((3, 90), 0.02)
    for k in range(3):
        rates[k, 20 * k : 20 * k + 20] = 0.6
    return rng.poisson(rates[y]).astype(np.float32), y


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_a_sparse_matrix_is_predicted_as_its_dense_rows_are(counts, kind):
    X, _ = counts
    model = NVISA(3, init="random", **SETTINGS).fit(X)
    np.testing.assert_allclose(model.predict_proba(kind(X)), model.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(model.transform(kind(X)), model.transform(X), atol=1e-5)
    np.testing.assert_allclose(model.score_samples(kind(X)), model.score_samples(X), rtol=1e-4)


def test_a_fit_with_few_columns_is_that_of_the_dense_rows(counts):
    X = counts[0][:, :40]
    dense, of_sparse = (NVISA(3, init="random", **SETTINGS).fit(rows) for rows in (X, sparse.csr_array(X)))
    np.testing.assert_allclose(of_sparse.predict_proba(X), dense.predict_proba(X), atol=1e-3)


def test_subjects_are_found_among_sparse_words_and_the_model_is_saved(counts, tmp_path):
    X, y = sparse.csr_array(counts[0]), counts[1]
    settings = SETTINGS | {"training": Training(epochs=30, batch_size=64)}
    model = NVISA(3, **settings).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.9
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(nvisa.load(tmp_path / "model").predict(X), model.labels_)
    assert model.partial_fit(X[:64]).predict(X).shape == (300,)


def test_a_gap_or_infinity_among_the_stored_numbers_is_refused(counts):
    for bad in (np.nan, np.inf):
        X = sparse.csr_array(counts[0])
        X.data[7] = bad
        with pytest.raises(ValueError, match="NaN|infinity"):
            make("nvisa", 1).fit(X)


def test_a_checkpoint_knows_its_sparse_rows(counts, tmp_path):
    X = sparse.csr_array(counts[0])
    first = NVISA(3, init="random", **SETTINGS).fit(X, checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(first.labels_, NVISA(3, init="random", **SETTINGS).fit(X).labels_)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.TAKES_SPARSE])
@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")
def test_every_method_that_reads_its_rows_in_batches_takes_them(counts, name):
    X = sparse.csr_array(counts[0][::2, :20])
    model = make(name, 1).fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba(X.toarray()), atol=1e-6)


def test_images_are_not_sparse():
    with pytest.raises(TypeError, match="[Ss]parse"):
        METHODS["gm_gan"](3).fit(sparse.csr_array(separated_blobs()[0]))


def test_a_fit_makes_no_dense_copy(monkeypatch):
    """No more than a block of rows is ever dense; memory on 20,000 columns is measured by benchmarks/sparse_rows.py."""
    taken, dense = [], SparseRows.dense

    def noted(self, rows, dtype):
        found = dense(self, rows, dtype)
        taken.append(len(found))
        return found

    monkeypatch.setattr(SparseRows, "dense", noted)
    X = sparse.random_array((1500, 60), density=0.1, rng=np.random.default_rng(0), format="csr")
    model = NVISA(2, **SETTINGS | {"training": Training(epochs=1)}).fit(X)
    model.predict_proba(X)
    assert len(taken) > 20
    assert max(taken) <= 512
