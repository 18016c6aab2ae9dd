"""What the guides say of K, of calibration and of serving is what the records hold."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def records(name):
    return [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks/records" / name).glob("*.json"))]


def guide(name):
    return " ".join((ROOT / "docs/guides" / f"{name}.md").read_text().split())


def test_the_counts_of_clusters_are_those_measured():
    found, text = records("levels"), guide("how-many-clusters")
    mixtures = [record for record in found if record["data"].startswith("mixture")]
    assert {record["classes"] for record in mixtures} == {2, 5, 10, 20, 35, 50}
    assert all(record["n_clusters"] == record["classes"] for record in mixtures)
    said = re.search(r"finds (\d+) on digits, (\d+) on MNIST, (\d+) to (\d+) on .*? and (\d+) to (\d+) on CIFAR", text)
    counts = {}
    for record in found:
        counts.setdefault(record["data"], set()).add(record["n_clusters"])
    assert counts["digits"] == {int(said[1])}
    assert counts["mnist"] == {int(said[2])}
    assert [min(counts["fashion_mnist"]), max(counts["fashion_mnist"])] == [int(said[3]), int(said[4])]
    assert [min(counts["cifar10_effnet_lite2"]), max(counts["cifar10_effnet_lite2"])] == [int(said[5]), int(said[6])]


def test_calibration_errors_and_gains_are_those_measured():
    text, found = guide("is-it-any-good"), records("calibration")
    numbers = re.findall(r"(\d\.\d+) and (\d\.\d+) to (\d\.\d+) and (\d\.\d+)", text)
    for data, said in zip(("digits", "mnist"), numbers, strict=True):
        of = [record for record in found if record["data"] == data]
        measured = [record["error_before"] for record in of] + [record["error_after"] for record in of]
        assert [f"{value:.3f}" for value in measured] == list(said)
    gains = [
        (record["accuracy_of_surest"] - record["accuracy"]) / (record["accuracy_of_oracle"] - record["accuracy"])
        for record in found
    ]
    assert "a third to three fifths" in text
    assert 0.30 < min(gains) < 0.37
    assert 0.55 < max(gains) < 0.62


def test_the_load_is_that_of_the_record():
    (record,) = records("serve")
    text = guide("build-on-clusters")
    assert f"{record['clients']} clients got {record['requests']:,} answers of {record['rows_a_request']} rows" in text
    assert record["statuses"] == {"200": record["requests"]}
    assert f"{record['malformed']:,} malformed" in text
    assert all(status.startswith("4") for status in record["malformed_statuses"])
