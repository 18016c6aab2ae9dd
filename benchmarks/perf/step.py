"""A training step of the default and of the slides' run on MNIST's shape, beside the products that it needs.

    OMP_NUM_THREADS=1 python benchmarks/perf/step.py [--out FILE]

Processor time of one thread, the least of several windows: a busy machine slows all of them. Rows are random: what a
step costs depends on their shape, and on how many samples of a batch weigh anything (here all of them do).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nvisa.benchmark.run import processor
from nvisa.fitting.consistency import VAT, ConsistencyObjective
from nvisa.fitting.training import optimizer_step
from nvisa.maths.bounds import VIMCO
from nvisa.maths.products import factors_in
from nvisa.methods.nvisa import Bound
from nvisa.nets.layers import Network, build
from nvisa.nets.mixture_vae import MixtureVAE
from nvisa.nets.units import Rescale

D, K, Z = 784, 10, 10
Shapes = list[tuple[int, int, int]]  # (rows, inner, columns) of a product


def seconds(call: Callable[[], Any], window: float = 0.3, windows: int = 5) -> float:
    """Processor time of one call, the least of several windows."""
    call(), call()
    found = []
    for _ in range(windows):
        start, n = time.process_time(), 0
        while time.process_time() - start < window:
            call()
            n += 1
        found.append((time.process_time() - start) / n)
    return min(found)


def layer(n: int, n_in: int, n_out: int, *, to_input: bool = True, to_weight: bool = True) -> Shapes:
    """Products of a linear layer, forward and back."""
    shapes = [(n, n_in, n_out)]
    return shapes + to_weight * [(n_out, n, n_in)] + to_input * [(n, n_out, n_in)]


def default_products(b: int, h: int, m: int) -> Shapes:
    """Three passes of the trunk, of which the second has a gradient in x alone, and the bound of half of the rows."""
    trunk = 2 * (layer(b, D, h, to_input=False) + layer(b, h, h))
    probe = layer(b, D, h, to_weight=False) + layer(b, h, h, to_weight=False)
    return trunk + probe + layer(b // 2, h, h) + layer(m * b // 2, h, h) + layer(m * b // 2, h, D)


def slides_products(b: int, h: int, m: int) -> Shapes:
    """The trunk, all samples forward, one of them back."""
    forward = [(m * b, h, h), (m * b, h, D), (m * b, h, D)]
    one = layer(b, h, h) + 2 * layer(b, h, D)
    return layer(b, D, h, to_input=False) + 2 * layer(b, h, h) + forward + one


def product_seconds(shapes: Shapes, kind: torch.dtype) -> float:
    """The products alone, in the faster of the two types that the precision allows."""
    pairs = [(torch.randn(n, k).to(kind), torch.randn(k, m).to(kind)) for n, k, m in shapes]
    return seconds(lambda: [a @ b for a, b in pairs])


def stepper(objective: Any, net: nn.Module, kind: torch.dtype, b: int) -> Callable[[], None]:
    """One training step as the loop does it."""
    trained = list(net.parameters())
    optimizer = torch.optim.Adam(trained, lr=1e-3, fused=True)
    x, rows = torch.rand(b, D, generator=torch.Generator().manual_seed(0)), torch.arange(b).numpy()

    def step() -> None:
        with factors_in(kind):
            found = objective(x, rows, 0.5)
        optimizer_step(found, optimizer, trained, 10.0)

    return step


def network(likelihood: str, *, hidden: int, batch_norm: bool) -> MixtureVAE:
    """Untrained."""
    sizes = Network(hidden=(hidden, hidden), latent_dim=Z, batch_norm=batch_norm)
    units = Rescale(torch.zeros(D), torch.ones(D))
    make = lambda: MixtureVAE(units, K, sizes, likelihood=likelihood, posterior="joint")  # noqa: E731
    net: MixtureVAE = build(make, torch.Generator().manual_seed(0)).train()
    return net


def measure(name: str, kind: torch.dtype) -> dict[str, Any]:
    """One row: the step, its products, their share."""
    generator = torch.Generator().manual_seed(1)
    if name == "default":
        net, b = network("gaussian_shared", hidden=500, batch_norm=True), 256
        bound = Bound(net, "vimco", 3, False, lambda _: 0.5, lambda _: 0.2, generator)
        objective: Any = ConsistencyObjective(net, (VAT(),), torch.full((b,), 5.0), generator, bound)
        shapes = default_products(b, 500, 3)
    else:
        hidden = int(name.split("-")[1])
        net, b = network("gaussian", hidden=hidden, batch_norm=False), 128
        inference = VIMCO() if name.endswith("all") else VIMCO(decoder_samples=1)
        objective = Bound(net, inference, 15, False, lambda _: 0.5, lambda _: 0.2, generator)
        shapes = slides_products(b, hidden, 15)
    step, products = seconds(stepper(objective, net, kind, b)), product_seconds(shapes, kind)
    return {"step": name, "products": str(kind).removeprefix("torch."), "ms": 1e3 * step, "products_ms": 1e3 * products,
            "share": products / step}  # fmt: skip


def main() -> None:
    """Print the rows, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", nargs="+", default=["default", "slides-256", "slides-500", "slides-500-all"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = [measure(name, kind) for name in asked.steps for kind in (torch.float32, torch.bfloat16)]
    for row in rows:
        print("{step:<15} {products:<9} {ms:7.1f} ms, its products {products_ms:6.1f} ms: {share:.0%}".format(**row))
    if asked.out:
        asked.out.write_text(
            json.dumps({"cpu": processor(), "torch": torch.__version__, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
