"""Draw docs/performance-*.svg from the records: how time and memory of a training step grow."""

import json
from pathlib import Path
from statistics import median

import matplotlib as mpl

from nvisa.durable_files import replacing_file

mpl.use("svg")
from matplotlib import pyplot as plt

RECORDS = Path("benchmarks/records/performance")
SIZES = {"features": "D", "clusters": "K", "samples": "M"}
mpl.rcParams.update({"svg.hashsalt": "nvisa", "svg.fonttype": "none", "font.size": 9})


def main() -> None:
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.5), sharex="col")
    for column, (section, name) in zip(axes.T, SIZES.items(), strict=True):
        rows = json.loads((RECORDS / f"{section}.json").read_text())["rows"]
        x = [row[name] for row in rows]
        column[0].loglog(x, [median(row["ms a step"]) for row in rows], "o-")
        column[1].loglog(x, [max(row["peak memory, MB"], 0.1) for row in rows], "o-")
        column[1].set_xlabel(name)
    axes[0, 0].set_ylabel("ms a step")
    axes[1, 0].set_ylabel("peak memory, MB")
    figure.tight_layout()
    with replacing_file(Path("docs/performance-growth.svg")) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
