"""``nvisa bench`` and ``nvisa table``: from recipes to records, and from records to tables."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvisa.benchmark.experiments import EXPERIMENTS, Job
from nvisa.benchmark.formats import FORMATS
from nvisa.benchmark.parallel import Estimate, estimate, missing, run_all
from nvisa.benchmark.records import load_records
from nvisa.benchmark.tables import NO_RECORD, TABLES, rendered
from nvisa.data import available
from nvisa.fitting.progress import clock

__all__ = ["bench", "jobs_of", "plan", "plan_text", "table"]


def jobs_of(
    name: str,
    records: str,
    data_home: str | None,
    *,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Job]:
    """What an experiment still lacks, of the data sets that this machine has or can fetch.

    Raises
    ------
    ValueError
        If a seed is negative or a data set unknown.
    """
    entries = available(data_home)
    known = {entry.name for entry in entries} | {name for each in EXPERIMENTS.values() for name in each.datasets}
    if unknown := [name for name in datasets or () if name not in known]:
        raise ValueError(
            f"--datasets: expected some of {', '.join(sorted(known))}, got {', '.join(unknown)}. Try nvisa data list."
        )
    if wrong := [seed for seed in seeds or () if seed < 0]:
        raise ValueError(f"--seeds: expected whole numbers of at least 0, got {wrong[0]}. Try --seeds 0 1 2.")
    at_hand = {entry.name for entry in entries if entry.present or entry.fetchable}
    wanted = EXPERIMENTS[name].jobs(methods, datasets, seeds)
    for absent in dict.fromkeys(job.dataset for job in wanted if job.dataset not in at_hand):
        print(f"{absent}: not here, left out (see `nvisa data list` and `nvisa features --help`)", file=sys.stderr)
    return missing([job for job in wanted if job.dataset in at_hand], Path(records))


def _side_by_side(workers: int | None) -> int:
    """How many runs at a time: as asked for, or one a core."""
    if workers is None:
        return os.cpu_count() or 1
    if workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {workers}. Try without it for one a core.")
    return workers


def plan(jobs: Sequence[Job], records: str, workers: int | None) -> dict[str, Any]:
    """The runs that are missing, and the time that records of their like say they will take."""
    n_workers = _side_by_side(workers)
    estimates = estimate(jobs, load_records(Path(records)))
    return {
        "runs": [_entry(entry) for entry in estimates],
        "seconds": sum(entry.seconds for entry in estimates) / min(n_workers, max(len(jobs), 1)),
        "unknown": sum(entry.basis == "nothing" for entry in estimates),
    }


def _entry(entry: Estimate) -> dict[str, Any]:
    job = {"dataset": entry.job.dataset, "recipe": entry.job.recipe, "seed": entry.job.seed}
    return job | {"seconds": entry.seconds, "basis": entry.basis, "text": str(entry)}


def plan_text(result: dict[str, Any]) -> str:
    """The plan as lines."""
    unknown = f", and {result['unknown']} runs of unknown length" if result["unknown"] else ""
    total = f"{len(result['runs'])} runs are missing: about {clock(result['seconds'])}{unknown}"
    return "\n".join([*(run["text"] for run in result["runs"]), total])


def bench(
    jobs: Sequence[Job], records: str, data_home: str | None, *, workers: int | None, models: str | None, quiet: bool
) -> dict[str, Any]:
    """Run what is missing; how many runs ended how."""
    n_workers = _side_by_side(workers)

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    folder = None if models is None else Path(models)
    ends = run_all(jobs, workers=n_workers, data_home=data_home, records=Path(records), models=folder, say=say)
    counts = {end: list(ends.values()).count(end) for end in sorted(set(ends.values()))}
    return {"records": records, "runs": len(ends), "ends": counts}


def table(name: str, records: str, kind: str) -> str:
    """A table from the records, as Markdown, LaTeX or CSV."""
    if name not in TABLES:
        raise ValueError(f"expected a table among {', '.join(TABLES)}, got {name!r}.")
    if not Path(records).is_dir():
        raise ValueError(f"{records}: expected a folder of records, got none there. Try --records DIR, or nvisa bench.")
    text = rendered(name, load_records(Path(records)), FORMATS[kind])
    return f"No record of {name} in {records} yet; nvisa bench makes them." if text == NO_RECORD else text
