"""Pictures: lines of images, and points in the plane. A leaf; matplotlib is imported when one is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.durable_files import replacing_file

__all__ = ["as_images", "brightness", "save_grid", "save_scatter"]

Array = NDArray[np.floating]
Block = tuple[str, Sequence[Array]]
INCH = 0.45  # side of one image on paper
DPI = 120


def brightness(X: Array) -> tuple[float, float]:
    """Values of black and white: 0 and 1 for data near [0, 1], the extremes for others, such as 0..255."""
    low, high = float(np.nanmin(X)), float(np.nanmax(X))
    return (low, high) if high > 2 or low < -1 else (0.0, 1.0)


def as_images(X: Array, feature_shape: Sequence[int], *, limits: tuple[float, float] | None = None) -> Array:
    """Rows [N D] as images [N H W] or [N H W 3] with values in [0, 1].

    What lies outside ``limits``, by default the :func:`brightness` of these rows, is clipped.

    Raises
    ------
    ValueError
        If ``feature_shape`` is not that of a gray or a color image.
    """
    shape = tuple(feature_shape)
    shape = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
    if len(shape) != 2 and (len(shape) != 3 or shape[2] != 3):
        raise ValueError(f"expected images of shape (H, W) or (H, W, 3), got {shape}. Try a table instead.")
    low, high = brightness(X) if limits is None else limits
    return ((X - low) / max(high - low, 1e-12)).clip(0, 1).reshape(len(X), *shape)


def save_grid(
    path: str | Path, blocks: Sequence[Block], *, title: str = "", names: Sequence[str] | None = None
) -> None:
    """Draw lines of images, one a cluster; several blocks stand side by side.

    Parameters
    ----------
    path
        Of the .png.
    blocks
        (heading, lines); a line is an array [n H W] or [n H W 3], n from 0.
    title
        Above all.
    names
        Of the lines; their numbers by default.
    """
    widths = [max(1, *(len(line) for line in lines)) for _, lines in blocks]
    n_lines = max(len(lines) for _, lines in blocks)
    figure = _figure(INCH * (sum(widths) + len(blocks)) + 0.4, INCH * n_lines + 0.8)
    columns = figure.add_gridspec(1, len(blocks), width_ratios=widths)
    for b, (heading, lines) in enumerate(blocks):
        shown = (names or range(n_lines)) if b == 0 else ()
        _draw_block(figure.add_subplot(columns[b]), heading, _canvas(lines, widths[b]), shown)
    _write(figure, path, title)


def _draw_block(axes: Any, heading: str, canvas: Array, names: Sequence[object]) -> None:
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(heading, fontsize=9)
    side = canvas.shape[0] / max(1, len(names))
    axes.set_xticks([])
    axes.set_yticks([side * (k + 0.5) for k in range(len(names))], [str(name) for name in names])
    axes.tick_params(length=0)
    axes.set_frame_on(False)


def _canvas(lines: Sequence[Array], width: int) -> Array:
    """All images in one, with a margin of about a tenth between them."""
    example = next(line for line in lines if len(line))[0]
    height, breadth = example.shape[:2]
    gap = max(1, height // 10)
    canvas = np.ones((len(lines) * (height + gap), width * (breadth + gap), *example.shape[2:]))
    for k, line in enumerate(lines):
        for i, image in enumerate(line):
            top, left = k * (height + gap) + gap // 2, i * (breadth + gap) + gap // 2
            canvas[top : top + height, left : left + breadth] = image
    return canvas


def save_scatter(path: str | Path, points: Array, labels: NDArray[np.integer], *, title: str = "") -> None:
    """Draw points [N 2] in the color of their cluster, with its number in its middle."""
    figure = _figure(7.0, 6.0)
    axes = figure.add_subplot()
    axes.scatter(*points.T, c=labels, s=6, cmap="tab10" if labels.max() < 10 else "turbo", linewidths=0)
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
    for k in np.unique(labels):
        middle = np.median(points[labels == k], axis=0)
        axes.annotate(str(k), middle, ha="center", va="center", fontsize=11, weight="bold", bbox=box)
    axes.set_axis_off()
    _write(figure, path, title)


def _figure(width: float, height: float) -> Any:
    """A figure without pyplot: no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Any, path: str | Path, title: str) -> None:
    if title:
        figure.suptitle(title, fontsize=10)
    with replacing_file(Path(path)) as part:
        figure.savefig(part, dpi=DPI, format="png", facecolor="white")
