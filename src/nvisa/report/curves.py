"""Charts of a history: what is drawn, as plain data; the page's library draws it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

__all__ = ["chart", "charts_of_history", "running"]

Chart = dict[str, Any]
Record = dict[str, Any]

# (title, what the axis counts, {key of the history: name}, scale: "linear", "log", or "zero" for one that begins there)
CHARTS: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("Bound on log p(x)", "nats a row", {"bound": "bound"}, "linear"),
    (
        "What the bound is made of",
        "nats a row",
        {
            "log_p_x_given_z": "log p(x|z)",
            "log_p_z_given_y": "log p(z|y)",
            "log_p_z": "log p(z)",
            "entropy_z": "entropy of q(z|x)",
            "log_p_y": "log p(y)",
            "minus_log_q_y": "- log q(y|x)",
            "minus_log_q_z": "- log q(z|y,x)",
            "minus_kl_z": "- KL of z",
            "minus_kl_w": "- KL of w",
            "minus_kl_y": "- KL of y",
        },
        "linear",
    ),
    ("Std floors", "epsilon", {"std_floor_x": "of x", "std_floor_z": "of z"}, "log"),
    ("Clusters in use", "clusters", {"clusters_in_use": "at least a tenth of an equal share"}, "zero"),
    ("Entropy of the mean assignment", "nats", {"assignment_entropy": "entropy"}, "zero"),
    ("Rows that changed their cluster", "share of rows", {"label_change": "since the epoch before"}, "zero"),
    (
        "Consistency of q(y|x)",
        "nats",
        {
            "vat": "divergence from neighbors",
            "augment": "divergence from moved images",
            "information": "information",
        },
        "zero",
    ),
    (
        "Adversarial game",
        "nats",
        {
            "log_fooled": "log D(x) of generated rows",
            "log_told_apart": "what the discriminator maximizes",
            "log_q_of_generated": "log q(y|x) of generated rows",
            "log_q_of_maker": "log q(y|x) of generated rows",  # its name in models of version 0.1.0
        },
        "linear",
    ),
    ("Objective that is maximized", "objective", {"objective": "objective"}, "linear"),
)


def chart(title: str, y_title: str, series: Sequence[Chart], *, x_title: str = "epoch", scale: str = "linear") -> Chart:
    """A line chart; a series is {"name", "x", "y"}."""
    return {"title": title, "x_title": x_title, "y_title": y_title, "series": list(series), "scale": scale, "marks": []}


def charts_of_history(history: Sequence[Record]) -> list[Chart]:
    """The charts of which the history holds a quantity; stages follow each other along the epochs."""
    drawn = []
    for title, y_title, keys, scale in CHARTS:
        series = [_series(history, key, name) for key, name in keys.items() if any(key in r for r in history)]
        if series:
            drawn.append(chart(title, y_title, series, scale=scale) | {"marks": _stages(history)})
    return drawn


def running(history: Sequence[Record]) -> list[float]:
    """Seconds since the first stage began, from the clock that every stage starts anew with its first epoch."""
    gone, before, found = 0.0, 0.0, []
    for record in history:
        gone += before if record.get("epoch", 1) == 1 else 0.0
        before = record.get("seconds", 0.0)
        found.append(gone + before)
    return found


def _series(history: Sequence[Record], key: str, name: str) -> Chart:
    points = [(epoch, record[key]) for epoch, record in enumerate(history, 1) if record.get(key) is not None]
    return {"name": name, "x": [epoch for epoch, _ in points], "y": [value for _, value in points]}


def _stages(history: Sequence[Record]) -> list[Chart]:
    """Where a new stage begins: a mark of the epochs."""
    stages = [str(record.get("stage", "")) for record in history]
    starts = [(0, stages[0])] + [(i + 1, new) for i, (old, new) in enumerate(pairwise(stages)) if new != old]
    return [{"x": i + 0.5, "text": stage} for i, stage in starts] if len(starts) > 1 else []
