"""What somebody has given of the clusters: read and checked, matched with a start, taught beside an objective."""

import itertools
import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from torch.testing import assert_close

import nvisa
from nvisa import NVISA, Network, SettingError, Supervision, Training
from nvisa.fitting.supervision import (
    Labels,
    Supervised,
    given,
    log_other_cluster,
    log_same_cluster,
    matching,
    n_supervised,
)
from nvisa.fitting.training import StepOutput
from nvisa.nets.rows import Source
from nvisa_page import D, K, networks
from oracles import normal


def test_names_of_clusters_are_sorted_and_what_is_unknown_has_none():
    for labels in (
        ["cat", "", "ant", None, "cat"],
        np.array(["cat", "", "ant", "-1", "cat"]),
        np.array(["cat", np.nan, "ant", None, "cat"], dtype=object),
    ):
        found = given(Supervision(labels), 5)
        assert found.known.tolist() == [1, -1, 0, -1, 1]
        assert found.classes.tolist() == ["ant", "cat"]
    for labels in ([7, -1, 3, -1, 7], np.array([7, np.nan, 3, -1, 7]), np.array([7, None, 3, -1, 7], dtype=object)):
        found = given(Supervision(labels), 5)
        assert found.known.tolist() == [1, -1, 0, -1, 1]
        assert found.classes.tolist() == [3, 7]


def test_what_must_links_tie_to_a_known_row_is_known():
    found = given(Supervision([0, -1, -1, -1, 1, -1], must_link=[(0, 2), (2, 3)], cannot_link=[(3, 4)]), 6)
    assert found.known.tolist() == [0, -1, 0, 0, 1, -1]
    assert found.must.tolist() == [[0, 2], [2, 3]]
    assert found.cannot.tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": [0, 1]}, r"init must be labels of shape \(4,\), one for each row, got \(2,\)"),
        ({"labels": [0.5, 1, 1, 0]}, "strings, or whole numbers from 0, -1 for unknown, got .*0.5"),
        ({"labels": [0, 1, -2, 0]}, "whole numbers from 0, -1 for unknown, got .*-2"),
        ({}, "init must be labels or pairs of rows, some of them known"),
        ({"labels": [-1] * 4}, "init must be labels or pairs of rows, some of them known"),
        ({"must_link": [(0, 4)]}, r"init.must_link must be pairs of two rows of 0..3"),
        ({"cannot_link": [(1, 1)]}, r"init.cannot_link must be pairs of two rows"),
        ({"cannot_link": [0, 1, 2]}, r"init.cannot_link must be pairs of two rows"),
        ({"labels": [0, 1, -1, -1], "must_link": [(0, 2), (2, 1)]}, r"init.must_link .* got \[0, 1\]"),
        ({"must_link": [(0, 1), (1, 2)], "cannot_link": [(2, 0)]}, r"not together by must_link, got \(2, 0\)"),
        ({"labels": [1, 1, 0, -1], "cannot_link": [(0, 1)]}, r"not together by their labels, got \(0, 1\)"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        given(Supervision(**settings), 4)


def test_the_number_of_clusters_is_that_of_the_labels_unless_it_was_asked_for():
    everywhere, some = Supervision([0, 1, 2, 2], start="labels"), Supervision([0, 1, -1, -1])
    assert n_supervised(everywhere, 4, 10, 10) == n_supervised(everywhere, 4, 3, 10) == 3
    assert n_supervised(some, 4, 4, 10) == 4
    with pytest.raises(SettingError, match="n_clusters must be 3, as init has it, got 4"):
        n_supervised(everywhere, 4, 4, 10)
    with pytest.raises(SettingError, match="n_clusters must be at least 2, one for each label, got 1"):
        n_supervised(some, 4, 1, 10)
    with pytest.raises(SettingError, match="labels of at least two clusters, got 1"):
        n_supervised(Supervision([0, 0, -1, 0], start="labels"), 4, 10, 10)


def test_lists_of_names_are_starts_and_lists_of_numbers_are_labels():
    assert not Labels().allows(("auto", "random"))
    assert Labels().allows([0, 1, -1])
    assert Labels().allows(np.array(["a", "b"]))
    assert not Labels().allows(np.zeros((3, 2)))
    assert Supervision.of("auto") is None
    assert Supervision.of([0, 1]).start == "labels"


def test_names_are_matched_so_that_most_known_rows_agree(rng):
    """Against every order of the clusters."""
    proba = normal(rng, 40, 4).mul(2).softmax(1).numpy()
    known = torch.randint(-1, 4, (40,), generator=rng).numpy()
    is_known = known != -1

    def agreement(order):
        return proba[:, list(order)][is_known, known[is_known]].sum()

    assert agreement(matching(proba, known)) == pytest.approx(max(map(agreement, itertools.permutations(range(4)))))


def test_two_rows_are_in_one_cluster_as_often_as_a_count_over_all_pairs_says(rng):
    a, b = (normal(rng, 5, K).log_softmax(1) for _ in range(2))
    joint = a.exp()[:, :, None] * b.exp()[:, None, :]
    assert_close(log_same_cluster(a, b).exp(), torch.stack([j.trace() for j in joint]))
    apart = joint * (1 - torch.eye(K))
    assert_close(log_other_cluster(a, b).exp(), apart.sum((1, 2)))


class Quiet:
    """An objective of value 3 whose q(y|x) is the network's."""

    def __init__(self, net):
        self.net = net

    def __call__(self, x, rows, fraction):
        return StepOutput(torch.full((len(x),), 3.0), {}, self.net.log_q_y(x))


@pytest.mark.parametrize("n_known", [12, 3])
def test_the_value_is_that_of_the_equation(rng, n_known):
    """Of a batch of all rows; with three known rows of twelve all are drawn, and all pairs."""
    net, x = networks(rng).float().eval(), normal(rng, 12, D).float()
    known = torch.full((12,), -1)
    known[:n_known] = torch.arange(n_known) % K
    must, cannot = np.array([[0, 3], [1, 2]]), np.array([[4, 5]])
    supervised = Supervised(Quiet(net), net, Source(x.numpy()), known, must, cannot, rng)
    step = supervised(x, np.arange(12), 0.0)
    q = net.log_q_y(x).exp()
    expected = 3.0 + q[range(n_known), known[:n_known]].log().mean()
    expected = expected + (q[must[:, 0]] * q[must[:, 1]]).sum(1).log().mean()
    expected = expected + (1 - (q[cannot[:, 0]] * q[cannot[:, 1]]).sum(1)).log().mean()
    assert_close(step.value, expected)
    assert set(step.terms) == {"log_q_of_known", "log_same_cluster", "log_other_cluster"}


def test_a_pair_that_is_nearly_certainly_together_is_pulled_apart_by_a_finite_slope():
    logits = torch.tensor([[0.0, -9.0]], requires_grad=True)
    log_other_cluster(logits.log_softmax(1), torch.tensor([[0.0, -9.0]]).log_softmax(1)).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] > 0 > logits.grad[0, 0]
    certain = torch.tensor([[0.0, -200.0]])
    assert_close(log_other_cluster(certain, certain), torch.tensor([1e-6]).log(), rtol=1e-3, atol=0.0)


# ---- fits ------------------------------------------------------------------------------------------------------------

QUICK = {"network": Network(hidden=(32,), latent_dim=2), "training": Training(epochs=30, batch_size=64)}
QUICK |= {"random_state": 0}


def crossed():
    """Four blobs at the corners of a square, in the order of their corners, and the two pairs of opposite ones."""
    corners = np.array([[-4, -4], [-4, 4], [4, -4], [4, 4]])
    X, corner = make_blobs([60] * 4, centers=corners, random_state=0)
    return X, corner, np.isin(corner, (0, 3)).astype(int)


@pytest.mark.parametrize("consistency", ["vat", None])
def test_labels_that_no_method_would_find_are_kept_and_carried_to_new_rows(consistency):
    """Opposite corners belong together: no criterion without labels says so."""
    X, _, label = crossed()
    names = np.where(label == 1, "like", "unlike").astype(object)
    seen, new = np.arange(240) % 4 != 0, np.arange(240) % 4 == 0
    names[seen & (np.arange(240) % 5 == 0)] = None  # noise
    model = nvisa.adopt(X[seen], names[seen], consistency=consistency, **QUICK)
    assert model.classes_.tolist() == ["like", "unlike"]
    assert model.n_clusters_ == 2
    assert model.predict_proba(X).shape == (240, 2)
    assert (model.labels_ == 1 - label[seen]).mean() > 0.97
    assert (model.predict(X[new]) == 1 - label[new]).mean() > 0.97


def test_a_few_labels_name_the_clusters_and_hold(tmp_path):
    X, corner, _ = crossed()
    labels = np.full(240, -1)
    for k in range(3):  # the fourth corner has no name
        labels[np.flatnonzero(corner == k)[:3]] = [30, 20, 10][k]
    model = NVISA(4, init=Supervision(labels), **QUICK).fit(X)
    assert model.classes_.tolist() == [10, 20, 30]
    assert (model.labels_ == np.array([2, 1, 0, 3])[corner]).mean() > 0.97
    model.save(tmp_path / "model")
    same = nvisa.load(tmp_path / "model")
    np.testing.assert_array_equal(same.predict(X), model.labels_)
    np.testing.assert_array_equal(same.classes_, model.classes_)
    np.testing.assert_array_equal(same.init.labels, labels)
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["omitted"] == {}


def test_pairs_alone_decide_what_belongs_together():
    """Of four blobs two clusters are asked for: the links say which blobs they are made of."""
    X, corner, label = crossed()
    first = [np.flatnonzero(corner == k)[:10] for k in range(4)]
    must = np.concatenate([np.column_stack([first[0], first[3]]), np.column_stack([first[1], first[2]])])
    cannot = np.column_stack([first[0], first[1]])
    found = NVISA(2, init=Supervision(must_link=must, cannot_link=cannot), **QUICK).fit_predict(X)
    agreement = (found == label).mean()
    assert max(agreement, 1 - agreement) > 0.95


def test_the_settings_are_cloned_and_checked_before_anything_is_trained():
    X, corner, _ = crossed()
    model = NVISA(init=corner, **QUICK)
    np.testing.assert_array_equal(clone(model).init, corner)
    refused = NVISA(init=corner[:5], **QUICK).on_epoch(lambda *_: pytest.fail("before anything is trained"))
    with pytest.raises(SettingError, match=r"labels of shape \(240,\)"):
        refused.fit(X)
    with pytest.raises(SettingError, match=r"init\.start must be one of"):
        NVISA(init=Supervision(list(corner), start="labelled"), **QUICK).fit(X)
