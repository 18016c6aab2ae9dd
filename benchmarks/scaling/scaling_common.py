"""What the scaling scripts share: where the records go, and what they were measured on."""

import json
import os
import time
from pathlib import Path
from typing import Any

from nvisa.benchmark.run import processor, source_commit
from nvisa.durable_files import write_file

RECORDS = Path(__file__).parents[1] / "records" / "scaling"


def keep_record(name: str, found: dict[str, Any]) -> None:
    """Write what was found, with what it was found on."""
    record = {
        "kind": f"scaling, {name}",
        "command": f"python benchmarks/scaling/{name}.py",
        "commit": source_commit(),
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "beside": "other work"},
        **found,
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    write_file(RECORDS / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    say(json.dumps(found))


def say(text: str) -> None:
    """A line, now."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
