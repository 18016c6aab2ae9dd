"""Editing a posterior is arithmetic of its columns; a gate is the log odds of two Gaussians."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from nvisa.fitting.edits import edited, gate, n_before, names_after, sources
from oracles import normal


def test_edits_keep_every_row_s_cluster_or_a_part_of_it(rng):
    q, z, w = normal(rng, 7, 5).softmax(1), normal(rng, 7, 3), normal(rng, 3)
    edits = [{"merge": [1, 3]}, {"split": 2, "weight": w.tolist(), "bias": 0.3}, {"order": [4, 0, 1, 2, 3]}]
    s = (z @ w + 0.3 > 0).to(q)
    parts = [q[:, 2] * s, q[:, 0], torch.maximum(q[:, 1], q[:, 3]), q[:, 2] * (1 - s), q[:, 4]]
    total = 1 - torch.minimum(q[:, 1], q[:, 3])
    found = edited(q.log(), z, edits).exp()
    assert_close(found, torch.stack(parts, 1) / total[:, None])
    made_of = sources(5, edits)
    assert all(old in made_of[new] for old, new in zip(q.argmax(1).tolist(), found.argmax(1).tolist(), strict=True))
    assert sources(5, edits) == [[2], [0], [1, 3], [2], [4]]
    assert n_before(5, edits) == 5
    names = ["a", "", "c", "d", "e"]
    for edit in edits:
        names = names_after(names, edit)
    assert names == ["", "a", "d", "c", "e"]


def test_a_gate_is_the_log_odds_of_two_gaussians_of_one_variance(rng):
    z = torch.cat([normal(rng, 300, 2) * 0.5 + 4, normal(rng, 200, 2) * 0.5]).numpy()
    weight, bias = gate(z, 0)
    u = z @ np.array(weight) + bias
    assert set(np.flatnonzero(u > 0)) in (set(range(300)), set(range(300, 500)))
    sides = [z[u < 0], z[u > 0]]
    variance = sum(((side - side.mean(0)) ** 2).sum() for side in sides) / z.size
    densities = [multivariate_normal(side.mean(0), variance * np.eye(2)).logpdf(z) for side in sides]
    np.testing.assert_allclose(u, densities[1] - densities[0], rtol=1e-6)


def test_a_dropped_cluster_s_rows_go_where_they_are_most_probable_else(rng):
    q, edits = normal(rng, 50, 4).softmax(1), [{"merge": [0, 3]}, {"drop": 1}]
    left = torch.stack([torch.maximum(q[:, 0], q[:, 3]), q[:, 2]], 1)  # of those that are left, as they were to another
    assert_close(edited(q.log(), None, edits).exp(), left / left.sum(1, keepdim=True))
    assert sources(4, edits) == [[0, 3], [2]]
    assert n_before(2, edits) == 4
    assert names_after(["a", "b", "c"], {"drop": 1}) == ["a", "c"]


@pytest.mark.parametrize("edit", [{"merge": [0, 2]}, {"drop": 1}, {"order": [2, 0, 1]}])
def test_without_a_split_no_latent_vector_is_read(rng, edit):
    log_q_y = normal(rng, 4, 3).log_softmax(1)
    assert edited(log_q_y, None, [edit]).exp().sum(1).tolist() == pytest.approx([1.0] * 4)
