"""What the guide says of adopted clusterings is what the records hold."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDS = [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks/records/adoption").glob("*.json"))]


def test_the_guide_says_what_was_measured():
    text = (ROOT / "docs/guides/build-on-clusters.md").read_text()
    kept, won, of = re.search(r"keeps ([\d.]+) %\s.*in (\d) cases of (\d)", text, re.DOTALL).groups()
    assert {(record["data"], record["method"]) for record in RECORDS} == {
        (data, method)
        for data in ("digits", "mnist", "cifar10_effnet_lite2")
        for method in ("hdbscan", "ward", "leiden")
    }
    assert min(record["kept"] for record in RECORDS) >= float(kept) / 100
    assert sum(record["held_out"] >= record["neighbors"] for record in RECORDS) == int(won)
    assert len(RECORDS) == int(of)
