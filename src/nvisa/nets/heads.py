"""The ends of the networks that know what the columns are: the encoder's first layer, and p(x|z) as a product of heads.

p(x|z) = prod_g p(x_g|z)        a head of the decoder for each group g of columns; NaN, a gap, is left out
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from nvisa.maths.shapes import Data, Float, PerSample, Tensor
from nvisa.nets.gaps import Observed
from nvisa.nets.layers import LIKELIHOODS, mlp
from nvisa.nets.rows import Rescale

__all__ = ["ProductHead", "make_head", "make_trunk"]


def make_trunk(rescale: Rescale, hidden: Sequence[int], *, batch_norm: bool) -> nn.Sequential:
    """The encoder's hidden layers, for rows in the networks' units.

    Plain ReLU: with a leak, consistency lets whole clusters merge.
    """
    n_features, fill = len(rescale.shift), rescale.fill
    if fill is None:
        return mlp([n_features, *hidden], batch_norm=batch_norm, leak=0.0)
    return nn.Sequential(Observed(deepcopy(fill)), *mlp([2 * n_features, *hidden], batch_norm=batch_norm, leak=0.0))


def make_head(rescale: Rescale, likelihood: str, n_hidden: int) -> Any:
    """p(x|z) of rows in the networks' units, from the decoder's last hidden layer."""
    n_features = len(rescale.shift)
    head = LIKELIHOODS[likelihood](n_hidden, n_features)
    return head if rescale.fill is None else ProductHead([head], [n_features])


class ProductHead(nn.Module):
    """``p(x|z) = prod_g p(x_g|z)`` over groups of consecutive columns of x, and of those over what is observed."""

    def __init__(self, heads: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.heads: Any = nn.ModuleList(heads)
        self.sizes = list(sizes)

    def _groups(self, x: Float[Tensor, "*B D"]) -> list[tuple[Any, Float[Tensor, "*B G"]]]:
        return list(zip(self.heads, x.split(self.sizes, -1), strict=True))

    def log_prob(self, x: Data, h: Float[Tensor, "M B H"], std_floor: float) -> PerSample:
        """``log p(x_o|z)``: the sum over the groups."""
        total = h.new_zeros(h.shape[:-1])
        for head, part in self._groups(x):
            of_part = head.log_prob_observed if bool(part.isnan().any()) else head.log_prob
            total = total + of_part(part, h, std_floor)
        return total

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B D"]:
        """``E[x|z]``."""
        return torch.cat([head.mean(h) for head in self.heads], -1)

    def draw(self, h: Float[Tensor, "*B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "*B D"]:
        """One x ~ p(x|z), without gaps."""
        return torch.cat([head.draw(h, generator, std_floor) for head in self.heads], -1)

    @torch.no_grad()
    def init_scale(self, scale: Float[Tensor, " D"], std_floor: float) -> None:
        """Start at this deviation, in the groups that have one."""
        for head, part in self._groups(scale):
            if hasattr(head, "init_scale"):
                head.init_scale(part, std_floor)
