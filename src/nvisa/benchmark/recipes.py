"""Recipes: a method and its settings for a row of a table. Every value that is not a default has its source here."""

from dataclasses import dataclass, field
from typing import Any

from nvisa.methods import METHODS
from nvisa.methods.nvisa import StdFloor
from nvisa.nets import Network
from nvisa.schedules import Constant, Cosine, Geometric
from nvisa.training import Training

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to build the clusterer of a row.

    ``method`` is a name of the registry; the recipes of other methods than NVISA are called ``method/recipe``.
    ``curve`` records the accuracy on test every epoch; it is looked at by people, never by the fit.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    curve: bool = False

    def build(self, n_clusters: int, seed: int) -> Any:
        """The unfitted clusterer for this number of clusters and seed."""
        return METHODS[self.method](n_clusters=n_clusters, random_state=seed, **self.settings)


# The bound alone, as in the slides: VIMCO, M = 15, std annealing, no batch norm, no consistency. The floor starts
# above the data's top deviation (docs: "start hot") and ends near the noise; the budget is minutes, not 3000 epochs,
# and 256 hidden units buy three times the steps of 500.
BOUND_ALONE = {
    "consistency": None,
    "n_samples": 15,
    "network": Network(hidden=(256, 256), batch_norm=False),
}

RECIPES: dict[str, Recipe] = {
    "default": Recipe("nvisa"),
    "bound_alone/random": Recipe(
        "nvisa",
        BOUND_ALONE
        | {
            "init": "random",
            "std_floor": StdFloor(x=Geometric(1.3, 0.05, until=0.9), z=Geometric(1.0, 0.1, until=0.9)),
            "training": Training(steps=4000, batch_size=256, learning_rate=Cosine(1e-3, 1e-4)),
        },
        curve=True,
    ),
    "bound_alone/gmm": Recipe(
        "nvisa",
        BOUND_ALONE
        | {
            "init": "gmm",
            "std_floor": StdFloor(x=Geometric(0.2, 0.05, until=0.9), z=Geometric(0.5, 0.1, until=0.9)),
            "training": Training(steps=4000, batch_size=256, learning_rate=Cosine(1e-3, 1e-4)),
        },
        curve=True,
    ),
    # For the study of the label-free score: short fits that differ only in luck.
    "selection": Recipe("nvisa", {"init": "random", "training": Training(steps=300)}),
    "no_annealing": Recipe("nvisa", {"std_floor": StdFloor(Constant(0.0), Constant(0.0))}),
    # What NVISA is compared with, at its own defaults; pixels in [0, 1] are Bernoulli, as in the papers' MNIST rows.
    "ae_gmm/default": Recipe("ae_gmm"),
    "vae_gmm/default": Recipe("vae_gmm"),
    "vae_gmm/bernoulli": Recipe("vae_gmm", {"likelihood": "bernoulli"}),
    "dec/default": Recipe("dec"),
    "vade/default": Recipe("vade"),
    "vade/bernoulli": Recipe("vade", {"likelihood": "bernoulli"}),
    # Squared error, as for real data in VaDE: a sharper p(x|z) outweighs the clusters (seen on development seed 100).
    "gmvae/default": Recipe("gmvae", {"likelihood": "gaussian_unit"}),
}
