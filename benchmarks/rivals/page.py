"""The pages docs/rivals*.md and the picture on the front page, from benchmarks/records/rivals.

    python benchmarks/rivals/page.py

A place is what stands between ``<!-- rivals NAME -->`` and ``<!-- end rivals -->``.
"""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from datasets import LARGE, MADE, REAL
from matplotlib import colormaps

from nvisa.benchmark.figures import axes_of, save
from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.durable_files import write_file

Record = dict[str, Any]
Records = Sequence[Record]
FOLDER = Path("benchmarks/records/rivals")
PAGES = ("docs/rivals.md", "docs/rivals-in-full.md")
PICTURE = Path("docs/figures/rivals.png")
NAMES = {
    "nvisa": "NVISA",
    "umap_gmm": "UMAP + GMM",
    "umap_hdbscan": "UMAP + HDBSCAN",
    "evoc_k": "EVoC, K given",
    "evoc": "EVoC",
    "fast_hdbscan": "fast_hdbscan",
    "kmeans": "k-means",
    "gmm": "GMM",
    "dec": "ClustPy DEC",
    "idec": "ClustPy IDEC",
    "vade": "ClustPy VaDE",
}
ROWS = ("1000", "10000", "all")
NO_RECORD = "No record yet: `benchmarks/rivals/run.py` says how they are made."
WRONG, NEAREST = "noise_wrong", "noise_nearest"


def load_records(folder: Path = FOLDER) -> list[Record]:
    """Every record, by data set, rows, method, seed."""
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]


def of(records: Records, **wanted: str) -> list[Record]:
    """Those with these values."""
    return [record for record in records if all(record.get(name) == value for name, value in wanted.items())]


# ---- cells -----------------------------------------------------------------------------------------------------------


def values(records: Records, metric: str, noise: str) -> list[float]:
    """In per cent, of the runs that ended; compiling from nothing is a time and no further run."""
    ended = [r for r in of(records, status="ok") if r["start"] != "first"]
    return [100 * record["metrics"][noise][metric] for record in ended]


def score(records: Records, metric: str = "accuracy") -> str:
    """Mean over seeds; where the method leaves rows out, noise in the nearest cluster, then noise as wrong."""
    if not (near := values(records, metric, NEAREST)):
        return "failed" if records else "-"
    wrong = values(records, metric, WRONG)
    texts = [f"{mean(near):.1f}", f"{mean(wrong):.1f}"]
    return texts[0] if near == wrong else " / ".join(texts)


def seconds(records: Records, start: str) -> list[float]:
    """CPU seconds of the fits that began like this."""
    return [record["cpu_seconds"] for record in of(records, status="ok", start=start)]


def duration(times: Sequence[float]) -> str:
    """The median."""
    return "-" if not times else f"{median(times):.2g}" if median(times) < 10 else f"{median(times):,.0f}"


# ---- tables ----------------------------------------------------------------------------------------------------------


def methods_of(records: Records) -> list[str]:
    """That have a record."""
    return [name for name in NAMES if of(records, method=name)]


def everywhere(records: Records) -> list[str]:
    """The real tables on which every method that is not ClustPy's has ended."""
    quick = [name for name in methods_of(records) if NAMES[name][:7] != "ClustPy"]
    return [d for d in REAL if all(values(of(records, data=d, method=m), "nmi", WRONG) for m in quick)]


def summary(records: Records) -> Grid:
    """Over the real tables that all quick methods have: how accurate, how often near the best, how long; best first."""
    data, rows = everywhere(records), []
    best = {d: max(_nearest(records, d, m) for m in methods_of(records)) for d in data}
    for method in methods_of(records):
        found = [of(records, data=d, method=method) for d in data]
        if not all(values(mine, "nmi", WRONG) for mine in found):
            continue
        means = [_mean(found, metric) for metric in ("accuracy", "nmi", "ari")]
        close = sum(_nearest(records, d, method) > best[d] - 1 for d in data)
        warm = duration([time for mine in found for time in seconds(mine, "warm")])
        rows.append((NAMES[method], *means, f"{close} of {len(data)}", warm))
    rows.sort(key=lambda row: -float(row[1].split(" / ")[0]))
    return Grid(("method", "accuracy %", "NMI %", "ARI %", "within a point of the best", "warm s"), tuple(rows))


def _mean(tables: Sequence[Records], metric: str) -> str:
    """Over tables, noise in the nearest cluster and, where that is another number, noise as wrong."""
    means = (mean(mean(values(mine, metric, noise)) for mine in tables) for noise in (NEAREST, WRONG))
    return " / ".join(dict.fromkeys(f"{value:.1f}" for value in means))


def _nearest(records: Records, data: str, method: str) -> float:
    """Mean accuracy with noise in the nearest cluster, -1 where there is none."""
    return mean(values(of(records, data=data, method=method), "accuracy", NEAREST) or [-1.0])


def crossed(data: Collection[str], cell: Callable[[Records], str]) -> Callable[[Records], Grid]:
    """Data sets times methods."""

    def table(records: Records) -> Grid:
        here = [record for record in records if record["data"] in data]
        methods, rows = methods_of(here), []
        for name in data:
            for size in ROWS:
                if mine := of(here, data=name, rows=size):
                    first = mine[0]
                    shape = f"{first['n_rows']:,} x {first['n_features']:,}, {first['n_classes']}"
                    rows.append((name, shape, *(cell(of(mine, method=method)) for method in methods)))
        return Grid(("data", "rows x columns, K", *(NAMES[method] for method in methods)), tuple(rows))

    return table


def times(records: Records) -> str:
    """Warm, and cold in brackets."""
    warm, cold = (duration(seconds(records, start)) for start in ("warm", "cold"))
    return "-" if warm == cold == "-" else f"{warm} ({cold})"


def first(records: Records) -> Grid:
    """What the first call ever costs, by method."""
    mine = of(records, start="first")
    rows = [
        (NAMES[m], *(duration(seconds(of(records, data="digits", rows="all", method=m), start)) for start in STARTS))
        for m in methods_of(mine)
    ]
    return Grid(("method", "first call after installing, s", "first call of a process, s", "next call, s"), tuple(rows))


STARTS = ("first", "cold", "warm")


def full(data: Collection[str]) -> Callable[[Records], Grid]:
    """A row for each method on each data set."""
    head = (
        "data",
        "rows",
        "method",
        "accuracy %",
        "NMI %",
        "ARI %",
        "clusters",
        "noise %",
        "warm s",
        "cold s",
        "seeds",
    )

    def table(records: Records) -> Grid:
        rows = []
        for name in data:
            for size in ROWS:
                for method, label in NAMES.items():
                    if mine := of(records, data=name, rows=size, method=method):
                        rows.append((name, f"{mine[0]['n_rows']:,}", label, *_details(mine)))
        return Grid(head, tuple(rows))

    return table


def _details(mine: Records) -> tuple[str, ...]:
    ended = [record for record in of(mine, status="ok") if record["start"] != "first"]
    if not ended:
        return (mine[0]["status"][:90], *["-"] * 7)
    return (
        *(score(mine, metric) for metric in ("accuracy", "nmi", "ari")),
        f"{median(record['n_clusters'] for record in ended):g}",
        f"{100 * mean(record['noise'] for record in ended):.0f}",
        duration(seconds(mine, "warm")),
        duration(seconds(mine, "cold")),
        str(len(ended)),
    )


def versions(records: Records) -> str:
    """A line: what ran, on what."""
    found = {package: v for record in of(records, status="ok") for package, v in record["versions"].items()}
    processors = sorted({record["processor"] for record in records})
    return f"{', '.join(f'{p} {v}' for p, v in sorted(found.items()))}; {', '.join(processors)}, one thread."


TABLES: dict[str, Callable[[Records], Grid]] = {
    "summary": summary,
    "made": crossed(MADE, score),
    "real": crossed(REAL, score),
    "large": crossed(LARGE, score),
    "large_seconds": crossed(LARGE, times),
    "first": first,
    "full_made": full(MADE),
    "full_real": full(REAL),
    "full_large": full(LARGE),
}


def rewrite(text: str, records: Records) -> str:
    """The page with every place filled."""

    def filled(name: str) -> str:
        if name == "versions":
            return versions(records)
        grid = TABLES[name](records)
        return markdown(grid) if grid.rows else NO_RECORD

    return fill_places(text, "rivals", filled)


# ---- the picture -----------------------------------------------------------------------------------------------------


def panel(axes: Any, title: str, records: Records, starts: tuple[str, ...] = ("warm", "cold")) -> None:
    """Accuracy against CPU seconds of each method: full for a warm fit, hollow for a cold one."""
    for number, method in enumerate(NAMES):
        mine = of(records, method=method)
        names = sorted({record["data"] for record in mine})
        near = [n for name in names if (n := values(of(mine, data=name), "accuracy", NEAREST))]
        if not near:
            continue
        color, height = colormaps["tab20"](number), mean(map(mean, near))
        found = {start: seconds(mine, start) for start in starts}
        points = {start: median(found[start]) for start in found if found[start]}
        axes.plot(list(points.values()), [height] * len(points), color=color, lw=0.8)
        for start, x in points.items():
            face = color if start == "warm" else "white"
            marker = "*" if method == "nvisa" else "o"
            label = NAMES[method] if start == next(iter(points)) else None
            axes.plot(x, height, marker, color=color, markerfacecolor=face, label=label)
    axes.set_xscale("log")
    axes.set(title=title, xlabel="CPU seconds of a fit")


def picture(records: Records, path: Path) -> None:
    """The real tables together, digits, and 10,000 rows of MNIST, as far as there are records."""
    data = everywhere(records)
    whole = [r for r in records if r["data"] in data and all(of(records, data=d, method=r["method"]) for d in data)]
    shown = {
        f"{len(data)} real tables, mean": whole,
        "digits, 1,797 rows": of(records, data="digits", rows="all"),
        "MNIST, the first 10,000 rows": of(records, data="mnist", rows="10000"),
    }
    shown = {title: mine for title, mine in shown.items() if mine}
    figure, panels = axes_of(2.0 + 3.0 * len(shown), 4.0, len(shown))
    for axes, (title, mine) in zip(panels, shown.items(), strict=True):
        panel(axes, title, mine, ("warm",) if mine is whole else ("warm", "cold"))
    panels[0].set_ylabel("accuracy, noise in the nearest cluster, %")
    lines = {line.get_label(): line for axes in panels for line in axes.lines if line.get_label()[0] != "_"}
    figure.legend(lines.values(), lines.keys(), fontsize=7, loc="outside right upper")
    save(figure, path)


def main() -> None:
    records = load_records()
    for page in map(Path, PAGES):
        write_file(page, rewrite(page.read_text(), records).encode())
    picture(records, PICTURE)


if __name__ == "__main__":
    main()
