"""Experiments: which runs they are, in which order, and by which names the command line knows them."""

import json

import pytest

from nvisa import data as datasets
from nvisa.benchmark.experiments import EXPERIMENTS, Job
from nvisa.commands.cli import main


def test_an_experiments_jobs():
    table1 = EXPERIMENTS["table1"]
    jobs = table1.jobs()
    assert Job("vade/bernoulli", "mnist", 2) in jobs
    assert Job("vade/bernoulli", "mnist", 3) not in jobs  # three seeds for the rows that are compared with,
    assert Job("paper/gmm", "fashion_mnist", 4) in jobs  # five for NVISA on images,
    assert Job("default", "fashion_mnist", 4) in EXPERIMENTS["beyond"].jobs()  # and with consistency
    assert Job("paper/gmm_features", "cifar10_effnet_lite2", 3) not in EXPERIMENTS["features"].jobs()
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert len(set(jobs)) == len(jobs)
    assert Job("vade/features", "cifar10_effnet_lite2", 0) in EXPERIMENTS["features"].jobs(["vade"])
    assert {job.recipe for job in table1.jobs(["nvisa"], ["mnist"], [7])} == {
        "paper/random", "paper/gmm", "paper/umap"}  # fmt: skip
    beyond = {job.recipe for job in EXPERIMENTS["beyond"].jobs()}
    assert beyond >= {"kmeans/default", "imsat/default", "default", "bound_gradient", "augment", "vat_augment"}
    with pytest.raises(ValueError, match="no such"):
        table1.jobs(["no such"])


def test_the_command_line_knows_every_experiment(capsys, tmp_path):
    at_hand = {entry.name for entry in datasets.available() if entry.present or entry.fetchable}
    for name, experiment in EXPERIMENTS.items():
        assert main(["bench", name, "--plan", "--records", str(tmp_path), "--json"]) == 0
        planned = json.loads(capsys.readouterr().out)["runs"]
        found = [Job(entry["recipe"], entry["dataset"], entry["seed"]) for entry in planned]
        assert found == [job for job in experiment.jobs() if job.dataset in at_hand]
        assert main(["bench", name, "--plan", "--records", str(tmp_path)]) == 0
        assert f"\n{len(planned)} runs are missing" in f"\n{capsys.readouterr().out}"
