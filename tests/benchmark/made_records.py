"""Records as runs leave them, made up."""

from importlib.metadata import version


def record(**changes):
    metrics = {"accuracy": 0.5, "purity": 0.5, "nmi": 0.25, "ari": 0.1}
    base = {"method": "nvisa", "recipe": "default", "dataset": "mnist", "n_train": 60000, "n_test": 10000, "seed": 0}
    base |= {"status": "ok", "params": {}, "versions": {"nvisa": version("nvisa")}}
    return base | {"seconds": 10.0, "cpu_seconds": 8.0, "metrics": {"test": metrics, "train": metrics}} | changes


def reaching(accuracy, **changes):
    metrics = {"accuracy": accuracy, "purity": 0.9, "nmi": 0.5, "ari": 0.4}
    return record(metrics={"test": metrics, "train": metrics | {"accuracy": accuracy + 0.01}}, **changes)


KEYS = {  # docs: design, section 5
    "method", "recipe", "dataset", "dataset_digest", "n_train", "n_test", "seed", "params", "metrics", "status",
    "seconds", "peak_memory_mb", "history", "versions", "commit", "machine",
}  # fmt: skip
