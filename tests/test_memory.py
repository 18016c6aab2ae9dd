"""Peak memory of reading Parquet and fitting: it does not grow with the rows."""

import subprocess
import sys

import pytest

# One process, whose peak only rises: first 50 MB, then 200 MB. What is of bounded size in a fit (rows that the graph
# looks at) is made small, so that what grows with the rows stands out.
SCRIPT = """
import sys
import numpy as np, pyarrow
from pathlib import Path
from pyarrow import parquet
from nvisa import NVISA, Network, Training
from nvisa.data import read_table
from nvisa.data.files import parquet_folder
from nvisa.fitting import diagnosis, initialization

def peak():
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024

parquet_folder.SMALL = 0
initialization.MAX_ROWS = diagnosis.MAX_ROWS = 1_000
training = Training(epochs=1, batch_size=1024)
for folder, n in (("small", 25_000), ("large", 100_000)):
    here = Path(sys.argv[1]) / folder
    here.mkdir()
    for part in range(n // 25_000):
        x = np.random.default_rng(part).standard_normal((500, 25_000), np.float32)
        x[:, ::2] += 3
        parquet.write_table(pyarrow.table(list(x), [f"x{d}" for d in range(500)]), here / f"{part}.parquet",
                            compression="none", use_dictionary=False)
    X = read_table(here).X
    assert X.shape == (n, 500)
    model = NVISA(2, network=Network(hidden=(8, 8)), training=training, random_state=0).fit(X)
    assert len(model.labels_) == n
    print(peak())
    del X, x, model
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_peak_of_a_fit_grows_by_less_than_a_quarter_of_what_the_rows_grow_by(tmp_path):
    """A mapped page that is not handed back, or one copy of the rows, is 150 MB."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True
    )
    small, large = map(float, found.stdout.split())
    assert large - small < 38, f"{small:.0f}, {large:.0f} MB"
