"""docs/scaling.md: its tables are the records', and every block of it runs."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nvisa.commands import cli

ROOT = Path(__file__).parents[1]
PAGE, RECORDS = ROOT / "docs" / "scaling.md", ROOT / "benchmarks" / "records" / "scaling"
OTHERS = ("ray", "pyspark")


def blocks(engine):
    """The blocks for "ray" or "pyspark"; for "dask" those that import neither."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    others = {
        name: [block for block in found if f"import {name}\n" in block or f"from {name}." in block] for name in OTHERS
    }
    return others.get(engine) or [block for block in found if block not in sum(others.values(), [])]


def record(name):
    return json.loads((RECORDS / f"{name}.json").read_text())


def test_the_page_says_what_the_records_say():
    page = runpy.run_path(str(ROOT / "benchmarks" / "scaling" / "page.py"))
    assert page["rewrite"](PAGE.read_text()) == PAGE.read_text()


def test_ten_million_rows_were_predicted_in_less_than_two_gigabytes():
    found = record("predict_parquet")
    assert found["rows"] == 10_000_000
    assert found["first"]["code"] == found["again"]["code"] == 0
    assert found["first"]["peak_memory_mb"] < 2000
    assert found["again"]["cpu_seconds"] < found["first"]["cpu_seconds"]


@pytest.fixture(scope="module")
def names():
    """What the blocks of the page define, run once; a cluster of one thread in place of two processes."""
    pytest.importorskip("dask.distributed", reason='dask is not installed: pip install "nvisa[cluster]"')
    found: dict[str, object] = {}
    for block in blocks("dask"):
        exec(block.replace("n_workers=2", "n_workers=1, processes=False"), found)
    return found


@pytest.mark.slow
def test_the_python_blocks_run(names):
    assert np.array_equal(names["model"].predict(names["lazy"]).compute(), names["model"].labels_)
    assert [model.n_clusters_ for model in names["models"]] == [2, 3, 4]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's of its own processes
def test_the_block_for_ray_runs(names):
    ray = pytest.importorskip("ray.data", reason="ray is not installed: pip install ray[data]")
    assert ray is not None
    exec(blocks("ray")[0], names)
    found = [row["cluster"] for row in names["found"].take_all()]
    np.testing.assert_array_equal(found, names["model"].predict(names["X"]))
    names["ray"].shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # pyspark's of itself and of pandas
def test_the_block_for_spark_runs(names, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install pyspark")
    exec(blocks("pyspark")[0], names)
    found = names["rows"].mapInPandas(names["clusters"], "cluster long").toPandas().cluster
    np.testing.assert_array_equal(found, names["model"].predict(names["X"]))
    names["spark"].stop()


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch):
    torchrun, predict = sorted(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL), reverse=True)
    monkeypatch.chdir(tmp_path)
    X = np.random.RandomState(0).randn(60, 3).astype(np.float32)
    np.save("rows.npy", X)
    Path("rows").mkdir()
    pd.DataFrame(X, columns=["a", "b", "c"]).to_parquet("rows/0.parquet")
    program, *words = shlex.split(torchrun)
    assert program == "torchrun"
    quick = ["--master-port", "29573"], ["--init", "random", "--epochs", "1"]
    run = [sys.executable, "-m", "torch.distributed.run", *quick[0], *words, *quick[1]]
    done = subprocess.run(
        run, check=False, capture_output=True, text=True, timeout=400, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved in model") == 1, "one rank speaks"
    assert not Path("state").exists()
    assert cli.main([*shlex.split(predict)[1:], "--quiet"]) == 0
    assert len(pd.read_parquet("clusters/0.parquet")) == 60
