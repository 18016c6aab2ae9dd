"""``nvisa demo``: NVISA's defaults on the handwritten digits that ship with scikit-learn.

Labels are used for one table at the end, never to fit or to choose.
"""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from nvisa.commands.options import add_command
from nvisa.commands.printing import command_line, print_result

__all__ = ["add", "demo"]

PER_CLUSTER = 10  # images in a line of generated.png


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "demo", run, "cluster 1,797 handwritten digits, draw them, say what to type next")
    parser.add_argument("--out", default="nvisa-demo", metavar="DIR", help="default nvisa-demo")
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs; the clusters are poor")


def run(args: argparse.Namespace) -> None:
    """Run the demonstration, which prints as it goes."""
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        table = demo(args.out, quick=args.quick, quiet=args.quiet or args.json)
    print_result(args, table, None)


def demo(out: str = "nvisa-demo", *, quick: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Fit, compare, draw, save, and say what to type next.

    Parameters
    ----------
    out
        Folder for generated.png, latent.png and the model.
    quick
        A few epochs of a small network, to see that everything runs; its clusters are poor.
    quiet
        No progress.

    Returns
    -------
    dict
        The table, {name: {"accuracy", "nmi", "ari", "seconds", ...}}.
    """
    from nvisa import data
    from nvisa.persistence import check_target

    folder = Path(out).expanduser()
    check_target(folder / "model")
    digits = data.load("digits")
    X = digits.X_train
    print(f"{len(X):,} handwritten digits of 8 x 8 pixels, from scikit-learn. No label is used to cluster them.\n")
    clusterer, table = _compare(X, digits.y_train, _clusterer(quick=quick, quiet=quiet))
    print(_table(table))
    extra = {"source": "digits, train split", "data_digest": digits.digest, "feature_shape": digits.feature_shape}
    clusterer.save(folder / "model", extra=extra)
    print(f"\nWrote {folder / 'model'}{'':<10} the fitted clusterer")
    for line in _draw(folder, clusterer, X, digits.feature_shape, quick=quick):
        print(line)
    print(_next(folder))
    return table


def _clusterer(*, quick: bool, quiet: bool) -> Any:
    from nvisa import NVISA, Network, Training

    if not quick:
        return NVISA(random_state=0, verbose=int(not quiet))
    network, training = Network(hidden=(32,), latent_dim=2), Training(epochs=2)
    return NVISA(init="random", network=network, training=training, random_state=0, verbose=int(not quiet))


def _compare(X: Any, y: Any, clusterer: Any) -> tuple[Any, dict[str, Any]]:
    """NVISA fitted, and its agreement with the labels beside that of two classics on the same rows."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    from nvisa.maths import metrics

    mixture = GaussianMixture(10, covariance_type="full", reg_covar=1e-2, n_init=5, random_state=0)
    methods: dict[str, Callable[[Any], Any]] = {
        "NVISA()": clusterer.fit_predict,
        "k-means, best of 10": KMeans(10, n_init=10, random_state=0).fit_predict,
        "Gaussian mixture, full, best of 5": mixture.fit_predict,
    }
    table = {}
    for name, fit_predict in methods.items():
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*columns are constant")  # corners that no pen reaches
            labels = fit_predict(X)
        table[name] = {**metrics.evaluate(y, labels), "seconds": time.perf_counter() - started}
    return clusterer, table


def _table(table: dict[str, dict[str, float]]) -> str:
    heading = f"\n{'':<34}   ACC    NMI    ARI  seconds"
    lines = [
        f"{name:<34} {row['accuracy']:.3f}  {row['nmi']:.3f}  {row['ari']:.3f} {row['seconds']:8.1f}"
        for name, row in table.items()
    ]
    return "\n".join([heading, *lines, "The labels were used for this table only."])


def _draw(folder: Path, clusterer: Any, X: Any, shape: tuple[int, ...], *, quick: bool) -> list[str]:
    """Both pictures; what was written, a line each."""
    try:
        _draw_generated(folder / "generated.png", clusterer, X, shape)
        name = _draw_latent(folder / "latent.png", clusterer, X, quick=quick)
    except ImportError as error:
        return [f'No pictures: {error}. Try pip install "nvisa[viz]".']
    return [
        f"Wrote {folder / 'generated.png'}   a line a cluster: digits that the model made up, and typical real ones",
        f"Wrote {folder / 'latent.png'}      the latent space in two dimensions ({name})",
    ]


def _draw_generated(path: Path, clusterer: Any, X: Any, shape: tuple[int, ...]) -> None:
    """Means of p(x|z), z ~ p(z|y), beside the members of each cluster of largest p(x)."""
    import numpy as np

    from nvisa.report import pictures

    labels, score = clusterer.predict(X), clusterer.score_samples(X)
    made, real = [], []
    for k in range(clusterer._n_found):
        made.append(pictures.as_images(clusterer.sample(PER_CLUSTER, cluster=k, noise=False)[0], shape))
        members = np.flatnonzero(labels == k)
        typical = members[np.argsort(-score[members], kind="stable")][:PER_CLUSTER]
        real.append(pictures.as_images(X[typical], shape) if len(typical) else np.empty((0, *shape)))
    pictures.save_grid(path, [("generated", made), ("most typical members", real)], title="Clusters of NVISA")


def _draw_latent(path: Path, clusterer: Any, X: Any, *, quick: bool) -> str:
    """The latent vectors in the plane, colored by cluster; how they were brought there."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    from nvisa.report import pictures

    z = clusterer.transform(X)
    if quick:
        name, points = "PCA", PCA(2, random_state=0).fit_transform(z)
    else:
        name, points = "t-SNE", TSNE(2, init="pca", random_state=0).fit_transform(z)
    pictures.save_scatter(path, points, clusterer.labels_, title=f"NVISA's latent space ({name}), colored by cluster")
    return name


def _next(folder: Path) -> str:
    lines = [
        command_line("sample", folder / "model", "-n", 100, "--mean", "--out", folder / "more.png"),
        command_line("report", folder / "model", "--data", "digits", "--out", folder / "report.html"),
        command_line("fit", "your.csv", "--n-clusters", 5, "--out", "my-model"),
        command_line("predict", "my-model", "your.csv", "--out", "labels.csv"),
    ]
    return "\n".join(["\nNext, more digits, a page about the fit, and your own file (.csv, .parquet, .npy, a folder):"]
                     + [f"  {line}" for line in lines])  # fmt: skip
