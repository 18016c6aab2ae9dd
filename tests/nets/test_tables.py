"""Tables with categories: units that can be undone, and the softmax heads against torch's own cross entropy."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.nets.heads import ProductHead
from nvisa.nets.layers import LIKELIHOODS, Network
from nvisa.nets.mixture_vae import MixtureVAE
from nvisa.nets.tables import CategoricalHead, TableUnits
from oracles import TIGHT, build, normal

M, H, N, FLOOR = 3, 5, 400, 0.1
LEVELS = [0, 3, 0, 2]  # number, three categories, number, two


@pytest.fixture(scope="module")
def table():
    rng = np.random.RandomState(0)
    codes = rng.choice(3, N, p=[0.5, 0.3, 0.2]), rng.choice(2, N, p=[0.9, 0.1])
    return np.c_[5 + 2 * rng.randn(N), codes[0], 1e3 * rng.randn(N), codes[1]]


@pytest.fixture
def units(table):
    return TableUnits.of(table, "auto", LEVELS, np.random.RandomState(0)).double()


def test_every_column_has_variance_one_and_the_way_back_is_exact(table, units):
    x = torch.from_numpy(table)
    v = units(x)
    assert v.shape == (N, 2 + 3 + 2) == (N, units.width)
    assert_close(units.inverse(v), x, rtol=1e-6, atol=1e-6)
    for columns in ([0], [1], [2, 3, 4], [5, 6]):
        assert_close(v[:, columns].var(0, correction=0).sum(), torch.tensor(1.0).double(), rtol=1e-5, atol=0.0)
    assert_close(v.mean(0), torch.zeros(7).double(), atol=1e-5, rtol=0.0)


def test_a_category_counts_as_often_beside_a_number_as_it_is_told_to(table, units):
    light = TableUnits.of(table, "auto", LEVELS, np.random.RandomState(0), weight=0.25).double()
    x = torch.from_numpy(table[:50])
    heavy, found = units(x), light(x)
    assert_close(found[:, :2], heavy[:, :2])
    assert_close(torch.cdist(found[:, 2:], found[:, 2:]) ** 2, 0.25 * torch.cdist(heavy[:, 2:], heavy[:, 2:]) ** 2)
    assert_close(light.inverse(found), x, rtol=1e-6, atol=1e-6)


def test_a_gap_is_one_in_its_whole_block_and_is_filled_for_distances(table, units):
    x = torch.from_numpy(table[:6].copy())
    x[1, 1], x[2, 0] = torch.nan, torch.nan
    v = units(x)
    assert v[1].isnan().tolist() == [False, False, True, True, True, False, False]
    assert v[2].isnan().tolist() == [True] + 6 * [False]
    assert units.features(x).isfinite().all()
    assert_close(units.log_det(x)[2], -units.scale[2].log())
    assert_close(units.log_det(x)[1], -units.scale[[0, 2]].log().sum())


def test_the_softmax_heads_are_torch_cross_entropy_with_gaps_left_out(rng, table, units):
    head = build(lambda: CategoricalHead(H, units), rng)
    x, h = torch.from_numpy(table[:8].copy()), normal(rng, M, 8, H)
    x[3, 1] = x[5, 3] = x[6, 1] = x[6, 3] = torch.nan
    found = head.log_prob_observed(units(x)[:, 2:], h, FLOOR)
    logits = head.logits(h)
    for m in range(M):
        expected = torch.zeros(8).double()
        for d, part in ((1, logits[m, :, :3]), (3, logits[m, :, 3:])):
            seen = ~x[:, d].isnan()
            expected[seen] -= F.cross_entropy(part[seen], x[seen, d].long(), reduction="none")
        assert_close(found[m], expected, rtol=1e-5, atol=1e-5)
    assert_close(found[:, 6], torch.zeros(M).double(), atol=1e-5, rtol=0.0)


def test_the_means_are_probabilities_and_draws_have_their_frequencies(rng, units):
    head = build(lambda: CategoricalHead(H, units), rng)
    h = normal(rng, 1, H)
    proba = head.mean(h) * units.spread + units.share
    assert_close(proba[0, :3], head.logits(h)[0, :3].softmax(-1), rtol=1e-5, atol=1e-6)
    drawn = head.draw(h.expand(20_000, -1), rng, FLOOR) * units.spread + units.share
    assert_close(drawn.sum(1), torch.full((20_000,), 2.0).double(), atol=1e-5, rtol=0.0)  # one of each
    assert_close(drawn.mean(0), proba[0], atol=0.02, rtol=0.0)


def test_a_product_of_heads_is_the_sum_of_their_logarithms(rng, table, units):
    heads = build(lambda: torch.nn.ModuleList([LIKELIHOODS["gaussian"](H, 2), CategoricalHead(H, units)]), rng)
    v, h = units(torch.from_numpy(table[:5])), normal(rng, M, 5, H)
    found = ProductHead(list(heads), [2, 5]).log_prob(v, h, FLOOR)
    alone = heads[0].log_prob(v[:, :2], h, FLOOR) + heads[1].log_prob(v[:, 2:], h, FLOOR)
    assert_close(found, alone, **TIGHT)


@pytest.mark.parametrize("likelihood", ["gaussian_shared", "gaussian", "gaussian_unit"])
def test_a_table_of_categories_alone_has_networks_too(rng, likelihood):
    codes = np.random.RandomState(0).randint(3, size=(50, 2)).astype(float)
    units = TableUnits.of(codes, "auto", [3, 3], np.random.RandomState(0)).double()
    network = Network(hidden=(6,), latent_dim=2, batch_norm=False)
    net = build(lambda: MixtureVAE(units, 2, network, likelihood=likelihood, posterior="joint"), rng)
    x = torch.from_numpy(codes[:4])
    assert net.log_p_x_given_z(units(x), normal(rng, M, 4, 2), FLOOR).isfinite().all()
    assert set(net.draw_x(normal(rng, 9, 2), rng, FLOOR).unique().tolist()) <= {0.0, 1.0, 2.0}


def test_a_category_without_variance_counts_nothing():
    X = np.c_[np.arange(9.0), np.zeros(9)]
    units = TableUnits.of(X, "auto", [0, 1], np.random.RandomState(0))
    assert (units(torch.from_numpy(X).float())[:, 1] == 0).all()
