"""A stream of MNIST by class: what `drift` says of it, what `partial_fit` keeps, and whether a new digit is found.

    python benchmarks/stream.py [--seed 0] [--models FOLDER]     writes benchmarks/records/stream

NVISA(5) is fitted to 5,000 rows of the digits 0 to 4. Then chunks of 500 rows come: two of the same digits, then one of
each digit from 5 to 9 alone. Of each chunk, before it is learned: drift; then `grow` and `partial_fit`. 2,000 rows of
the fit and 400 of each chunk are kept for `grow`. At the end, on 2,000 other rows of 0 to 4: how many kept their
cluster. Labels judge, and choose nothing.
"""

import argparse
import json
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nvisa import NVISA, grow, load
from nvisa.benchmark.run import processor
from nvisa.maths.metrics import accuracy, ari

sys.path.append(str(Path(__file__).parent / "rivals"))
tables = import_module("datasets")

KEPT = 400  # rows of a digit that are kept
FOLDER = Path("benchmarks/records/stream")


def fitted(X: np.ndarray, seed: int, models: Path | None) -> NVISA:
    """The fit; taken from a folder of models if it is there, and kept there if one is given."""
    path = None if models is None else models / f"mnist-0-4-{seed}"
    if path is not None and path.exists():
        return load(path)
    model = NVISA(5, random_state=seed).fit(X)
    if path is not None:
        model.save(path)
    return model


def run(seed: int, models: Path | None) -> dict[str, Any]:
    """The record of one stream."""
    X, y = tables.load("mnist", 30_000)
    order = np.random.RandomState(seed).permutation(len(X))
    X, y = X[order], y[order]
    old = np.flatnonzero(y < 5)
    first, same, judged = old[:5_000], old[5_000:6_000], old[6_000:8_000]
    chunks = [("0-4", same[:500]), ("0-4", same[500:])]
    chunks += [(str(digit), np.flatnonzero(y == digit)[:500]) for digit in range(5, 10)]
    model = fitted(X[first], seed, models)
    before, started, seen = model.predict(X[judged]), time.process_time(), []
    kept = first[: 5 * KEPT]
    found = {"accuracy_before": accuracy(y[judged], before)}
    for name, rows in chunks:
        drift, n = model.drift(X[rows]), model.n_clusters_
        model = grow(model, X[rows], X[kept])
        model.partial_fit(X[rows])
        largest = float(np.bincount(model.labels_).max() / len(rows))
        is_new = bool(np.bincount(model.labels_).argmax() >= n)
        seen.append({"digits": name, "drift": drift, "new_clusters": model.n_clusters_ - n, "largest": largest,
                     "largest_is_new": is_new})  # fmt: skip
        kept = np.concatenate([kept, rows[:KEPT]])
        print(json.dumps(seen[-1]), flush=True)
    after, everything = model.predict(X[judged]), np.concatenate([judged, *(rows for _, rows in chunks[2:])])
    labels = model.predict(X[everything])
    return {
        "seed": seed, "processor": processor(), "rows": len(first), "chunks": seen, **found,
        "kept": float((after == before).mean()), "accuracy_after": accuracy(y[judged], after),
        "n_clusters": model.n_clusters_, "ari_of_all": ari(y[everything], labels),
        "accuracy_of_all": accuracy(y[everything], labels), "cpu_seconds_of_stream": time.process_time() - started,
    }  # fmt: skip


def page(root: Path = Path()) -> str:
    """A line for each chunk of the record, and what has become of the rows of 0 to 4."""
    record = json.loads((root / FOLDER / "mnist-seed0.json").read_text())
    lines = ["| 500 rows of | unsure (0.05 expected) | clusters added | in its largest cluster |", "|---|---|---|---|"]
    for chunk in record["chunks"]:
        unsure, largest = chunk["drift"]["confidence"]["share"], f"{chunk['largest']:.1%}"
        largest += ", the new one" if chunk["largest_is_new"] else ""
        lines.append(f"| {chunk['digits']} | {unsure:.2f} | {chunk['new_clusters']} | {largest} |")
    return "\n".join(lines) + (
        f"\n\nMNIST, a fit of {record['rows']:,} rows of the digits 0 to 4, then these chunks in turn. Of 2,000 other "
        f"rows of 0 to 4, {record['kept']:.1%} are in the cluster they were in before; accuracy on them is "
        f"{100 * record['accuracy_after']:.1f} %, was {100 * record['accuracy_before']:.1f} %. On those and all rows "
        f"of new digits, {record['n_clusters']} clusters: accuracy {100 * record['accuracy_of_all']:.1f} %."
    )


def main() -> None:
    """Write a record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, help="folder to keep the fit in, and to take it from")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    record = run(args.seed, args.models)
    print(json.dumps({key: value for key, value in record.items() if key != "chunks"}))
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"mnist-seed{args.seed}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
