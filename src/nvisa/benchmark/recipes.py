"""Recipes: a method and its settings for a row of a table. Every value that is not a default has its source here."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nvisa.benchmark.controls import CONTROLS
from nvisa.fitting.consistency import VAT, Augment
from nvisa.fitting.initialization import WarmStart
from nvisa.fitting.training import Training
from nvisa.maths.bounds import VIMCO, EnumY
from nvisa.maths.schedules import Constant, Cosine, Geometric, StdAnnealing
from nvisa.methods import METHODS
from nvisa.methods.presets import PRESETS
from nvisa.nets.layers import Network

__all__ = ["ABLATION", "RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to build the clusterer of a row.

    ``method`` is a name of the registry or a control; recipes of other methods than NVISA are ``method/recipe``.
    ``row`` is what records and tables call it, where an argument of a method makes a row of its own.
    ``curve`` records the accuracy on test every epoch; it is looked at by people, never by the fit.
    ``start`` is the recipe whose clusterer, fitted to the same data and seed, is handed over as ``pretraining``; to
    NVISA, which takes clusters and not an autoencoder, as ``init``, after the one that ``settings`` may name.
    ``warm_start`` keeps NVISA's start: ``init`` becomes ``WarmStart(init)``.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    curve: bool = False
    row: str = ""
    start: str = ""
    warm_start: bool = False

    @property
    def name(self) -> str:
        """The row of the table: ``row``, or the method."""
        return self.row or self.method

    def build(self, n_clusters: int, seed: int, start: Any = None) -> Any:
        """The unfitted clusterer for this number of clusters and seed, and the fitted one that it starts from."""
        makers: dict[str, Callable[..., Any]] = {**METHODS, **CONTROLS}
        settings = self.settings if start is None else self.settings | self._handed(start)
        if self.warm_start:
            settings = settings | {"init": WarmStart(settings["init"], masked=MASKED)}
        return makers[self.method](n_clusters=n_clusters, random_state=seed, **settings)

    def _handed(self, start: Any) -> dict[str, Any]:
        """The setting that is the start."""
        if self.method != "nvisa":
            return {"pretraining": start}
        return {"init": (self.settings["init"], start) if "init" in self.settings else start}


MASKED = 0.3  # of a start that is kept: the share of the inputs that its autoencoder does not see

# NVISA as in the slides: VIMCO, M = 15, std annealing, no batch norm, no consistency. The floor starts at
# the data's top deviation, where the first clusters split, and ends near the noise. Clusters form while it falls, so
# the steps count: batches of 32 buy four times the paper's in the same time, 256 hidden units twice those of 500. The
# floor of z falls with that of x (docs/methods/nvisa.md).
PAPER = {
    "consistency": None,
    "n_samples": 15,
    "network": Network(hidden=(256, 256), batch_norm=False),
}
PAPER_FROM_RANDOM = PAPER | {
    "init": "random",
    "std_annealing": StdAnnealing(x=Geometric(0.9, 0.07, until=0.9), z=Geometric(0.6, 0.05, until=0.9)),
}
# From a start. Clusters of codes are correlated: with the paper's diagonal p(z|y) the bound cuts them elsewhere.
PAPER_FROM_START = PAPER | {
    "network": Network(hidden=(256, 256), batch_norm=False, prior_covariance="full"),
    "std_annealing": StdAnnealing(x=Geometric(0.12, 0.05, until=0.9), z=Constant(0.03)),
    "training": Training(steps=20_000, batch_size=32, learning_rate=Cosine(1e-3, 1e-4)),
}
SHORT = {
    "likelihood": "gaussian_shared",
    "training": Training(steps=2500, batch_size=32, learning_rate=Cosine(1e-3, 1e-4)),
}

# Table 2: the rows of the slides' ablation, and NVISA* from AE + GMM. What a row says, and nothing else, differs.
ANNEALED = StdAnnealing(x=Geometric(1.3, 0.05, until=0.9), z=Geometric(1.0, 0.1, until=0.9))
NOT_ANNEALED = StdAnnealing()
LAST = Geometric(0.2, 0.05, until=0.9)  # from AE + GMM
ABLATION: dict[str, dict[str, Any]] = {
    "enum_y_bernoulli": {"inference": "enum_y", "likelihood": "bernoulli", "std_annealing": NOT_ANNEALED},
    "enum_y": {"inference": "enum_y", "std_annealing": NOT_ANNEALED},
    "enum_y_annealed": {"inference": "enum_y", "std_annealing": ANNEALED},
    "nvil": {"inference": "nvil", "std_annealing": NOT_ANNEALED},
    "nvil_annealed": {"inference": "nvil", "std_annealing": ANNEALED},
    "vimco": {"std_annealing": NOT_ANNEALED},
    "vimco_bernoulli": {"likelihood": "bernoulli", "std_annealing": NOT_ANNEALED},
    "vimco_1000": {"n_samples": 1000, "std_annealing": NOT_ANNEALED},
    "vimco_1000_annealed": {"n_samples": 1000, "std_annealing": ANNEALED},
    "vimco_mean_field_annealed": {"posterior": "mean_field", "std_annealing": ANNEALED},
    "vimco_annealed": {"std_annealing": ANNEALED},
    "vimco_annealed_gmm": {"init": "gmm", "std_annealing": StdAnnealing(x=LAST, z=Geometric(0.5, 0.1, until=0.9))},
}


def _ablation(row: str, *, steps: int, hidden: int, likelihood: str) -> Recipe:
    """A row in a budget: the same steps and networks for all, random weights, sigma as the budget can afford it.

    With M = 1000 a batch holds 8 rows, not 128: a step then costs about what it costs the others. The slides clip
    no gradient, and a row whose gradient explodes is to show it; ``max_epochs`` must not cut small data short.
    """
    batch_size = 8 if ABLATION[row].get("n_samples") == 1000 else 128
    rate = Cosine(1e-3, 1e-4)
    training = Training(
        steps=steps, max_epochs=10_000, batch_size=batch_size, learning_rate=rate, clip_norm=float("inf")
    )
    network = Network(hidden=(hidden, hidden), batch_norm=False)
    common = {"consistency": None, "init": "random", "n_samples": 15, "likelihood": likelihood}
    return Recipe("nvisa", common | {"network": network, "training": training} | ABLATION[row])


# Pixels in [0, 1]: one autoencoder a seed, from which every method starts that starts from codes. 500-500 in place of
# 500-500-2000 buys 2.6 times the epochs; how the length was found: docs/methods/ae_gmm.md.
PIXEL_NETWORK = Network(hidden=(500, 500), batch_norm=False)
PIXEL_AUTOENCODER = {
    "likelihood": "bernoulli",
    "network": PIXEL_NETWORK,
    "training": Training(epochs=60),
}


def _pixels(**training: Any) -> dict[str, Any]:
    """What every method has that takes over that autoencoder, decoder and all."""
    return {"likelihood": "bernoulli", "network": PIXEL_NETWORK, "training": Training(**training)}


# The higher the rate, the more of the start's neighbor information Adam's first steps cost (docs/methods/vade.md).
VADE_PIXELS = _pixels(epochs=8, batch_size=128, learning_rate=Cosine(3e-4))
LTVAE_PIXELS = _pixels(epochs=6) | {"n_init": 10}
DEC_PIXELS = {
    "network": PIXEL_NETWORK,
    "training": Training(epochs=6, learning_rate=Constant(1e-3)),
}

# Features: one autoencoder a seed again, denoising and shorter, since 1,280 columns cost nearly twice what 784 do, and
# three starts of a mixture, since K is up to 100. The likelihoods are the methods' defaults.
FEATURE_AUTOENCODER = {"masked": 0.3, "n_init": 3, "training": Training(steps=2000)}
FROM_FEATURE_CODES = {"n_init": 3, "training": Training(steps=600)}

GM_GAN = {
    "image_shape": (28, 28),
    "penalty": 10.0,
    "network": Network(hidden=(16, 32), latent_dim=20),
    "training": Training(steps=5000, batch_size=64, learning_rate=Constant(5e-4)),
    "classifier_training": Training(steps=800, batch_size=64, learning_rate=Cosine(2e-3)),
}


def _paper(settings: dict[str, Any], start: str = "") -> Recipe:
    """NVISA of the slides from a start that is kept."""
    return Recipe("nvisa", PAPER_FROM_START | settings, curve=True, start=start, warm_start=True)


RECIPES: dict[str, Recipe] = {
    "default": Recipe("nvisa", curve=True),
    # The default of the versions before, whose layout of the graph was umap-learn's.
    "umap_start": Recipe("nvisa", {"init": "umap"}, curve=True),
    "paper/random": Recipe(
        "nvisa",
        PAPER_FROM_RANDOM
        | {
            "likelihood": "gaussian",
            "training": Training(epochs=18, batch_size=32, learning_rate=Cosine(1e-3, 2e-4)),
        },
        curve=True,
    ),
    "paper/gmm": _paper({"likelihood": "gaussian"}, start="ae_gmm/bernoulli"),
    # From the clusters that GMVAE and VaDE's second row begin with: what the bound makes of them.
    "paper/umap": _paper({"init": "umap", "likelihood": "gaussian_shared"}),
    # Features, and more columns: one sigma for all z and fewer steps, so that a run is minutes.
    "paper/random_features": Recipe("nvisa", PAPER_FROM_RANDOM | SHORT, curve=True),
    "paper/gmm_features": _paper(SHORT, start="ae_gmm/features"),
    "paper/umap_features": _paper(SHORT | {"init": "umap"}),
    # From IMSAT's clusters, the best of three restarts by neighbor information.
    "from_imsat": Recipe("nvisa", start="imsat/restarts"),
    # From UMAP's clusters and from those, the better by neighbor information.
    "two_starts": Recipe("nvisa", {"init": "umap", "n_restarts": 2}, start="imsat/restarts"),
    # The gradient of the sum: the bound moves q(y|x) too.
    "bound_gradient": Recipe("nvisa", {"init": "umap", "consistency": VAT(bound_gradient=1.0)}),
    # Self-supervision by small affine maps of the images, in place of adversarial displacements and beside them; the
    # information term then counts once.
    "augment": Recipe("nvisa", {"init": "umap", "consistency": Augment()}, curve=True),
    "vat_augment": Recipe("nvisa", {"init": "umap", "consistency": (VAT(), Augment(information=0.0))}, curve=True),
    # For the study of the label-free score: short fits that differ only in luck.
    "selection": Recipe("nvisa", {"init": "random", "training": Training(steps=300)}),
    # What NVISA is compared with, at its own defaults; pixels in [0, 1] are Bernoulli, as in the papers' MNIST rows.
    "ae_gmm/default": Recipe("ae_gmm"),
    "ae_gmm/features": Recipe("ae_gmm", FEATURE_AUTOENCODER),
    "ae_gmm/bernoulli": Recipe("ae_gmm", PIXEL_AUTOENCODER),
    "vae_gmm/default": Recipe("vae_gmm"),
    "vae_gmm/features": Recipe("vae_gmm", FROM_FEATURE_CODES, start="ae_gmm/features"),
    "vae_gmm/bernoulli": Recipe("vae_gmm", _pixels(epochs=4), start="ae_gmm/bernoulli"),
    "dec/default": Recipe("dec"),
    "dec/features": Recipe(
        "dec", {"training": Training(steps=600, learning_rate=Constant(1e-3))}, start="ae_gmm/features"
    ),
    "dec/pixels": Recipe("dec", DEC_PIXELS, start="ae_gmm/bernoulli"),
    "vade/default": Recipe("vade"),
    "vade/features": Recipe("vade", FROM_FEATURE_CODES, start="ae_gmm/features"),
    "vade/bernoulli": Recipe("vade", VADE_PIXELS, curve=True, start="ae_gmm/bernoulli"),
    # The paper's schedule: 2e-3, times 0.9 every ten epochs.
    "vade/long": Recipe(
        "vade",
        _pixels(epochs=50, batch_size=100, learning_rate=Geometric(2e-3, 2e-3 * 0.9**5)),
        curve=True,
        start="ae_gmm/bernoulli",
    ),
    "vade/umap": Recipe("vade", VADE_PIXELS | {"init": "umap"}, curve=True, start="ae_gmm/bernoulli"),
    "vade/umap_features": Recipe("vade", FROM_FEATURE_CODES | {"init": "umap"}, start="ae_gmm/features"),
    # Squared error, as for real data in VaDE: a sharper p(x|z) outweighs the clusters (seen on development seed 100).
    "gmvae/default": Recipe("gmvae", {"likelihood": "gaussian_unit"}),
    # The paper's likelihood of MNIST, from the autoencoder that the others start from; the schedule is the class's.
    "gmvae/bernoulli": Recipe("gmvae", {"likelihood": "bernoulli", "network": PIXEL_NETWORK}, start="ae_gmm/bernoulli"),
    "ltvae_gmm/default": Recipe("ltvae", row="ltvae_gmm"),
    "ltvae_gmm/features": Recipe("ltvae", FROM_FEATURE_CODES, row="ltvae_gmm", start="ae_gmm/features"),
    "ltvae_gmm/bernoulli": Recipe("ltvae", LTVAE_PIXELS, row="ltvae_gmm", start="ae_gmm/bernoulli"),
    "ltvae_full/default": Recipe("ltvae", {"structure": "search"}, row="ltvae_full"),
    "ltvae_full/features": Recipe(
        "ltvae", FROM_FEATURE_CODES | {"structure": "search"}, row="ltvae_full", start="ae_gmm/features"
    ),
    "ltvae_full/bernoulli": Recipe(
        "ltvae", LTVAE_PIXELS | {"structure": "search"}, row="ltvae_full", start="ae_gmm/bernoulli"
    ),
    # Controls: what the input alone gives.
    "kmeans/default": Recipe("kmeans"),
    "kmeans/one_start": Recipe("kmeans", {"n_init": 1}),  # scikit-learn's default
    "gmm/default": Recipe("gmm"),
    # Consistency and information without a model of x, on NVISA's networks.
    "imsat/default": Recipe("imsat"),
    "imsat/restarts": Recipe("imsat", {"n_restarts": 3}),
    # For images of 28 x 28: minutes on one thread, where DCGAN's nets and epochs take hours (docs/methods/gm_gan.md).
    "gm_gan/default": Recipe("gm_gan", GM_GAN),
    "gm_gan/information": Recipe("gm_gan", GM_GAN | {"information": 1.0}),
    "gm_gan/vectors": Recipe("gm_gan"),  # perceptrons, for features
}
# The slides' own schedule and length, 1.4 million steps on MNIST, in hours: one of the M samples sends its gradient
# through the decoder (unbiased), and layers of 256 units, whose number the slides leave open.
RECIPES["slides/vimco_annealed"] = Recipe(
    "nvisa",
    PRESETS["paper"]
    | {"inference": VIMCO(decoder_samples=1), "network": replace(PRESETS["paper"]["network"], hidden=(256, 256))},
)
# Its row of Table 2 with y enumerated, 300 epochs: a cluster that q(y|x) has ruled out is not tried.
RECIPES["slides/enum_y_bernoulli"] = Recipe(
    "nvisa",
    {
        "inference": EnumY(min_probability=3e-3),
        "likelihood": "bernoulli_binarized",
        "std_annealing": NOT_ANNEALED,
        "init": "random",
        "consistency": None,
        "network": Network(hidden=(256, 256), batch_norm=False, scaling="none"),
        "training": Training(epochs=300, batch_size=128, learning_rate=Constant(1e-3)),
    },
)
# From AE + GMM, 120 epochs where paper/gmm has 11: the bound takes three points off the start at first, and gives
# more back, slowly.
RECIPES["slides/vimco_annealed_gmm"] = Recipe(
    "nvisa",
    PAPER_FROM_START
    | {
        "inference": VIMCO(decoder_samples=1),
        "likelihood": "gaussian",
        "training": Training(epochs=120, batch_size=128, learning_rate=Cosine(1e-3, 1e-5)),
    },
    start="ae_gmm/bernoulli",
    warm_start=True,
)
RECIPES |= {f"ablation/{row}": _ablation(row, steps=2500, hidden=64, likelihood="gaussian") for row in ABLATION}
# sigma_x(z) of 784 pixels would take ten minutes a row: one sigma for all z.
RECIPES |= {
    f"ablation_short/{row}": _ablation(row, steps=4000, hidden=128, likelihood="gaussian_shared") for row in ABLATION
}
