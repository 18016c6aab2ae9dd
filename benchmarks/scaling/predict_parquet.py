"""10,000,000 rows predicted from a folder of Parquet: how much memory, how long, and what a second call costs.

python benchmarks/scaling/predict_parquet.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet
from scaling_common import keep_record, say

from nvisa import NVISA, Network, Training

N_FILES, N_ROWS, D, K = 20, 500_000, 8, 5
# The child tells its own peak: ru_maxrss of this process is not its.
CHILD = """
import json, resource, sys, time
from nvisa.commands import cli
started, cpu = time.perf_counter(), time.process_time()
code = cli.main(["predict", *sys.argv[1:], "--quiet"])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"code": code, "seconds": time.perf_counter() - started,
                  "cpu_seconds": time.process_time() - cpu, "peak_memory_mb": peak}))
"""


def rows(rng: np.random.RandomState, n: int) -> np.ndarray:
    """Blobs [n D]."""
    return (rng.randn(n, D) + 6 * np.eye(K, D)[rng.randint(K, size=n)]).astype(np.float32)


def predicted(*words: str) -> dict[str, float]:
    """What ``nvisa predict`` cost in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Command line."""
    rng, names = np.random.RandomState(0), [f"c{d}" for d in range(D)]
    with tempfile.TemporaryDirectory() as home:
        small = {"network": Network(hidden=(64, 64), latent_dim=4), "training": Training(epochs=5), "init": "random"}
        NVISA(K, consistency=None, random_state=0, **small).fit(rows(rng, 5000)).save(f"{home}/model")
        Path(f"{home}/x").mkdir()
        for i in range(N_FILES):
            columns = dict(zip(names, rows(rng, N_ROWS).T, strict=True))
            parquet.write_table(pyarrow.table(columns), f"{home}/x/{i:02}.parquet")
        say("written")
        first = predicted(f"{home}/model", f"{home}/x", "--out", f"{home}/y")
        n = sum(parquet.read_metadata(path).num_rows for path in Path(f"{home}/y").glob("*.parquet"))
        again = predicted(f"{home}/model", f"{home}/x", "--out", f"{home}/y")
    assert n == N_FILES * N_ROWS
    keep_record("predict_parquet", {"rows": n, "columns": D, "files": N_FILES, "first": first, "again": again})


if __name__ == "__main__":
    main()
