"""``nvisa bench``: from recipes to records."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvisa.commands import exit_codes
from nvisa.commands.options import add_command, add_data_home, add_records
from nvisa.commands.printing import SAME_COMMAND, Result, print_result, shown

__all__ = ["add", "bench", "jobs_of", "plan"]

NAMES = (
    "table1", "beyond", "features", "features_beyond", "resnet50", "ablation", "ablation_short", "long", "digits",
    "selection", "paper",
)  # fmt: skip
CODES = {  # of a bench in which a run ended so
    "crashed": exit_codes.FAULT,
    "no data": exit_codes.WRONG_INPUT,
    "interrupted": exit_codes.INTERRUPTED,
}


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(
        commands, "bench", run, "run what an experiment lacks and what has crashed, one JSON record a run"
    )
    parser.add_argument("table", metavar="TABLE", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="rows: methods, recipes or labels")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="in place of the experiment's own")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="in place of the experiment's own")
    parser.add_argument("--plan", action="store_true", help="run nothing; say what is missing and how long it may take")
    parser.add_argument("--workers", type=int, metavar="N", help="runs side by side, one thread each (default: cores)")
    parser.add_argument("--models", metavar="DIR", help="keep the fitted models here")
    add_records(parser)
    add_data_home(parser)


def run(args: argparse.Namespace) -> int:
    """Run what is missing, or print the plan."""
    if args.table == "paper":
        return _paper(args)
    wanted = {"methods": args.methods, "datasets": args.datasets, "seeds": args.seeds}
    jobs = jobs_of(args.table, args.records, args.data_home, **wanted)
    if args.plan:
        print_result(args, plan(jobs, args.records, args.workers), plan_text)
        return exit_codes.DONE
    how = {"workers": args.workers, "models": args.models, "quiet": args.quiet}
    result = bench(jobs, args.records, args.data_home, **how)
    print_result(args, result, lambda r: f"{r['runs']} runs" + "".join(f", {n} {end}" for end, n in r["ends"].items()))
    return max((CODES.get(end, exit_codes.DONE) for end in result["ends"]), default=exit_codes.DONE)


def _paper(args: argparse.Namespace) -> int:
    """The slides' recipes at full length, from where they were left: in the background, until done or killed."""
    from itertools import product

    from nvisa.benchmark import PAPER
    from nvisa.benchmark.long_run import long_run

    wanted = product(args.seeds or [0], args.methods or ["vimco_annealed"], args.datasets or ["mnist"])
    for seed, row, dataset in wanted:
        try:
            home = long_run(f"slides/{row}", dataset, seed, PAPER, args.data_home)
        except KeyboardInterrupt as error:
            raise type(error)(f"{SAME_COMMAND} goes on from {PAPER}") from error
        print_result(args, {"folder": str(home)}, lambda r: f"done: {r['folder']}")
    return exit_codes.DONE


def jobs_of(
    name: str,
    records: str,
    data_home: str | None,
    *,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Any]:
    """What an experiment still lacks, of the data sets that this machine has or can fetch.

    Raises
    ------
    ValueError
        If a seed is negative or a data set unknown.
    """
    from nvisa.benchmark.experiments import EXPERIMENTS
    from nvisa.benchmark.parallel import missing
    from nvisa.data import available

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


def plan(jobs: Sequence[Any], records: str, workers: int | None) -> Result:
    """The runs that are missing, and the time that records of their like say they will take."""
    from nvisa.benchmark.parallel import estimate
    from nvisa.benchmark.records import load_records

    n_workers = _side_by_side(workers)
    estimates = estimate(jobs, load_records(Path(records)))
    return {
        "runs": [_entry(entry) for entry in estimates],
        "seconds": sum(entry.seconds for entry in estimates) / min(n_workers, max(len(jobs), 1)),
        "unknown": sum(entry.basis == "nothing" for entry in estimates),
    }


def _entry(entry: Any) -> Result:
    job = {"dataset": entry.job.dataset, "recipe": entry.job.recipe, "seed": entry.job.seed}
    return job | {"seconds": entry.seconds, "basis": entry.basis, "text": str(entry)}


def plan_text(result: Result) -> str:
    """The plan as lines."""
    from nvisa.fitting.progress import clock

    unknown = f", and {result['unknown']} runs of unknown length" if result["unknown"] else ""
    total = f"{len(result['runs'])} runs are missing: about {clock(result['seconds'])}{unknown}"
    return "\n".join([*(run["text"] for run in result["runs"]), total])


def bench(
    jobs: Sequence[Any], records: str, data_home: str | None, *, workers: int | None, models: str | None, quiet: bool
) -> Result:
    """Run what is missing; how many runs ended how."""
    from nvisa.benchmark.parallel import run_all

    n_workers = _side_by_side(workers)

    def say(line: str) -> None:
        if not quiet:
            print(shown(line), file=sys.stderr, flush=True)

    folder = None if models is None else Path(models)
    ends = run_all(jobs, workers=n_workers, data_home=data_home, records=Path(records), models=folder, say=say)
    counts = {end: list(ends.values()).count(end) for end in sorted(set(ends.values()))}
    return {"records": records, "runs": len(ends), "ends": counts}
