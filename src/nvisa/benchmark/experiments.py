"""What is run: an experiment is rows (recipes) times data sets times seeds. ``nvisa bench NAME`` runs one.

The nine rows of the slides' first table and the controls; what goes beyond it, with consistency; the ablation in two
budgets; one long run; the study of the label-free score. A recipe that is not written yet is left out, not guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from nvisa.benchmark.recipes import ABLATION, RECIPES

__all__ = [
    "BEYOND",
    "CONSISTENCY",
    "EXPERIMENTS",
    "FEATURES",
    "HEADLINE",
    "IMAGES",
    "ROWS",
    "SLIDES",
    "Experiment",
    "Job",
    "Row",
]


class Job(NamedTuple):
    """One run."""

    recipe: str
    dataset: str
    seed: int


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, its recipe on pixels in [0, 1] and on features, and the slides' row, if any."""

    label: str
    pixels: str
    features: str = ""
    paper: str = ""
    n_seeds: int = 3

    def recipe(self, dataset: str) -> str:
        """The recipe for this data set."""
        return self.pixels if dataset in PIXELS or not self.features else self.features


@dataclass(frozen=True)
class Experiment:
    """Rows times data sets times seeds."""

    rows: tuple[Row, ...]
    datasets: tuple[str, ...]

    def jobs(
        self,
        methods: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Job]:
        """The runs, first seeds first, so that every cell has one before any has two.

        Parameters
        ----------
        methods
            Keep the rows of these methods, recipes or labels; None: all.
        datasets, seeds
            In place of the experiment's own.

        Raises
        ------
        ValueError
            If ``methods`` names no row.
        """
        names = {name for row in self.rows for name in _names(row)}
        if unknown := sorted(set(methods or ()) - names):
            raise ValueError(
                f"methods: expected some of {', '.join(sorted(names))}, got {', '.join(unknown)}. Try one of those."
            )
        kept = [row for row in self.rows if methods is None or _names(row) & set(methods)]
        most = max((row.n_seeds for row in kept), default=0)
        found = product(range(most) if seeds is None else seeds, datasets or self.datasets, kept)
        wanted = [(row, Job(row.recipe(data), data, seed)) for seed, data, row in found]
        wanted = [(row, job) for row, job in wanted if seeds is not None or job.seed < row.n_seeds]
        return list(dict.fromkeys(job for _, job in wanted if job.recipe in RECIPES))


def _names(row: Row) -> set[str]:
    """What a row may be called: its label, its recipes, and the method or the row that they begin with."""
    recipes = {recipe for recipe in (row.pixels, row.features) if recipe}
    methods = {recipe.split("/")[0] for recipe in recipes if "/" in recipe}
    known = {RECIPES[recipe].method for recipe in recipes if recipe in RECIPES}
    return {row.label} | recipes | methods | known


PIXELS = ("digits", "mnist", "fashion_mnist")
IMAGES = ("mnist", "fashion_mnist")
SLIDES = ("stl10_resnet50", "cifar10_resnet50", "cifar100_resnet50")
FEATURES = (
    "cifar10_effnet_lite2",
    "cifar100_effnet_lite2",
    "cifar100_coarse_effnet_lite2",
    "imagenette_effnet_lite2",
)
CONTROLS = (
    Row("k-means", "kmeans/default"),
    Row("k-means, one start", "kmeans/one_start", n_seeds=5),
    Row("GMM", "gmm/default"),
)
BASELINES = (
    *CONTROLS,
    Row("AE+GMM", "ae_gmm/bernoulli", "ae_gmm/features", paper="AE+GMM"),
    Row("VAE+GMM", "vae_gmm/bernoulli", "vae_gmm/features", paper="VAE+GMM"),
    Row("DEC", "dec/pixels", "dec/features", paper="DEC"),
    Row("GM-GAN", "gm_gan/default", "gm_gan/vectors", paper="GM-GAN"),
    Row("GMVAE, UMAP start", "gmvae/bernoulli", "gmvae/default", paper="GMVAE"),
    Row("VaDE", "vade/bernoulli", "vade/features", paper="VaDE"),
    Row("VaDE, UMAP start", "vade/umap", "vade/umap_features", paper="VaDE"),
    Row("LTVAE-GMM", "ltvae_gmm/bernoulli", "ltvae_gmm/features", paper="LTVAE-GMM"),
    Row("LTVAE-full", "ltvae_full/bernoulli", "ltvae_full/features", paper="LTVAE-full"),
)
NVISA_PAPER = (
    Row("NVISA (paper), random start", "paper/random", "paper/random_features", "NVISA(avg±std)"),
    Row("NVISA (paper), AE+GMM start", "paper/gmm", "paper/gmm_features", "NVISA(avg±std)"),
    Row("NVISA (paper), UMAP start", "paper/umap", "paper/umap_features"),
)
ROWS = (*BASELINES, *NVISA_PAPER)
# What the slides' conclusion only proposes: never in a table with their cells.
WITH_CONSISTENCY = Row("NVISA with consistency", "default", n_seeds=5)
UMAP_START = Row("NVISA with consistency, UMAP start", "umap_start", n_seeds=5)
IMSAT_BEST = Row("IMSAT, best of 3", "imsat/restarts")
STARTED_FROM_IMSAT = Row("NVISA with consistency, started from IMSAT", "from_imsat")
CONSISTENCY = (
    *CONTROLS,
    Row("IMSAT", "imsat/default"),
    IMSAT_BEST,
    WITH_CONSISTENCY,
    UMAP_START,
    STARTED_FROM_IMSAT,
    Row("NVISA with consistency, the better of both starts", "two_starts"),
)
BEYOND = (  # on images
    *CONSISTENCY,
    Row("NVISA with consistency, with the bound's gradient in q(y|x)", "bound_gradient", n_seeds=1),
    Row("NVISA with augmentation", "augment"),
    Row("NVISA with consistency and augmentation", "vat_augment"),
)
_ROWS = {row.label: row for row in ROWS}
HEADLINE = (  # on one page: the best known methods, each at its best start
    *(_ROWS[label] for label in ("k-means", "AE+GMM", "DEC", "VaDE, UMAP start")),
    IMSAT_BEST,
    replace(WITH_CONSISTENCY, label="NVISA"),
    replace(UMAP_START, label="NVISA, UMAP start"),
    replace(STARTED_FROM_IMSAT, label="NVISA started from IMSAT"),
)


def _ablation(budget: str, n_seeds: int) -> tuple[Row, ...]:
    return tuple(Row(row, f"{budget}/{row}", n_seeds=n_seeds) for row in ABLATION)


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment((*BASELINES, *(replace(row, n_seeds=5) for row in NVISA_PAPER)), IMAGES),
    "beyond": Experiment(BEYOND, IMAGES),
    "features": Experiment(ROWS, FEATURES),
    "features_beyond": Experiment(CONSISTENCY, FEATURES),
    "resnet50": Experiment(ROWS, SLIDES),
    "ablation": Experiment(_ablation("ablation", 5), ("digits",)),
    "ablation_short": Experiment(_ablation("ablation_short", 1), ("mnist",)),
    "long": Experiment((Row("VaDE, 50 epochs", "vade/long", paper="VaDE", n_seeds=1),), ("mnist",)),
    "digits": Experiment((WITH_CONSISTENCY,), ("digits",)),
    "selection": Experiment((Row("selection", "selection", n_seeds=12),), ("digits",)),
}
