"""Inference, EM and draws of a latent tree, against the enumeration of its states and scikit-learn's mixture."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from nvisa.maths.full_covariance import log_normal_tril
from nvisa.methods.ltvae.latent_tree import LatentTree, Statistics, em
from nvisa.methods.ltvae.structure import Structure, bic
from oracles import TIGHT, gradients, normal
from trees import CHAIN, STRUCTURES, enumerated, some_tree, structure_of

each_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


# ---- inference -----------------------------------------------------------------------------------------------------


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


# ---- EM ------------------------------------------------------------------------------------------------------------


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
