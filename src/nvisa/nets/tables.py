"""Tables of numbers and categories, as the networks see them: a category is a scaled one-hot block.

* user's units [N D]: numbers, and of a category its code 0 .. C - 1; NaN is a gap
* networks' units [N V]: the numbers, then C columns ``( [code = c] - share_c ) / spread`` for each category

``spread^2 = 1 - sum_c share_c^2`` gives a category as much variance as a standardized number has, so that in distances,
graphs and k-means no column counts more than another; ``Network.category_weight`` says otherwise. p(x|z) has a softmax
for each category: :class:`CategoricalHead`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from torch import nn

from nvisa.maths.shapes import Data, Float, Tensor
from nvisa.nets.gaps import Fill
from nvisa.nets.rows import Table, blocks
from nvisa.nets.units import Rescale, fill_for, make_rescale

__all__ = ["CategoricalHead", "TableUnits", "shares"]


class TableUnits(Rescale):
    """Units of a table whose column d has ``levels[d]`` categories; 0: numbers.

    ``shift`` and ``scale`` [D] are 0 and 1 of categories; ``share`` and ``spread`` [C] have an entry a category.
    """

    share: Tensor
    spread: Tensor
    has_categories = True

    def __init__(
        self,
        shift: Float[Tensor, " D"],
        scale: Float[Tensor, " D"],
        levels: Sequence[int],
        share: Float[Tensor, " C"],
        spread: Float[Tensor, " C"],
    ) -> None:
        super().__init__(shift, scale)
        self.register_buffer("share", share)
        self.register_buffer("spread", spread)
        self.numbers = [d for d, n in enumerate(levels) if not n]
        self.categories = {d: n for d, n in enumerate(levels) if n}
        self.width = len(self.numbers) + sum(levels)  # V

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Return x in the networks' units; the block of a gap is NaN."""
        plain = super().forward(x)
        blocks = [
            torch.where(x[..., d, None].isnan(), x[..., d, None], (x[..., d, None] == torch.arange(n).to(x)).to(x))
            for d, n in self.categories.items()
        ]
        return torch.cat([plain[..., self.numbers], (torch.cat(blocks, -1) - self.share) / self.spread], -1)

    def inverse(self, x: Float[Tensor, "*B V"]) -> Float[Tensor, "*B D"]:
        """Return x in the user's units: the most probable category where x is a mean."""
        proba = x[..., len(self.numbers) :] * self.spread + self.share
        found = torch.zeros(*x.shape[:-1], len(self.shift)).to(x)
        found[..., self.numbers] = x[..., : len(self.numbers)]
        found = super().inverse(found)
        for d, block in zip(self.categories, proba.split(list(self.categories.values()), -1), strict=True):
            found[..., d] = block.argmax(-1).to(x)
        return found

    def log_det(self, x: Data) -> Float[Tensor, " B"]:
        """Of the numbers that are observed; the probability of a category has no unit."""
        return -(~x[:, self.numbers].isnan()).to(x) @ self.scale[self.numbers].log()

    @classmethod
    def of(cls, X: Any, scaling: str, levels: Sequence[int], rng: RandomState, *, weight: float = 1.0) -> "TableUnits":
        """Numbers by their columns, unless they are asked to be otherwise, categories, and what to expect in gaps.

        ``levels`` has the number of categories of each column, 0 for numbers; squared distances of categories count
        ``weight`` times.
        """
        numbers = [d for d, n in enumerate(levels) if not n]
        shift, scale = torch.zeros(len(levels)), torch.ones(len(levels))
        if numbers:
            made = make_rescale(X[:, numbers], "columns" if scaling == "auto" else scaling)
            shift[numbers], scale[numbers] = made.shift, made.scale
        share, spread = shares(X, levels)
        units = cls(shift, scale, levels, share, spread / weight**0.5)
        units.fill = fill_for(X, units, rng)
        return units

    @classmethod
    def blank(cls, levels: Sequence[int]) -> "TableUnits":
        """One to be filled from a file."""
        n = sum(levels)
        made = cls(torch.zeros(len(levels)), torch.ones(len(levels)), levels, torch.zeros(n), torch.ones(n))
        made.fill = Fill.blank(made.width)
        return made


def shares(X: Table, levels: Sequence[int]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """(share of each category among the rows that have one, spread of its column) of all categories, in order."""
    parts = []
    for d, n in enumerate(levels):
        if n:
            codes = [rows[:, d] for rows in blocks(X)]
            counts = sum(np.bincount(part[~np.isnan(part)].astype(int), minlength=n) for part in codes)
            share = torch.from_numpy(np.asarray(counts / np.maximum(np.sum(counts), 1), dtype=np.float32))
            spread = (1.0 - share.square().sum()).sqrt() if share.max() < 1.0 else torch.ones(())
            parts.append((share, spread.expand(n)))
    share, spread = (torch.cat(part) for part in zip(*parts, strict=True))
    return share, spread


class CategoricalHead(nn.Module):
    """``prod_j Categorical(softmax(l_j(h)))`` over the categories of :class:`TableUnits`, in its units."""

    share: Tensor
    spread: Tensor

    def __init__(self, n_in: int, units: TableUnits) -> None:
        super().__init__()
        self.logits = nn.Linear(n_in, len(units.share))
        self.sizes = list(units.categories.values())
        self.register_buffer("share", units.share.clone())
        self.register_buffer("spread", units.spread.clone())

    def _log_proba(self, h: Float[Tensor, "*B H"]) -> list[Float[Tensor, "*B C"]]:
        return [part.log_softmax(-1) for part in self.logits(h).split(self.sizes, -1)]

    def log_prob(self, x: Float[Tensor, "B C"], h: Float[Tensor, "M B H"], std_floor: float) -> Float[Tensor, "M B"]:
        """``sum_j log p(x_j|z)``; no deviation, so the floor does not touch it."""
        one_hot = x * self.spread + self.share
        return (one_hot * torch.cat(self._log_proba(h), -1)).sum(-1)

    def log_prob_observed(
        self, x: Float[Tensor, "B C"], h: Float[Tensor, "M B H"], std_floor: float
    ) -> Float[Tensor, "M B"]:
        """The same of what is observed: the block of a gap counts no category."""
        return self.log_prob(torch.where(x.isnan(), -self.share / self.spread, x), h, std_floor)

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B C"]:
        """``E[x|z]``: the probabilities."""
        return (torch.cat(self._log_proba(h), -1).exp() - self.share) / self.spread

    def draw(self, h: Float[Tensor, "B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "B C"]:
        """One x ~ p(x|z)."""
        parts = [log_p.exp().to(generator.device) for log_p in self._log_proba(h)]
        drawn = [p.multinomial(1, generator=generator) == torch.arange(p.shape[1]) for p in parts]
        return (torch.cat(drawn, -1).to(h) - self.share) / self.spread
