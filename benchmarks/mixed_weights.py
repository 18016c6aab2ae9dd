"""Why k-prototypes leads where it does: k-means on the same tables, a category weighing less and less beside a number.

    python benchmarks/mixed_weights.py     writes benchmarks/records/mixed_weights/weights.json

A category is a block of zeros and ones over its own spread, so that at weight 1 it has the variance of a standardized
number, as the start of NVISA has it (``nets/tables.py``); k-prototypes' default, half of a deviation for a mismatch
(Huang 1998), is about a weight of one eighth. Labels are compared with and choose nothing.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from mixed_tables import NAMES, load, split
from sklearn.cluster import KMeans

from nvisa.maths.metrics import ari

FILE = Path("benchmarks/records/mixed_weights/weights.json")
WEIGHTS = (1.0, 0.5, 0.25, 0.125)  # of the squared distance


def weighted(frame: pd.DataFrame, weight: float) -> np.ndarray:
    """Numbers, and zeros and ones of categories whose squared distances count ``weight`` times."""
    numbers, codes = split(frame)
    columns = [numbers]
    for column in codes.T:
        block = np.eye(column.max() + 1)[column]
        share = block.mean(0)
        columns.append(np.sqrt(weight) * (block - share) / np.sqrt(1 - (share**2).sum()))
    return np.concatenate(columns, 1)


def main() -> None:
    """Five seeds of k-means at every weight, and what the clusters of penguins are."""
    found: dict[str, dict[str, float]] = {}
    for name in NAMES:
        frame, y = load(name)
        k = int(y.max()) + 1
        found[name] = {}
        for weight in WEIGHTS:
            x = weighted(frame, weight)
            labels = [KMeans(k, n_init=10, random_state=seed).fit_predict(x) for seed in range(5)]
            found[name][str(weight)] = float(np.mean([ari(y, of) for of in labels]))
    frame, y = load("penguins")
    labels = KMeans(3, n_init=10, random_state=0).fit_predict(weighted(frame, 1.0))
    of_sex = ari(frame["sex"].cat.codes.to_numpy(), labels)
    record = {"command": "python benchmarks/mixed_weights.py", "ari": found, "penguins_ari_with_sex": of_sex}
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(record, indent=1) + "\n")


def page(root: Path = Path()) -> str:
    """A line for each weight."""
    found = json.loads((root / FILE).read_text())["ari"]
    lines = [f"| weight of a category | {' | '.join(NAMES)} | mean |", "|---" * (len(NAMES) + 2) + "|"]
    for weight in map(str, WEIGHTS):
        each = [found[name][weight] for name in NAMES]
        lines.append(f"| {weight} | {' | '.join(f'{value:.3f}' for value in [*each, np.mean(each)])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
