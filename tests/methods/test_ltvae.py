"""Pouch latent trees, their structure search, and LTVAE; the surface is tested in test_contract.py."""

import json
import math
from collections import Counter
from copy import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.metrics import mutual_info_score
from sklearn.mixture import GaussianMixture
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.testing import assert_close

from nvisa import load
from nvisa.commands import cli
from nvisa.fitting.progress import describe, time_left
from nvisa.fitting.training import Training
from nvisa.maths.distributions import log_normal_tril
from nvisa.methods import ltvae
from nvisa.methods.ltvae import LTVAE
from nvisa.methods.ltvae import moves as tree_moves
from nvisa.methods.ltvae.latent_tree import LatentTree, Statistics, em
from nvisa.methods.ltvae.moves import OPERATORS, moves, regular, same_shape, settle
from nvisa.methods.ltvae.search import Search
from nvisa.methods.ltvae.structure import Structure, bic
from nvisa.nets.layers import Network, Rescale
from oracles import TIGHT, build, gradients, grid, information, log_bernoulli, normal

CHAIN = Structure((3, 2, 4), ((0, 1), (1, 2)), ((0, 2), (1,), (3,)), (0, 2, 2))  # the middle one has no pouch
STAR = Structure((2, 3, 2, 2), ((0, 1), (0, 2), (2, 3)), ((0,), (1, 3, 4), (2,), (5,)), (0, 1, 2, 3))
ONE = Structure((3,), (), ((0, 1), (2,)), (0, 0))
each_structure = pytest.mark.parametrize("structure", [ONE, CHAIN, STAR], ids=["one", "chain", "star"])
FLOOR = 0.3


def structure_of(states, edges, homes):
    return Structure.joined(states, edges, homes)[0]


def some_tree(structure, rng):
    """Random parameters; covariances full inside a pouch."""
    tree = LatentTree(structure).double()
    tree.log_prior.copy_(normal(rng, structure.states[0]).log_softmax(0))
    for table in tree.log_tables:
        table.copy_(normal(rng, *table.shape).log_softmax(1))
    for j, n in enumerate(structure.states):
        loc, tril = tree.gaussian(j)
        loc.copy_(2 * normal(rng, *loc.shape))
        for k in range(n):
            blocks = [normal(rng, len(b), len(b)) for b in structure.pouches_of(j)]
            if blocks:
                tril[k] = torch.block_diag(*[torch.linalg.cholesky(a @ a.T + 0.3 * torch.eye(len(a))) for a in blocks])
    return tree


def enumerated(tree, z):
    """log p(y, z) of every joint state: {states: [B]}, one product of factors at a time."""
    found, structure = {}, tree.structure
    for states in product(*map(range, structure.states)):
        total = tree.log_prior[states[0]].expand(len(z)).clone()
        for (i, j), table in zip(structure.edges, tree.log_tables, strict=True):
            total += table[states[i], states[j]]
        for pouch, home in zip(structure.pouches, structure.homes, strict=True):
            dims = structure.dims(home)
            at = [dims.index(d) for d in pouch]
            loc, tril = (table[states[home]] for table in tree.gaussian(home))
            covariance = (tril @ tril.T)[at][:, at]
            total += MultivariateNormal(loc[at], covariance).log_prob(z[:, list(pouch)])
        found[states] = total
    return found


# ---- inference -------------------------------------------------------------------------------------------------------


def test_the_density_of_a_pouch_is_torch_s(rng):
    x, loc, tril = normal(rng, 5, 3), normal(rng, 4, 3), normal(rng, 4, 3, 3).tril()
    tril.diagonal(dim1=-2, dim2=-1).abs_().add_(0.1)
    assert_close(log_normal_tril(x, loc, tril), MultivariateNormal(loc, scale_tril=tril).log_prob(x[:, None]), **TIGHT)


@each_structure
def test_likelihood_and_marginals_are_those_of_all_joint_states(rng, structure):
    tree, z = some_tree(structure, rng), 2 * normal(rng, 7, len(sum(structure.pouches, ())))
    joint = enumerated(tree, z)
    log_p = torch.stack(list(joint.values())).logsumexp(0)
    weight = {states: (value - log_p).exp() for states, value in joint.items()}
    found = tree.marginals(z)
    assert_close(tree.log_p_z(z), log_p, **TIGHT)
    assert_close(tree.log_p_z(z.view(1, 7, -1))[0], log_p, **TIGHT)
    assert_close(found.log_p, log_p, **TIGHT)
    for j, n in enumerate(structure.states):
        expected = torch.stack([sum(w for s, w in weight.items() if s[j] == k) for k in range(n)], 1)
        assert_close(found.posteriors[j], expected, **TIGHT)
    assert_close(tree.log_q_y(z).exp(), found.posteriors[0], **TIGHT)
    assert_close(found.prior, found.posteriors[0].sum(0), **TIGHT)
    for (i, j), table in zip(structure.edges, found.tables, strict=True):
        for a, b in product(range(structure.states[i]), range(structure.states[j])):
            pair = sum(w.sum() for s, w in weight.items() if (s[i], s[j]) == (a, b))
            assert_close(table[a, b], pair, **TIGHT)


def test_the_slope_in_z_is_the_paper_s(rng):
    """d log p(z) / d z_b = sum_y p(y_b|z) Sigma_by^-1 (mu_by - z_b)."""
    tree, z = some_tree(CHAIN, rng), normal(rng, 5, 4).requires_grad_()
    (slope,) = gradients(tree.log_p_z(z).sum(), [z])
    posteriors = tree.marginals(z).posteriors
    for j in (0, 2):
        dims, (loc, tril) = CHAIN.dims(j), tree.gaussian(j)
        pull = torch.linalg.solve(tril @ tril.mT, (loc - z[:, None, dims])[..., None])[..., 0]
        assert_close(slope[:, dims], (posteriors[j][..., None] * pull).sum(1).detach(), **TIGHT)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_one_latent_is_scikit_learn_s_mixture(rng, kind):
    z = torch.cat([normal(rng, 80, 3), 3 + normal(rng, 40, 3)])
    judge = GaussianMixture(3, covariance_type=kind, random_state=0, reg_covar=0).fit(z.numpy())
    homes = {(0, 1, 2): 0} if kind == "full" else {(0,): 0, (1,): 0, (2,): 0}
    tree = LatentTree(structure_of((3,), (), homes)).double()
    tree.log_prior.copy_(torch.from_numpy(judge.weights_).log())
    covariances = [np.diag(c) if kind == "diag" else c for c in judge.covariances_]
    tree.loc_0.copy_(torch.from_numpy(judge.means_))
    tree.tril_0.copy_(torch.from_numpy(np.linalg.cholesky(covariances)))
    assert_close(tree.log_q_y(z).exp(), torch.from_numpy(judge.predict_proba(z.numpy())), **TIGHT)
    total = float(tree.log_p_z(z).sum())
    assert bic(total, tree.structure, len(z)) == pytest.approx(-judge.bic(z.numpy()) / 2)
    responsibility = torch.from_numpy(judge.predict_proba(z.numpy()))
    tree.load(Statistics.of(z, [responsibility], responsibility.mean(0), []), 1e-9)
    judge._m_step(z.numpy(), np.log(responsibility.numpy()))
    assert_close(tree.loc_0, torch.from_numpy(judge.means_), **TIGHT)
    assert_close(tree.log_prior.exp(), torch.from_numpy(judge.weights_), **TIGHT)
    expected = torch.from_numpy(np.stack([np.diag(c) if kind == "diag" else c for c in judge.covariances_]))
    assert_close(tree.tril_0 @ tree.tril_0.mT, expected, **TIGHT)


@each_structure
def test_turning_the_tree_round_keeps_the_density(rng, structure):
    tree, z = some_tree(structure, rng), normal(rng, 6, len(sum(structure.pouches, ())))
    for root in range(len(structure.states)):
        turned = tree.rerooted(root)
        assert_close(turned.log_p_z(z), tree.log_p_z(z), **TIGHT)
        assert_close(turned.log_q_y(z).exp(), tree.marginals(z).posteriors[root], **TIGHT)
        assert turned.structure.n_parameters == structure.n_parameters


def test_new_numbers_change_nothing_but_the_numbers(rng):
    tree, z = some_tree(CHAIN, rng), normal(rng, 6, 4)
    before, log_p, order = tree.marginals(z).posteriors, tree.log_p_z(z), torch.tensor([3, 0, 2, 1])
    tree.permute(2, order)
    tree.permute(0, torch.tensor([1, 2, 0]))
    tree.permute(1, torch.tensor([1, 0]))
    after = tree.marginals(z).posteriors
    assert_close(tree.log_p_z(z), log_p, **TIGHT)
    for a, b, o in zip(after, before, ([1, 2, 0], [1, 0], order), strict=True):
        assert_close(a, b[:, o], **TIGHT)


def test_draws_go_down_the_tree(rng):
    tree, n = LatentTree(Structure((2, 2), ((0, 1),), ((0,), (1,)), (0, 1))), 20_000
    tree.log_table_0.copy_(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log())
    tree.log_prior.copy_(torch.tensor([0.3, 0.7]).log())
    tree.loc_0.copy_(torch.tensor([[-50.0], [50.0]]))
    tree.loc_1.copy_(torch.tensor([[-50.0], [50.0]]))
    tree.tril_1.fill_(2.0)
    z = tree.draw(torch.zeros(n, dtype=torch.long), rng)
    assert (z[:, 0] < 0).all()
    low, high = binom.interval(1 - 1e-9, n, 0.1)
    assert low <= int((z[:, 1] > 0).sum()) <= high
    assert abs(float(z[z[:, 1] < 0, 1].std()) - 2) < 0.1
    low, high = binom.interval(1 - 1e-9, n, 0.7)
    assert low <= tree.draw_y(n, np.random.RandomState(0)).sum() <= high


# ---- EM --------------------------------------------------------------------------------------------------------------


@each_structure
@pytest.mark.parametrize("least_variance", [1e-9, 0.8])
def test_em_never_lowers_the_likelihood(rng, structure, least_variance):
    z = some_tree(structure, rng).draw(torch.arange(200) % structure.states[0], rng)
    tree = some_tree(structure, rng)
    tree.load(tree.statistics(z), least_variance)  # from here on inside the constraint
    path = em(tree, z, 25, least_variance)
    assert (np.diff(path) > -1e-9).all()
    assert path[-1] > path[0] + 0.1
    assert path[-1] == pytest.approx(float(tree.log_p_z(z).mean()))
    least = [
        torch.linalg.eigvalsh(t @ t.mT).min()
        for j in range(len(structure.states))
        if (t := tree.gaussian(j)[1]).numel()
    ]
    assert min(least) > least_variance * (1 - 1e-9)


def test_a_fitted_tree_stays(rng):
    tree = some_tree(CHAIN, rng)
    z = tree.draw(torch.arange(90) % 3, rng)
    em(tree, z, 400, 0.05)
    before = tree.log_p_z(z)
    tree.load(tree.statistics(z), 0.05)
    assert_close(tree.log_p_z(z), before, atol=1e-4, rtol=0)


def test_stepwise_em_averages_statistics_and_at_rate_one_is_em(rng):
    z = normal(rng, 40, 4)
    whole, stepwise = some_tree(CHAIN, rng), LatentTree(CHAIN).double()
    stepwise.load_state_dict(whole.state_dict())
    em(whole, z, 1, ltvae.LEAST_VARIANCE)
    net = networks(rng)
    net.tree = stepwise
    ltvae.Objective(net, z[:7], 1.0, FLOOR, rng).follow(z)
    assert_close(dict(stepwise.named_buffers()), dict(whole.named_buffers()), **TIGHT)
    first, second = whole.statistics(z[:10]), whole.statistics(z[10:40])
    mixed, both = first.towards(second, 0.75), whole.statistics(z)  # 10 + 30 rows
    for name in ("tables", "mass", "first", "second"):
        assert_close(getattr(mixed, name), getattr(both, name), **TIGHT)
    assert_close(mixed.prior, both.prior, **TIGHT)


# ---- structures ------------------------------------------------------------------------------------------------------


@each_structure
def test_free_parameters_are_counted_without_a_root(structure):
    """sum over edges (K_i K_j - 1) - sum over latents (degree - 1) (K - 1), and the Gaussians' own."""
    degree = [len(structure.neighbors(j)) for j in range(len(structure.states))]
    discrete = sum(structure.states[i] * structure.states[j] - 1 for i, j in structure.edges)
    discrete -= sum((d - 1) * (n - 1) for d, n in zip(degree, structure.states, strict=True))
    gaussians = 0
    for pouch, home in zip(structure.pouches, structure.homes, strict=True):
        covariance = [(a, b) for a in pouch for b in pouch if a <= b]
        gaussians += structure.states[home] * (len(pouch) + len(covariance))
    assert structure.n_parameters == discrete + gaussians


@each_structure
def test_a_structure_comes_back_from_plain_lists(structure):
    assert Structure.read(structure.plain()) == structure
    assert len(str(structure).split(";")) == len(structure.states)


@pytest.mark.parametrize(
    "parts",
    [
        ((2, 2), (), ((0,),), (0,)),  # not joined
        ((2, 2), ((0, 1), (1, 0)), ((0,),), (1,)),  # a circle
        ((2,), (), ((0,), (0,)), (0, 0)),  # a dimension twice
        ((2,), (), ((0,),), (1,)),  # hangs on nothing
        ((0,), (), ((0,),), (0,)),  # no state
    ],
)
def test_what_is_no_tree_is_refused(parts):
    with pytest.raises(ValueError, match="tree of latents"):
        Structure(*parts)


def test_a_latent_without_pouches_has_no_more_states_than_its_neighbors_can_tell():
    def middle(n):
        return structure_of((2, n, 3), [(0, 1), (1, 2)], {(0,): 0, (1,): 2})

    assert regular(middle(2))
    assert not regular(middle(3))  # 2 * 3 / max(2, 3) = 2
    assert regular(structure_of((2, 9), [(0, 1)], {(0,): 0, (1,): 1}))


def test_emptied_leaves_go():
    structure, kept = Structure.joined((2, 3, 4, 5), [(0, 1), (1, 2), (0, 3)], {(0,): 0, (1,): 3})
    assert kept == (0, 3)
    assert structure == Structure((2, 5), ((0, 1),), ((0,), (1,)), (0, 1))


def shape(structure):
    """A structure up to the numbers of its latents."""
    at = [(n, frozenset(structure.pouches_of(j))) for j, n in enumerate(structure.states)]
    return sorted(map(str, at)), sorted(str(sorted((str(at[i]), str(at[j])))) for i, j in structure.edges)


WIDE = structure_of((3, 2, 4), [(0, 1), (0, 2)], {(0,): 0, (1, 4): 0, (2,): 1, (3, 5, 6): 1, (7,): 2, (8,): 2})


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


def test_em_starts_from_latents_that_are_independent_given_z(rng):
    """``p(y_0) = E p(y_0|z)`` and ``p(y_1|y_0) = E p(y_0|z) p(y_1|z) / p(y_0)``."""
    structure = structure_of((2, 3), [(0, 1)], {(0,): 0, (1,): 1})
    a, b = normal(rng, 50, 2).softmax(1), normal(rng, 50, 3).softmax(1)
    tree = settle(structure, normal(rng, 50, 2), [a, b], 0, 0.01).tree
    assert_close(tree.log_prior.exp(), a.mean(0), **TIGHT)
    assert_close(tree.log_table_0.exp(), a.T @ b / a.sum(0)[:, None], **TIGHT)


def test_a_state_is_cut_in_halves_about_its_own_mean_and_across_its_own_dimensions(rng):
    half = normal(rng, 30, 1)
    z = torch.cat([torch.cat([half, -half, torch.full((20, 1), 9.0)]) + 50, 100 * normal(rng, 80, 1)], 1)
    state = torch.eye(2, dtype=torch.float64)[[0] * 60 + [1] * 20]
    structure = structure_of((2, 2), [(0, 1)], {(0,): 0, (1,): 1})
    (cut,) = [m for m in moves(structure, ("SI",)) if m.what == "Y0 state 0"]
    posterior = cut.start(settle(structure, z, [state, state], 0, 0.01), z)[0]
    assert_close(posterior.sum(0), torch.tensor([30.0, 20.0, 30.0]).double(), **TIGHT)
    assert mutual_info_score((z[:60, 0] > 50), posterior[:60, 2] > 0.5) == pytest.approx(math.log(2))


def test_cutting_a_state_and_merging_its_halves_gives_the_posterior_back(rng):
    z = torch.cat([normal(rng, 60, 2) - 4, normal(rng, 60, 2) + 4, normal(rng, 60, 2) + torch.tensor([4, -4])])
    two = torch.eye(2, dtype=torch.float64)[[0] * 60 + [1] * 120]
    model = settle(Structure.mixture(2, 2), z, [two], 0, 0.01)
    (cut,) = [m for m in moves(model.structure, ("SI",)) if m.what.endswith("state 1")]
    (posterior,) = cut.start(model, z)
    truth = np.repeat([0, 1, 2], 60)
    assert mutual_info_score(truth, posterior.argmax(1)) > 0.95 * math.log(3)  # across the longest axis
    three = settle(cut.structure, z, [posterior], 0, 0.01)
    (merged,) = [m for m in moves(three.structure, ("SD",)) if m.what.endswith("states 1 2")]
    expected = three.posteriors[0][:, 1] + three.posteriors[0][:, 2]
    assert_close(merged.start(three, z)[0][:, 1], expected, **TIGHT)


def test_a_new_node_starts_from_what_its_neighbors_say(rng):
    """Y' is placed over z0 and z1, which know nothing of the facet of z2 and z3."""
    a, b = torch.randint(2, (2, 400), generator=rng)
    z = 6.0 * torch.stack([a, a, b, b], 1).double() + normal(rng, 400, 4)
    four = torch.eye(4, dtype=torch.float64)[2 * a + b]
    model = settle(Structure.mixture(4, 4), z, [four], 3, 0.01)
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


# ---- search ----------------------------------------------------------------------------------------------------------


def planted(rng, n=500):
    """Two independent facets, of 3 and 4 clusters, over three dimensions each."""
    a, b = torch.randint(3, (n,), generator=rng), torch.randint(4, (n,), generator=rng)
    centers = torch.tensor([[0, 0, 0], [6, 6, 0], [0, 6, 6], [6, 0, 6]], dtype=torch.float64)
    z = torch.cat([centers[a], centers[b]], 1) + normal(rng, n, 6)
    return (z - z.mean(0)) / z.std(0), a, b


def test_the_search_finds_two_planted_facets_and_their_numbers_of_states(rng):
    z, a, b = planted(rng)
    judge = GaussianMixture(5, covariance_type="diag", n_init=3, random_state=0).fit(z.numpy())
    start = settle(Structure.mixture(5, 6), z, [torch.from_numpy(judge.predict_proba(z.numpy()))], 5, 0.01).tree
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
    truth = settle(expected, z, [torch.eye(k, dtype=torch.float64)[y] for k, y in ((4, b), (3, a))], 60, 0.01)
    assert found.score > truth.score - 0.5


def test_a_search_with_fixed_states_keeps_them_and_joins_what_is_correlated(rng):
    side = torch.randint(2, (500,), generator=rng)
    shared = normal(rng, 500)
    z = torch.stack([8.0 * side + normal(rng, 500), shared + 0.2 * normal(rng, 500), shared], 1)
    z = (z - z.mean(0)) / z.std(0)
    start = settle(Structure.mixture(2, 3), z, [torch.eye(2, dtype=torch.float64)[side]], 5, 0.01).tree
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


# ---- LTVAE -----------------------------------------------------------------------------------------------------------


def networks(rng, likelihood="gaussian", n_features=4):
    units = Rescale(torch.zeros(n_features), torch.ones(n_features))
    if likelihood != "bernoulli":
        units = Rescale(torch.arange(n_features) / 3.0, 0.5 + torch.arange(n_features))
    structure = structure_of((2, 3), [(0, 1)], {(0,): 0, (1,): 1})
    network = Network(hidden=(6, 5), latent_dim=2, batch_norm=False)
    net = build(lambda: ltvae.Networks(units, structure, network, likelihood=likelihood), rng, spread=0.5)
    net.tree = some_tree(structure, rng)
    return net


@pytest.mark.parametrize("likelihood", ["gaussian_unit", "bernoulli"])
def test_the_terms_add_up_to_the_paper_s_bound(rng, likelihood):
    net, noise = networks(rng, likelihood), normal(rng, 6, 2)
    x = normal(rng, 6, 4).sigmoid()
    terms, log_q_y, z = net.elbo(x, noise, FLOOR)
    loc, scale = net.encoder.q_z(x)
    assert_close(z, loc + scale * noise, **TIGHT)
    h, units = net.decoder(z), net.rescale(x)
    out = net.x_head.logits(h) if likelihood == "bernoulli" else net.x_head.loc(h)
    recon = log_bernoulli(x, out) if likelihood == "bernoulli" else Independent(Normal(out, 1.0), 1).log_prob(units)
    joint = enumerated(net.tree, z)
    log_p_z = torch.stack(list(joint.values())).logsumexp(0)
    assert_close(sum(terms.values()), recon + log_p_z + Normal(loc, scale).entropy().sum(1), **TIGHT)
    first = torch.stack([torch.stack([v for s, v in joint.items() if s[0] == k]).logsumexp(0) for k in range(2)], 1)
    assert_close(log_q_y, first.log_softmax(1), **TIGHT)


def test_the_density_has_mass_one_in_the_user_s_units(rng):
    net = networks(rng, n_features=2)
    with torch.no_grad():
        net.encoder.z_loc.weight.zero_()
        net.encoder.z_loc.bias.zero_()
    net.tree = LatentTree(net.tree.structure).double()  # N(0, I) in every state
    net.encoder.fix_scale(1 - 1e-4)
    fitted = LTVAE(2, likelihood="gaussian", std_floor=FLOOR)
    fitted.module_ = net
    x, cell = grid(-40, 40, 401, 2)
    with torch.inference_mode():
        assert float(fitted._log_p_x(x).exp().sum()) * cell == pytest.approx(1, abs=1e-6)


def test_the_importance_sampled_density_uses_the_tree(rng):
    net, x = networks(rng), normal(rng, 5, 4)
    fitted = LTVAE(2, likelihood="gaussian", std_floor=FLOOR)
    fitted.module_ = net
    net.encoder.fix_scale(1 - 1e-4)
    with torch.inference_mode():
        loc, scale = net.encoder.q_z(x)
        noise = torch.randn(32, 2, generator=torch.Generator().manual_seed(0)).double()
        draws = []
        for eps in noise:
            z = loc + scale * eps
            log_p_z = torch.stack(list(enumerated(net.tree, z).values())).logsumexp(0)
            draws.append(net.log_p_x(x, z[None], FLOOR)[0] + log_p_z - Independent(Normal(loc, scale), 1).log_prob(z))
        expected = torch.stack(draws).logsumexp(0) - math.log(32) + net.rescale.log_det()
        assert_close(fitted._log_p_x(x), expected, **TIGHT)


def two_facets(n=300):
    """Rows with two independent clusterings: 3 groups in the first columns, 2 in the last."""
    rng = np.random.RandomState(0)
    a, b = rng.randint(3, size=n), rng.randint(2, size=n)
    X = np.c_[6.0 * np.eye(3)[a], 6.0 * np.eye(2)[b]] + rng.randn(n, 5) * 0.7
    return X, a, b


SMALL = {
    "n_init": 2,
    "network": Network(hidden=(16,), latent_dim=4, batch_norm=False),
    "pretraining": Training(epochs=30, batch_size=64),
    "training": Training(epochs=10, batch_size=64),
    "random_state": 0,
}


@pytest.fixture(scope="module")
def searched():
    X, a, b = two_facets()
    return LTVAE(6, structure="search", states="search", search_rows=200, **SMALL).fit(X), X, a, b


def test_the_facets_are_ordered_by_information_numbered_by_size_and_the_first_one_labels(searched):
    model, X, _, _ = searched
    np.testing.assert_array_equal(model.facets_[:, 0], model.labels_)
    np.testing.assert_array_equal(model.predict_facets(X[:50]), model.facets_[:50])
    assert model.information_[0] == max(model.information_)
    told = information(model.predict_proba(X).astype(np.float64) / len(X))  # a row is drawn with probability 1/N
    assert model.information_[0] == pytest.approx(told, rel=1e-5)
    assert len(model.information_) == model.facets_.shape[1] == len(model.structure_["states"])
    assert model.n_clusters_ == model.structure_["states"][0]
    for facet in model.facets_.T:
        assert (np.diff(np.bincount(facet)) <= 0).all()
    stages = {record["stage"] for record in model.history_}
    assert stages == {"pretraining", "structure search", "training"}
    assert len(model.moves_) == sum(r["stage"] == "structure search" for r in model.history_) - model.n_searches


def test_a_searched_tree_comes_back_from_its_directory(searched, tmp_path):
    model, X, _, _ = searched
    kept = model.module_.tree
    rng = torch.Generator().manual_seed(0)
    model.module_.tree = some_tree(
        structure_of((3, 2, 4), [(0, 1), (1, 2)], {(0, 2): 0, (1,): 2, (3,): 2}), rng
    ).float()
    model.structure_ = model.module_.tree.structure.plain()
    model.n_clusters_ = 3
    try:
        model.save(tmp_path / "model")
        again = load(tmp_path / "model")
        assert again.module_.tree.structure == model.module_.tree.structure
        for method in ("predict_facets", "predict_proba", "score_samples"):
            np.testing.assert_array_equal(getattr(again, method)(X), getattr(model, method)(X))
        assert again.sample(5, cluster=2)[1].tolist() == [2] * 5
        with pytest.raises(ValueError, match="cluster must be in 0..2"):
            again.sample(5, cluster=3)
        assert again.structure_ == model.structure_
        assert again.moves_ == model.moves_
    finally:
        model.module_.tree, model.structure_, model.n_clusters_ = kept, kept.structure.plain(), kept.structure.states[0]


def test_the_first_tree_is_the_start_with_the_highest_bic(rng, monkeypatch):
    z, found, settle = normal(rng, 90, 2), [], ltvae.settle
    monkeypatch.setattr(ltvae, "settle", lambda *start: found.append(settle(*start)) or found[-1])
    tree = LTVAE(4, n_init=6)._first_tree(z, np.random.RandomState(0))
    scores = [model.score for model in found]
    assert len(set(scores)) > 1  # rows without clusters: every start ends elsewhere
    assert tree is found[int(np.argmax(scores))].tree


def test_the_page_and_the_command_line_count_the_clusters_that_were_found(searched, tmp_path, capsys):
    model, X = copy(searched[0]).set_params(n_clusters=9), searched[1]
    page = model.report(X, out=tmp_path / "r.html", maps=("pca",)).read_text()
    assert f"<h1>{model.n_clusters_} clusters" in page
    model.save(tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    cli.main(["predict", f"{tmp_path}/model", f"{tmp_path}/X.npy", "--out", f"{tmp_path}/labels.csv", "--json"])
    assert json.loads(capsys.readouterr().out)["sizes"] == np.bincount(model.labels_).tolist()


def test_a_state_is_cut_alike_whichever_way_its_longest_axis_points(rng, monkeypatch):
    z, eigh = normal(rng, 40, 3), torch.linalg.eigh
    posterior = torch.ones(40, 1, dtype=torch.float64)
    once = tree_moves._cut(posterior, 0, z)
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: (eigh(a)[0], -eigh(a)[1]))
    assert_close(tree_moves._cut(posterior, 0, z), once, **TIGHT)


def test_em_follows_the_codes(searched):
    """After training, the tree is near EM's fixed point on the codes it was trained beside."""
    model, X, _, _ = searched
    z = torch.from_numpy(model.transform(X)).float()
    tree = LatentTree(model.module_.tree.structure)
    tree.load_state_dict(model.module_.tree.state_dict())
    path = em(tree, z, 20, ltvae.LEAST_VARIANCE)
    assert path[-1] - path[0] < 1.0


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"structure": "tree"}, "'gmm'"), ({"states": 3}, "'fixed'"), ({"em_rate": 0.0}, "em_rate"),
     ({"search_rows": 0}, "search_rows"), ({"n_searches": 1.5}, "n_searches")],
)  # fmt: skip
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        LTVAE(2, **settings).fit(np.eye(9))
