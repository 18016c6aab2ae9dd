"""The figures of the slides, and accuracy against time, from records and models: ``make figures``.

    python -m nvisa.benchmark.figures --only loss time     # these, from records alone

Pictures of samples and of the latent space need models; one that is not in ``benchmarks/models`` is fitted by its
recipe first (digits: half a minute each).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.random import RandomState
from numpy.typing import NDArray

from nvisa import data as datasets
from nvisa.benchmark import MODELS, RECORDS
from nvisa.benchmark.experiments import BEYOND, ROWS
from nvisa.benchmark.records import Record, load_records
from nvisa.benchmark.run import fitted
from nvisa.benchmark.tables import ABLATION_ROWS, values
from nvisa.durable_files import replacing_file
from nvisa.maths.metrics import accuracy
from nvisa.report import pictures

__all__ = ["FIGURES", "loss", "main", "prior_points", "samples", "time", "tsne"]

Array = NDArray[np.floating]
SAMPLED = {
    "enum_y": "EnumY",
    "vimco_1000": "VIMCO, M = 1000",
    "enum_y_annealed": "EnumY, annealed",
    "vimco_annealed": "VIMCO, M = 15, annealed",
}
N_POINTS = 10_000


def axes_of(width: float, height: float, n: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of n panels side by side, without a window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, n)))


def save(figure: Figure, path: Path) -> None:
    """Write the .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as part:
        figure.savefig(part, dpi=100, format="png", facecolor="white", metadata={"Software": None})


def _legend(axes: Any, ncols: int = 1) -> None:
    """A legend, where there is something to explain."""
    if axes.lines:
        axes.legend(fontsize=7, ncols=ncols)


def losses(record: Record) -> tuple[list[float], list[float]]:
    """Fraction of the run, and minus the bound per example, epoch by epoch of the joint training."""
    epochs = [epoch for epoch in record["history"] if epoch["stage"] == "training" and epoch.get("bound") is not None]
    return [epoch["epoch"] / epoch["n_epochs"] for epoch in epochs], [-epoch["bound"] for epoch in epochs]


def loss(records: Sequence[Record], folder: Path, models: Path, data_home: str | None) -> None:
    """Training loss of the ablation's rows on one axis, seed 0; a line that ends early has diverged."""
    figure, (axes,) = axes_of(8.0, 5.0)
    axes.set_prop_cycle(color=(*colormaps["tab10"](range(10)), "black", "navy"))
    for name, (inference, method) in ABLATION_ROWS.items():
        for record in records:
            if (record["recipe"], record["dataset"], record["seed"]) == (f"ablation/{name}", "digits", 0):
                style = "-" if "annealed" in name else (":" if "bernoulli" in name else "--")
                axes.plot(*losses(record), style, lw=1.2, label=f"{inference}, {method}")
    axes.set_yscale("symlog", linthresh=100)
    axes.set(xlabel="fraction of the run", ylabel="- bound, nats per example", title="Training loss, digits, seed 0")
    _legend(axes, ncols=2)
    save(figure, folder / "loss.png")


def samples(records: Sequence[Record], folder: Path, models: Path, data_home: str | None) -> None:
    """Eight generated digits of every cluster (the mean of p(x|z)), for four rows of the ablation."""
    blocks, digits = [], datasets.load("digits", data_home)
    for name, title in SAMPLED.items():
        model, _ = fitted(f"ablation/{name}", digits, 0, models)
        drawn = [model.sample(8, cluster=k, noise=False)[0] for k in range(model._n_found)]
        images = pictures.as_images(np.concatenate(drawn), (8, 8))
        blocks.append((title, np.split(images, model._n_found)))
    pictures.save_grid(folder / "samples.png", blocks, title="Generated digits, a line a cluster")


@torch.inference_mode()
def prior_points(model: Any, n: int, rng: RandomState) -> tuple[Array, NDArray[np.integer], NDArray[np.integer]]:
    """``z ~ p(z|y)`` [n Z], its y, and the cluster that q(y|x) gives to ``E[x|z]``."""
    y, net = rng.randint(model._n_found, size=n), model.module_
    noise = torch.from_numpy(rng.standard_normal((n, net.latent_dim)).astype(np.float32))
    z = net.prior.loc[y] + net.prior.scale[y] * noise
    return z.numpy(), y, model.predict(net.rescale.inverse(net.reconstruct(z)).numpy())


def tsne(records: Sequence[Record], folder: Path, models: Path, data_home: str | None) -> None:
    """Encoded test digits and prior samples in one t-SNE, in the color of their predicted cluster."""
    from openTSNE import TSNE  # noqa: PLC0415

    data = datasets.load("mnist", data_home)
    model, _ = fitted("default", data, 0, models)
    assert data.X_test is not None
    assert data.y_test is not None
    X, labels = data.X_test[:N_POINTS], data.y_test[:N_POINTS]
    prior, y, of_prior = prior_points(model, N_POINTS, RandomState(0))
    of_test = model.predict(X)
    points = np.asarray(TSNE(random_state=0, n_jobs=1).fit(np.concatenate([model.transform(X), prior])))
    figure, panels = axes_of(12.0, 6.0, 2)
    for axes, shown, color, title in (
        (panels[0], points[: len(X)], of_test, f"test digits: accuracy {accuracy(labels, of_test):.2%}"),
        (panels[1], points[len(X) :], of_prior, f"prior samples: q(y|x) finds y in {np.mean(y == of_prior):.2%}"),
    ):
        axes.scatter(*shown.T, c=color, s=1, cmap="tab10", linewidths=0)
        axes.set_title(title)
        axes.set_axis_off()
    save(figure, folder / "tsne.png")


def core_seconds(record: Record) -> list[float]:
    """When each epoch of the joint training ended, in seconds of one core since the start, another's fit included."""
    share, before = record["cpu_seconds"] / record["seconds"], record.get("start", {}).get("seconds", 0.0)
    return [share * (before + epoch["elapsed"]) for epoch in _joint(record)]


def _joint(record: Record) -> list[dict[str, Any]]:
    return [epoch for epoch in record.get("curve", []) if epoch["stage"] == "training"]


def time(records: Sequence[Record], folder: Path, models: Path, data_home: str | None) -> None:
    """Accuracy against core seconds: every method on MNIST, the mean over its seeds, and the curves that were kept.

    Triangles: with consistency.
    """
    figure, (axes,) = axes_of(10.0, 5.5)
    axes.set_prop_cycle(color=colormaps["tab20"](range(20)))  # there are more than ten rows
    for row in dict.fromkeys((*ROWS, *BEYOND)):
        mine = [r for r in records if (r["recipe"], r["dataset"]) == (row.recipe("mnist"), "mnist")]
        ended = [record for record in mine if record["status"] == "ok"]
        if not ended:
            continue
        marker = "o" if row in ROWS else "^"  # there are more rows than colors
        (point,) = axes.plot(mean(r["cpu_seconds"] for r in ended), mean(values(ended)), marker, label=row.label)
        for record in ended:
            accuracies = [100 * epoch["accuracy"] for epoch in _joint(record)]
            axes.plot(core_seconds(record), accuracies, lw=0.8, color=point.get_color())
    axes.set(xlabel="seconds of one core, start included", ylabel="accuracy on test, %", title="MNIST")
    axes.set_xscale("log")
    figure.legend(fontsize=7, loc="outside right upper")
    save(figure, folder / "time.png")


FIGURES: dict[str, Callable[[Sequence[Record], Path, Path, str | None], None]] = {
    "loss": loss,
    "samples": samples,
    "time": time,
    "tsne": tsne,
}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m nvisa.benchmark.figures", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--data-home", default=None)
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        FIGURES[name](load_records(asked.records), asked.out, asked.models, asked.data_home)


if __name__ == "__main__":
    main()
