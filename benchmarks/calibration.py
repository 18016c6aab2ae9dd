"""Probabilities and refusals of a default fit, judged by classes that neither of them sees.

    python benchmarks/calibration.py digits mnist --seeds 0 1     writes benchmarks/records/calibration

Two thirds of at most 15,000 rows, or as many as ``--rows`` says, are fitted. On one half of the others the temperature
is chosen, without labels; on the other half are measured: the expected calibration error before and after, each cluster
read as the class that matches it, and what accuracy becomes when the rows that are least sure are refused, beside an
oracle that refuses as many wrong ones.
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

from nvisa import NVISA, load
from nvisa.benchmark.run import processor
from nvisa.maths.metrics import accuracy, calibration_error, match_clusters
from nvisa.persistence import read_manifest

sys.path.append(str(Path(__file__).parent / "rivals"))
tables = import_module("datasets")

FOLDER = Path("benchmarks/records/calibration")
N_ROWS, SHARE = 15_000, 0.05


def key_of(name: str, n_rows: int) -> str:
    """What a record and a model are called by."""
    return name if n_rows == N_ROWS else f"{name}_{n_rows}"


def fitted_model(key: str, seed: int, K: int, X: np.ndarray, models: Path | None) -> tuple[NVISA, float]:
    """The fit and its CPU seconds; taken from a folder of models if it is there, and kept there if one is given."""
    path = None if models is None else models / f"{key}-{seed}"
    if path is not None and path.exists():
        return load(path), read_manifest(path)["extra"]["cpu_seconds"]
    started = time.process_time()
    model = NVISA(K, random_state=seed).fit(X)
    seconds = time.process_time() - started
    if path is not None:
        model.save(path, extra={"cpu_seconds": seconds})
    return model, seconds


def run(name: str, seed: int, n_rows: int, models: Path | None) -> dict[str, Any]:
    """The record of one fit."""
    X, y = tables.load(name, n_rows)
    fitted, chosen, judged = np.array_split(
        np.random.RandomState(seed).permutation(len(X)), [2 * len(X) // 3, 5 * len(X) // 6]
    )
    model, seconds = fitted_model(key_of(name, n_rows), seed, int(y.max()) + 1, X[fitted], models)
    before = model.predict_proba(X[judged])
    after = model.calibrate(X[chosen]).predict_proba(X[judged])
    class_of = match_clusters(y[judged], before.argmax(1))
    is_right = np.array([class_of.get(k) == c for k, c in zip(before.argmax(1), y[judged], strict=True)])
    kept = np.argsort(before.max(1), kind="stable")[int(SHARE * len(judged)) :]
    is_answered = model.predict(X[judged], reject=SHARE) >= 0
    return {
        "data": name, "seed": seed, "processor": processor(),
        "rows": len(fitted), "judged_rows": len(judged), "cpu_seconds": seconds,
        "accuracy": accuracy(y[judged], before.argmax(1)),
        "temperature": model.temperature_, "calibration": model.calibration_,
        "error_before": calibration_error(y[judged], before), "error_after": calibration_error(y[judged], after),
        "share": SHARE, "accuracy_of_surest": float(is_right[kept].mean()),
        "accuracy_of_oracle": float(min(1.0, is_right.mean() / (1 - SHARE))),
        "refused": float(1 - is_answered.mean()), "accuracy_of_answered": float(is_right[is_answered].mean()),
    }  # fmt: skip


def page(root: Path = Path()) -> str:
    """A line for each data set and number of rows: means of its fits."""
    lines = [
        "| data | rows fitted | fits | accuracy | surest 95 % | oracle's 95 % | share of its gain "
        "| error | calibrated |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted((root / FOLDER).glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault((record["data"], record["rows"]), []).append(record)
    for (data, rows), of in sorted(found.items()):
        accuracy, surest, oracle, before, after = (
            float(np.mean([record[name] for record in of]))
            for name in ("accuracy", "accuracy_of_surest", "accuracy_of_oracle", "error_before", "error_after")
        )
        gain = (surest - accuracy) / (oracle - accuracy)
        lines.append(
            f"| {data} | {rows:,} | {len(of)} | {accuracy:.1%} | {surest:.1%} | {oracle:.1%} | {gain:.2f} "
            f"| {before:.3f} | {after:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Write a record for each data set and seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=["digits", "mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, default=N_ROWS, help="how many, two thirds of which are fitted")
    parser.add_argument("--models", type=Path, help="folder to keep the fits in, and to take them from")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        for seed in args.seeds:
            record = run(name, seed, args.rows, args.models)
            print(json.dumps(record), flush=True)
            (FOLDER / f"{key_of(name, args.rows)}-seed{seed}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
