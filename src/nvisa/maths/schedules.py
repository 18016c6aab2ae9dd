"""Schedules: a number as a function of the fraction of the run that is done, in [0, 1].

Frozen dataclasses, so that ``==``, ``repr``, ``clone`` and JSON work. Std annealing is one of them;
"off" is ``Constant(0.0)`` and there is no other switch.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from nvisa.settings import InstanceOf

__all__ = ["Constant", "Cosine", "Geometric", "Halving", "Schedule", "StdAnnealing"]


class Schedule(ABC):
    """A callable ``fraction in [0, 1] -> value``."""

    @abstractmethod
    def __call__(self, fraction: float) -> float:
        """Return the value when ``fraction`` of the run is done."""


@dataclass(frozen=True)
class Constant(Schedule):
    """``value``, always. A std floor of ``Constant(0.0)`` is no annealing.

    Examples
    --------
    >>> Constant(0.1)(0.5)
    0.1
    """

    value: float = 0.0

    def __call__(self, fraction: float) -> float:
        """Return ``value``."""
        return self.value


@dataclass(frozen=True)
class Halving(Schedule):
    """``max(start * 2^-floor(fraction / every), end)``: the shape reported for the paper.

    A note on the paper reports epsilon halved every 100 of 3000 epochs from 1 down to 1e-4, which is
    ``Halving(1.0, every=1 / 30, end=1e-4)``.

    Examples
    --------
    >>> [Halving(1.0, every=0.25, end=0.2)(fraction) for fraction in (0.0, 0.25, 0.5, 1.0)]
    [1.0, 0.5, 0.25, 0.2]
    """

    start: float = 1.0
    every: float = 1 / 30
    end: float = 1e-4

    def __call__(self, fraction: float) -> float:
        """Return the halved value."""
        # The nudge keeps a fraction that is a multiple of `every` in floating point from falling short.
        return max(self.start * 2.0 ** -math.floor(fraction / self.every + 1e-9), self.end)


@dataclass(frozen=True)
class Geometric(Schedule):
    """``start * (end / start)^min(fraction / until, 1)``: halving made continuous, then held at ``end``.

    Examples
    --------
    >>> cooling = Geometric(1.0, 0.01, until=0.8)
    >>> cooling(0.0), round(cooling(0.4), 3), cooling(0.9)
    (1.0, 0.1, 0.01)
    """

    start: float
    end: float
    until: float = 1.0

    def __call__(self, fraction: float) -> float:
        """Return the point on the curve."""
        return self.start * (self.end / self.start) ** min(fraction / self.until, 1.0)


@dataclass(frozen=True)
class Cosine(Schedule):
    """``end + (start - end) (1 + cos(pi fraction)) / 2``: the learning rate's usual decay.

    Examples
    --------
    >>> Cosine(2e-3)(0.5)
    0.001
    """

    start: float
    end: float = 0.0

    def __call__(self, fraction: float) -> float:
        """Return the point on the curve."""
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * fraction))


@dataclass(frozen=True)
class StdAnnealing:
    """The floors epsilon of the standard deviations of p(x|z) and q(z|y,x), annealed (slides, "Std Annealing").

    ``sigma' = softplus(sigma) + epsilon(fraction of the run)``. The default is none.

    Parameters
    ----------
    x
        Schedule of epsilon_x.
    z
        Schedule of epsilon_z, in latent units.
    relative
        True: ``x`` counts in the data's largest principal standard deviation, the temperature at which
        the first clusters split (a large sigma_x is a high temperature: Rose, "Deterministic annealing",
        Proc. IEEE 1998). False: in the networks' units, as in the paper.

    Examples
    --------
    >>> from nvisa import Halving
    >>> paper = StdAnnealing(x=Halving(1.0, 1 / 30, 1e-4), z=Halving(1.0, 1 / 30, 1e-4), relative=False)
    >>> paper.x(0.5)
    0.0001
    """

    x: Annotated[Schedule, InstanceOf(Schedule)] = Constant(0.0)
    z: Annotated[Schedule, InstanceOf(Schedule)] = Constant(0.0)
    relative: Annotated[bool, InstanceOf(bool)] = True
