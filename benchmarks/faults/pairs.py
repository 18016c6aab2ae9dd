"""Two processes at once: fits with one checkpoint, saves to one name, loads beside saves. No raw error, a good end?

python benchmarks/faults/pairs.py --pairs 200
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults_common import cpu, keep_record, listing, rows, say

from nvisa import NVISA, ModelError, Network, Training, load
from nvisa.fitting import checkpoint

checkpoint.EVERY = 0.0
torch.set_num_threads(1)
X = rows()


def make(seed: int = 0) -> NVISA:
    """A fit of a tenth of a second."""
    small = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=3), "init": "random"}
    return NVISA(3, consistency=None, n_samples=2, random_state=seed, **small)


ONE, OTHER = make(0).fit(X), make(1).fit(X)
ANSWERS = [model.predict_proba(X) for model in (ONE, OTHER)]
KIND = {0: "done", 3: "refused in its own words"}


def side_by_side(*calls: Callable[[], None]) -> list[str]:
    """How each ended, in a process of its own: done, refused in nvisa's own words, or something else."""
    processes = []
    for call in calls:
        if (process := os.fork()) == 0:
            try:
                call()
                os._exit(0)
            except ModelError as error:
                os._exit(3 if "in use by process" in str(error) else 4)
            except BaseException as error:
                say(f"{type(error).__name__}: {error}")
                os._exit(5)
        processes.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    return [KIND.get(code, "another error") for code in codes]


def is_one_of_both(path: Path) -> bool:
    """Whether the model here is whole, and one of those that were saved."""
    found = load(path).predict_proba(X)
    return any(np.array_equal(found, answer) for answer in ANSWERS)


def two_fits(home: Path) -> tuple[list[str], bool]:
    """With one checkpoint: one runs, the other runs after it or is refused; then the same again."""
    call = lambda: make().fit(X, checkpoint=home / "run")  # noqa: E731
    ends = side_by_side(call, call)
    again = make().fit(X, checkpoint=home / "run")
    return ends, "done" in ends and np.array_equal(again.predict_proba(X), ANSWERS[0])


def two_saves(home: Path) -> tuple[list[str], bool]:
    """To one name, four times each."""
    repeat = lambda model: lambda: [model.save(home / "m") for _ in range(4)]  # noqa: E731
    ends = side_by_side(repeat(ONE), repeat(OTHER))
    return ends, is_one_of_both(home / "m") and listing(home) == ["m", "m/manifest.json", "m/model.safetensors"]


def load_beside_saves(home: Path) -> tuple[list[str], bool]:
    """A reader while two write."""
    ONE.save(home / "m")

    def read() -> None:
        for _ in range(8):
            assert is_one_of_both(home / "m")

    repeat = lambda model: lambda: [model.save(home / "m") for _ in range(4)]  # noqa: E731
    ends = side_by_side(repeat(ONE), repeat(OTHER), read)
    return ends, is_one_of_both(home / "m") and listing(home) == ["m", "m/manifest.json", "m/model.safetensors"]


PAIRS = {
    "two fits, one checkpoint": two_fits,
    "two saves, one name": two_saves,
    "a load beside two saves": load_beside_saves,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=201)
    asked = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="nvisa_pairs_") as home:
        for name, run in PAIRS.items():
            ends, bad = Counter[str](), 0
            n = -(-asked.pairs // len(PAIRS))
            for i in range(n):
                (folder := Path(home) / f"{name[:8]}{i}").mkdir()
                found, is_good = run(folder)
                ends.update(found)
                bad += not is_good
            say(f"{name}: {n} pairs, {dict(ends)}, {bad} bad ends")
            results.append({"pair": name, "pairs": n, "ends": dict(ends), "bad ends": bad})
    total = sum(result["pairs"] for result in results)
    keep_record("pairs", {"pairs": total, "kinds": results}, cpu())
    sys.exit(any(result["bad ends"] or "another error" in result["ends"] for result in results))


if __name__ == "__main__":
    main()
