"""When labels have settled, and how much of the schedule is then left: one rule for all data, which sees no label."""

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["has_settled", "progress"]

Record = dict[str, Any]

SETTLED, WINDOW = 0.004, 100  # share of the rows that change cluster, all in all, in so many steps
HASTE = 8  # how much faster the schedule then runs


def has_settled(history: Sequence[Record], n_batches: int) -> bool:
    """Whether the labels stood still at some time: in 100 steps, at least two epochs, at most 0.4 % of rows changed.

    Examples
    --------
    >>> has_settled([{"label_change": 0.1}, {"label_change": 0.003}, {"label_change": 0.001}], n_batches=60)
    True
    """
    window = max(2, math.ceil(WINDOW / n_batches))
    changes = [record.get("label_change", 1.0) for record in history]
    return any(sum(changes[i : i + window]) <= SETTLED for i in range(len(changes) - window + 1))


def progress(history: Sequence[Record], n_batches: int, *, settles: bool) -> tuple[int, int]:
    """How many epochs of the schedule have passed, and how many the next one passes."""
    slow = next((n for n in range(len(history)) if settles and has_settled(history[:n], n_batches)), len(history))
    done = slow + HASTE * (len(history) - slow)
    return done, HASTE if settles and has_settled(history, n_batches) else 1
