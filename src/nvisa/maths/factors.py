"""Factor analysis of rows with gaps: what the numbers that are there say of those that are not.

    x = mu + W z + noise,   z ~ N(0, I),   noise ~ N(0, diag psi)                        [D] = [D] + [D q] [q] + [D]
    E[ x_m | x_o ]  = mu_m + W_m ( I + W_o^T psi_o^-1 W_o )^-1 W_o^T psi_o^-1 (x_o - mu_o)     o observed, m missing

A gap is NaN. Fitted by EM over the observed numbers alone, which is right where a gap may depend on what is observed
(missing at random: Little and Rubin, "Statistical analysis with missing data", 3rd ed. 2019, ch. 8 and 11). EM of
factor analysis: Rubin and Thayer, Psychometrika 1982; with gaps: Ilin and Raiko, JMLR 2010, sec. 2.
"""

from typing import NamedTuple

import torch

from nvisa.maths.shapes import Data, Float, Tensor

__all__ = ["Factors", "conditional_mean", "factor_posterior", "fit_factors"]

LEAST_NOISE = 0.02  # of psi, beside columns of variance one
RIDGE = 1.0  # rows that a loading's prior counts for: few rows cannot have many factors


class Factors(NamedTuple):
    """mu, W and psi."""

    loc: Float[Tensor, " D"]
    loadings: Float[Tensor, "D q"]
    noise: Float[Tensor, " D"]


def factor_posterior(x: Data, factors: Factors) -> tuple[Float[Tensor, "B q"], Float[Tensor, "B q q"]]:
    """Mean and covariance of ``p(z | x_o)``; NaN is a gap.

    ``cov = ( I + sum_o w_d w_d^T / psi_d )^-1``, ``mean = cov sum_o w_d (x_d - mu_d) / psi_d``, w_d the rows of W.
    """
    loc, loadings, noise = factors
    q, seen = loadings.shape[1], (~x.isnan()).to(loadings)
    scaled = loadings / noise[:, None]
    products = (loadings[:, :, None] * scaled[:, None, :]).flatten(1)  # [D q^2]: one product for all rows
    precision = (seen @ products).unflatten(1, (q, q)) + torch.eye(q).to(loadings)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    mean = covariance @ ((x - loc).nan_to_num(0.0) @ scaled)[..., None]
    return mean[..., 0], covariance


def conditional_mean(x: Data, factors: Factors) -> Data:
    """``E[x | x_o]``: x where it is observed, its mean under the factors where it is NaN."""
    return torch.where(x.isnan(), factors.loc + factor_posterior(x, factors)[0] @ factors.loadings.T, x)


@torch.no_grad()
def fit_factors(x: Data, n_factors: int, *, n_steps: int = 50) -> Factors:
    """Factors of rows of mean about zero and deviation about one, by EM from their axes.

    A column's loadings have the prior ``N(0, psi I)``, so that no column is explained by chance.
    """
    seen, filled = (~x.isnan()).to(x), x.nan_to_num(0.0)
    counts = seen.sum(0).clamp_min(1.0)
    axes, size, _ = torch.linalg.svd(filled.T @ filled / len(x))
    factors = Factors(torch.zeros_like(counts), axes[:, :n_factors] * size[:n_factors].sqrt(), 0.5 + 0.0 * counts)
    ridge = torch.cat([RIDGE * torch.ones(n_factors), torch.zeros(1)]).to(x).diag()  # none on mu
    for _ in range(n_steps):
        mean, covariance = factor_posterior(x, factors)
        z = torch.cat([mean, torch.ones_like(mean[:, :1])], 1)  # mu is a loading of the constant 1
        second = torch.nn.functional.pad(covariance, (0, 1, 0, 1)) + z[:, :, None] * z[:, None, :]
        moments = (seen.T @ second.flatten(1)).unflatten(1, second.shape[1:]) + ridge
        cross = filled.T @ z
        loadings = torch.linalg.solve(moments, cross[..., None])[..., 0]
        left = filled.square().sum(0) - (loadings * cross).sum(1)  # at the optimum: the quadratic terms cancel
        factors = Factors(loadings[:, -1], loadings[:, :-1], (left / counts).clamp_min(LEAST_NOISE))
    return factors
