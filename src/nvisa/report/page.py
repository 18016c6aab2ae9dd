"""A fitted clusterer, and rows if there are some, as one HTML file that needs nothing else and no network."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa.durable_files import write_file
from nvisa.fitting.checkpoint import data_digest
from nvisa.fitting.training import clusters_in_use
from nvisa.maths import metrics
from nvisa.report import cluster_statistics as statistics
from nvisa.report.curves import charts_of_history, running
from nvisa.report.encoding import encoded, encoded_floats, encoded_json, one_line
from nvisa.report.evaluation import Evaluation
from nvisa.report.maps import chosen_maps, plane
from nvisa.report.render import render
from nvisa.report.thumbnails import gallery_sprite, map_sprites

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
        Of the latent space: "pca", "tsne", "umap" (its objective, :mod:`nvisa.fitting.layout`), or "auto" (t-SNE up to
        3,000 rows, "umap" beyond).
    about
        What is known besides: "source", "data_digest", "model", "model_digest", "command".

    Raises
    ------
    ValueError
        If the rows are not what the clusterer was fitted on, or labels, names or images do not go with them.
    ImportError
        If the extra "report" is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from nvisa import AEGMM, Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> model = AEGMM(3, training=Training(epochs=5), random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(model, X, out=f"{folder}/report.html", maps=("pca",)).name
    'report.html'
    """
    evaluation = Evaluation(clusterer, X, y, feature_shape=feature_shape, names=names, about=about)
    gallery = Gallery(evaluation)
    payload: Part = {"charts": charts_of_history(clusterer.history_), "n_clusters": evaluation.n_clusters}
    context: Part = {
        "overview": _overview(evaluation),
        "clusters": _clusters(evaluation, gallery),
        "reproduction": _reproduction(evaluation),
    }
    if evaluation.X is not None:
        payload |= _map(evaluation, chosen_maps(tuple(maps), len(evaluation.X)))
        context |= {"pairs": _pairs(evaluation, gallery), "anomalies": _anomalies(evaluation, gallery)}
    if evaluation.y is not None:
        context["agreement"] = _agreement(evaluation)
    context |= {"evaluation": evaluation, "sprite": gallery.sprite(), "columns_of": gallery.columns_of()}
    path = Path(out).expanduser()
    write_file(path, render("clusterer.html", payload, **context).encode())
    return path


class Gallery:
    """The rows and samples that the page shows outside the map: images in one sprite, or cells of a table."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.rows: list[Array] = []

    def add(self, X: Any, numbers: Sequence[int] | None = None) -> list[Part]:
        """Members [n D] to show: where each stands in the sprite, its values, and its row number if it has one."""
        start, X = len(self.rows), np.asarray(X)  # a data frame, where there are categories
        self.rows.extend(X)
        return [
            {"at": start + i, "row": None if numbers is None else int(numbers[i]), "values": x} for i, x in enumerate(X)
        ]

    def of_rows(self, numbers: Ints) -> list[Part]:
        """Rows of the data, by number."""
        rows = np.asarray(self.evaluation.X[np.asarray(numbers, dtype=int)])
        return self.add(self.evaluation.as_given(rows), numbers.tolist())

    def sprite(self) -> Part | None:
        """Every image that was added, in one."""
        draw = self.evaluation.images
        return None if draw is None or not self.rows else gallery_sprite(np.stack(self.rows), draw)

    def columns_of(self) -> list[list[int]]:
        """The columns that a cluster's tables show: those that set it apart, else the first."""
        evaluation = self.evaluation
        if evaluation.X is None:
            return [list(range(min(N_FEATURES, evaluation.n_features)))] * evaluation.n_clusters
        return [np.argsort(-np.abs(line), kind="stable")[:N_FEATURES].tolist() for line in evaluation.contrasts[2]]


# ---- parts of the page ------------------------------------------------------------------------------------------


def _overview(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(what, how much, a note) of the data and the run."""
    sizes, fitted = evaluation.sizes, evaluation.clusterer
    shape = "" if evaluation.feature_shape is None else "images of " + " x ".join(map(str, evaluation.feature_shape))
    equal = f"as many as {statistics.effective_clusters(sizes):.1f} of equal size"
    lines = [
        ("rows" if evaluation.X is not None else "training rows", f"{sizes.sum():,}", ""),
        ("features", f"{evaluation.n_features:,}", shape),
        ("clusters in use", f"{clusters_in_use(sizes)} of {len(sizes)}", equal),
        ("largest, smallest", f"{sizes.max():,}, {sizes.min():,}", "rows in a cluster"),
    ]
    if evaluation.X is not None:
        confidence = evaluation.q.max(1)
        below = f"{(confidence < 0.9).mean():.1%} of rows below 0.9"
        lines.append(("mean of max q(y|x)", f"{confidence.mean():.3f}", below))
    if (information := getattr(fitted, "neighbor_information_", None)) is not None:
        most = f"nats, of at most {np.log(evaluation.n_clusters):.3f}; no label is used"
        lines.append(("neighbor information", f"{information:.3f}", most))
    if (diagnosis := getattr(fitted, "diagnosis_", None)) is not None:
        lost = diagnosis["cut"]
        others = f"k-means {lost['kmeans']:.1%}, a Gaussian mixture {lost['mixture']:.1%}; no label is used"
        lines.append(("neighbors lost at borders", f"{lost['fit']:.1%}", others))
    lines.append(("training", f"{fitted.n_iter_} epochs", f"{running(fitted.history_)[-1]:,.1f} s"))
    return lines


def _clusters(evaluation: Evaluation, gallery: Gallery) -> list[Part]:
    """A card for every cluster."""
    cards = [{"k": k, "size": int(size), "parts": []} for k, size in enumerate(evaluation.sizes)]
    if evaluation.X is not None:
        _add_members(cards, evaluation, gallery)
        _add_traversals(cards, evaluation, gallery)
    _add_samples(cards, evaluation.clusterer, gallery)
    return cards


def _add_members(cards: list[Part], evaluation: Evaluation, gallery: Gallery) -> None:
    """Typical and uncertain rows, the confidence, and what sets the cluster apart."""
    q, labels = evaluation.q, evaluation.labels
    kinds = {
        "Most typical": statistics.typical(evaluation.z, labels, evaluation.n_clusters, PER_CLUSTER),
        "Smallest max q(y|x)": statistics.uncertain(q, labels, PER_CLUSTER),
    }
    inside, outside, contrast = evaluation.contrasts
    for card in cards:
        k, members = card["k"], q[labels == card["k"], card["k"]]
        card["confidence"] = float(members.mean()) if len(members) else None
        card["parts"] += [(title, gallery.of_rows(found[k])) for title, found in kinds.items()]
        order = np.argsort(-np.abs(contrast[k]), kind="stable")[:N_FEATURES]
        apart = [d for d in order if d not in evaluation.of_categories]
        card["apart"] = [
            (
                evaluation.columns[d],
                evaluation.written(inside[k, d], d),
                evaluation.written(outside[k, d], d),
                contrast[k, d],
            )
            for d in apart
        ]


def _add_traversals(cards: list[Part], evaluation: Evaluation, gallery: Gallery) -> None:
    """What varies within a cluster: decoded along the axis on which its latent vectors vary most."""
    clusterer = evaluation.clusterer
    if not hasattr(clusterer, "decode") or clusterer.categories_:
        return
    for card in cards:
        z = evaluation.z[evaluation.labels == card["k"]]
        if len(z) >= 3:
            walked = clusterer.decode(statistics.traversal(z, PER_CLUSTER))
            card["parts"].append(("A walk along its widest latent axis, -2 to 2 deviations", gallery.add(walked)))


def _add_samples(cards: list[Part], clusterer: Any, gallery: Gallery) -> None:
    """Of the model: the mean of every cluster, decoded, and samples (the mean of p(x|z))."""
    prototypes = getattr(clusterer, "prototypes", lambda: None)()
    for card in cards:
        k = card["k"]
        if prototypes is not None:
            card["prototype"] = gallery.add(prototypes[k : k + 1])
        if hasattr(clusterer, "sample"):
            made, _ = clusterer.sample(PER_CLUSTER, cluster=k, noise=False, random_state=k)
            card["parts"].append(("Samples: mean of p(x|z), z from p(z|y)", gallery.add(made)))


def _pairs(evaluation: Evaluation, gallery: Gallery) -> list[Part]:
    """The pairs of clusters that are confused most, with the rows between them."""
    joint, q = statistics.overlap(evaluation.q), evaluation.q
    pairs = []
    for a, b in statistics.confused_pairs(joint, N_PAIRS):
        rows = statistics.between(q, a, b, PER_PAIR)
        rows = rows[q[rows][:, [a, b]].min(1) >= 0.005]  # others would show 0.00
        if len(rows) == 0:
            continue
        pairs.append({"a": a, "b": b, "share": statistics.confusion_rate(joint, a, b), "members": gallery.of_rows(rows),
                      "q": [(float(q[i, a]), float(q[i, b])) for i in rows]})  # fmt: skip
    return pairs


def _anomalies(evaluation: Evaluation, gallery: Gallery) -> Part | None:
    """The rows of lowest score, and for tables the features in which they are far out."""
    if (score := evaluation.score) is None:
        return None
    n_scored = int(np.isfinite(score).sum())
    rows = np.argsort(score, kind="stable")[: min(N_ANOMALIES, n_scored)]  # NaN comes last
    far = statistics.deviations(evaluation.X, rows)
    far[:, evaluation.of_categories] = 0.0
    members = gallery.of_rows(rows)
    for member, x, deviation in zip(members, evaluation.as_given(evaluation.X[rows]), far, strict=True):
        n = member["row"]
        member |= {"score": float(score[n]), "cluster": int(evaluation.labels[n])}
        most = np.argsort(-np.abs(deviation), kind="stable")[:4]
        far_out = [d for d in most if d == most[0] or abs(deviation[d]) >= 1]
        member["far"] = [(evaluation.columns[d], evaluation.written(x[d], d), float(deviation[d])) for d in far_out]
    return {"members": members, "n_scored": n_scored, "n_rows": len(score)}


def _agreement(evaluation: Evaluation) -> Part:
    """Metrics and the table of confusions, clusters in the order of their classes."""
    names, index = evaluation.classes
    counts = metrics.contingency(index, evaluation.labels, evaluation.n_clusters)
    order = statistics.matched_order(counts)
    values = metrics.evaluate(index, evaluation.labels)
    values["calibration error"] = metrics.calibration_error(index, evaluation.q / evaluation.q.sum(1, keepdims=True))
    table = counts[:, order] if len(names) <= MAX_CLASSES and evaluation.n_clusters <= MAX_CLASSES else None
    return {"metrics": values, "classes": names, "order": order.tolist(), "counts": table, "sums": counts.sum(1)}


def _reproduction(evaluation: Evaluation) -> Part:
    """All that is needed to make the run again."""
    about, fitted = evaluation.about, evaluation.clusterer
    digest = about.get("data_digest") or (None if evaluation.X is None else data_digest(evaluation.X)["sha256"])
    made = {"data": about.get("source"), "SHA-256 of the data": digest, "model": about.get("model"),
            "SHA-256 of the model": about.get("model_digest"), "command": about.get("command")}  # fmt: skip
    return {
        "method": type(fitted).__name__,
        "params": [(name, one_line(repr(value), 400)) for name, value in fitted.get_params(deep=False).items()],
        "made": [(name, one_line(value, 400)) for name, value in made.items() if value is not None],
        "versions": [("python", platform.python_version()), *((name, version(name)) for name in PACKAGES)],
    }


# ---- the map ----------------------------------------------------------------------------------------------------


def _map(evaluation: Evaluation, names: list[str]) -> Part:
    """Points of the latent space, their colors, and what hovering shows."""
    rows, q = evaluation.shown, evaluation.q
    planes = dict(plane(evaluation.z[rows], name, RandomState(0)) for name in names)
    payload: Part = {
        "n": len(rows),
        "rows": None if len(rows) == len(q) else encoded(rows.astype(np.uint32)),
        "maps": [{"name": name, "x": encoded_floats(points[:, 0]), "y": encoded_floats(points[:, 1])}
                 for name, points in planes.items()],
        "cluster": _numbers(evaluation.labels[rows]),
        "second": _numbers(np.argsort(-q[rows], kind="stable")[:, 1]),
        "confidence": encoded_floats(q[rows].max(1)),
        "overlap": statistics.overlap(q).tolist(),
        **_hover(evaluation, rows),
    }  # fmt: skip
    if evaluation.score is not None:
        payload["score"] = encoded_floats(evaluation.score[rows])
    if evaluation.y is not None:
        payload |= {"classes": evaluation.classes[0], "label": _numbers(evaluation.classes[1][rows])}
    if evaluation.names is not None:
        payload["names"] = encoded_json([evaluation.names[i] for i in rows])
    return payload


def _numbers(values: Ints) -> Part:
    return encoded(values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16))


def _hover(evaluation: Evaluation, rows: Ints) -> Part:
    """What the map shows of a row: its image, or its values in the columns that tell clusters apart most."""
    if (draw := evaluation.images) is not None:
        X = evaluation.X
        order = RandomState(0).permutation(len(rows))  # where not all fit, those with an image are a fair sample
        sprites = map_sprites(lambda part: np.asarray(X[rows[order[part]]]), len(rows), draw, IMAGE_BYTES)
        return {"sprites": sprites, "place": encoded(np.argsort(order).astype(np.uint32))}
    inside, _, contrast = evaluation.contrasts
    strongest = np.argsort(-np.abs(contrast).max(0), kind="stable")
    n_columns = int(np.clip(TABLE_BYTES // (4 * len(rows)), 4, 12))
    seen, drawn = np.sort(strongest[:n_columns]), np.sort(strongest[:N_FEATURES_IN_ALL])
    values, digits = evaluation.as_given(evaluation.X[rows])[:, seen], evaluation.digits[seen]
    values = values.astype(np.float64 if digits.max() > 6 else np.float32)
    heat = {"x": [evaluation.columns[d] for d in drawn], "z": np.round(contrast[:, drawn], 3).tolist()}
    columns = [evaluation.columns[d] for d in seen]
    return {"columns": columns, "digits": digits.tolist(), "values": encoded(values), "heat": heat}
