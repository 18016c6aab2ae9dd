"""What every fit has: a seed, restarts, numbers by size, a callback, a checkpoint, no half results."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from nvisa import AEGMM
from nvisa.fitting import checkpoint
from nvisa.fitting.run import FitResult
from nvisa.methods import METHODS
from nvisa.methods.base import DeepClusterer
from small_methods import make

# A few epochs of real methods may leave one cluster.
pytestmark = pytest.mark.filterwarnings("ignore:Only . of 3 clusters are in use")
each_method = pytest.mark.parametrize("name", METHODS)


# ---- seeds -----------------------------------------------------------------------------------------------------------


@each_method
def test_the_same_seed_gives_the_same_model(blobs, name):
    # conftest.py fails this and every other test that moves a global generator.
    first, second = (make(name, 2).fit(blobs[0]) for _ in range(2))
    for tensor, value in first.module_.state_dict().items():
        assert torch.equal(value, second.module_.state_dict()[tensor]), tensor


# ---- restarts --------------------------------------------------------------------------------------------------------


def test_restarts_keep_the_one_with_the_most_neighbor_information(blobs):
    model = make("nvisa", 3, n_restarts=3, init="random").fit(blobs[0])
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    assert len(set(scores)) > 1
    assert model.neighbor_information_ == max(scores)


def test_restarts_take_the_starts_of_a_tuple_in_turn(blobs):
    """``start_score_`` is NaN after random weights, and the restart that is kept is one of its start alone."""
    X = blobs[0]
    model = make("nvisa", 3, n_restarts=3, init=["random", "gmm"], random_state=2).fit(X)  # a list will do
    scores = [restart["neighbor_information"] for restart in model.restarts_]
    kept = int(np.argmax(scores))
    assert np.isnan(model.start_score_) == (kept != 1)
    randoms = make("nvisa", 3, n_restarts=3, init="random", random_state=2).fit(X).restarts_
    mixtures = make("nvisa", 3, n_restarts=3, init="gmm", random_state=2).fit(X).restarts_
    assert model.restarts_ == [randoms[0], mixtures[1], randoms[2]]


def test_methods_without_restarts_say_nothing_of_them():
    model = Planted(3, random_state=0).fit(rows_of(5, 4, 3))
    assert not hasattr(model, "restarts_")
    assert not hasattr(model, "neighbor_information_")
    assert [name for name, kind in METHODS.items() if "n_restarts" in kind.SETTINGS] == ["nvisa", "imsat"]


# ---- numbers by size -------------------------------------------------------------------------------------------------


class Fixed(torch.nn.Module):
    """Networks that put a row into the cluster that its first number says, under the name it has now."""

    latent_dim = 1

    def __init__(self, rescale, n_clusters):
        super().__init__()
        self.rescale = rescale
        self.register_buffer("names", torch.arange(n_clusters))

    def log_q_y(self, x):
        old = torch.nn.functional.one_hot(x[:, 0].long(), len(self.names)).float().log()
        return old[:, self.names]

    def encode(self, x):
        return x

    def permute(self, order):
        self.names = self.names[order]


class Planted(DeepClusterer):
    """A method whose clusters are planted."""

    def _networks(self, rescale, fitted=None):
        return Fixed(rescale, self.n_clusters)

    def _fit_once(self, run):
        return FitResult(run.module, [])


def rows_of(*sizes):
    """So many rows of each cluster, none like another."""
    return (np.repeat(np.arange(len(sizes)), sizes) + np.linspace(0, 0.9, sum(sizes)))[:, None]


def test_the_largest_cluster_is_number_zero_and_equal_ones_keep_their_order():
    X = rows_of(2, 9, 0, 5, 5)
    model = Planted(5, random_state=0).fit(X)
    assert model.module_.names.tolist() == [1, 3, 4, 0, 2]
    assert np.bincount(model.labels_).tolist() == [9, 5, 5, 2]
    assert model.predict(np.array([[1.0], [3.0], [4.0], [0.0], [2.0]])).tolist() == [0, 1, 2, 3, 4]


# ---- lost clusters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(50, 50), (97, 3), (50, 50, 0, 0)], ids=str)  # rare is not lost
def test_clusters_of_which_half_are_in_use_are_no_warning(sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Planted(len(sizes), random_state=0).fit(rows_of(*sizes))


@pytest.mark.parametrize(
    ("sizes", "n_used"),
    [
        ((100, 0), 1),
        ((100, 0, 0, 0), 1),
        ((300, 300, 9, 0, 0, 0), 2),  # 9 of 609 rows: less than a tenth of an equal share
    ],
    ids=str,
)
def test_a_fit_that_lost_its_clusters_says_so(sizes, n_used):
    with pytest.warns(ConvergenceWarning, match=f"Only {n_used} of {len(sizes)} clusters are in use"):
        Planted(len(sizes), random_state=0).fit(rows_of(*sizes))


# ---- nothing half done -----------------------------------------------------------------------------------------------


def stop(clusterer, record):
    raise KeyboardInterrupt


@pytest.mark.parametrize("fresh", [make("nvisa", 3, init="random"), make("ae_gmm", 3)], ids=["nvisa", "ae_gmm"])
def test_a_fit_that_fails_leaves_the_clusterer_as_it_was(blobs, fresh):
    """Neither a half of the fit that failed nor a mixture of two; a refused call costs no model."""
    X, fresh = blobs[0], clone(fresh)
    with pytest.raises(KeyboardInterrupt):
        fresh.on_epoch(stop).fit(X)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    fitted = fresh.on_epoch(None).fit(X)
    proba, before = fitted.predict_proba(X), dict(vars(fitted))
    with pytest.raises(KeyboardInterrupt):
        fitted.on_epoch(stop).fit(X[:50, :1] + 5)
    with pytest.raises(ValueError, match="n_samples=2"):
        fitted.on_epoch(None).fit(X[:2, :1])
    assert {name: id(value) for name, value in vars(fitted).items() if name != "_callback"} == {
        name: id(value) for name, value in before.items() if name != "_callback"
    }
    np.testing.assert_array_equal(fitted.predict_proba(X), proba)


# ---- who looks on ----------------------------------------------------------------------------------------------------


def test_a_callback_sees_every_epoch_with_networks_that_predict_and_changes_nothing(blobs):
    X, seen = blobs[0], []

    def look(clusterer, record):
        seen.append((record["stage"], record["epoch"], clusterer.module_.training, clusterer.predict(X[:5]).shape))

    watched, alone = make("nvisa", 3).on_epoch(look).fit(X), make("nvisa", 3).fit(X)
    assert [(stage, epoch) for stage, epoch, *_ in seen] == [(r["stage"], r["epoch"]) for r in alone.history_]
    assert {(training, shape) for _, _, training, shape in seen} == {(False, (5,))}
    for name, value in watched.module_.state_dict().items():
        assert torch.equal(value, alone.module_.state_dict()[name]), name
    n, refit = len(seen), watched.on_epoch(None).fit(X)
    assert len(seen) == n
    assert refit is watched
    assert not hasattr(clone(watched.on_epoch(look)), "_callback")


IN_TEST_CHECKPOINT = ("nvisa", "vade", "dec")  # killed there in every stage


@pytest.mark.parametrize("method", [name for name in METHODS if name not in IN_TEST_CHECKPOINT])
def test_a_killed_fit_goes_on_as_if_it_had_not_been(blobs, method, tmp_path, monkeypatch):
    """An objective that has a state of its own must offer it: see nvisa.fitting.checkpoint."""
    quick = make(method, 3)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    calls = []

    def kill(clusterer, record):
        calls.append(record)
        if clusterer is not whole and (record["stage"], record["epoch"]) == (last["stage"], last["epoch"] - 1):
            raise KeyboardInterrupt

    whole = clone(quick)
    whole.on_epoch(kill).fit(blobs[0])
    last = calls[-1]
    with pytest.raises(KeyboardInterrupt):
        clone(quick).on_epoch(kill).fit(blobs[0], checkpoint=tmp_path)
    resumed = clone(quick).fit(blobs[0], checkpoint=tmp_path)
    for name, value in whole.module_.state_dict().items():
        assert torch.equal(value, resumed.module_.state_dict()[name]), name
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)


def test_a_method_that_returns_something_else_than_a_result_is_told():
    class Careless(AEGMM):
        def _fit_once(self, run):
            return run.module

    with pytest.raises(TypeError, match="Careless._fit_once must return a FitResult, got MixtureAutoencoder"):
        Careless(2, random_state=0).fit(np.random.RandomState(0).randn(20, 3))
