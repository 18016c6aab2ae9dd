"""New rows after a fit: the density follows them, the clusters keep their numbers."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from sklearn.datasets import make_blobs

import nvisa
from nvisa import AEGMM, DEC, GMGAN, GMVAE, IMSAT, LTVAE, NVISA, VAEGMM, VAT, Cosine, Network, Training, VaDE
from nvisa.nets.layers import generator_from

CENTERS = np.array([[0.0] * 5, [6.0] * 5, [-6.0, 6.0] * 2 + [0.0]])


def blobs(n, seed, shift=0.0):
    X, y = make_blobs(n, centers=CENTERS + shift, random_state=seed)
    return X.astype(np.float32), y


def make(**settings):
    network, training = (
        Network(hidden=(16,), latent_dim=2),
        Training(epochs=60, batch_size=64, learning_rate=Cosine(1e-2)),
    )
    return NVISA(3, **{"init": "gmm", "network": network, "training": training, "random_state": 0, **settings})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "m"
    make().fit(blobs(300, 0)[0]).save(folder)
    return folder


@pytest.fixture
def fitted(saved):
    return nvisa.load(saved)


def test_the_likelihood_of_new_data_rises_and_old_rows_keep_their_labels(fitted):
    old, drifted, unseen = blobs(300, 0)[0], blobs(300, 1, shift=1.0)[0], blobs(300, 2, shift=1.0)[0]
    labels, before = fitted.labels_.copy(), fitted.score(unseen)
    for chunk in np.array_split(np.tile(drifted, (20, 1)), 40):
        fitted.partial_fit(chunk)
    assert fitted.score(unseen) > before + 0.1  # nats
    assert (fitted.predict(old) == labels).mean() > 0.98


def test_a_chunk_of_one_cluster_is_not_spread_over_the_others(fitted):
    """As the balance of clusters, p(y) = 1/K and the chunk's own batch statistics would have it."""
    X, y = blobs(300, 3)
    chunk = X[y == 1]
    (label,) = set(fitted.predict(chunk))
    before = fitted.predict_proba(chunk)[:, label].mean()
    for _ in range(20):
        fitted.partial_fit(chunk)
        assert set(fitted.labels_) == {label}
    assert fitted.predict_proba(chunk)[:, label].mean() >= before - 0.01


def test_every_call_is_one_epoch_at_the_floors_of_the_end_with_draws_of_its_own(fitted):
    X, n, floors = blobs(64, 4)[0], fitted.n_iter_, (fitted.std_floor_x_, fitted.std_floor_z_)
    start = {name: value.clone() for name, value in fitted.module_.state_dict().items()}
    records = []
    for _ in range(2):
        fitted.module_.load_state_dict(start)
        records.append(fitted.partial_fit(X).history_[-1])
    assert [record["stage"] for record in records] == ["partial_fit"] * 2
    assert fitted.n_iter_ == len(fitted.history_) == n + 2
    assert (records[0]["std_floor_x"], records[0]["std_floor_z"]) == pytest.approx(floors)
    assert records[0]["bound"] != records[1]["bound"]  # the same rows and weights, other draws
    assert not fitted.module_.training
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(X))


def test_the_first_step_is_a_tenth_of_the_fit_s_first_rate(fitted):
    """Adam's first step moves every weight that has a slope by the rate."""
    before = [p.detach().clone() for p in fitted.module_.parameters()]
    fitted.partial_fit(blobs(64, 6)[0])  # one batch
    moved = max(float((p.detach() - b).abs().max()) for p, b in zip(fitted.module_.parameters(), before, strict=True))
    assert moved == pytest.approx(0.1 * 1e-2, rel=0.01)


def test_balance_is_not_rewarded_and_q_is_held_to_what_it_was(fitted):
    record = fitted.partial_fit(blobs(192, 7, shift=1.0)[0]).history_[-1]  # three batches
    assert record["information"] == 0
    assert record["drift"] > 0  # from the second batch on q(y|x) is another than before


def test_a_saved_model_goes_on_like_the_one_in_memory(saved):
    X = blobs(64, 5)[0]
    memory, loaded = make().fit(blobs(300, 0)[0]).partial_fit(X), nvisa.load(saved).partial_fit(X)
    for name, value in memory.module_.state_dict().items():
        assert torch.equal(value, loaded.module_.state_dict()[name]), name


def test_the_first_call_is_a_fit():
    X, settings = blobs(60, 0)[0], {"training": Training(epochs=2), "consistency": VAT(weight=0.5)}
    first, whole = make(**settings).partial_fit(X), make(**settings).fit(X)
    np.testing.assert_array_equal(first.predict_proba(X), whole.predict_proba(X))
    with pytest.raises(ValueError, match="n_clusters=3"):
        make().partial_fit(X[:2])


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.zeros((4, 6)), "expecting 5 features"),
        (np.full((4, 5), np.nan), "NaN"),
    ],
)
def test_bad_chunks_are_refused_and_change_nothing(fitted, X, match):
    before = {name: value.clone() for name, value in fitted.module_.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        fitted.partial_fit(X)
    assert all(torch.equal(value, before[name]) for name, value in fitted.module_.state_dict().items())


# ---- every method that can -------------------------------------------------------------------------------------------

STREAMING = [AEGMM, GMVAE, IMSAT, VAEGMM, VaDE]


@cache
def small(kind):
    """Fitted to the first rows; whoever goes on with it takes a copy."""
    own = {"init": "gmm", "pretraining": Training(epochs=10)} if kind in (GMVAE, VaDE) else {}
    training = Training(epochs=30, batch_size=64, learning_rate=Cosine(1e-2))
    network = Network(hidden=(16,), latent_dim=2, batch_norm=kind is IMSAT)
    return kind(3, network=network, training=training, random_state=0, **own).fit(blobs(300, 0)[0])


@pytest.mark.parametrize("kind", STREAMING)
def test_the_objective_of_new_rows_rises_and_old_rows_keep_their_labels(kind):
    (old, _), (new, _) = blobs(300, 0), blobs(300, 1, shift=0.7)
    model = deepcopy(small(kind))
    labels, buffers = model.labels_.copy(), {name: b.clone() for name, b in model.module_.named_buffers()}
    for _ in range(8):
        model.partial_fit(new)
    records = [record for record in model.history_ if record["stage"] == "partial_fit"]
    assert [record["epoch"] for record in records] == [1] * 8
    if kind is not IMSAT:  # whose objective is agreement, full from the start
        assert records[-1]["objective"] > records[0]["objective"]
    assert (model.predict(old) == labels).mean() > 0.98
    assert all(torch.equal(b, buffers[name]) for name, b in model.module_.named_buffers())  # no statistic of a chunk
    np.testing.assert_array_equal(model.labels_, model.predict(new))


@pytest.mark.parametrize("kind", STREAMING)
def test_what_is_maximized_is_what_the_fit_maximizes(kind):
    """Without drift, at the first step: the objective of these weights, rows and draws, less nothing."""
    X, model = blobs(60, 1)[0], deepcopy(small(kind))
    generator = torch.Generator().manual_seed(generator_from(RandomState(0)).initial_seed() + model.n_iter_)
    order = torch.randperm(60, generator=generator).numpy()
    model.module_.eval()
    with nvisa.config(precision="float32"):
        step = model._objective(model.module_, 60, generator)(torch.from_numpy(X[order]), order, 0.0)
        record = model.partial_fit(X).history_[-1]
    assert record["objective"] == pytest.approx(float(step.value.detach().mean()), rel=1e-4)
    assert record["drift"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("kind", [DEC, GMGAN, LTVAE])
def test_the_others_have_none(kind):
    assert not hasattr(kind, "partial_fit")


def test_drift_is_seen_where_it_is(fitted):
    same, moved = fitted.drift(blobs(300, 8)[0]), fitted.drift(blobs(300, 9, shift=1.0)[0])
    assert same["log_density"]["share"] < 0.15
    assert moved["log_density"]["share"] > 0.2
    assert moved["log_density"]["p_value"] < 1e-9
    assert same["sizes"]["p_value"] > 0.05
    X, y = blobs(300, 3)
    assert fitted.drift(X[y != 1])["sizes"]["distance"] == pytest.approx(1 / 3, abs=0.05)
