"""Records to tables, and the tables into the documents that mark a place for them.

    nvisa table NAME --format latex             prints one
    python -m nvisa.benchmark.tables            writes all that the documents have a place for
    python -m nvisa.benchmark.tables --check    fails when a document and the records disagree

A place is what stands between ``<!-- table NAME -->`` and ``<!-- end table -->``. The slides' marks: * quoted by them
from the method's own paper, - absent, N/A diverged.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import spearmanr

from nvisa.benchmark import paper
from nvisa.benchmark.experiments import BEYOND, CONSISTENCY, FEATURES, HEADLINE, IMAGES, ROWS, SLIDES, Row
from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.benchmark.records import Record, load_records
from nvisa.durable_files import write_file

__all__ = [
    "ABLATION_ROWS",
    "NO_RECORD",
    "PLACE",
    "SPEED",
    "TABLES",
    "ablation_cell",
    "accuracy_cell",
    "cell",
    "documents",
    "main",
    "rendered",
    "rewrite",
    "slides_cell",
    "values",
]

Records = Sequence[Record]
SPEED = ("docs/performance.md", "docs/report.md")  # their places are nvisa.benchmark.performance's
PLACE = re.compile(r"<!-- table \S+ -->")
NOT_RUN = "not run"  # the slides' dash says something else
NO_RECORD = "No record yet: the command above makes them."


def values(records: Records, metric: str = "accuracy", split: str = "") -> list[float]:
    """A metric of the runs that ended well, in per cent: on test, or on train where there is no test split."""
    ended = [record["metrics"] for record in records if record["status"] == "ok"]
    if split:
        return [100 * metrics[split][metric] for metrics in ended if split in metrics]
    return [100 * (metrics.get("test") or metrics["train"])[metric] for metrics in ended]


def cell(numbers: Sequence[float]) -> str:
    """``mean ± sample standard deviation``."""
    if not numbers:
        return "-"
    return f"{mean(numbers):.2f}" + (f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else "")


def accuracy_cell(records: Records) -> str:
    """The mean of the runs that ended, and what became of the others: N/A is the slides' mark for divergence."""
    failed = ["N/A" if record["status"] == "diverged" else record["status"] for record in records]
    failed = [status for status in failed if status != "ok"]
    if failed and len(failed) == len(records):
        return failed[0] if len(set(failed)) == 1 else ", ".join(failed)
    return cell(values(records)) + "".join(f" ({status})" for status in failed)


def best(records: Records) -> str:
    """The largest accuracy."""
    return f"{max(values(records)):.2f}" if values(records) else "-"


def _seconds(records: Records, key: str = "seconds") -> str:
    seconds = [record[key] for record in records if key in record]
    return f"{mean(seconds):.0f} ({max(seconds):.0f})" if seconds else "-"


def _of(records: Records, recipe: str, dataset: str) -> list[Record]:
    """The records of a cell, in the order of their seeds."""
    mine = [record for record in records if (record["recipe"], record["dataset"]) == (recipe, dataset)]
    return sorted(mine, key=lambda record: record["seed"])


# ---- one recipe on several data sets -----------------------------------------------------------------------------

HEAD = ("data", "train / test rows", "accuracy %", "best", "NMI %", "seeds", "seconds (longest)")


def _row(records: Records) -> tuple[str, ...]:
    first = records[0]
    return (
        first["dataset"],
        f"{first.get('n_train', 0):,} / {first.get('n_test', 0):,}",
        accuracy_cell(records),
        best(records),
        cell(values(records, "nmi")),
        ", ".join(str(record["seed"]) for record in records),
        _seconds(records),
    )


def _by_recipe(recipe: str, slides: Callable[[str], str] | None = None) -> Callable[[Records], Grid]:
    """A table with a row for each data set that has records of the recipe, and the slides' cell where there is one."""

    def table(records: Records) -> Grid:
        """The grid of these records."""
        cells = {name: _of(records, recipe, name) for name in ("digits", *IMAGES, *FEATURES)}
        if slides is None:
            return Grid(HEAD, tuple(_row(mine) for mine in cells.values() if mine))
        rows = tuple((*_row(mine), slides(name)) for name, mine in cells.items() if mine)
        return Grid((*HEAD, "slides"), rows)

    return table


# ---- rows times data sets ----------------------------------------------------------------------------------------


def slides_cell(row: Row, dataset: str) -> str:
    """What the slides print for this row on this data set; nothing for features of another backbone."""
    name = dataset.removesuffix("_resnet50")
    if row.paper not in paper.TABLE or name not in paper.DATASETS:
        return ""
    if row.pixels == "paper/gmm":
        return paper.WITH_AE_GMM_INIT if name == "mnist" else ""
    published = paper.TABLE[row.paper][paper.DATASETS.index(name)]
    if row.paper == "NVISA(avg±std)":
        return f"{published}, best {paper.TABLE['NVISA(best)'][paper.DATASETS.index(name)]}"
    return published


def _overview(
    datasets: Sequence[str], rows_of_table: Sequence[Row] = ROWS, *, beside: bool = False
) -> Callable[[Records], Grid]:
    """Accuracy on test: rows times data sets, the number of seeds in brackets, ``beside`` the slides' cells."""

    def table(records: Records) -> Grid:
        """The grid of these records."""
        head, rows = ["method"], []
        for name in datasets:
            head += [name, f"{name}, slides"] if beside else [name]
        for row in rows_of_table:
            cells = []
            for name in datasets:
                mine = _of(records, row.recipe(name), name)
                cells.append(f"{accuracy_cell(mine)} [{len(mine)}]" if mine else NOT_RUN)
                cells += [slides_cell(row, name)] if beside else []
            rows.append((row.label, *cells))
        rows = rows if any(record["dataset"] in datasets for record in records) else []
        return Grid(tuple(head), tuple(rows))

    return table


def _details(dataset: str, rows_of_table: Sequence[Row] = ROWS) -> Callable[[Records], Grid]:
    """Everything about one data set."""
    head = ("method", "test accuracy %", "best", "train accuracy %", "purity %", "NMI %", "ARI %", "seeds")

    def table(records: Records) -> Grid:
        """The grid of these records."""
        rows = []
        for row in rows_of_table:
            if mine := _of(records, row.recipe(dataset), dataset):
                more = [cell(values(mine, metric)) for metric in ("purity", "nmi", "ari")]
                train, seeds = cell(values(mine, split="train")), str(len(mine))
                cost = _seconds(mine), _seconds(mine, "cpu_seconds")
                rows.append((row.label, accuracy_cell(mine), best(mine), train, *more, seeds, *cost))
        return Grid((*head, "seconds (longest)", "core seconds"), tuple(rows))

    return table


# ---- the ablation ------------------------------------------------------------------------------------------------

ABLATION_ROWS = {
    "enum_y_bernoulli": ("EnumY", "NVISA (Bernoulli)"),
    "enum_y": ("EnumY", "NVISA"),
    "enum_y_annealed": ("EnumY", "NVISA*"),
    "nvil": ("NVIL", "NVISA"),
    "nvil_annealed": ("NVIL", "NVISA*"),
    "vimco": ("VIMCO", "NVISA"),
    "vimco_bernoulli": ("VIMCO", "NVISA (Bernoulli)"),
    "vimco_1000": ("VIMCO", "NVISA (1000 samples)"),
    "vimco_1000_annealed": ("VIMCO", "NVISA*(1000 samples)"),
    "vimco_mean_field_annealed": ("VIMCO", "NVISA* (mean-field)"),
    "vimco_annealed": ("VIMCO", "NVISA*"),
    "vimco_annealed_gmm": ("VIMCO", "NVISA*, AE+GMM start"),
}


def ablation_cell(name: str) -> str:
    """What the slides print for this row of the ablation; their start from AE+GMM stands beside their table."""
    if name == "vimco_annealed_gmm":
        return paper.WITH_AE_GMM_INIT
    slides = {(inference, method): accuracy for inference, method, accuracy in paper.ABLATION}
    return slides.get(ABLATION_ROWS.get(name, ("", "")), "-")


def _ablation(budget: str, dataset: str) -> Callable[[Records], Grid]:
    """The slides' second table; a star is std annealing."""
    head = ("inference", "method", "accuracy %", "best", "NMI %", "purity %", "seeds", "seconds (longest)")

    def table(records: Records) -> Grid:
        """The grid of these records."""
        rows = []
        for name, labels in ABLATION_ROWS.items():
            if mine := _of(records, f"{budget}/{name}", dataset):
                more = [cell(values(mine, metric)) for metric in ("nmi", "purity")]
                measured = (accuracy_cell(mine), best(mine), *more, str(len(mine)), _seconds(mine))
                rows.append((*labels, *measured, ablation_cell(name)))
        return Grid((*head, "slides, MNIST"), tuple(rows))

    return table


def _published(row: str) -> Callable[[str], str]:
    """The slides' cell of a data set in this row."""
    return lambda name: dict(zip(paper.DATASETS, paper.TABLE[row], strict=True)).get(name, "-")


def _selection(records: Records) -> Grid:
    """How well label-free scores order runs of one recipe that differ in their seed, by their accuracy."""
    scores = ("picked by I(Y; Y')", "rank correlation of I(Y; Y')", "of the bound")
    rows = [
        _ordered(name, recipe, runs)
        for name, recipe in product(("digits", *IMAGES, *FEATURES), ("selection", "umap_start"))
        if len(runs := [run for run in _of(records, recipe, name) if run["status"] == "ok"]) > 2
    ]
    return Grid(("data", "recipe", "runs", "accuracy %", *scores), tuple(rows))


def _ordered(dataset: str, recipe: str, runs: Records) -> tuple[str, ...]:
    """A row of that table."""
    accuracy, information = values(runs), [_information(run) for run in runs]
    bound = [run["history"][-1]["bound"] for run in runs]
    return (
        dataset,
        recipe,
        str(len(runs)),
        f"{cell(accuracy)}, best {max(accuracy):.2f}",
        f"{accuracy[max(range(len(runs)), key=information.__getitem__)]:.2f}",
        f"{spearmanr(information, accuracy).statistic:.2f}",
        f"{spearmanr(bound, accuracy).statistic:.2f}",
    )


def _starts(records: Records) -> Grid:
    """The default beside the same from IMSAT's clusters, and of each seed's two fits the one that I(Y; Y') prefers."""
    rows = []
    for name in (*IMAGES, *FEATURES):
        runs = [_of(records, recipe, name) for recipe in ("umap_start", "from_imsat")]
        first, second = ({run["seed"]: run for run in mine if run["status"] == "ok"} for mine in runs)
        if pairs := [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]:
            columns = *zip(*pairs, strict=True), (kept := [max(pair, key=_information) for pair in pairs])
            cells = [text for fits in columns for text in (cell(values(fits)), f"{mean(map(_information, fits)):.3f}")]
            right = sum(values([run])[0] == max(values(pair)) for run, pair in zip(kept, pairs, strict=True))
            rows.append((name, *cells[:5], f"{right} of {len(pairs)}"))
    head = ("data", "from UMAP's clusters %", "its I(Y; Y')", "from IMSAT's clusters %", "its I(Y; Y')")
    return Grid((*head, "the larger I of each pair %", "the better fit"), tuple(rows))


def _information(run: Record) -> float:
    return run["neighbor_information"]


TABLES: dict[str, Callable[[Records], Grid]] = {
    "default": _by_recipe("default"),
    "paper_random": _by_recipe("paper/random", _published("NVISA(avg±std)")),
    "paper_gmm": _by_recipe("paper/gmm", lambda name: paper.WITH_AE_GMM_INIT if name == "mnist" else "-"),
    "ae_gmm": _by_recipe("ae_gmm/bernoulli", _published("AE+GMM")),
    "vae_gmm": _by_recipe("vae_gmm/bernoulli", _published("VAE+GMM")),
    "dec": _by_recipe("dec/pixels", _published("DEC")),
    "vade": _by_recipe("vade/bernoulli", _published("VaDE")),
    "vade_long": _by_recipe("vade/long", _published("VaDE")),
    "vade_umap": _by_recipe("vade/umap", _published("VaDE")),
    "gm_gan": _by_recipe("gm_gan/default", _published("GM-GAN")),
    "gm_gan_information": _by_recipe("gm_gan/information", _published("GM-GAN")),
    "gmvae": _by_recipe("gmvae/bernoulli", _published("GMVAE")),
    "ltvae_gmm": _by_recipe("ltvae_gmm/bernoulli", _published("LTVAE-GMM")),
    "ltvae_full": _by_recipe("ltvae_full/bernoulli", _published("LTVAE-full")),
    "imsat": _by_recipe("imsat/default"),
    "imsat_restarts": _by_recipe("imsat/restarts"),
    "headline": _overview((*IMAGES, *FEATURES), HEADLINE),
    "table1": _overview(IMAGES, beside=True),
    "beyond": _overview(IMAGES, BEYOND),
    "features": _overview(FEATURES),
    "features_beyond": _overview(FEATURES, CONSISTENCY),
    "resnet50": _overview(SLIDES, beside=True),
    **{name: _details(name) for name in (*IMAGES, *FEATURES)},
    **{f"{name}_beyond": _details(name, BEYOND) for name in (*IMAGES, *FEATURES)},
    "ablation": _ablation("ablation", "digits"),
    "ablation_short": _ablation("ablation_short", "mnist"),
    "selection": _selection,
    "starts": _starts,
}


def rendered(name: str, records: Records, render: Callable[[Grid], str] = markdown) -> str:
    """The table as text, or a sentence where no record is."""
    grid = TABLES[name](records)
    return render(grid) if grid.rows else NO_RECORD


def documents(root: Path = Path()) -> list[Path]:
    """The pages below ``root`` that have a place for a table of runs."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in pages if page not in [root / name for name in SPEED] and PLACE.search(page.read_text())]


def rewrite(text: str, records: Records) -> str:
    """The document with every marked place filled from the records."""
    return fill_places(text, "table", lambda name: rendered(name, records))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m nvisa.benchmark.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, records = parser.parse_args(arguments).check, load_records()
    for path in documents():
        old = path.read_text()
        new = rewrite(old, records)
        if check and new != old:
            raise SystemExit(f"{path} and the records disagree: run `make table`.")
        write_file(path, new.encode())


if __name__ == "__main__":
    main()
