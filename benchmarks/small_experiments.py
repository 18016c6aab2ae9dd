"""What experiments of ``<name>-seed<k>.json`` share: the command line, and how a clustering is timed and judged."""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from nvisa.maths.metrics import accuracy, ari

__all__ = ["agreement", "run_missing", "timed"]

Found = TypeVar("Found")


def timed(cluster: Callable[[], Found]) -> tuple[Found, float]:
    """What a clustering finds, its warnings unheard, and the CPU seconds that it takes."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cluster()
    return found, round(time.process_time() - started, 2)


def agreement(y: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Clusters beside classes."""
    return {"ari": ari(y, labels), "accuracy": accuracy(y, labels)}


def run_missing(run: Callable[[str, int], object], names: Sequence[str], folder: Path, about: str | None) -> None:
    """Call ``run(name, seed)`` for the names and seeds asked for that have no record in the folder."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=names)
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    asked = parser.parse_args()
    for seed in asked.seeds:
        for name in asked.names:
            if not (folder / f"{name}-seed{seed}.json").exists():
                run(name, seed)
