"""Configurations of NVISA by name, ``NVISA.preset("paper")``, and its default floors."""

from typing import Any

from nvisa.fitting.training import Training
from nvisa.maths.schedules import Geometric, Halving, StdAnnealing
from nvisa.nets.layers import Network

__all__ = ["HOT", "PRESETS", "WARM"]

# The floors start where nothing is told apart yet (x in the data's largest deviation, z in the prior's), and end near
# the noise: hot as an annealing is, and less hot where a start is not to be lost.
HOT = StdAnnealing(x=Geometric(1.3, 0.02, until=0.8), z=Geometric(1.0, 0.05, until=0.8))
WARM = StdAnnealing(x=Geometric(0.43, 0.022, until=0.7), z=Geometric(0.5, 0.05, until=0.7))
PRESETS: dict[str, dict[str, Any]] = {
    # The slides and what is reported of the paper; epochs and batch are guesses.
    "paper": {
        "inference": "vimco",
        "n_samples": 15,
        "likelihood": "gaussian",
        "posterior": "joint",
        "std_annealing": StdAnnealing(x=Halving(1.0, 1 / 30, 1e-4), z=Halving(1.0, 1 / 30, 1e-4), relative=False),
        "init": "random",
        "consistency": None,
        "network": Network(hidden=(500, 500), latent_dim=10, batch_norm=False, scaling="none"),
        "training": Training(epochs=3000, batch_size=128, learning_rate=Halving(1e-3, 1 / 10, 0.0)),
    }
}
