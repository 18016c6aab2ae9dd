"""The table of docs/single-cells.md from benchmarks/records/single_cells."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path("benchmarks/records/single_cells")
NAMES = ("baron", "zeisel", "cite_seq")
TITLES = {
    "nvisa": "NVISA, negative binomial",
    "nvisa_zero_inflated": "NVISA, zero-inflated",
    "nvisa_logs": "NVISA, components of logarithms",
    "scvi_kmeans": "scVI, k-means",
    "scvi_leiden": "scVI, Leiden",
    "scvi_leiden_k": "scVI, Leiden at K",
    "kmeans": "k-means, components of logarithms",
    "leiden": "Leiden, components of logarithms",
    "leiden_k": "Leiden at K, components of logarithms",
}


def table(root: Path = Path()) -> str:
    """Mean adjusted Rand index of each data set over its seeds, whose number stands beside it, and CPU seconds."""
    records = [json.loads(path.read_text()) for path in sorted((root / FOLDER).glob("*.json"))]
    lines = [f"| method | {' | '.join(NAMES)} | CPU seconds |", "|---" * (len(NAMES) + 2) + "|"]
    for method, title in TITLES.items():
        own = [record for record in records if record["method"] == method]
        cells = [_mean([r["ari"] for r in own if r["data_set"] == name]) for name in NAMES]
        if own:
            seconds = np.mean([record["cpu_seconds"] for record in own])
            lines.append(f"| {title} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({len(values)})" if values else "not run"
