"""Records to Markdown tables, and the tables into the documents that mark a place for them.

    python -m nvisa.benchmark.tables            writes them
    python -m nvisa.benchmark.tables --check    fails when a document and the records disagree

A place is what stands between ``<!-- table NAME -->`` and ``<!-- end table -->``.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import spearmanr

from nvisa.benchmark.paper import DATASETS, NVISA_MEAN_STD, TABLE, WITH_AE_GMM_INIT
from nvisa.benchmark.run import RECORDS

__all__ = ["DOCUMENTS", "TABLES", "cell", "load_records", "main", "rewrite"]

Record = dict[str, Any]
DOCUMENTS = ("README.md", "docs/methods/nvisa.md", "docs/methods/gmvae.md")
PLACE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def load_records(folder: Path = RECORDS) -> list[Record]:
    """Every record below the folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]


def values(records: list[Record], metric: str = "accuracy") -> list[float]:
    """A metric of the runs that ended well, in per cent: on test, or on train where there is no test split."""
    ended = [record["metrics"] for record in records if record["status"] == "ok"]
    return [100 * (metrics.get("test") or metrics["train"])[metric] for metrics in ended]


def cell(numbers: list[float]) -> str:
    """``mean ± sample standard deviation``."""
    if not numbers:
        return "-"
    return f"{mean(numbers):.2f}" + (f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else "")


def _row(records: list[Record], paper: str) -> str:
    accuracy, failed = values(records), [r["status"] for r in records if r["status"] != "ok"]
    seconds = [record["seconds"] for record in records]
    first = records[0]
    columns = [
        first["dataset"],
        f"{first['n_train']:,} / {first['n_test']:,}",
        cell(accuracy) + "".join(f" ({status})" for status in failed),
        f"{max(accuracy):.2f}" if accuracy else "-",
        cell(values(records, "nmi")),
        ", ".join(str(record["seed"]) for record in records),
        f"{mean(seconds):.0f} ({max(seconds):.0f})",
        paper,
    ]
    return "| " + " | ".join(columns) + " |"


NO_RECORD = "No record yet; `make records` makes them."
HEAD = (
    "| data | train / test rows | accuracy % | best | NMI % | seeds | seconds (longest) | slides |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _by_recipe(recipe: str, paper: Callable[[str], str]) -> Callable[[list[Record]], str]:
    """A table with a row for each data set that has records of the recipe."""

    def table(records: list[Record]) -> str:
        mine = [record for record in records if record["recipe"] == recipe]
        names = [name for name in ("digits", "mnist", "fashion_mnist") if any(r["dataset"] == name for r in mine)]
        rows = [_row([r for r in mine if r["dataset"] == name], paper(name)) for name in names]
        return "\n".join([HEAD, *rows]) if rows else NO_RECORD

    return table


def _selection(records: list[Record]) -> str:
    """How well label-free scores order runs of the recipe "selection" by their accuracy."""
    head = (
        "| data | runs | accuracy % | picked by I(Y; Y') | rank correlation of I(Y; Y') | of the bound |\n"
        "|---|---|---|---|---|---|"
    )
    mine = [record for record in records if record["recipe"] == "selection" and record["status"] == "ok"]
    rows = []
    for name in sorted({record["dataset"] for record in mine}):
        runs = [record for record in mine if record["dataset"] == name]
        accuracy, information = values(runs), [run["neighbour_information"] for run in runs]
        bound = [run["history"][-1]["bound"] for run in runs]
        picked = accuracy[max(range(len(runs)), key=information.__getitem__)]
        columns = [
            name,
            str(len(runs)),
            f"{cell(accuracy)}, best {max(accuracy):.2f}",
            f"{picked:.2f}",
            f"{spearmanr(information, accuracy).statistic:.2f}",
            f"{spearmanr(bound, accuracy).statistic:.2f}",
        ]
        rows.append("| " + " | ".join(columns) + " |")
    return "\n".join([head, *rows]) if rows else NO_RECORD


TABLES: dict[str, Callable[[list[Record]], str]] = {
    "default": _by_recipe("default", lambda name: NVISA_MEAN_STD.get(name, "-")),
    "bound_alone_random": _by_recipe("bound_alone/random", lambda name: NVISA_MEAN_STD.get(name, "-")),
    "gmvae": _by_recipe("gmvae/default", lambda name: dict(zip(DATASETS, TABLE["GMVAE"], strict=True)).get(name, "-")),
    "selection": _selection,
    "bound_alone_gmm": _by_recipe("bound_alone/gmm", lambda name: WITH_AE_GMM_INIT if name == "mnist" else "-"),
}


def rewrite(text: str, records: list[Record]) -> str:
    """The document with every marked place filled from the records."""
    return PLACE.sub(lambda place: f"{place[1]}{TABLES[place[2]](records)}\n{place[3]}", text)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m nvisa.benchmark.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, records = parser.parse_args(arguments).check, load_records()
    for path in map(Path, DOCUMENTS):
        old = path.read_text()
        new = rewrite(old, records)
        if check and new != old:
            raise SystemExit(f"{path} and the records disagree: run `make table`.")
        path.write_text(new)


if __name__ == "__main__":
    main()
