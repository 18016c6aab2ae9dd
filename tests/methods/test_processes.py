"""A fitted clusterer in children of a fork, in threads, with other threads; and what a model of other versions says."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest

import nvisa
from nvisa import NVISA, Network, Training, json_values, load

SMALL = {"init": "gmm", "consistency": None, "network": Network((16,), latent_dim=2), "random_state": 0}


@pytest.fixture(scope="module")
def X():
    rng = np.random.RandomState(0)
    return np.concatenate([rng.randn(400, 4) + 2 * k for k in range(3)]).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(X):
    return NVISA(3, training=Training(epochs=10), **SMALL).fit(X)


FORKED = """
import multiprocessing, os, sys
import numpy as np, torch
from nvisa import NVISA, Network, Training
torch.set_num_threads(2)
X = np.random.RandomState(0).randn(3000, 64)
make = lambda: NVISA(2, init="random", consistency=None, network=Network((256,), latent_dim=2), random_state=0,
                     training=Training(epochs=1))
model = make().fit(X[:300])
expected = model.predict(X)
def work(how):
    found = model.predict(X) if how == "predict" else make().fit(X[:300]).predict(X)
    return float((found == expected).mean())
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map_async(work, ["predict", "fit"]).get(40))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_answers(tmp_path):
    """Two threads have worked in the parent; none of them is in the child."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    predicted, fitted = json.loads(run.stdout)
    assert predicted == 1.0
    assert fitted > 0.9


def test_threads_predict_side_by_side_what_one_does(fitted, X):
    expected = fitted.predict_proba(X)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: fitted.predict_proba(X), range(8)):
            np.testing.assert_array_equal(found, expected)


def test_threads_fit_side_by_side_what_one_does(X):
    def fit(seed):
        return (
            NVISA(3, training=Training(epochs=2), **SMALL | {"init": "random", "random_state": seed})
            .fit(X)
            .predict_proba(X)
        )

    alone = [fit(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:  # a thread has the precision of its own context
        running = [pool.submit(copy_context().run, fit, seed) for seed in range(3)]
        for found, expected in zip(running, alone, strict=True):
            np.testing.assert_array_equal(found.result(), expected)


def test_equal_settings_rows_and_threads_give_equal_bits(fitted, X, tmp_path):
    again = NVISA(3, training=Training(epochs=10), **SMALL).fit(X)
    fitted.save(tmp_path / "m")
    for other in (again, load(tmp_path / "m")):
        np.testing.assert_array_equal(other.predict_proba(X), fitted.predict_proba(X))


def test_with_other_threads_labels_are_equal_but_between_clusters(fitted, X):
    """The rule for a saved model on another machine; the rows overlap, so that some lie between."""
    proba = fitted.predict_proba(X)
    with nvisa.config(n_threads=2):
        other = fitted.predict_proba(X)
    sure = proba.max(1) >= 0.6
    assert 0.3 < sure.mean() < 1
    np.testing.assert_array_equal(other.argmax(1)[sure], proba.argmax(1)[sure])
    np.testing.assert_allclose(other, proba, atol=1e-4)


@pytest.mark.parametrize(("package", "warned"), [("nvisa", True), ("torch", True), ("numpy", False)])
def test_a_model_of_other_versions_says_so(fitted, tmp_path, package, warned):
    fitted.save(tmp_path / "m")
    file = tmp_path / "m" / "manifest.json"
    manifest = {key: value for key, value in json.loads(file.read_text()).items() if key != "digest"}
    manifest["versions"][package] = "0.0.1"
    file.write_text(json.dumps(json_values.with_digest(manifest)))
    if not warned:
        load(tmp_path / "m")
        return
    with pytest.warns(UserWarning, match=rf"written with {package} 0\.0\.1 \(here .*below 0\.6"):
        load(tmp_path / "m")
