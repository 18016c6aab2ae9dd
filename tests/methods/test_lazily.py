"""Predictions of Dask's collections are those of the rows they hold, block by block, and not before they are wanted."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from nvisa import NVISA, Network, Training

da = pytest.importorskip("dask.array", reason='dask is not installed: pip install "nvisa[cluster]"')
dd = pytest.importorskip("dask.dataframe", reason='dask is not installed: pip install "nvisa[cluster]"')

RNG = np.random.RandomState(0)
X = np.concatenate([RNG.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"], index=[f"r{i}" for i in range(60)])
METHODS = ("predict", "predict_proba", "transform", "score_samples")


@pytest.fixture(scope="module")
def fit():
    small = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=2), "init": "random"}
    return NVISA(3, consistency=None, random_state=0, **small).fit


@pytest.fixture(scope="module")
def model(fit):
    return fit(X)


@pytest.fixture(scope="module")
def named(fit):
    return clone(fit.__self__).fit(FRAME)


@pytest.mark.parametrize("method", METHODS)
def test_an_array_gives_an_array_of_the_same_chunks(model, method, monkeypatch):
    kind = type(model)
    whole, called = getattr(model, method)(X), []
    plain = getattr(kind, method)
    monkeypatch.setattr(kind, method, lambda self, X, **how: called.append(len(X)) or plain(self, X, **how))
    lazy = plain(model, da.from_array(X, chunks=((7, 0, 53), (2, 1))))
    assert called == []
    assert (lazy.shape, lazy.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), whole)
    assert called == [7, 53]


@pytest.mark.parametrize("method", METHODS)
def test_a_frame_gives_a_frame_or_a_series_with_its_index(named, method):
    whole, lazy = (
        getattr(named, method)(FRAME),
        getattr(named, method)(dd.from_pandas(FRAME, npartitions=3, sort=False)),
    )
    empty = lazy._meta
    found = lazy.compute(scheduler="synchronous")
    np.testing.assert_array_equal(found.to_numpy(), whole)
    assert found.index.equals(FRAME.index)
    name = {"predict": "cluster", "predict_proba": "p0", "transform": "z0", "score_samples": "score"}[method]
    assert (found.name if found.ndim == 1 else found.columns[0]) == name
    assert (found.dtypes == empty.dtypes) if found.ndim == 1 else found.dtypes.equals(empty.dtypes)
    rows = dd.from_pandas(FRAME, npartitions=2, sort=False)
    none = getattr(named, method)(rows[rows.a > 1e9])
    assert len(none.compute(scheduler="synchronous")) == 0


def test_refusals_are_lazy_too_and_other_axes_are_refused(model):
    lazy = model.predict(da.from_array(X, chunks=(25, 3)), reject=0.3)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), model.predict(X, reject=0.3))
    with pytest.raises(ValueError, match="expected rows .N D., got a Dask collection of 1 axes"):
        model.predict(da.zeros(3))
