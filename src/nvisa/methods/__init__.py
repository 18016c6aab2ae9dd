"""The registry of methods, and reading their models. One method, one file; none imports another."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nvisa import persistence
from nvisa.fitting.calibration import SHARES, tempered
from nvisa.fitting.consistency import VAT, Augment
from nvisa.fitting.initialization import WarmStart
from nvisa.fitting.supervision import Supervision
from nvisa.fitting.training import Training
from nvisa.maths.bounds import VIMCO, EnumY
from nvisa.maths.schedules import Constant, Cosine, Geometric, Halving, StdAnnealing
from nvisa.methods.ae_gmm import AEGMM
from nvisa.methods.base import DeepClusterer
from nvisa.methods.dec import DEC
from nvisa.methods.gm_gan import GMGAN
from nvisa.methods.gmvae import GMVAE
from nvisa.methods.imsat import IMSAT
from nvisa.methods.input import blank_units
from nvisa.methods.ltvae import LTVAE
from nvisa.methods.nvisa import NVISA
from nvisa.methods.vade import VaDE
from nvisa.methods.vae_gmm import VAEGMM
from nvisa.nets.counts import NegativeBinomial
from nvisa.nets.layers import Network, torch_device
from nvisa.nets.modules import Conv, Modules
from nvisa.persistence import ModelError

__all__ = [
    "AEGMM",
    "DEC",
    "GMGAN",
    "GMVAE",
    "IMSAT",
    "LTVAE",
    "METHODS",
    "NVISA",
    "SETTINGS",
    "VAEGMM",
    "VaDE",
    "adopt",
    "load",
]

METHODS: dict[str, type[DeepClusterer]] = {
    "nvisa": NVISA,
    "imsat": IMSAT,
    "ae_gmm": AEGMM,
    "vae_gmm": VAEGMM,
    "dec": DEC,
    "vade": VaDE,
    "gmvae": GMVAE,
    "ltvae": LTVAE,
    "gm_gan": GMGAN,
}

# Every settings class that a model directory may name.
SETTINGS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Network,
        Conv,
        Modules,
        NegativeBinomial,
        Training,
        VIMCO,
        EnumY,
        StdAnnealing,
        WarmStart,
        Supervision,
        VAT,
        Augment,
    )
    + (Constant, Cosine, Geometric, Halving)
}


def adopt(X: Any, labels: Any, **settings: Any) -> NVISA:
    """A model of a clustering that another method or a person has made, which predicts new rows as well.

    Parameters
    ----------
    X
        The rows [N D], as in :meth:`NVISA.fit`.
    labels
        The cluster of each [N]: whole numbers, or strings. -1, None, NaN and the empty string are unknown, such as
        HDBSCAN's noise: they are put where the model finds them most probable.
    settings
        Of :class:`NVISA`.

    Returns
    -------
    NVISA
        Fitted; its cluster k is called ``classes_[k]`` in the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from nvisa import Training
    >>> X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> model = adopt(X, ["low", "low", "", "high", "high", "high"], training=Training(epochs=30), random_state=0)
    >>> model.classes_[model.predict([[0.3], [8.8]])].tolist()
    ['low', 'high']
    """
    return NVISA(**settings | {"init": np.asarray(labels)}).fit(X)


def load(path: str | Path, device: str = "cpu", *, network: Modules | None = None) -> Any:
    """Read the fitted clusterer that ``save`` wrote. No code from the files is executed.

    Parameters
    ----------
    path
        The model directory.
    device
        Where its networks go: "cpu", "cuda", ..., or "auto".
    network
        The :class:`Modules` of the fit, for a model with an encoder or decoder of the user's own: the file has their
        weights, and no code.

    Returns
    -------
    DeepClusterer
        Of the class that was saved, predicting what it predicted.

    Raises
    ------
    nvisa.persistence.ModelError
        If the directory is incomplete, damaged, changed, or from a newer nvisa.

    Warns
    -----
    UserWarning
        If another version of nvisa or torch wrote it: its numbers may differ in their last bits.

    Examples
    --------
    >>> import tempfile
    >>> from nvisa import AEGMM, Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> model = AEGMM(3, training=Training(epochs=5), random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model")
    ...     same = load(f"{folder}/model")
    >>> bool((same.predict(X) == model.labels_).all())
    True
    """
    manifest, arrays = persistence.read(path)
    try:
        clusterer = _unfitted(manifest)
        if network is not None:
            clusterer.set_params(network=network)
        else:
            _refuse_missing_modules(manifest)
        fitted = manifest["fitted"]
        with torch.device("meta"):  # without memory of their own, to be filled from the file
            networks: Any = clusterer._networks(blank_units(fitted), fitted)
        persistence.restore(clusterer, networks, manifest, arrays)
        _try(clusterer)
    except (TypeError, ValueError, RuntimeError, LookupError, OverflowError, AttributeError, MemoryError) as error:
        # A manifest can be wrong in as many ways as settings have types; all of them are one to the user.
        raise ModelError(f"{path}: {error}") from error
    persistence.warn_of_versions(path, manifest)
    clusterer.module_.to(torch_device(device))
    return clusterer


def _refuse_missing_modules(manifest: persistence.Manifest) -> None:
    """Raise a ModelError if the networks are made of modules that the file cannot hold."""
    missing = {name: what for name, what in manifest.get("omitted", {}).items() if name.startswith("network.")}
    if missing:
        said = ", ".join(f"{name.removeprefix('network.')} ({what.split()[0]})" for name, what in missing.items())
        raise ModelError(f"expected the modules of the fit, {said}: nvisa.load(path, network=nvisa.Modules(...)).")


def _try(clusterer: DeepClusterer) -> None:
    """Let a model answer for a row of zeros: what is wrong in its manifest shows now, not at the first prediction.

    Raises
    ------
    ValueError
        If its categories are not those of columns; others as what is wrong has it.
    """
    categories, x = getattr(clusterer, "categories_", {}), np.zeros((1, clusterer.n_features_in_), np.float32)
    columns = {str(d) for d in range(clusterer.n_features_in_)}
    if not categories.keys() <= columns or not all(
        isinstance(values, list) and values for values in categories.values()
    ):
        raise ValueError(f"expected the categories of columns, got {categories}")
    with np.errstate(all="ignore"):
        tempered(clusterer._mapped(clusterer._log_q_y, x).astype(np.float64), getattr(clusterer, "temperature_", 1.0))
        if hasattr(clusterer, "reject_quantiles_"):
            clusterer._is_refused(x, float(SHARES[1]))


def _unfitted(manifest: persistence.Manifest) -> DeepClusterer:
    """The clusterer of the manifest's class, with its settings."""
    kinds = {kind.__name__: kind for kind in METHODS.values()}
    name = manifest["class"]
    if name not in kinds:
        raise ModelError(f"expected a method among {', '.join(kinds)}, got {name!r}. Upgrade nvisa?")
    params = {key: persistence.decode(value, SETTINGS) for key, value in manifest["params"].items()}
    return kinds[name](**params)
