"""The page of the long runs: how far each is, and its curves, from ``benchmarks/paper``.

python -m nvisa.benchmark.long_run_page
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvisa.benchmark import PAPER
from nvisa.benchmark.figures import axes_of, save
from nvisa.benchmark.formats import Grid, fill_places, markdown
from nvisa.durable_files import write_file
from nvisa.json_values import parse

__all__ = ["curves_in", "draw", "main", "table"]

PAGE, PICTURE = Path("docs/full-length.md"), Path("docs/figures/full-length.png")
Curves = Sequence[dict[str, Any]]
# What is drawn: title, and (quantity, label) of each line.
PANELS = (
    ("accuracy on test, %", (("accuracy", ""),)),
    ("bound, nats per example", (("bound", ""),)),
    ("std floors", (("std_floor_x", "of p(x|z)"), ("std_floor_z", "of q(z|y,x)"))),
    ("entropy of q(y|x), nats", (("entropy", "mean over x"), ("entropy_of_mean", "of the mean"))),
)


def curves_in(folder: Path) -> Curves:
    """Every run's curve, by the name of its folder."""
    return [parse(path.read_bytes()) for path in sorted(folder.glob("*/curve.json"))]


def name_of(curve: dict[str, Any]) -> str:
    """Recipe, data and seed in a line."""
    return f"{curve['recipe'].removeprefix('slides/')}, {curve['dataset']}, seed {curve['seed']}"


def table(curves: Curves) -> Grid:
    """Where each run stands: its last point."""
    head = ("run", "epoch", "of", "core hours", "accuracy %", "bound", "std floor", "mean H[q(y|x)]")
    rows = []
    for curve in curves:
        last = curve["points"][-1]
        rows.append((
            name_of(curve), str(last["epoch"]), str(last["n_epochs"]), f"{last['cpu_seconds'] / 3600:.1f}",
            f"{100 * last['accuracy']:.2f}", f"{last['bound']:.1f}", f"{last['std_floor_x']:.4g}",
            f"{last['entropy']:.3f}",
        ))  # fmt: skip
    return Grid(head, tuple(rows))


def draw(curves: Curves, path: Path) -> None:
    """A panel for each quantity against epochs, a line a run."""
    figure, panels = axes_of(13.0, 3.4, len(PANELS))
    for axes, (title, lines) in zip(panels, PANELS, strict=True):
        for curve in curves:
            for key, label in lines:
                seen = [point for point in curve["points"] if key in point]
                scale = 100 if key == "accuracy" else 1
                text = ", ".join(part for part in (name_of(curve) if len(curves) > 1 else "", label) if part)
                x, y = [point["epoch"] for point in seen], [scale * point[key] for point in seen]
                axes.plot(x, y, lw=1, label=text or None)
        axes.set(xlabel="epoch", title=title)
        if title == "std floors":
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=6)
    save(figure, path)


def main() -> None:
    """Fill the page's table and draw its picture."""
    curves = curves_in(PAPER)
    page = fill_places(PAGE.read_text(), "full-length", lambda _: markdown(table(curves)))
    write_file(PAGE, page.encode())
    draw(curves, PICTURE)


if __name__ == "__main__":
    main()
