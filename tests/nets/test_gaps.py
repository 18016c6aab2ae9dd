"""Rows with gaps: p(x|z) is the marginal of what is observed, in value and gradient, and nothing else sees a NaN."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from nvisa.fitting.consistency import vat
from nvisa.nets.gaps import Fill, Observed
from nvisa.nets.heads import ProductHead
from nvisa.nets.layers import LIKELIHOODS, Network
from nvisa.nets.mixture_vae import MixtureVAE, log_p_x
from nvisa.nets.rows import count_gaps
from nvisa.nets.units import Rescale, Rescaled, make_rescale, make_units
from oracles import TIGHT, build, normal

M, B, D, H, FLOOR = 3, 6, 4, 5, 0.1


def with_gaps(rng, x, share=0.4):
    x = torch.where(torch.rand(x.shape, generator=rng, dtype=x.dtype) < share, torch.nan, x)
    x[0] = torch.nan
    return x


def only(head, columns):
    """The head of these columns alone."""
    part = deepcopy(head)
    for parameter in part.parameters():
        parameter.data = parameter.data[columns]
    return part


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_density_of_a_row_is_that_of_its_observed_columns_alone(rng, likelihood):
    head = build(lambda: LIKELIHOODS[likelihood](H, D), rng)
    x, h = with_gaps(rng, normal(rng, B, D).sigmoid()), normal(rng, M, B, H)
    found = ProductHead([head], [D]).log_prob(x, h, FLOOR)
    whole = [b for b in range(B) if not x[b].isnan().all()]
    assert len(whole) > 3
    for b in whole:
        seen = torch.nonzero(~x[b].isnan())[:, 0]
        alone = only(head, seen).log_prob(x[b : b + 1, seen], h[:, b : b + 1], FLOOR)[:, 0]
        assert_close(found[:, b], alone, **TIGHT)
    assert (found[:, 0] == 0).all()  # nothing observed


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_without_a_gap_it_is_the_head(rng, likelihood):
    head = build(lambda: LIKELIHOODS[likelihood](H, D), rng)
    x, h = normal(rng, B, D).sigmoid(), normal(rng, M, B, H)
    assert_close(ProductHead([head], [D]).log_prob(x, h, FLOOR), head.log_prob(x, h, FLOOR), **TIGHT)


def gappy_units(X):
    return make_units(X, "columns", np.random.RandomState(0))


def networks(rng, likelihood="gaussian_shared"):
    rescale = gappy_units(with_gaps(rng, normal(rng, 40, D)).numpy())
    rescale.fill.double()
    network = Network(hidden=(7, 6), latent_dim=2, batch_norm=False)
    return build(lambda: MixtureVAE(rescale, 3, network, likelihood=likelihood, posterior="joint"), rng, spread=0.5)


def test_the_gradient_of_a_bound_is_finite_and_a_gap_gives_none_to_its_column(rng):
    net, x = networks(rng), with_gaps(rng, normal(rng, B, D))
    x[:, 2] = torch.nan
    net.log_p_x_given_z(net.rescale(x), normal(rng, M, B, 2), FLOOR).sum().backward()
    for gradient in (p.grad for p in net.x_head.parameters()):
        assert gradient.isfinite().all()
        assert (gradient[2] == 0).all()
        assert (gradient[[0, 1, 3]] != 0).all()
    log_p_x(net, net.rescale(x), FLOOR, FLOOR).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_consistency_moves_what_is_observed_and_no_gap(rng):
    net, seen = networks(rng), []
    x = net.rescale(with_gaps(rng, normal(rng, B, D)))

    def log_q_y(x):
        seen.append(x.detach())
        return net.log_q_y_from(net.trunk(x))

    unit = torch.ones(B, dtype=torch.float64)
    divergence = vat(log_q_y, x, log_q_y(x), unit, unit, rng)
    assert divergence.isfinite().all()
    moved = seen[-1] - x
    assert_close(moved.nan_to_num(0.0).norm(dim=1)[1:], unit[1:], **TIGHT)
    assert (seen[-1].isnan() == x.isnan()).all()


def test_the_encoder_sees_what_is_observed_and_which_it_is(rng):
    net, x = networks(rng), with_gaps(rng, normal(rng, B, D))
    values, observed = net.trunk[0](net.rescale(x)).split(D, 1)
    assert_close(values, net.rescale.features(x), **TIGHT)
    assert_close(observed > 0, ~x.isnan())
    assert_close(torch.where(x.isnan(), 0.0, net.rescale.inverse(values)), x.nan_to_num(0.0), **TIGHT)


def test_units_are_those_of_the_observed_numbers():
    rng = np.random.RandomState(0)
    X = rng.randn(20_000, 3) * [1, 5, 0.1] + [0, 1e4, 3]
    X[rng.rand(*X.shape) < 0.3] = np.nan
    X[:600, 1] = np.nan  # none of the rows that the sum is taken about
    rescale = make_rescale(X, "columns")
    np.testing.assert_allclose(rescale.shift, np.nanmean(X, 0), rtol=1e-6)
    np.testing.assert_allclose(rescale.scale, np.nanstd(X, 0), rtol=1e-5)
    np.testing.assert_array_equal(count_gaps(X), np.isnan(X).sum(0))
    features = Rescaled(X, gappy_units(X))[:50]
    assert np.isfinite(features).all()
    seen = ~np.isnan(X[:50])
    np.testing.assert_allclose(features[seen], ((X[:50] - np.nanmean(X, 0)) / np.nanstd(X, 0))[seen], atol=1e-4)


def test_the_jacobian_counts_the_observed_columns(rng):
    net, x = networks(rng), with_gaps(rng, normal(rng, B, D))
    expected = [-net.rescale.scale[~row.isnan()].log().sum() for row in x]
    assert_close(net.rescale.log_det(x), torch.stack(expected), **TIGHT)


@pytest.mark.parametrize("n_features", [1, 2, 30])
def test_a_fill_has_few_factors_and_a_blank_one_its_shapes(rng, n_features):
    x = with_gaps(rng, normal(rng, 50, n_features))
    made, blank = (fill.state_dict() for fill in (Fill.of(x), Fill.blank(n_features)))
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in blank.items()}
    assert made["loadings"].shape[1] == max(1, min(10, n_features - 1))
    assert Observed(Fill.of(x))(x.float()).isfinite().all()


def test_columns_of_any_scale_are_filled_alike(rng):
    x = with_gaps(rng, normal(rng, 200, 1) + 0.3 * normal(rng, 200, D))
    scale = torch.tensor([1e-3, 1.0, 50.0, 7.0], dtype=torch.float64)
    plain, scaled = Fill.of(x)(x.float()), Fill.of(x * scale)((x * scale).float())
    assert_close(scaled / scale.float(), plain, rtol=1e-3, atol=1e-4)
    assert_close(Rescale(torch.zeros(D), torch.ones(D), Fill.of(x)).features(x.float()), plain)
