"""Rows with gaps, as the networks see them: NaN is a gap, and stays one in the networks' units.

    p(x|z)        the product over what is observed of x: the marginal, no number is made up   (heads of layers.py)
    q(y, z | x)   sees E[x | x_o] under a factor analysis, and which of it was observed        (:class:`Observed`)
    start, graph, diagnosis, std annealing: see E[x | x_o] too                                 (``Rescale.features``)

So the bound is one on log p(x_o), whatever the encoder makes of the gaps. Gaps may depend on what is observed (missing
at random). Column means would do for the encoder as well, but tell the start nothing: half of the numbers missing, all
rows would be neighbors in the middle. Likelihood of the observed part: Mattei and Frellsen, MIWAE, ICML 2019; Nazabal
et al., HI-VAE, Pattern Recognition 2020.
"""

import torch
from torch import nn

from nvisa.maths.factors import Factors, conditional_mean, fit_factors
from nvisa.maths.shapes import Data, Float, Tensor

__all__ = ["Fill", "Observed"]

MAX_FACTORS = 10
MASK_WEIGHT = 0.3


class Fill(nn.Module):
    """``E[x | x_o]`` in the networks' units, by a factor analysis; rows without a gap pass as they are."""

    loc: Tensor
    loadings: Tensor
    noise: Tensor

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        for name, value in factors._asdict().items():
            self.register_buffer(name, value)

    @classmethod
    def of(cls, x: Float[Tensor, "N D"]) -> "Fill":
        """Fitted to these rows, which are in the networks' units."""
        x = x.double()
        variance = x.nan_to_num(0.0).square().sum(0) / (~x.isnan()).sum(0).clamp_min(1)
        deviation = torch.where(variance > 0, variance.sqrt(), 1.0)
        loc, loadings, noise = fit_factors(x / deviation, cls.n_factors(x.shape[1]))
        own = loc * deviation, loadings * deviation[:, None], noise * deviation.square()
        return cls(Factors(*(part.float() for part in own)))

    @staticmethod
    def n_factors(n_features: int) -> int:
        """q: one less than the columns, ten at most."""
        return max(1, min(MAX_FACTORS, n_features - 1))

    @classmethod
    def blank(cls, n_features: int) -> "Fill":
        """One to be filled from a file."""
        zero = torch.zeros(n_features)
        return cls(Factors(zero, torch.zeros(n_features, cls.n_factors(n_features)), zero.clone()))

    def forward(self, x: Data) -> Data:
        """Return x without gaps."""
        factors = Factors(self.loc, self.loadings, self.noise)
        return conditional_mean(x, factors) if bool(x.isnan().any()) else x


class Observed(nn.Module):
    """What the encoder sees of a row with gaps: ``[ E[x | x_o], 0.3 where observed ]``.

    At 1 the pattern of gaps weighs as much as the values, and few rows can be told apart by it.
    """

    def __init__(self, fill: Fill) -> None:
        super().__init__()
        self.fill = fill

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        """Return twice as many columns."""
        return torch.cat([self.fill(x), MASK_WEIGHT * (~x.isnan()).to(x)], -1)
