"""The operators on structures: their inverses, what they are offered on, and where EM starts after each."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch.testing import assert_close

from nvisa.methods.ltvae import moves as tree_moves
from nvisa.methods.ltvae.latent_tree import LatentTree
from nvisa.methods.ltvae.moves import fit_from_posteriors, moves, regular, same_shape
from nvisa.methods.ltvae.structure import Structure
from oracles import TIGHT, normal
from trees import shape, structure_of

WIDE = structure_of((3, 2, 4), [(0, 1), (0, 2)], {(0,): 0, (1, 4): 0, (2,): 1, (3, 5, 6): 1, (7,): 2, (8,): 2})


def test_a_latent_without_pouches_has_no_more_states_than_its_neighbors_can_tell():
    def middle(n):
        return structure_of((2, n, 3), [(0, 1), (1, 2)], {(0,): 0, (1,): 2})

    assert regular(middle(2))
    assert not regular(middle(3))  # 2 * 3 / max(2, 3) = 2
    assert regular(structure_of((2, 9), [(0, 1)], {(0,): 0, (1,): 1}))


@pytest.mark.parametrize(
    ("operator", "inverse"), [("SI", "SD"), ("SD", "SI"), ("NI", "ND"), ("NR", "NR"), ("PO", "UP"), ("UP", "PO")]
)
def test_each_operator_has_its_inverse(operator, inverse):
    made = list(moves(WIDE, (operator,)))
    assert made
    for move in made:
        assert shape(move.structure) != shape(WIDE)
        undone = [shape(back.structure) for back in moves(move.structure, (inverse,))]
        if operator == "PO" and min(len(item) for item in move.at) > 1:
            continue  # two pouches of several dimensions come apart one dimension at a time
        assert shape(WIDE) in undone, move


def test_deleting_a_node_merges_it_into_its_neighbor():
    (move,) = [m for m in moves(WIDE, ("ND",)) if m.what == "Y1 into Y0"]
    assert shape(move.structure) == shape(structure_of((3, 4), [(0, 1)], {
        (0,): 0, (1, 4): 0, (2,): 0, (3, 5, 6): 0, (7,): 1, (8,): 1}))  # fmt: skip


def test_a_moved_latent_takes_what_hangs_behind_it():
    chain = structure_of((2, 2, 2, 2), [(0, 1), (1, 2), (2, 3)], {(j,): j for j in range(4)})
    found = {move.what: move.structure for move in moves(chain, ("NR",))}
    expected = structure_of((2, 2, 2, 2), [(0, 1), (0, 2), (2, 3)], {(j,): j for j in range(4)})
    assert shape(found["Y2 to Y0"]) == shape(expected)
    assert same_shape(found["Y2 to Y0"], expected)
    assert not same_shape(chain, expected)  # the same latents, joined otherwise


def test_what_the_operators_are_offered_on():
    def offered(operator, structure=WIDE):
        return [move.what for move in moves(structure, (operator,))]

    assert Counter(what[:2] for what in offered("SD")) == {"Y0": 3, "Y2": 6}  # a latent keeps two states
    assert offered("UP") == ["(z1) (z1 z4)", "(z3) (z3 z5 z6)", "(z5) (z3 z5 z6)", "(z6) (z3 z5 z6)"]
    assert sorted(offered("ND")) == ["Y0 into Y1", "Y0 into Y2", "Y1 into Y0", "Y2 into Y0"]
    # Without its pouches Y2 would have more states than its neighbors can tell.
    assert Counter(what[:2] for what in offered("NI")) == {"Y0": 6, "Y1": 3, "Y2": 2}
    assert offered("NI", Structure.mixture(2, 2)) == []


def test_what_a_move_made_has_its_number_in_the_new_structure():
    star = structure_of((2, 2, 2), [(0, 1), (0, 2)], {(j,): j for j in range(3)})
    (move,) = [m for m in moves(star, ("NR",)) if m.what == "(z1) to Y2"]
    assert move.structure.pouches_of(move.made) == [(1,), (2,)]  # Y1 holds nothing more, and Y2 is now Y1


# ---- where EM starts -----------------------------------------------------------------------------------------------


def test_em_starts_from_latents_that_are_independent_given_z(rng):
    """``p(y_0) = E p(y_0|z)`` and ``p(y_1|y_0) = E p(y_0|z) p(y_1|z) / p(y_0)``."""
    structure = structure_of((2, 3), [(0, 1)], {(0,): 0, (1,): 1})
    a, b = normal(rng, 50, 2).softmax(1), normal(rng, 50, 3).softmax(1)
    tree = fit_from_posteriors(structure, normal(rng, 50, 2), [a, b], 0, 0.01).tree
    assert_close(tree.log_prior.exp(), a.mean(0), **TIGHT)
    assert_close(tree.log_table_0.exp(), a.T @ b / a.sum(0)[:, None], **TIGHT)


def test_a_state_is_cut_in_halves_about_its_own_mean_and_across_its_own_dimensions(rng):
    half = normal(rng, 30, 1)
    z = torch.cat([torch.cat([half, -half, torch.full((20, 1), 9.0)]) + 50, 100 * normal(rng, 80, 1)], 1)
    state = torch.eye(2, dtype=torch.float64)[[0] * 60 + [1] * 20]
    structure = structure_of((2, 2), [(0, 1)], {(0,): 0, (1,): 1})
    (cut,) = [m for m in moves(structure, ("SI",)) if m.what == "Y0 state 0"]
    posterior = cut.start(fit_from_posteriors(structure, z, [state, state], 0, 0.01), z)[0]
    assert_close(posterior.sum(0), torch.tensor([30.0, 20.0, 30.0]).double(), **TIGHT)
    assert mutual_info_score((z[:60, 0] > 50), posterior[:60, 2] > 0.5) == pytest.approx(math.log(2))


def test_a_state_is_cut_alike_whichever_way_its_longest_axis_points(rng, monkeypatch):
    z, eigh = normal(rng, 40, 3), torch.linalg.eigh
    posterior = torch.ones(40, 1, dtype=torch.float64)
    once = tree_moves._cut(posterior, 0, z)
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: (eigh(a)[0], -eigh(a)[1]))
    assert_close(tree_moves._cut(posterior, 0, z), once, **TIGHT)


def test_cutting_a_state_and_merging_its_halves_gives_the_posterior_back(rng):
    z = torch.cat([normal(rng, 60, 2) - 4, normal(rng, 60, 2) + 4, normal(rng, 60, 2) + torch.tensor([4, -4])])
    two = torch.eye(2, dtype=torch.float64)[[0] * 60 + [1] * 120]
    model = fit_from_posteriors(Structure.mixture(2, 2), z, [two], 0, 0.01)
    (cut,) = [m for m in moves(model.structure, ("SI",)) if m.what.endswith("state 1")]
    (posterior,) = cut.start(model, z)
    truth = np.repeat([0, 1, 2], 60)
    assert mutual_info_score(truth, posterior.argmax(1)) > 0.95 * math.log(3)  # across the longest axis
    three = fit_from_posteriors(cut.structure, z, [posterior], 0, 0.01)
    (merged,) = [m for m in moves(three.structure, ("SD",)) if m.what.endswith("states 1 2")]
    expected = three.posteriors[0][:, 1] + three.posteriors[0][:, 2]
    assert_close(merged.start(three, z)[0][:, 1], expected, **TIGHT)


def test_a_new_node_starts_from_what_its_neighbors_say(rng):
    """Y' is placed over z0 and z1, which know nothing of the facet of z2 and z3."""
    a, b = torch.randint(2, (2, 400), generator=rng)
    z = 6.0 * torch.stack([a, a, b, b], 1).double() + normal(rng, 400, 4)
    four = torch.eye(4, dtype=torch.float64)[2 * a + b]
    model = fit_from_posteriors(Structure.mixture(4, 4), z, [four], 3, 0.01)
    (move,) = [m for m in moves(model.structure, ("NI",)) if m.what == "Y0 from (z0) (z1)"]
    seen = move.start(model, z)[-1].argmax(1)
    assert mutual_info_score(a, seen) == pytest.approx(math.log(2), abs=0.01)
    same_a = torch.stack([move.start(model, z)[-1][:, 2 * k : 2 * k + 2].sum(1) for k in range(2)], 1)
    assert float((same_a.argmax(1) == a).double().mean()) > 0.99
    assert mutual_info_score(b, seen) < 0.05


def test_a_new_node_sees_a_latent_through_the_table_between_them(rng):
    """z0 tells nothing of Y0, and z2 all of Y1: together Y1 and z0 say ``p(y_0|y_1)``."""
    tree = LatentTree(structure_of((2, 3), [(0, 1)], {(0,): 0, (1,): 0, (2,): 1})).double()
    prior, table = torch.tensor([0.8, 0.2]), torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
    tree.log_prior.copy_(prior.log())
    tree.log_table_0.copy_(table.log())
    tree.loc_1.copy_(torch.tensor([[-50.0], [0.0], [50.0]]))
    y = torch.randint(3, (90,), generator=rng)
    z = normal(rng, 90, 3) + torch.stack([0 * y, 0 * y, 50 * (y - 1)], 1)
    (move,) = [m for m in moves(tree.structure, ("NI",)) if m.what == "Y0 from Y1 (z0)"]
    joint = prior[:, None] * table
    expected = (joint / joint.sum(0)).T[y].double()
    assert_close(move.start(tree_moves.trained(tree, z, 0, 0.01), z)[-1], expected, rtol=0, atol=1e-6)
