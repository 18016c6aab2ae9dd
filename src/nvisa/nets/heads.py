"""p(x|z) of rows whose columns are of several kinds, or have gaps.

p(x|z) = prod_g p(x_g|z)        a head of the decoder for each group g of columns; NaN, a gap, is left out
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nvisa.maths.shapes import Data, Float, PerSample, Tensor

__all__ = ["ProductHead"]


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
