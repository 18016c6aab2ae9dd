"""A fitted clusterer, and rows if there are some, as one HTML file that needs nothing else and no network."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.fitting.checkpoint import data_digest
from nvisa.maths import metrics
from nvisa.report import facts, pack
from nvisa.report.curves import charts_of_history, running
from nvisa.report.maps import chosen_maps, plane
from nvisa.report.render import render
from nvisa.report.subject import Subject

__all__ = ["write_report"]

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Part = dict[str, Any]
PER_CLUSTER, PER_PAIR, N_PAIRS, N_ANOMALIES = 12, 12, 6, 24
N_FEATURES = 6  # that set a cluster apart
N_FEATURES_IN_ALL = 16  # of the heat map
MAX_CLASSES = 40  # of the table of confusions
IMAGE_BYTES = 5_100_000  # of the map's images, as text
TABLE_BYTES = 2_500_000  # of the map's rows, before compression
PACKAGES = ("nvisa", "torch", "numpy", "scikit-learn", "plotly")


def write_report(
    clusterer: Any,
    X: Any = None,
    y: Any = None,
    *,
    out: str | Path = "report.html",
    feature_shape: Sequence[int] | None = None,
    names: Any = None,
    maps: Sequence[str] = ("auto", "pca"),
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report page: one HTML file that opens offline.

    Parameters
    ----------
    clusterer
        Fitted.
    X
        Rows [N D] to look at, not necessarily those of the fit; None: a page without rows and map.
    y
        Labels of the rows, to be compared with and nothing else.
    out
        The file.
    feature_shape
        (H, W) or (H, W, 3) of rows that are images.
    names
        Of the rows, such as file names.
    maps
        Of the latent space: "pca", "tsne", "umap", or "auto" (t-SNE up to 3,000 rows, UMAP beyond).
    about
        What is known besides: "source", "data_digest", "model", "model_digest", "command".

    Raises
    ------
    ValueError
        If the rows are not what the clusterer was fitted on, or labels, names or images do not go with them.
    ImportError
        If the extra "report" is not installed.
    """
    subject = Subject(clusterer, X, y, feature_shape=feature_shape, names=names, about=about)
    gallery = Gallery(subject)
    payload: Part = {"charts": charts_of_history(clusterer.history_), "n_clusters": subject.n_clusters}
    context: Part = {"facts": _glance(subject), "clusters": _clusters(subject, gallery), "box": _box(subject)}
    if subject.X is not None:
        payload |= _map(subject, chosen_maps(tuple(maps), len(subject.X)))
        context |= {"pairs": _pairs(subject, gallery), "anomalies": _anomalies(subject, gallery)}
    if subject.y is not None:
        context["agreement"] = _agreement(subject)
    context |= {"subject": subject, "sheet": gallery.sheet(), "columns_of": gallery.columns_of()}
    path = Path(out).expanduser()
    path.write_text(render("clusterer.html", payload, **context), encoding="utf-8")
    return path


class Gallery:
    """The rows and samples that the page shows outside the map: images on one sheet, or cells of a table."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.rows: list[Array] = []

    def add(self, X: Array, numbers: Sequence[int] | None = None) -> list[Part]:
        """Members [n D] to show: where each stands on the sheet, its values, and its row number if it has one."""
        start = len(self.rows)
        self.rows.extend(X)
        return [
            {"at": start + i, "row": None if numbers is None else int(numbers[i]), "values": x} for i, x in enumerate(X)
        ]

    def of_rows(self, numbers: Ints) -> list[Part]:
        """Rows of the data, by number."""
        return self.add(np.asarray(self.subject.X[np.asarray(numbers, dtype=int)]), numbers.tolist())

    def sheet(self) -> Part | None:
        """Every image that was added, on one sheet."""
        draw = self.subject.images
        return None if draw is None or not self.rows else pack.sheet(np.stack(self.rows), draw)

    def columns_of(self) -> list[list[int]]:
        """The columns that a cluster's tables show: those that set it apart, else the first."""
        subject = self.subject
        if subject.X is None:
            return [list(range(min(N_FEATURES, subject.n_features)))] * subject.n_clusters
        return [np.argsort(-np.abs(line), kind="stable")[:N_FEATURES].tolist() for line in subject.contrasts[2]]


# ---- parts of the page ------------------------------------------------------------------------------------------


def _glance(subject: Subject) -> list[tuple[str, str, str]]:
    """(what, how much, a note) of the data and the run."""
    sizes, fitted = subject.sizes, subject.clusterer
    shape = "" if subject.feature_shape is None else "images of " + " x ".join(map(str, subject.feature_shape))
    equal = f"as many as {facts.effective_clusters(sizes):.1f} of equal size"
    lines = [
        ("rows" if subject.X is not None else "training rows", f"{sizes.sum():,}", ""),
        ("features", f"{subject.n_features:,}", shape),
        ("clusters in use", f"{metrics.clusters_in_use(sizes)} of {len(sizes)}", equal),
        ("largest, smallest", f"{sizes.max():,}, {sizes.min():,}", "rows in a cluster"),
    ]
    if subject.X is not None:
        confidence = subject.q.max(1)
        below = f"{(confidence < 0.9).mean():.1%} of rows below 0.9"
        lines.append(("mean confidence", f"{confidence.mean():.3f}", below))
    if (information := getattr(fitted, "neighbor_information_", None)) is not None:
        most = f"nats, of at most {np.log(subject.n_clusters):.3f}; no label is used"
        lines.append(("neighbor information", f"{information:.3f}", most))
    lines.append(("training", f"{fitted.n_iter_} epochs", f"{running(fitted.history_)[-1]:,.1f} s"))
    return lines


def _clusters(subject: Subject, gallery: Gallery) -> list[Part]:
    """A card for every cluster."""
    cards = [{"k": k, "size": int(size), "parts": []} for k, size in enumerate(subject.sizes)]
    if subject.X is not None:
        _add_members(cards, subject, gallery)
    _add_inventions(cards, subject.clusterer, gallery)
    return cards


def _add_members(cards: list[Part], subject: Subject, gallery: Gallery) -> None:
    """Typical and uncertain rows, the confidence, and what sets the cluster apart."""
    q, labels = subject.q, subject.labels
    kinds = {
        "Most typical": facts.typical(subject.z, labels, subject.n_clusters, PER_CLUSTER),
        "Least certain": facts.uncertain(q, labels, PER_CLUSTER),
    }
    inside, outside, contrast = subject.contrasts
    for card in cards:
        k, members = card["k"], q[labels == card["k"], card["k"]]
        card["confidence"] = float(members.mean()) if len(members) else None
        card["parts"] += [(title, gallery.of_rows(found[k])) for title, found in kinds.items()]
        apart = np.argsort(-np.abs(contrast[k]), kind="stable")[:N_FEATURES]
        card["apart"] = [(subject.columns[d], inside[k, d], outside[k, d], contrast[k, d]) for d in apart]


def _add_inventions(cards: list[Part], clusterer: Any, gallery: Gallery) -> None:
    """What the model makes up: the middle of every cluster, decoded, and samples (the mean of p(x|z))."""
    prototypes = getattr(clusterer, "prototypes", lambda: None)()
    for card in cards:
        k = card["k"]
        if prototypes is not None:
            card["prototype"] = gallery.add(prototypes[k : k + 1])
        if hasattr(clusterer, "sample"):
            made, _ = clusterer.sample(PER_CLUSTER, cluster=k, noise=False, random_state=k)
            card["parts"].append(("Made up by the model", gallery.add(made)))


def _pairs(subject: Subject, gallery: Gallery) -> list[Part]:
    """The pairs of clusters that are confused most, with the rows between them."""
    joint, q = facts.overlap(subject.q), subject.q
    pairs = []
    for a, b in facts.confused_pairs(joint, N_PAIRS):
        rows = facts.between(q, a, b, PER_PAIR)
        rows = rows[q[rows][:, [a, b]].min(1) >= 0.005]  # others would show 0.00
        if len(rows) == 0:
            continue
        pairs.append({"a": a, "b": b, "share": facts.confusion_rate(joint, a, b), "members": gallery.of_rows(rows),
                      "q": [(float(q[i, a]), float(q[i, b])) for i in rows]})  # fmt: skip
    return pairs


def _anomalies(subject: Subject, gallery: Gallery) -> Part | None:
    """The rows of lowest score, and for tables the features in which they are far out."""
    if (score := subject.score) is None:
        return None
    n_scored = int(np.isfinite(score).sum())
    rows = np.argsort(score, kind="stable")[: min(N_ANOMALIES, n_scored)]  # NaN comes last
    far = facts.deviations(subject.X, rows)
    members = gallery.of_rows(rows)
    for member, x, deviation in zip(members, subject.X[rows], far, strict=True):
        n = member["row"]
        member |= {"score": float(score[n]), "cluster": int(subject.labels[n])}
        most = np.argsort(-np.abs(deviation), kind="stable")[:4]
        far_out = [d for d in most if d == most[0] or abs(deviation[d]) >= 1]
        member["far"] = [(subject.columns[d], float(x[d]), float(deviation[d])) for d in far_out]
    return {"members": members, "n_scored": n_scored, "n_rows": len(score)}


def _agreement(subject: Subject) -> Part:
    """Metrics and the table of confusions, clusters in the order of their classes."""
    names, index = subject.classes
    counts = metrics.contingency(index, subject.labels, subject.n_clusters)
    order = facts.matched_order(counts)
    values = metrics.evaluate(index, subject.labels)
    values["calibration error"] = metrics.calibration_error(index, subject.q / subject.q.sum(1, keepdims=True))
    table = counts[:, order] if len(names) <= MAX_CLASSES and subject.n_clusters <= MAX_CLASSES else None
    return {"metrics": values, "classes": names, "order": order.tolist(), "counts": table, "sums": counts.sum(1)}


def _box(subject: Subject) -> Part:
    """All that is needed to make the run again."""
    about, fitted = subject.about, subject.clusterer
    digest = about.get("data_digest") or (None if subject.X is None else data_digest(subject.X)["sha256"])
    made = {"data": about.get("source"), "SHA-256 of the data": digest, "model": about.get("model"),
            "SHA-256 of the model": about.get("model_digest"), "command": about.get("command")}  # fmt: skip
    return {
        "method": type(fitted).__name__,
        "params": [(name, pack.tidy(repr(value), 400)) for name, value in fitted.get_params(deep=False).items()],
        "made": [(name, pack.tidy(value, 400)) for name, value in made.items() if value is not None],
        "versions": [("python", platform.python_version()), *((name, version(name)) for name in PACKAGES)],
    }


# ---- the map ----------------------------------------------------------------------------------------------------


def _map(subject: Subject, names: list[str]) -> Part:
    """Points of the latent space, their colors, and what hovering shows."""
    rows, q = subject.shown, subject.q
    planes = dict(plane(subject.z[rows], name, RandomState(0)) for name in names)
    payload: Part = {
        "n": len(rows),
        "rows": None if len(rows) == len(q) else pack.packed(rows.astype(np.uint32)),
        "maps": [{"name": name, "x": pack.levels(points[:, 0]), "y": pack.levels(points[:, 1])}
                 for name, points in planes.items()],
        "cluster": _numbers(subject.labels[rows]),
        "second": _numbers(np.argsort(-q[rows], kind="stable")[:, 1]),
        "confidence": pack.levels(q[rows].max(1)),
        "overlap": facts.overlap(q).tolist(),
        **_hover(subject, rows),
    }  # fmt: skip
    if subject.score is not None:
        payload["score"] = pack.levels(subject.score[rows])
    if subject.y is not None:
        payload |= {"classes": subject.classes[0], "label": _numbers(subject.classes[1][rows])}
    if subject.names is not None:
        payload["names"] = pack.packed_json([subject.names[i] for i in rows])
    return payload


def _numbers(values: Ints) -> Part:
    return pack.packed(values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16))


def _hover(subject: Subject, rows: Ints) -> Part:
    """What the map shows of a row: its image, or its values in the columns that tell clusters apart most."""
    if (draw := subject.images) is not None:
        X = subject.X
        order = RandomState(0).permutation(len(rows))  # where not all fit, those with an image are a fair sample
        sheets = pack.sheets(lambda part: np.asarray(X[rows[order[part]]]), len(rows), draw, IMAGE_BYTES)
        return {"sheets": sheets, "place": pack.packed(np.argsort(order).astype(np.uint32))}
    inside, _, contrast = subject.contrasts
    strongest = np.argsort(-np.abs(contrast).max(0), kind="stable")
    n_columns = int(np.clip(TABLE_BYTES // (4 * len(rows)), 4, 12))
    seen, drawn = np.sort(strongest[:n_columns]), np.sort(strongest[:N_FEATURES_IN_ALL])
    values = np.asarray(subject.X[rows][:, seen], dtype=np.float32)
    heat = {"x": [subject.columns[d] for d in drawn], "z": np.round(contrast[:, drawn], 3).tolist()}
    return {"columns": [subject.columns[d] for d in seen], "values": pack.packed(values), "heat": heat}
