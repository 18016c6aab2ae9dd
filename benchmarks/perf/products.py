"""The matrix products that a step makes: found by listening to torch, then made alone at the same shapes."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[int, int, int]


class Listener(TorchDispatchMode):
    """Counts the products [n k] x [k m] between entering and leaving, forward and backward, as layouts and shapes."""

    OPERANDS = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1}

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[tuple[Shape, bool, bool]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if name in self.OPERANDS:
            first = self.OPERANDS[name]
            a, b = arguments[first], arguments[first + 1]
            batch = a.shape[0] if a.dim() == 3 else 1
            shape = (a.shape[-2], a.shape[-1], b.shape[-1])
            self.products[shape, a.stride(-1) != 1, b.stride(-1) != 1] += batch
        return function(*arguments, **(keywords or {}))


def listen(step: Callable[[], Any]) -> Counter[tuple[Shape, bool, bool]]:
    """The products of one call."""
    with Listener() as listener:
        step()
    return listener.products


def flops(products: Counter[tuple[Shape, bool, bool]]) -> float:
    """Floating point operations: 2 n k m for each product."""
    return float(sum(2 * n * k * m * count for ((n, k, m), _, _), count in products.items()))


def alone(products: Counter[tuple[Shape, bool, bool]], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that these products take one after the other with nothing between them, into buffers that exist.

    The smallest of three for each shape: the peak of sgemm there.
    """
    total = 0.0
    for ((n, k, m), a_turned, b_turned), count in products.items():
        a = torch.rand(k, n).T if a_turned else torch.rand(n, k)
        b = torch.rand(m, k).T if b_turned else torch.rand(k, m)
        out = torch.empty(n, m)
        best = float("inf")
        repeats = max(1, int(2e8 / (2 * n * k * m)))
        for _ in range(4):
            started = clock()
            for _ in range(repeats):
                torch.mm(a, b, out=out)
            best = min(best, (clock() - started) / repeats)
        total += count * best
    return total
