"""Kill fits at random moments, of every method with a training loop, until they arrive: equal bits?

python benchmarks/faults/kills.py --kills 200
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults_common import HERE, cpu, keep_record, say

sys.path.insert(0, str(HERE.parents[1] / "tests"))

from nvisa.fitting import checkpoint
from nvisa.methods import METHODS
from small_methods import make, separated_blobs

checkpoint.EVERY = 0.0
torch.set_num_threads(1)


def tensors(model: Any) -> list[np.ndarray]:
    """Everything that a fit has found in numbers."""
    return [value.numpy() for value in model.module_.state_dict().values()] + [model.labels_]


def killed_after(seconds: float, name: str, X: np.ndarray, folder: Path) -> bool:
    """Whether a fit in a child was killed before it was done."""
    process = os.fork()
    if process == 0:
        make(name).fit(X, checkpoint=folder)
        os._exit(0)
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def rounds(name: str, X: np.ndarray, n_kills: int, rng: np.random.RandomState, home: Path) -> dict[str, Any]:
    """Kill fits of a method so many times; each is taken up until it arrives, and compared with one never killed."""
    started = time.monotonic()
    whole = tensors(make(name).fit(X))
    took, kills, fits, wrong = time.monotonic() - started, 0, 0, Counter[str]()
    while kills < n_kills:
        folder = home / f"{name}{fits}"
        for _ in range(4):
            kills += killed_after(float(rng.uniform(0, 1.2 * took)), name, X, folder)
        try:
            found = tensors(make(name).fit(X, checkpoint=folder))
            wrong["unequal"] += not all(map(np.array_equal, whole, found))
        except Exception as error:
            say(f"{name}: {type(error).__name__}: {error}")
            wrong["refused"] += 1
        fits += 1
    say(f"{name}: {kills} kills in {fits} fits, {dict(+wrong) or 'equal bits'}")
    return {"method": name, "kills": kills, "fits": fits, "wrong": dict(+wrong)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    X, rng = separated_blobs()[0], np.random.RandomState(asked.seed)
    each = -(-asked.kills // len(METHODS))
    with tempfile.TemporaryDirectory(prefix="nvisa_kills_") as home:
        results = [rounds(name, X, each, rng, Path(home)) for name in METHODS]
    total = sum(result["kills"] for result in results)
    wrong = sum((Counter(result["wrong"]) for result in results), Counter())
    keep_record("kills", {"kills": total, "wrong": dict(wrong), "seed": asked.seed, "methods": results}, cpu())
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
