"""Structure search by BIC: planted facets, its bounds, its phases, its root."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from nvisa.fitting.progress import describe, time_left
from nvisa.methods.ltvae.latent_tree import LatentTree
from nvisa.methods.ltvae.moves import OPERATORS, fit_from_posteriors
from nvisa.methods.ltvae.search import Search
from nvisa.methods.ltvae.structure import Structure, bic
from oracles import normal
from trees import shape, some_tree, structure_of


def planted(rng, n=500):
    """Two independent facets, of 3 and 4 clusters, over three dimensions each."""
    a, b = torch.randint(3, (n,), generator=rng), torch.randint(4, (n,), generator=rng)
    centers = torch.tensor([[0, 0, 0], [6, 6, 0], [0, 6, 6], [6, 0, 6]], dtype=torch.float64)
    z = torch.cat([centers[a], centers[b]], 1) + normal(rng, n, 6)
    return (z - z.mean(0)) / z.std(0), a, b


def test_the_search_finds_two_planted_facets_and_their_numbers_of_states(rng):
    z, a, b = planted(rng)
    judge = GaussianMixture(5, covariance_type="diag", n_init=3, random_state=0).fit(z.numpy())
    start = fit_from_posteriors(
        Structure.mixture(5, 6), z, [torch.from_numpy(judge.predict_proba(z.numpy()))], 5, 0.01
    ).tree
    before, records = start.log_p_z(z), []
    search = Search(z, on_move=records.append)
    found = search.run(start)
    expected = structure_of((4, 3), [(0, 1)], {(0,): 1, (1,): 1, (2,): 1, (3,): 0, (4,): 0, (5,): 0})
    assert shape(found.structure) == shape(expected)
    assert found.structure.states[0] == 4  # log 4 > log 3: it tells more, so it labels
    assert_close(start.log_p_z(z), before, rtol=0, atol=0)
    for posterior, truth in zip(found.posteriors, (b, a), strict=True):
        assert mutual_info_score(truth, posterior.argmax(1)) > 0.9 * math.log(posterior.shape[1])
    scores = [record["bic"] for record in records]
    assert (np.diff(scores) > search.threshold).all()
    assert found.score == pytest.approx(scores[-1], abs=1)
    assert found.score == pytest.approx(bic(float(found.tree.log_p_z(z).sum()), found.structure, len(z)))
    truth = fit_from_posteriors(
        expected, z, [torch.eye(k, dtype=torch.float64)[y] for k, y in ((4, b), (3, a))], 60, 0.01
    )
    assert found.score > truth.score - 0.5


def test_a_search_with_fixed_states_keeps_them_and_joins_what_is_correlated(rng):
    side = torch.randint(2, (500,), generator=rng)
    shared = normal(rng, 500)
    z = torch.stack([8.0 * side + normal(rng, 500), shared + 0.2 * normal(rng, 500), shared], 1)
    z = (z - z.mean(0)) / z.std(0)
    start = fit_from_posteriors(Structure.mixture(2, 3), z, [torch.eye(2, dtype=torch.float64)[side]], 5, 0.01).tree
    found = Search(z, tuple(o for o in OPERATORS if o not in ("SI", "SD"))).run(start)
    assert set(found.structure.states) == {2}
    assert (1, 2) in found.structure.pouches


def test_a_search_stops_after_its_moves_and_says_before_what_one_takes(rng):
    z = planted(rng, 200)[0]
    start, records = some_tree(Structure.mixture(3, 6), rng), []
    search = Search(z, max_moves=1, on_move=records.append)
    search.run(start)
    assert len(search.path) == 1
    assert [(r["epoch"], r["n_epochs"]) for r in records] == [(1, 2), (2, 2)]
    assert 0 < records[0]["seconds_a_move"] < 60
    assert time_left(records[0]) == records[0]["seconds_a_move"]
    assert describe({**records[0], "seconds_a_move": 61.0}).endswith("about 1:01 a move, at most 1:01 left")


def test_the_phases_are_gone_through_again_until_none_of_them_gains(rng, monkeypatch):
    seen = []

    def climb(search, model, operators):
        seen.append(operators)
        return replace(model, score=model.score + 1) if len(seen) == 3 else model

    monkeypatch.setattr(Search, "_climb", climb)
    Search(normal(rng, 20, 2)).run(some_tree(Structure.mixture(2, 2), rng))
    assert seen == 2 * [("SI", "NI", "PO"), ("NR",), ("UP",), ("ND",), ("SD",)]


def test_the_root_is_the_facet_that_tells_most_not_the_one_that_is_surest(rng):
    tree = LatentTree(structure_of((2, 2), [(0, 1)], {(0,): 0, (1,): 1})).double()
    tree.loc_0.copy_(torch.tensor([[0.0], [50.0]]))  # every row is in its first state, for sure
    tree.loc_1.copy_(torch.tensor([[-1.5], [1.5]]))
    side = 2.0 * torch.randint(2, (200,), generator=rng) - 1
    z = normal(rng, 200, 2) + torch.stack([0 * side, 1.5 * side], 1)
    assert list(Search(z, operators=(), final=0).run(tree).structure.pouches_of(0)) == [(1,)]
