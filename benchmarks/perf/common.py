"""What the sections share: a training step to time, paired timing, memory, and the record."""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from nvisa import data as datasets
from nvisa.benchmark import RECORDS
from nvisa.benchmark.run import processor, source_commit
from nvisa.durable_files import write_file
from nvisa.fitting.consistency import VAT, ConsistencyObjective
from nvisa.fitting.training import Training, maximize
from nvisa.maths.schedules import Constant
from nvisa.methods.nvisa import Bound
from nvisa.nets.layers import Network, build
from nvisa.nets.mixture_vae import MixtureVAE
from nvisa.nets.rows import Source
from nvisa.nets.units import make_rescale

# With one thread, seconds of the processor, which a busy machine does not lengthen as it does those of the wall.
ONE_THREAD = torch.get_num_threads() == 1
clock: Callable[[], float] = time.process_time if ONE_THREAD else time.perf_counter
FOLDER = RECORDS / "performance"
PACKAGES = ("torch", "numpy", "scikit-learn", "pyro-ppl", "clustpy")


def mnist(n: int | None = None) -> np.ndarray:
    """Training rows as float32 in [0, 1]."""
    return np.ascontiguousarray(datasets.load("mnist").X_train[:n], dtype=np.float32)


def noise(n: int, n_features: int) -> np.ndarray:
    """Rows around 20 centers."""
    rng = np.random.RandomState(0)
    return (rng.normal(size=(20, n_features))[rng.randint(20, size=n)] + rng.normal(size=(n, n_features))).astype("f4")


def objective_of(
    X: np.ndarray, *, n_clusters: int = 10, n_samples: int = 15, inference: str = "vimco", batch_norm: bool = False,
    consistency: tuple[VAT, ...] = (), likelihood: str = "gaussian_shared", floor_x: float = 0.3, floor_z: float = 0.2,
) -> Bound | ConsistencyObjective:  # fmt: skip
    """The objective of NVISA on X with MLP 784-500-500 and Z = 10, from seeded random weights."""
    generator = torch.Generator().manual_seed(0)
    network = Network(batch_norm=batch_norm)
    rescale = make_rescale(X, "none" if likelihood == "bernoulli" else "global")
    net = build(
        lambda: MixtureVAE(rescale, n_clusters, network, likelihood=likelihood, posterior="joint",
                           baseline=inference == "nvil"), generator)  # fmt: skip
    bound = Bound(net, inference, n_samples, inference == "enum_y", Constant(floor_x), Constant(floor_z), generator)
    if not consistency:
        return bound
    return ConsistencyObjective(net, consistency, torch.full((len(X),), 7.0), generator, bound)


def steps(
    objective: Bound | ConsistencyObjective, X: np.ndarray, batch_size: int = 256, *, again: bool = False
) -> Callable[[], None]:
    """A function that trains one epoch over X with the library's own loop: divide by its number of steps.

    ``again``: from the same weights and the same draws every time, so that it is the same epoch.
    """
    first = deepcopy(objective.network.state_dict())
    source, training = Source(X, torch.device("cpu")), Training(epochs=1, batch_size=batch_size, learning_rate=1e-4)

    def epoch() -> None:
        if again:
            objective.network.load_state_dict(first)
            objective.generator.manual_seed(1)
        maximize(objective, objective.network, source, training, objective.generator)

    return epoch


def paired(programs: dict[str, Callable[[], Any]], repeats: int = 7) -> dict[str, list[float]]:
    """Seconds of each program, taken in turn after one unrecorded round, so that a slow minute is slow for all."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            started = clock()
            program()
            if repeat:
                seconds[name].append(clock() - started)
    return seconds


def flops(program: Callable[[], Any]) -> float:
    """Floating point operations of the matrix products in one call, forward and backward: 2 n k m for [n k] x [k m]."""
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}  # torch counts addmm
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        program()
    return float(counter.get_total_flops())


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Of the pairs."""
    return [a / b for a, b in zip(above, below, strict=True)]


def _memory(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def peak_memory(program: Callable[[], Any]) -> float:
    """MB by which the resident memory of this process rises at most while the program runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _memory("VmRSS")
    program()
    return _memory("VmHWM") - before


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def write(section: str, rows: list[dict[str, Any]], note: str, *, clock_of: str = clock.__name__, **more: Any) -> None:
    """The section's record: rows of a table, numbers or lists of numbers over repeats."""
    record = {
        "kind": "performance",
        "section": section,
        "note": note,
        "rows": rows,
        "command": f"python benchmarks/perf/run.py --sections {section}",
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": source_commit(),
        "machine": {
            "cpu": processor(),
            "threads": torch.get_num_threads(),
            "clock": clock_of,
            "load": Path("/proc/loadavg").read_text()[:14],
        },
        **more,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_file(FOLDER / f"{section}.json", (json.dumps(record, indent=1) + "\n").encode())
