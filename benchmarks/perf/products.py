"""The matrix products that a step makes: found by listening to torch, then made alone at the same shapes."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[int, int, int]
Products = Counter[tuple[Shape, bool, bool]]
ONEDNN = "mkldnn::_linear_pointwise"


class Listener(TorchDispatchMode):
    """Counts the products [n k] x [k m] between entering and leaving, forward and backward, as layouts and shapes."""

    OPERANDS = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, ONEDNN: 0}

    def __init__(self) -> None:
        super().__init__()
        self.products: Products = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if name in self.OPERANDS:
            first = self.OPERANDS[name]
            a, b = arguments[first], arguments[first + 1]
            b = b.T if name == ONEDNN else b
            batch = a.shape[0] if a.dim() == 3 else 1
            shape = (a.shape[-2], a.shape[-1], b.shape[-1])
            self.products[shape, a.stride(-1) != 1, b.stride(-1) != 1] += batch
        return function(*arguments, **(keywords or {}))


def listen(step: Callable[[], Any]) -> Products:
    """The products of one call."""
    with Listener() as listener:
        step()
    return listener.products


def flops(products: Products) -> float:
    """Floating point operations: 2 n k m for each product."""
    return float(sum(2 * n * k * m * count for ((n, k, m), _, _), count in products.items()))


def libraries(a: torch.Tensor, b: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """``a b``, or ``(b^T a^T)^T``, by each library of this torch, into memory that exists where it allows that."""
    out = torch.empty(len(a), b.shape[1])
    found: dict[str, Callable[[], torch.Tensor]] = {"torch.mm": lambda: torch.mm(a, b, out=out)}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        found["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
        found["oneDNN turned"] = lambda: torch.ops.mkldnn._linear_pointwise(b.T, a, None, "none", [], "").T
    return found


def fastest(n: int, k: int, m: int, clock: Callable[[], float], *, turned: tuple[bool, bool]) -> dict[str, float]:
    """Seconds of one product [n k] x [k m] by each library: the smallest of four rounds, the libraries in turns."""
    a = torch.rand(k, n).T if turned[0] else torch.rand(n, k)
    b = torch.rand(m, k).T if turned[1] else torch.rand(k, m)
    programs, repeats = libraries(a, b), max(1, int(2e8 / (2 * n * k * m)))
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(4):
        for name, program in programs.items():
            started = clock()
            for _ in range(repeats):
                program()
            best[name] = min(best[name], (clock() - started) / repeats)
    return best


def alone(products: Products, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Seconds that these products take one after the other with nothing between them, by library and by the best.

    "best" takes for each shape the library that is faster there: the peak of sgemm at these shapes.
    """
    total: Counter[str] = Counter()
    for (shape, a_turned, b_turned), count in products.items():
        seconds = fastest(*shape, clock, turned=(a_turned, b_turned))
        for name, one in (seconds | {"best": min(seconds.values())}).items():
            total[name] += count * one
    return dict(total)
