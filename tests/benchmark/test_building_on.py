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


def test_calibration_helps_and_harms_where_the_guide_says_so():
    """Its numbers are the table's, which tests/benchmark/test_tables_page.py holds."""
    text, found = guide("is-it-any-good"), records("calibration")
    helped = {}
    for record in found:
        which = helped.setdefault((record["data"], record["rows"]), set())
        which.add(record["error_after"] < record["error_before"])
    assert "harms where it is not: 40,000 rows of MNIST" in text
    assert helped["mnist", 40_000] == helped["fashion_mnist", 10_000] == {False}
    assert helped["digits", 1_198] == helped["mnist", 10_000] == helped["cifar10_effnet_lite2", 10_000] == {True}


def test_the_load_is_that_of_the_record():
    (record,) = records("serve")
    text = guide("build-on-clusters")
    assert f"{record['clients']} clients got {record['requests']:,} answers of {record['rows_a_request']} rows" in text
    assert record["statuses"] == {"200": record["requests"]}
    assert f"{record['malformed']:,} malformed" in text
    assert all(status.startswith("4") for status in record["malformed_statuses"])
