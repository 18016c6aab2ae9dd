"""AnnData in, clusters in it: by the real package where it is installed, else by what has the same attributes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, issparse

import nvisa
from nvisa import Network, SettingError, Training
from nvisa.tools import cluster, counts_of

N, D = 90, 12
SMALL = {
    "network": Network(hidden=(16,), latent_dim=2),
    "training": Training(epochs=12, batch_size=30),
    "random_state": 0,
}


def plain(X, obs, var, layers):
    return SimpleNamespace(X=X, obs=obs, var=var, layers=layers, obsm={}, uns={})


def real(X, obs, var, layers):
    anndata = pytest.importorskip("anndata", reason="the extra single-cell is not installed")
    return anndata.AnnData(X, obs=obs, var=var, layers=layers)


@pytest.fixture(params=[plain, real])
def adata(request):
    rng = np.random.RandomState(0)
    y = np.arange(N) % 2
    rate = np.where(np.arange(D) % 2 == y[:, None], 8.0, 1.0) * rng.gamma(4.0, 0.25, (N, 1))
    counts = csr_matrix(rng.poisson(rate).astype(np.float32) + np.eye(D, dtype=np.float32)[0])
    names = [f"c{n}" for n in range(N)]
    obs = pd.DataFrame({"group": y, "donor": np.array(["ann", "bob"])[rng.choice(2, N)]}, index=names)
    var = pd.DataFrame({"highly_variable": np.arange(D) < 10}, index=[f"g{d}" for d in range(D)])
    return request.param(np.log1p(counts), obs, var, {"counts": counts})


def test_clusters_probabilities_and_codes_stand_in_the_object(adata):
    model = cluster(adata, 2, layer="counts", batch_key="donor", **SMALL)
    assert adata.obs["nvisa"].dtype == "category"
    found = adata.obs["nvisa"].astype(int).to_numpy()
    assert max((found == adata.obs["group"]).mean(), (found != adata.obs["group"]).mean()) > 0.95
    assert adata.obsm["nvisa_probabilities"].shape == (N, 2)
    np.testing.assert_array_equal(adata.obsm["nvisa_probabilities"].argmax(1), found)
    np.testing.assert_array_equal(adata.obsm["nvisa_probabilities"].max(1), adata.obs["nvisa_probability"])
    X = counts_of(adata, "counts", "donor")
    np.testing.assert_array_equal(adata.obsm["X_nvisa"], model.transform(X))
    assert adata.uns["nvisa"]["counts"] == {"layer": "counts", "batch_key": "donor", "n_genes": 10}
    assert "NegativeBinomial" in adata.uns["nvisa"]["settings"]["likelihood"]


def test_the_genes_that_vary_are_taken_and_counts_stay_sparse(adata):
    X = counts_of(adata, "counts")
    assert issparse(X)
    np.testing.assert_array_equal(X.toarray(), adata.layers["counts"].toarray()[:, :10])
    assert counts_of(adata, "counts", genes=None).shape == (N, D)
    with_batch = counts_of(adata, "counts", "donor").toarray()
    np.testing.assert_array_equal(with_batch[:, 10], adata.obs["donor"] == "bob")


def test_logarithms_and_other_likelihoods_are_refused_and_nothing_is_written(adata):
    before = list(adata.obs.columns)
    with pytest.raises(ValueError, match="Expected counts, whole numbers from 0, got .* raw counts"):
        cluster(adata, 2, **SMALL)
    with pytest.raises(SettingError, match="likelihood must be one of 'negative_binomial'"):
        cluster(adata, 2, layer="counts", likelihood="gaussian", **SMALL)
    with pytest.raises(KeyError):
        cluster(adata, 2, layer="raw", **SMALL)
    adata.obs["donor"] = adata.obs["donor"].where(np.arange(N) != 4, None)
    with pytest.raises(ValueError, match=r"Expected a batch of every cell in obs\['donor'\], got none in row 4"):
        cluster(adata, 2, layer="counts", batch_key="donor", **SMALL)
    assert list(adata.obs.columns) == before
    assert not adata.uns


def test_the_module_is_there_without_being_imported():
    assert nvisa.tools.cluster is cluster
