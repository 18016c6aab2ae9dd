"""Counts, as of genes in cells, as the networks see them, and p(x|z) as a negative binomial with a library size.

* user's units [N D]: counts, and at most one column that says from which batch a row is
* networks' units [N V]: ``( log(1 + x_d L / l) - shift_bd ) / scale_d`` for each count, then log l, then zeros and
  ones of the batch, if there are several. ``l = sum_d x_d`` is the row's library, L the median library; ``shift_b`` is
  the mean of batch b, so that distances, graphs and encoder do not see what is common to a batch.

Encoder, start, graph and diagnosis see the D first columns; distances go by their 50 leading principal components. The
head reads the counts back from the networks' units, exactly::

    mu_d = l softmax_d( W h(z) + a + v_b )        x_d ~ NB(mu_d, theta_d), or with additional zeros

as in Lopez et al., "Deep generative modeling for single-cell transcriptomics", Nature Methods 2018 (scVI), with the
observed library in place of an inferred one, and a batch as an offset v_b of each gene.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from scipy.sparse.linalg import LinearOperator, svds
from torch import nn

from nvisa.maths.counts import (
    draw_negative_binomial,
    log_negative_binomial,
    log_zero_inflated_negative_binomial,
)
from nvisa.maths.shapes import Data, Float, PerExample, PerSample, Tensor
from nvisa.nets.rows import Table, blocks, part, subset
from nvisa.nets.units import Rescale
from nvisa.settings import AnyOf, AtLeast, InstanceOf, SettingError

__all__ = ["COUNT_LIKELIHOODS", "CountHead", "CountUnits", "GeneColumns", "NegativeBinomial", "check_counts"]

N_AXES = 50
AXES_ROWS = 20_000  # that they are found in
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NegativeBinomial:
    """p(x|z) of counts, each row beside its own sum: ``likelihood=NegativeBinomial(batch="donor")``.

    Parameters
    ----------
    zero_inflated
        Whether each count can be zero besides, with a probability of its own that z decides.
    batch
        The column of X that says from which batch a row is, by its name in a data frame or by its number, from 0 or, if
        negative, from the end; None: none does. It is no count: the decoder is told of it, the encoder sees each gene
        less its mean in the batch.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> two_donors = NVISA(10, likelihood=NegativeBinomial(batch=-1))  # the last column of X has 0 or 1
    """

    zero_inflated: Annotated[bool, InstanceOf(bool)] = False
    batch: Annotated[str | int | None, AnyOf(InstanceOf(str, None), AtLeast(-(2**31)))] = None

    def column(self, n_columns: int, names: Any = None) -> int | None:
        """Number of the column with the batch, from 0.

        Raises
        ------
        SettingError
            If there is no such column.
        """
        if self.batch is None:
            return None
        known = [] if names is None else list(names)
        if isinstance(self.batch, str) and self.batch in known:
            return known.index(self.batch)
        if isinstance(self.batch, str) or not -n_columns <= self.batch < n_columns:
            what = (
                f"a number below {n_columns}"
                if names is None
                else f"the name of a column ({_listed(known)}) or its number"
            )
            raise SettingError("likelihood.batch", what, self.batch)
        return int(self.batch) % n_columns


COUNT_LIKELIHOODS = {
    "negative_binomial": NegativeBinomial(),
    "zero_inflated_negative_binomial": NegativeBinomial(zero_inflated=True),
}


def _listed(values: list[Any]) -> str:
    return ", ".join(map(repr, values[:3])) + (", ..." if len(values) > 3 else "")


class Counts(NamedTuple):
    """What the networks' units hold: counts, log library, and zeros and ones of the batch (S = 1: all ones)."""

    x: Float[Tensor, "*B D"]
    log_library: Float[Tensor, "*B"]
    batch: Float[Tensor, "*B S"]


class Batches(NamedTuple):
    """What the column of the batch says in each of S, its share of the rows, and how far its means are from all."""

    value: Float[Tensor, " S"]
    share: Float[Tensor, " S"]
    shift: Float[Tensor, "S D"]


class CountUnits(Rescale):
    """Units of counts, whose ``column`` has the batch; ``library`` is L, ``log_expression`` of each gene's share."""

    batches: Tensor
    share: Tensor
    batch_shift: Tensor
    log_expression: Tensor
    library: Tensor
    has_counts = True

    def __init__(
        self,
        shift: Float[Tensor, " D"],
        scale: Float[Tensor, " D"],
        batches: Batches,
        log_expression: Float[Tensor, " D"],
        library: Float[Tensor, ""],
        column: int | None,
    ) -> None:
        super().__init__(shift, scale)
        for name, value in zip(("batches", "share", "batch_shift"), batches, strict=True):
            self.register_buffer(name, value)
        self.register_buffer("log_expression", log_expression)
        self.register_buffer("library", library)
        self.column, self.n_genes = column, len(shift)
        n_columns = self.n_genes + (column is not None)
        self.genes = [d for d in range(n_columns) if d != column]
        n_batches = len(batches.value)
        self.width = self.n_genes + 1 + (n_batches if n_batches > 1 else 0)  # V

    def _of_batch(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B S"]:
        """Zeros and ones."""
        if self.column is None:
            return x.new_ones(*x.shape[:-1], 1)
        return (x[..., self.column, None] == self.batches).to(x)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Return x in the networks' units."""
        counts = x if self.column is None else x[..., self.genes]
        return self.pack(Counts(counts, counts.sum(-1).clamp_min(1.0).log(), self._of_batch(x)))

    def pack(self, given: Counts) -> Float[Tensor, "*B V"]:
        """Counts, library and batch in the networks' units."""
        level = torch.log1p(given.x * (self.library.log() - given.log_library).exp()[..., None])
        own = (level - self.shift - given.batch @ self.batch_shift) / self.scale
        parts = [own, given.log_library[..., None]]
        return torch.cat([*parts, given.batch] if len(self.batches) > 1 else parts, -1)

    def unpack(self, u: Float[Tensor, "*B V"]) -> Counts:
        """The way back, whatever is no whole number included."""
        log_library = u[..., self.n_genes]
        one = u.new_ones(*u.shape[:-1], 1)
        batch = u[..., self.n_genes + 1 :] if len(self.batches) > 1 else one
        level = u[..., : self.n_genes] * self.scale + self.shift + batch @ self.batch_shift
        return Counts(torch.expm1(level) * (log_library - self.library.log()).exp()[..., None], log_library, batch)

    def features(self, x: Data) -> Float[Tensor, "B C"]:
        """What distances, graphs and simple clusterings see of x: the genes on their leading principal components."""
        own = self(x)[..., : self.n_genes]
        return own if self.axes is None else own @ self.axes

    def inverse(self, u: Float[Tensor, "*B V"]) -> Float[Tensor, "*B D"]:
        """Return x in the user's units, of a mean the most frequent batch."""
        found = self.unpack(u)
        if self.column is None:
            return found.x
        batch = self.batches[found.batch.argmax(-1)][..., None]
        return torch.cat([found.x[..., : self.column], batch, found.x[..., self.column :]], -1)

    def log_det(self, x: Data) -> PerExample:
        """Zero: the probability of a count has no unit."""
        return x.new_zeros(len(x))

    @classmethod
    def of(cls, X: Table, column: int | None, scaling: str, rng: RandomState) -> "CountUnits":
        """Units of these counts; ``scaling="auto"`` is "global": logarithms of counts have one unit."""
        libraries, totals, batches = _first_look(X, column)
        median = np.median(libraries)
        sizes, sums, squares = (np.zeros((len(batches), *shape)) for shape in ((), (len(totals),), (len(totals),)))
        for level, which in _levels(X, column, float(median), batches):
            np.add.at(sizes, which, 1.0)
            one_hot = np.eye(len(batches))[which].T
            sums += one_hot @ level
            squares += one_hot @ level**2
        mean = sums / sizes[:, None]
        deviation = np.sqrt(np.maximum((squares - sizes[:, None] * mean**2).sum(0) / sizes.sum(), 0.0))
        shift = np.zeros(len(totals)) if scaling == "none" else sums.sum(0) / sizes.sum()
        of_batch = mean - mean if scaling == "none" else mean - shift
        expression = np.log((totals + 0.5) / (totals + 0.5).sum())  # a gene without a count is rare, not impossible
        scale = _scale(deviation, scaling)
        own = [torch.from_numpy(np.asarray(part, np.float32)) for part in (shift, scale, expression, median)]
        of = [torch.from_numpy(np.asarray(part, np.float32)) for part in (batches, sizes / sizes.sum(), of_batch)]
        units = cls(own[0], own[1], Batches(*of), own[2], own[3], column)
        units.axes = leading_axes(X, units, rng)
        return units

    @classmethod
    def blank(cls, n_columns: int, n_batches: int, column: int | None, n_axes: int) -> "CountUnits":
        """One to be filled from a file."""
        d, s = n_columns - (column is not None), n_batches
        batches = Batches(torch.zeros(s), torch.zeros(s), torch.zeros(s, d))
        units = cls(torch.zeros(d), torch.zeros(d), batches, torch.zeros(d), torch.zeros(()), column)
        units.axes = torch.zeros(d, n_axes) if n_axes else None
        return units


def _scale(deviation: Floats, scaling: str) -> Floats:
    if scaling == "none":
        return np.ones_like(deviation)
    if scaling == "columns":
        return np.where(deviation > 0, deviation, 1.0)
    return np.full_like(deviation, np.sqrt((deviation**2).mean()) or 1.0)


def _split(rows: Floats, column: int | None) -> tuple[Floats, Floats]:
    """Counts in float64, and what says the batch."""
    rows = rows.astype(np.float64)
    return (rows, np.zeros(len(rows))) if column is None else (np.delete(rows, column, 1), rows[:, column])


def _first_look(X: Table, column: int | None) -> tuple[Floats, Floats, Floats]:
    """Libraries [N], totals of the genes [D], values of the batch [S]."""
    looked = [
        (counts.sum(1), counts.sum(0), np.unique(batch)) for counts, batch in (_split(r, column) for r in blocks(X))
    ]
    libraries, totals, batches = zip(*looked, strict=True)
    return np.concatenate(libraries), np.sum(totals, 0), np.unique(np.concatenate(batches))


def _levels(
    X: Table, column: int | None, library: float, batches: Floats
) -> Iterator[tuple[Floats, NDArray[np.integer[Any]]]]:
    """``log(1 + x L / l)`` and the batch's place, block by block."""
    for rows in blocks(X):
        counts, batch = _split(rows, column)
        level = np.log1p(counts * (library / np.maximum(counts.sum(1, keepdims=True), 1.0)))
        yield level, np.searchsorted(batches, batch)


def leading_axes(X: Table, units: CountUnits, rng: RandomState) -> Float[Tensor, "D C"] | None:
    """The 50 leading right singular vectors of the rows in the networks' units; None if there are no more genes.

    The logarithms stay sparse: the means are subtracted from products.
    """
    if units.n_genes <= N_AXES:
        return None
    some = part(X, subset(len(X), rng, AXES_ROWS))
    levels = _levels(some, units.column, float(units.library), units.batches.double().numpy())
    sparse, batches = zip(*((csr_array(level.astype(np.float32)), which) for level, which in levels), strict=True)
    logs, one_hot = csr_array(vstack(sparse)), np.eye(len(units.batches), dtype=np.float32)[np.concatenate(batches)]
    shift, scale = (units.shift + units.batch_shift).numpy(), units.scale.numpy()
    seen = LinearOperator(
        logs.shape,
        matvec=lambda v: logs @ (v.ravel() / scale) - one_hot @ (shift @ (v.ravel() / scale)),
        rmatvec=lambda v: (logs.T @ v.ravel() - shift.T @ (one_hot.T @ v.ravel())) / scale,
        dtype=np.float32,
    )
    n_axes = min(N_AXES, min(logs.shape) - 1)
    found = svds(seen, n_axes, v0=rng.uniform(-1, 1, min(logs.shape)).astype(np.float32), return_singular_vectors="vh")[
        2
    ]
    return torch.from_numpy(np.ascontiguousarray(found[::-1].T.astype(np.float32)))


def check_counts(X: Table, column: int | None, *, batches: Any = None) -> None:
    """Raise a ValueError unless X has counts: whole numbers, none below zero, some in every row; and known batches."""
    start = 0
    for rows in blocks(X):
        counts, batch = _split(rows, column)
        wrong = np.isnan(counts) | (counts < 0) | (counts != np.rint(counts))
        if wrong.any():
            n, d = np.argwhere(wrong)[0]
            raise ValueError(
                f"Expected counts, whole numbers from 0, got {counts[n, d]:g} in row {start + n}. Give raw counts, not "
                "their logarithms; round estimated ones; or use likelihood='gaussian_shared'."
            )
        if (empty := np.flatnonzero(counts.sum(1) == 0)).size:
            raise ValueError(f"Expected a count in every row, got none in row {start + empty[0]}. Leave it out.")
        if batches is not None and (unknown := np.flatnonzero(~np.isin(batch, batches))).size:
            raise ValueError(
                f"Expected a batch of the fit ({_listed(list(batches))}), got {batch[unknown[0]]:g} in row "
                f"{start + unknown[0]}. Fit again with its rows."
            )
        start += len(rows)


class GeneColumns(nn.Module):
    """What the encoder sees of a row of counts: neither the library nor the batch."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes

    def forward(self, u: Float[Tensor, "*B V"]) -> Float[Tensor, "*B D"]:
        """Return the first columns."""
        return u[..., : self.n_genes]


class CountHead(nn.Module):
    """``NB(l softmax(W h + a + v_b), theta)``, each gene with its own theta; the std floor does not touch it.

    ``a`` begins at the logarithm of each gene's share of all counts.
    """

    def __init__(self, n_in: int, units: CountUnits, *, zero_inflated: bool) -> None:
        super().__init__()
        self.units = deepcopy(units)
        self.units.axes = None
        d, s = units.n_genes, len(units.batches)
        self.weight = nn.Linear(n_in, d, bias=False)
        self.offset = nn.Parameter(units.log_expression.clone())
        self.of_batch = nn.Parameter(torch.zeros(s, d)) if s > 1 else None
        self.log_theta = nn.Parameter(torch.zeros(d))
        self.zero_logits = nn.Linear(n_in, d) if zero_inflated else None

    def log_share(self, h: Float[Tensor, "*B H"], batch: Float[Tensor, "*#B S"]) -> Float[Tensor, "*B D"]:
        """``log softmax(W h + a + v_b)``: each gene's expected share of the library."""
        logits = self.weight(h) + self.offset
        return (logits if self.of_batch is None else logits + batch @ self.of_batch).log_softmax(-1)

    def log_prob(self, u: Float[Tensor, "B V"], h: Float[Tensor, "M B H"], std_floor: float) -> PerSample:
        """``log p(x|z)``."""
        given = self.units.unpack(u)
        x, log_mean = given.x.round(), self.log_share(h, given.batch) + given.log_library[..., None]
        if self.zero_logits is None:
            return log_negative_binomial(x, log_mean, self.log_theta)
        return log_zero_inflated_negative_binomial(x, log_mean, self.log_theta, self.zero_logits(h))

    def _typical(
        self, h: Float[Tensor, "*B H"]
    ) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B"], Float[Tensor, "*B S"]]:
        """log mean at the median library in the mean batch, that library, and shares of the batches."""
        batch = self.units.share.expand(*h.shape[:-1], -1)
        log_library = self.units.library.log().expand(h.shape[:-1])
        return self.log_share(h, batch) + log_library[..., None], log_library, batch

    def mean(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B V"]:
        """``E[x|z]`` of a row with the median library."""
        log_mean, log_library, batch = self._typical(h)
        kept = 1.0 if self.zero_logits is None else (-self.zero_logits(h)).sigmoid()
        return self.units.pack(Counts(log_mean.exp() * kept, log_library, batch))

    def draw(self, h: Float[Tensor, "*B H"], generator: torch.Generator, std_floor: float) -> Float[Tensor, "*B V"]:
        """One x ~ p(x|z) with the median library to expect."""
        log_mean, log_library, batch = self._typical(h)
        x = draw_negative_binomial(log_mean, self.log_theta, generator).to(h)
        if self.zero_logits is not None:
            uniform = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device)
            x = x * (uniform >= self.zero_logits(h).sigmoid())
        return self.units.pack(Counts(x, log_library, batch))
