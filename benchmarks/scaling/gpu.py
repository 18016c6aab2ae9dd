"""What a GPU does: a step at several batch sizes, its share of the device's peak, MNIST to 98 %, the slides' epochs.

sh benchmarks/gpu.sh
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scaling_common import keep_record, say

from nvisa import NVISA, Network, Training, config
from nvisa import data as datasets
from nvisa.fitting.training import DivergedError
from nvisa.maths.metrics import accuracy

D, K, M = 784, 10, 15
PRECISIONS = ("float32", "bfloat16")


def synchronized(device: torch.device) -> float:
    """The time when all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(work: Callable[[], object], device: torch.device, n: int) -> float:
    """Mean of n calls, after two that warm up."""
    for _ in range(2):
        work()
    started = synchronized(device)
    for _ in range(n):
        work()
    return (synchronized(device) - started) / n


def peak(device: torch.device, kind: torch.dtype, size: int) -> float:
    """Operations a second of the device's own product of square matrices."""
    a = torch.randn(size, size, device=device, dtype=kind)
    return 2 * size**3 / seconds_of(lambda: a @ a, device, 10)


def operations(network: Network, rows: int) -> float:
    """Of the products of one step: the encoder for each row, the decoder for each of M draws, three times."""
    wide = list(network.hidden)
    encoder = D * wide[0] + sum(a * b for a, b in zip(wide, wide[1:], strict=False)) + wide[-1] ** 2
    decoder = network.latent_dim * wide[-1] + sum(a * b for a, b in zip(wide, wide[1:], strict=False)) + 2 * wide[0] * D
    return 3 * 2 * rows * (encoder + M * decoder)


def epoch_seconds(X: np.ndarray, batch: int, epochs: int, precision: str, device: str) -> float:
    """Of the slides' method at this batch size, from the second epoch on."""
    ends: list[float] = []
    model = NVISA(
        K, init="random", consistency=None, n_samples=M, likelihood="gaussian", random_state=0,
        training=Training(epochs=epochs, batch_size=batch, device=device),
    )  # fmt: skip
    model.on_epoch(lambda *_: ends.append(time.perf_counter()))
    with config(precision=precision):
        model.fit(X)
    return (ends[-1] - ends[0]) / (epochs - 1)


def to_98(data: Any, device: str) -> dict[str, Any]:
    """Seconds of the default on MNIST, and its test accuracy: labels are looked at when it is done."""
    started = time.perf_counter()
    model = NVISA(K, random_state=0, training=replace(NVISA.DEFAULT_TRAINING, device=device))
    model.fit(data.X_train)
    return {"seconds": time.perf_counter() - started, "accuracy": accuracy(data.y_test, model.predict(data.X_test))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a look whether it runs: few rows, no MNIST")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "expected a GPU, got none; --device cpu --quick tries the script\n")
    device = torch.device(asked.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    X = np.random.RandomState(0).rand(2_000 if asked.quick else 60_000, D).astype(np.float32)
    steps = []
    for precision in PRECISIONS:
        top = peak(device, getattr(torch, precision), 512 if asked.quick else 8192)
        for batch in (256,) if asked.quick else (256, 2048, 16_384):
            try:
                seconds = epoch_seconds(X, batch, 2 if asked.quick else 3, precision, asked.device)
            except (DivergedError, torch.OutOfMemoryError) as error:
                say(f"{precision} {batch}: {type(error).__name__}")
                continue
            n = -(-len(X) // batch)
            share = operations(Network(), len(X)) / seconds / top
            steps.append({"precision": precision, "batch": batch, "step_seconds": seconds / n, "share_of_peak": share})
            say(str(steps[-1]))
    found: dict[str, Any] = {"device": name, "steps": steps}
    if asked.quick:
        say(str(found))
        return
    best = min(entry["step_seconds"] * -(-len(X) // entry["batch"]) for entry in steps if entry["batch"] == 256)
    found["slides"] = {"epoch_seconds": best, "hours_of_3000_epochs": best * 3000 / 3600}
    keep_record("gpu", found)
    keep_record("gpu", found | {"mnist": to_98(datasets.load("mnist"), asked.device)})


if __name__ == "__main__":
    main()
