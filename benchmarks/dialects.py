"""Random tables in random dialects, read back: equal, refused with a reason, or wrong. The record is dialects.json.

    python benchmarks/dialects.py --n 10000 --out benchmarks/dialects.json

A file that is refused is read once more with its dialect said in full, and so is one in twenty of the others.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import random_tables
from nvisa.data import DataError, read_table


def verdict(case, path, dialect=None):
    """("equal", ""), ("refused", why), ("said", which guess) or ("wrong", what)."""
    try:
        table = read_table(path, drop_text=True, dialect=dialect)
    except DataError as error:
        return "refused", error.problem.partition(": ")[2]
    wrong = difference(case, table)
    if not wrong:
        return "equal", ""
    notes = [str(note) for note in table.notes]
    told = any("first line" in note if wrong == "rows" else "one of decimals" in note for note in notes)
    return ("said" if told else "wrong"), f"{wrong} {notes}"


def difference(case, table):
    """In what the table is not the one that was written; nothing if it is."""
    if len(table.X) != len(case.X):
        return "rows"
    if table.X.shape != case.X.shape:
        return f"columns {table.X.shape[1]} for {case.X.shape[1]}"
    if not np.allclose(table.X, case.X, rtol=1e-14, atol=0, equal_nan=True):
        return "values"
    if table.columns != case.columns and not (case.columns is None or table.columns is None):
        return f"names {table.columns} for {case.columns}"
    return "row names" if case.names is not None and table.row_names not in (case.names, None) else ""


def one(seed, folder, *, full=True):
    """The verdicts on the file of a seed: nothing said, everything said."""
    case = random_tables.write(np.random.default_rng(seed))
    path = Path(folder) / f"t{case.suffix}"
    path.write_bytes(case.content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = verdict(case, path)
            again = verdict(case, path, case.dialect) if full or found[0] != "equal" else ("equal", "")
    finally:
        path.unlink()
    return case, found, again


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("--kinds", nargs="*", default=["wrong"])
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    started, counts, reasons, said_counts, shown = time.process_time(), Counter(), Counter(), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first, args.first + args.n):
            case, (kind, why), (kind_said, why_said) = one(seed, folder, full=seed % 20 == 0)
            counts[kind] += 1
            if kind == "refused":
                reasons[why.partition(", got")[0][:80]] += 1
            if kind != "equal" or seed % 20 == 0:
                said_counts[kind_said] += 1
            if (kind in args.kinds or kind_said != "equal") and shown < args.show:
                shown += 1
                print(seed, kind, why, "| all said:", kind_said, why_said, case.tags, case.text[:300], sep="\n  ")
    record = {
        "command": "python benchmarks/dialects.py --n 10000", "first_seed": args.first, "n_tables": args.n,
        "nothing_said": dict(counts), "refused_for": dict(reasons.most_common()),
        "all_said": dict(said_counts), "cpu_seconds": round(time.process_time() - started),
    }  # fmt: skip
    print(json.dumps(record, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
