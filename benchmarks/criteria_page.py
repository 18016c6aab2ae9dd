"""docs/criteria.md from benchmarks/records/criteria: how far each criterion can be trusted to choose a clustering.

    python benchmarks/criteria_page.py

A place is what stands between ``<!-- criteria NAME -->`` and ``<!-- end criteria -->``. Means are over seeds first,
then over data sets, each of which counts once.
"""

import json
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from criteria import ALGORITHMS, DEVELOPED_ON, FOLDER, NAMES
from scipy.stats import spearmanr

from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.durable_files import write_file

Record = dict[str, Any]
Records = Sequence[Record]
Regret = Callable[[Record], float | None]
PAGE = Path("docs/criteria.md")
CRITERIA = {
    "information": "neighbor information I",
    "information_rate": "I / entropy of the sizes",
    "cut": "normalized cut",
    "stability": "stability under resampling",
    "density": "held-out density",
    "silhouette": "silhouette, principal components",
    "silhouette_layout": "silhouette, layout",
    "dbcv": "DBCV",
    "within": "k-means' objective",
}
FIXED = {
    "kmeans": "k-means",
    "mixture": "Gaussian mixture",
    "cut": "graph, by cut",
    "information": "graph, by information",
    "layout_kmeans": "k-means of the layout",
    "layout_mixture": "mixture of the layout",
    "average": "average linkage",
}
LEARNED = "criterion of best rank correlation on the others"
assert FIXED.keys() == ALGORITHMS.keys()


def load_records(folder: Path = FOLDER) -> list[Record]:
    """Every record, in the order of the data sets."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(found, key=lambda record: (NAMES.index(record["data"]), record["seed"]))


# ---- judged in one pool ----------------------------------------------------------------------------------------------


def rank_correlation(record: Record, criterion: str, metric: str = "ari") -> float | None:
    """Spearman's, of a criterion and a metric over the pool; 0 for a criterion that is the same for all of it.

    None where all clusterings are equally good, or fewer than four have the criterion.
    """
    pairs = [(m[criterion], m[metric]) for m in record["pool"].values() if m[criterion] is not None]
    found, judged = np.array(pairs or [(0.0, 0.0)]).T
    if len(pairs) < 4 or np.ptp(judged) < 1e-9:
        return None
    return 0.0 if np.ptp(found) < 1e-9 else float(spearmanr(found, judged).statistic)


def best(record: Record, metric: str = "ari") -> float:
    """Of the pool."""
    return max(member[metric] for member in record["pool"].values())


def regret(record: Record, criterion: str, metric: str = "ari") -> float | None:
    """What the criterion's choice falls behind the best of the pool; the mean of choices that it holds equal."""
    members = [m for m in record["pool"].values() if m[criterion] is not None]
    if not members:
        return None
    top = max(member[criterion] for member in members)
    return best(record, metric) - mean(member[metric] for member in members if member[criterion] == top)


def regret_of_rule(record: Record, metric: str = "ari") -> float:
    """Of nvisa's start; negative where it is better than all of the pool."""
    return best(record, metric) - record["rule"][metric]


def regret_of(record: Record, algorithm: str, metric: str = "ari") -> float:
    """Of one algorithm, always."""
    return best(record, metric) - record["pool"][algorithm][metric]


# ---- over data sets --------------------------------------------------------------------------------------------------


def by_data(records: Records) -> dict[str, list[Record]]:
    """The records of each data set."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["data"], []).append(record)
    return found


def means(records: Records, number: Regret) -> dict[str, float]:
    """The mean over seeds for each data set that has the number."""
    values = {name: [v for r in mine if (v := number(r)) is not None] for name, mine in by_data(records).items()}
    return {name: mean(found) for name, found in values.items() if found}


def over(values: dict[str, float], names: Collection[str] | None = None) -> float:
    """The mean over these data sets; of none, nan."""
    found = [value for name, value in values.items() if names is None or name in names]
    return mean(found) if found else float("nan")


def left_out(records: Records, *, by: str = "rank", metric: str = "ari") -> dict[str, tuple[str, float]]:
    """For each data set the criterion that is best on all others, and its regret on this one.

    ``by``: "rank", the largest mean rank correlation, or "regret", the smallest mean regret.
    """
    ranks = {c: means(records, lambda r, c=c: rank_correlation(r, c, metric)) for c in CRITERIA}
    regrets = {c: means(records, lambda r, c=c: regret(r, c, metric)) for c in CRITERIA}
    judged = ranks if by == "rank" else {c: {d: -v for d, v in found.items()} for c, found in regrets.items()}
    judged = {c: found for c, found in judged.items() if found}
    chosen = {}
    for data in by_data(records):
        others = {c: {d: v for d, v in found.items() if d != data} for c, found in judged.items()}
        criterion = max(others, key=lambda c: over(others[c]))
        if data in regrets[criterion]:
            chosen[data] = criterion, regrets[criterion][data]
    return chosen


# ---- tables ----------------------------------------------------------------------------------------------------------


def split(records: Records) -> tuple[set[str], set[str]]:
    """Data sets that were not looked at while the rule was developed, and those that were."""
    names = set(by_data(records))
    return names - DEVELOPED_ON, names & DEVELOPED_ON


def number(value: float) -> str:
    """Two digits after the point."""
    return "-" if np.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")


def thousandths(value: float) -> str:
    """Three digits after the point."""
    return "-" if np.isnan(value) else f"{value:.3f}".replace("-0.000", "0.000")


def correlations(records: Records) -> Grid:
    """Of each criterion with ARI and with accuracy; best first."""
    fresh, seen = split(records)
    rows = []
    for criterion, label in CRITERIA.items():
        found = [means(records, lambda r, c=criterion, m=m: rank_correlation(r, c, m)) for m in ("ari", "accuracy")]
        rows.append((label, *(number(over(values, names)) for values in found for names in (fresh, seen))))
    rows.sort(key=lambda row: -float(row[1]) if row[1] != "-" else 9.0)
    head = ("criterion", "ARI, not looked at", "ARI, looked at", "accuracy, not looked at", "accuracy, looked at")
    return Grid(head, tuple(rows))


def choosers(records: Records, metric: str = "ari") -> dict[str, dict[str, float]]:
    """Regret for each data set of everything that chooses: nvisa's start, criteria, criteria left out, algorithms."""
    found = {"**nvisa's start**": means(records, lambda r: regret_of_rule(r, metric))}
    found |= {label: means(records, lambda r, c=c: regret(r, c, metric)) for c, label in CRITERIA.items()}
    for by, label in (("rank", LEARNED), ("regret", "criterion of least regret on the others")):
        chosen = left_out(records, by=by, metric=metric)
        found[label] = {data: lost for data, (_, lost) in chosen.items()}
    found |= {f"always {label}": means(records, lambda r, a=a: regret_of(r, a, metric)) for a, label in FIXED.items()}
    return {label: values for label, values in found.items() if values}


def regrets(records: Records) -> Grid:
    """Of everything that chooses; least on data not looked at first."""
    fresh, seen = split(records)
    rows = []
    accurate = choosers(records, "accuracy")
    for label, values in choosers(records).items():
        worst = max(values, key=lambda name: values[name])
        means_ = (over(values, fresh), over(values, seen), over(accurate[label], fresh))
        rows.append((label, *map(thousandths, means_), f"{number(values[worst])}, {worst}"))
    rows.sort(key=lambda row: float(row[1]) if row[1] != "-" else 9.0)
    head = ("chooses", "ARI, not looked at", "ARI, looked at", "accuracy, not looked at", "most ARI, where")
    return Grid(head, tuple(rows))


def each(names: Collection[str]) -> Callable[[Records], Grid]:
    """A row for each data set: what the pool holds, what nvisa's start takes, what a criterion left out would."""

    def table(records: Records) -> Grid:
        chosen, rows = left_out(records), []
        for name, mine in by_data(records).items():
            if name not in names:
                continue
            top, rule = mean(map(best, mine)), mean(record["rule"]["ari"] for record in mine)
            kinds = sorted({record["rule"]["kind"] for record in mine})
            fixed = (mean(record["pool"][a]["ari"] for record in mine) for a in ("kmeans", "cut", "information"))
            criterion, lost = chosen.get(name, ("-", float("nan")))
            words = f"{CRITERIA.get(criterion, '-')}: {number(lost)}"
            shape = f"{mine[0]['rows']:,} x {mine[0]['columns']}, {mine[0]['k']}"
            rows.append((name, shape, str(len(mine)), *map(number, (top, rule)), ", ".join(kinds),
                         *map(number, fixed), words))  # fmt: skip
        head = ("data", "rows x columns, K", "seeds", "best of the pool", "nvisa's start", "which it was", "k-means",
                "by cut", "by information", "best criterion of the others: regret")  # fmt: skip
        return Grid(head, tuple(rows))

    return table


def duel(first: dict[str, float], second: dict[str, float], names: Collection[str]) -> str:
    """On how many of these data sets the first chooser loses less than the second, and more, by 0.01."""
    gaps = [second[name] - first[name] for name in names if name in first and name in second]
    return f"better on {sum(g > 0.01 for g in gaps)}, worse on {sum(g < -0.01 for g in gaps)} of {len(gaps)}"


def verdict(records: Records) -> str:
    """The conclusion, in sentences."""
    fresh, seen = split(records)
    found = choosers(records)
    rule = found["**nvisa's start**"]

    def beside(label: str) -> str:
        loss = thousandths(over(found[label], fresh))
        return f"{loss}. Beside it nvisa's start is {duel(rule, found[label], fresh)}."

    def least(labels: Collection[str]) -> str:
        return min((label for label in labels if label in found), key=lambda label: over(found[label], fresh))

    criterion, always = least(CRITERIA.values()), least([f"always {label}" for label in FIXED.values()])
    most = sorted(rule, key=lambda name: -rule[name])[:5]
    lines = [
        f"On the {len(fresh)} data sets that were not looked at, nvisa's start falls behind the best clustering of its "
        f"pool by {thousandths(over(rule, fresh))} of the adjusted Rand index; on the {len(seen)} that were, by "
        f"{thousandths(over(rule, seen))}.",
        f"A criterion chosen by its rank correlation on all other data sets: {beside(LEARNED)}",
        f"The best criterion with hindsight, {criterion}: {beside(criterion)}",
        f"The best algorithm with hindsight, {always}: {beside(always)}",
        f"nvisa's start loses most on {', '.join(f'{name} ({number(rule[name])})' for name in most)}.",
    ]
    return "\n".join(f"* {line}" for line in lines)


def pools(records: Records) -> str:
    """How many there are."""
    fresh, seen = split(records)
    seeds = sorted({len(mine) for mine in by_data(records).values()})
    return (
        f"{len(records)} pools: {len(fresh) + len(seen)} data sets, of which {len(fresh)} were not looked at, with "
        f"{' to '.join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))} seeds."
    )


TABLES: dict[str, Callable[[Records], Grid | str]] = {
    "verdict": verdict,
    "pools": pools,
    "correlations": correlations,
    "regrets": regrets,
    "fresh": each([name for name in NAMES if name not in DEVELOPED_ON]),
    "seen": each([name for name in NAMES if name in DEVELOPED_ON]),
}


def rewrite(text: str, records: Records) -> str:
    """The page with every place filled."""

    @cache
    def filled(name: str) -> str:
        made = TABLES[name](records)
        return made if isinstance(made, str) else markdown(made)

    return fill_places(text, "criteria", filled)


def main() -> None:
    write_file(PAGE, rewrite(PAGE.read_text(), load_records()).encode())


if __name__ == "__main__":
    main()
