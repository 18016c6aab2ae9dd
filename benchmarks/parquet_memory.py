"""Peak memory of reading a folder of Parquet files and fitting NVISA to it.

    python benchmarks/parquet_memory.py FOLDER [--gigabytes 3]     writes benchmarks/records/parquet_memory

The folder is filled first, by another process: 1,000 columns of float32 in files of 0.25 GB, ten groups. Memory is the
largest resident size of this process (Linux), pages of mapped files included. One epoch of 64-64 units: what
the rows take does not depend on them, and the default of 500-500 would take hours.
"""

import argparse
import json
import multiprocessing
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from nvisa import NVISA, Network, Training
from nvisa.data import read_table

FOLDER = Path("benchmarks/records/parquet_memory")
N_COLUMNS, N_ROWS = 1_000, 62_500  # of a file


def fill(folder: Path, n_files: int) -> None:
    """Files part-000.parquet, ..., unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    centers = np.random.default_rng(0).normal(size=(10, N_COLUMNS)).astype(np.float32)
    names = [f"x{d}" for d in range(N_COLUMNS)]
    for i in range(n_files):
        if not (path := folder / f"part-{i:03}.parquet").exists():
            rng = np.random.default_rng(i + 1)
            x = rng.standard_normal((N_COLUMNS, N_ROWS), np.float32)
            x += centers.T[:, rng.integers(10, size=N_ROWS)]
            parquet.write_table(pyarrow.table(list(x), names), path, compression="none", use_dictionary=False)


def peak() -> int:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Fill, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    asked = parser.parse_args()
    n_files = round(4 * asked.gigabytes)
    maker = multiprocessing.get_context("spawn").Process(target=fill, args=(asked.folder, n_files))
    maker.start()
    maker.join()
    size = sum(path.stat().st_size for path in asked.folder.glob("*.parquet"))
    before, started = peak(), time.process_time()
    X = read_table(str(asked.folder)).X
    read = peak()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        NVISA(10, network=Network(hidden=(64, 64)), training=Training(epochs=1), random_state=0).fit(X)
    record = {
        "command": f"python benchmarks/parquet_memory.py FOLDER --gigabytes {asked.gigabytes:g}",
        "gigabytes": round(size / 1e9, 2),
        "shape": list(X.shape),
        "mb_before": before,
        "mb_peak_read": read,
        "mb_peak": peak(),
        "cpu_seconds": round(time.process_time() - started),
        "machine": "AMD Zen 4, 2 vCPU, beside other work",
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{asked.gigabytes:g}gb.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
