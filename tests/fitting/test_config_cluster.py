"""Restarts and benchmark runs go where joblib is told to send them: a Dask cluster of processes, and Ray."""

import json
import os

import joblib
import numpy as np
import pytest

import nvisa
from nvisa import NVISA, Network, Training
from nvisa.benchmark import run as one_run
from nvisa.benchmark.experiments import Job
from nvisa.benchmark.parallel import run_all
from nvisa.benchmark.records import record_path, write_record
from nvisa.fitting.config import in_processes, n_jobs_for, on_cluster

RNG = np.random.RandomState(0)
X = np.concatenate([RNG.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)
TIMES = ("seconds", "cpu_seconds", "peak_memory_mb", "machine")


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(request):
    """joblib's name of a cluster of two processes on this machine."""
    if request.param == "dask":
        distributed = pytest.importorskip(
            "dask.distributed", reason="dask is not installed: pip install nvisa[cluster]"
        )
        own = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
        with own, distributed.Client(own):
            yield "dask"
    else:
        ray = pytest.importorskip("ray", reason="ray is not installed: pip install ray")
        from ray.util.joblib import register_ray

        ray.init(num_cpus=2, include_dashboard=False)
        register_ray()
        yield "ray"
        ray.shutdown()


def clusterer():
    small = {"network": Network(hidden=(16,), latent_dim=2), "training": Training(epochs=3), "init": "random"}
    return NVISA(3, consistency=None, n_restarts=3, random_state=0, **small)


def process(_):
    """Who is asked, and whether it would ask others in turn."""
    return os.getpid(), n_jobs_for(5)


@pytest.mark.slow
def test_restarts_run_on_a_cluster_and_give_the_same_bits(cluster):
    with nvisa.config(n_threads=1):
        alone = clusterer().fit(X)
    assert not on_cluster()
    with joblib.parallel_config(backend=cluster, n_jobs=-1):
        assert on_cluster()
        assert n_jobs_for(5) == 2, "all that the cluster has"
        spread = clusterer().fit(X)
        found = list(in_processes(process, [(i,) for i in range(4)], 2))
    assert np.array_equal(alone.predict_proba(X), spread.predict_proba(X))
    assert alone.restarts_ == spread.restarts_
    assert os.getpid() not in {pid for pid, _ in found}, "it ran here"
    assert {n for _, n in found} == {1}


@pytest.mark.slow
def test_benchmark_runs_on_a_cluster_leave_the_same_records_as_alone(cluster, tmp_path):
    jobs = [Job("kmeans/one_start", "digits", seed) for seed in range(2)] + [Job("kmeans/one_start", "nothing", 0)]
    said = []
    with joblib.parallel_config(backend=cluster, n_jobs=-1):
        ends = run_all(jobs, records=tmp_path, say=said.append)
    assert list(ends.values()) == ["ok", "ok", "no data"]
    assert len(said) == 3
    assert "nothing" in said[2]
    for job in jobs[:2]:
        write_record(tmp_path / "alone.json", one_run.run(*job))
        paths = record_path(tmp_path, job.dataset, job.recipe, job.seed), tmp_path / "alone.json"
        found, alone = (json.loads(path.read_text()) for path in paths)
        assert {key: found[key] for key in found if key not in TIMES} == {
            key: alone[key] for key in alone if key not in TIMES
        }


def test_threads_are_no_cluster():
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert not on_cluster()
