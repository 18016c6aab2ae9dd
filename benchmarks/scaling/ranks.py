"""What a step costs a rank: one process against two and four, 512 rows a rank, of images of 784 pixels, M = 15.

python benchmarks/scaling/ranks.py

CPU seconds of rank 0 are measured, so that other work on the machine does not count: with a free core for each rank,
R ranks make ``R * cpu(1) / cpu(R)`` times the rows of one in a second, less what they wait for each other.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scaling_common import keep_record

from nvisa import NVISA, Network, Training, config
from nvisa.fitting.distributed import fit_on_ranks, in_ranks

D, M, K, ROWS, STEPS, EPOCHS = 784, 15, 10, 512, 5, 3


def step_seconds(size: int, precision: str) -> dict[str, float]:
    """CPU and wall seconds of a step of rank 0, of all epochs but the first; called on every rank."""
    X = np.random.RandomState(0).rand(ROWS * size * STEPS, D).astype(np.float32)
    times: list[tuple[float, float]] = []
    training = Training(epochs=EPOCHS, batch_size=ROWS * size, device="cpu")
    model = NVISA(
        K, init="random", consistency=None, n_samples=M, likelihood="gaussian", random_state=0,
        network=Network(hidden=(500, 500), latent_dim=10), training=training,
    )  # fmt: skip
    model.on_epoch(lambda *_: times.append((time.process_time(), time.perf_counter())))
    with config(n_threads=1, precision=precision):
        fitted = fit_on_ranks(model, X) if in_ranks() else model.fit(X)
    if fitted is None:
        return {}
    spent = (np.array(times[-1]) - times[0]) / (STEPS * (EPOCHS - 1))
    n_numbers = sum(p.numel() for p in fitted.module_.parameters())
    return {"cpu_seconds": spent[0], "wall_seconds": spent[1], "parameters": n_numbers}


def measured(size: int, precision: str) -> dict[str, float]:
    """The same of so many ranks, in processes of their own."""
    with socket.socket() as found, tempfile.TemporaryDirectory() as home:
        found.bind(("127.0.0.1", 0))
        launch = ["-m", "torch.distributed.run", f"--nproc-per-node={size}", f"--master-port={found.getsockname()[1]}"]
        found.close()
        own = [__file__, "--size", str(size), "--precision", precision, "--out", f"{home}/found"]
        subprocess.run([sys.executable, *(launch if size > 1 else []), *own], check=True, env=os.environ)
        return json.loads(Path(f"{home}/found").read_text())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, help="be one of so many ranks")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.size:
        if found := step_seconds(asked.size, asked.precision):
            asked.out.write_text(json.dumps(found))
        return
    runs = []
    about = {"columns": D, "samples": M, "clusters": K, "rows_a_rank": ROWS, "precision": asked.precision}
    for size in asked.sizes:
        runs.append({"ranks": size, **measured(size, asked.precision)})
        keep_record("ranks", about | {"runs": runs})


if __name__ == "__main__":
    main()
