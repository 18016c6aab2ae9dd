"""Factor analysis with gaps against the Gaussian that it is; gaps that have a reason."""

import numpy as np
import torch
from torch.testing import assert_close

from nvisa.maths import factors
from nvisa.maths.factors import Factors, conditional_mean, factor_posterior, fit_factors
from oracles import TIGHT, normal

D, Q, B = 5, 2, 7


def some_factors(rng):
    return Factors(normal(rng, D), normal(rng, D, Q), (0.5 * normal(rng, D)).exp())


def with_gaps(rng, x, share=0.4):
    return torch.where(torch.rand(x.shape, generator=rng, dtype=x.dtype) < share, torch.nan, x)


def test_a_gap_is_filled_by_the_conditional_mean_of_the_full_gaussian(rng):
    found, x = some_factors(rng), with_gaps(rng, normal(rng, B, D))
    x[0], x[1] = torch.nan, 1.0  # nothing observed, everything observed
    covariance = found.loadings @ found.loadings.T + found.noise.diag()
    for row, filled in zip(x, conditional_mean(x, found), strict=True):
        o, m = ~row.isnan(), row.isnan()
        slope = covariance[m][:, o] @ torch.linalg.inv(covariance[o][:, o])
        assert_close(filled[o], row[o])
        assert_close(filled[m], found.loc[m] + slope @ (row[o] - found.loc[o]), **TIGHT)


def test_the_posterior_of_the_factors_is_bayes_rule(rng):
    """p(z) p(x_o|z) / p(z|x_o) is p(x_o) whatever z is."""
    found, x, z = some_factors(rng), with_gaps(rng, normal(rng, B, D)), normal(rng, 2, B, Q)
    mean, covariance = factor_posterior(x, found)
    normal_of = torch.distributions.MultivariateNormal
    seen = ~x.isnan()
    each = torch.distributions.Normal(found.loc + z @ found.loadings.T, found.noise.sqrt()).log_prob(x.nan_to_num(0.0))
    log_joint = (each * seen).sum(-1) + normal_of(torch.zeros(Q).double(), torch.eye(Q).double()).log_prob(z)
    first, second = log_joint - normal_of(mean, covariance).log_prob(z)
    assert_close(first, second, **TIGHT)


def test_no_step_of_em_lowers_the_density_of_what_is_observed(rng, monkeypatch):
    monkeypatch.setattr(factors, "RIDGE", 0.0)
    monkeypatch.setattr(factors, "LEAST_NOISE", 1e-6)
    x = with_gaps(rng, normal(rng, 60, Q) @ normal(rng, Q, D) + 0.5 * normal(rng, 60, D))

    def density(found):
        covariance = found.loadings @ found.loadings.T + found.noise.diag()
        rows = [(row[o], found.loc[o], covariance[o][:, o]) for row in x if (o := ~row.isnan()).any()]
        return sum(torch.distributions.MultivariateNormal(m, c).log_prob(r) for r, m, c in rows)

    densities = torch.stack([density(fit_factors(x, Q, n_steps=n)) for n in range(1, 12)])
    assert (densities.diff() > 0).all()


def test_gaps_that_depend_on_what_is_observed_move_no_mean():
    """x_1 is missing where x_0 is large: the mean of what is left is wrong by half a deviation, that of EM is not."""
    rng = np.random.RandomState(0)
    z = rng.randn(4000, 1)
    x = torch.from_numpy(z + 0.5 * rng.randn(4000, 3))
    x[x[:, 0] > 0, 1] = torch.nan
    found = fit_factors(x, 1)
    assert x[:, 1].nanmean() < -0.5
    assert abs(found.loc).max() < 0.06
    covariance = found.loadings @ found.loadings.T + found.noise.diag()
    assert_close(covariance, torch.tensor(np.ones((3, 3)) + 0.25 * np.eye(3)), atol=0.1, rtol=0.0)
