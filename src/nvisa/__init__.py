"""nvisa: deep clustering with Gaussian-mixture VAEs, behind scikit-learn's surface.

from nvisa import NVISA
labels = NVISA(n_clusters=10).fit_predict(X)
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvisa.fitting.callbacks import EarlyStopping
    from nvisa.fitting.config import config
    from nvisa.fitting.consistency import VAT, Augment
    from nvisa.fitting.initialization import WarmStart
    from nvisa.fitting.levels import select_n_clusters
    from nvisa.fitting.run import DivergedError
    from nvisa.fitting.supervision import Supervision
    from nvisa.fitting.training import Training
    from nvisa.hub import from_hub, push_to_hub
    from nvisa.maths.bounds import VIMCO, EnumY
    from nvisa.maths.schedules import Constant, Cosine, Geometric, Halving, StdAnnealing
    from nvisa.methods import adopt, load
    from nvisa.methods.ae_gmm import AEGMM
    from nvisa.methods.dec import DEC
    from nvisa.methods.gm_gan import GMGAN
    from nvisa.methods.gmvae import GMVAE
    from nvisa.methods.growing import grow
    from nvisa.methods.imsat import IMSAT
    from nvisa.methods.ltvae import LTVAE
    from nvisa.methods.nvisa import NVISA
    from nvisa.methods.vade import VaDE
    from nvisa.methods.vae_gmm import VAEGMM
    from nvisa.nets.counts import NegativeBinomial
    from nvisa.nets.layers import Network
    from nvisa.nets.modules import Conv, Modules
    from nvisa.persistence import ModelError
    from nvisa.report import write_report
    from nvisa.settings import SettingError

__all__ = [
    "AEGMM",
    "DEC",
    "GMGAN",
    "GMVAE",
    "IMSAT",
    "LTVAE",
    "NVISA",
    "VAEGMM",
    "VAT",
    "VIMCO",
    "Augment",
    "Constant",
    "Conv",
    "Cosine",
    "DivergedError",
    "EarlyStopping",
    "EnumY",
    "Geometric",
    "Halving",
    "ModelError",
    "Modules",
    "NegativeBinomial",
    "Network",
    "SettingError",
    "StdAnnealing",
    "Supervision",
    "Training",
    "VaDE",
    "WarmStart",
    "adopt",
    "config",
    "from_hub",
    "grow",
    "load",
    "push_to_hub",
    "select_n_clusters",
    "write_report",
]

# Imported when first asked for: torch takes seconds, and `nvisa --help` needs none of it.
_HOMES = {
    "fitting.callbacks": ("EarlyStopping",),
    "fitting.config": ("config",),
    "fitting.consistency": ("VAT", "Augment"),
    "fitting.initialization": ("WarmStart",),
    "fitting.levels": ("select_n_clusters",),
    "fitting.supervision": ("Supervision",),
    "fitting.run": ("DivergedError",),
    "fitting.training": ("Training",),
    "hub": ("from_hub", "push_to_hub"),
    "maths.bounds": ("VIMCO", "EnumY"),
    "maths.schedules": ("Constant", "Cosine", "Geometric", "Halving", "StdAnnealing"),
    "methods": ("adopt", "load"),
    "methods.growing": ("grow",),
    "methods.ae_gmm": ("AEGMM",),
    "methods.dec": ("DEC",),
    "methods.gm_gan": ("GMGAN",),
    "methods.gmvae": ("GMVAE",),
    "methods.imsat": ("IMSAT",),
    "methods.ltvae": ("LTVAE",),
    "methods.nvisa": ("NVISA",),
    "methods.vade": ("VaDE",),
    "methods.vae_gmm": ("VAEGMM",),
    "nets.counts": ("NegativeBinomial",),
    "nets.layers": ("Network",),
    "nets.modules": ("Conv", "Modules"),
    "persistence": ("ModelError",),
    "report": ("write_report",),
    "settings": ("SettingError",),
}
_MOVED = {
    "StdFloor": "nvisa.StdAnnealing",
    "datasets": "nvisa.data",
    "features": "nvisa.data.features",
    "metrics": "nvisa.maths.metrics",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("nvisa")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"nvisa.{home}"), name)
    if name in ("data", "maths", "methods", "nets", "fitting", "tools"):  # ``import nvisa`` alone imports no folder
        return import_module(f"nvisa.{name}")
    raise import_module("nvisa.deprecation").moved(name, _MOVED)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
