"""Progress of fits: a bar in a terminal, a plain line every tenth elsewhere. A leaf on rich.

EpochProgress is a callback of ``clusterer.on_epoch``; ``verbose=1`` installs it.
"""

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

__all__ = ["EpochProgress", "clock", "describe", "is_tenth", "time_left"]

Record = dict[str, Any]


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss.

    Examples
    --------
    >>> clock(75.2)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_left(record: Record) -> float:
    """Seconds to the end of the record's stage, at the pace so far or, of a structure search, at the most."""
    if "seconds_a_move" in record:
        return record["seconds_a_move"] * (record["n_epochs"] - record["epoch"])
    return record["seconds"] / record["epoch"] * (record["n_epochs"] - record["epoch"])


def describe(record: Record) -> str:
    """What a person wants to know of an epoch: the bound, the clusters in use, the std floor, the time left.

    Examples
    --------
    >>> describe({"epoch": 3, "n_epochs": 9, "seconds": 30.0, "bound": 12.3456, "clusters_in_use": 10})
    'bound 12.35 · 10 clusters in use · 1:00 left'
    """
    parts = [f"{name} {record[key]:.4g}" for key, name in SHOWN.items() if key in record]
    if "clusters_in_use" in record:
        parts.append(f"{record['clusters_in_use']} clusters in use")
    if "std_floor_x" in record:
        parts.append(f"std floor {record['std_floor_x']:.3g}")
    left = f"{clock(time_left(record))} left"
    if "seconds_a_move" in record:
        parts.append(f"BIC {record['bic']:.0f}")
        left = f"about {clock(record['seconds_a_move'])} a move, at most {left}"
    return " · ".join([*parts, left])


SHOWN = {"reconstruction_error": "error", "log_q_of_start": "log q", "bound": "bound"}


class EpochProgress:
    """Shows the epochs of a fit; a context manager, and a callback of ``clusterer.on_epoch``.

    Parameters
    ----------
    file
        Where to; standard error by default, so that results can be piped.

    Examples
    --------
    >>> with EpochProgress() as progress:                       # doctest: +SKIP
    ...     NVISA().on_epoch(progress).fit(X)
    """

    def __init__(self, file: Any = None) -> None:
        self.console = Console(file=file if file is not None else sys.stderr)
        self.bars = _bars(self.console) if self.console.is_terminal else None
        self.task: TaskID | None = None
        self.runs: dict[str, int] = {}

    def __enter__(self) -> "EpochProgress":
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, clusterer: Any, record: Record) -> None:
        """Show an epoch's record."""
        stage = record["stage"]
        if record["epoch"] == 1:
            self.runs[stage] = self.runs.get(stage, 0) + 1
            self.task = None
        n_restarts = getattr(clusterer, "_n_restarts", None) or 1
        title = f"{stage} {self.runs.get(stage, 1)}/{n_restarts}" if n_restarts > 1 else stage
        if self.bars is not None:
            self._draw(self.bars, title, record)
        elif is_tenth(record["epoch"], record["n_epochs"]):
            line = f"{title} {record['epoch']}/{record['n_epochs']}: {describe(record)}"
            print(line, file=self.console.file, flush=True)

    def _draw(self, bars: Progress, title: str, record: Record) -> None:
        if self.task is None:
            self.task = bars.add_task(title, total=record["n_epochs"], text="")
        is_last = record["epoch"] == record["n_epochs"]
        text = f"{clock(record['seconds'])} in all" if is_last else describe(record)
        if is_last and record["stage"] == "pretraining":
            text += ", now looking for a first assignment"
        bars.update(self.task, completed=record["epoch"], text=text)


def _bars(console: Console) -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()]
    return Progress(*columns, TextColumn("{task.fields[text]}"), console=console, refresh_per_second=4)


def is_tenth(epoch: int, n_epochs: int) -> bool:
    """Whether another tenth of the run is done with this epoch."""
    return 10 * epoch // n_epochs > 10 * (epoch - 1) // n_epochs
