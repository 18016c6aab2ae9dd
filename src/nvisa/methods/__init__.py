"""The registry of methods, and reading their models. One method, one file; none imports another."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nvisa import persistence
from nvisa.fitting.calibration import threshold
from nvisa.fitting.consistency import VAT, Augment
from nvisa.fitting.drift import SHARE
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
from nvisa.nets.layers import Network, torch_device
from nvisa.persistence import ModelError
from nvisa.settings import InRange, SettingError

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
    "grow",
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
    for kind in (Network, Training, VIMCO, EnumY, StdAnnealing, WarmStart, Supervision, VAT, Augment)
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


def grow(model: NVISA, X: Any, seen: Any, *, at_least: float = 0.5) -> NVISA:
    """The model with one more cluster, if most rows of X are unlike those of its fit; else the model itself.

    A row is unlike them if its largest q(y|x) lies below the 5 % quantile of the fit's rows. Such rows of X are the new
    cluster. The new model is fitted to them and to rows that the old one knows, which keep their clusters; rows of X
    that it was sure of go where they are most probable. Rows drawn from the model cannot stand for those that it has
    seen: a network tells the drawn from the real at a glance, and takes that for the border.

    Parameters
    ----------
    model
        A fitted :class:`NVISA`, which stays as it is.
    X
        New rows [N D].
    seen
        Rows that the model knows, of all its clusters [n D]: a few hundred of each, kept from the stream.
    at_least
        The share of X that has to be unlike the fit's rows: about 0.05 are if nothing has changed.

    Returns
    -------
    NVISA
        ``model``, or another with ``n_clusters_`` one larger; cluster k is k, the new one is the last.

    Examples
    --------
    >>> import numpy as np
    >>> from nvisa import Training
    >>> rng = np.random.RandomState(0)
    >>> old = rng.randn(200, 2) + np.repeat([[0, 0], [9, 0]], 100, axis=0)
    >>> model = NVISA(2, training=Training(epochs=20), random_state=0).fit(old)
    >>> grow(model, old[:50], seen=old) is model
    True
    """
    if not (allowed := InRange(0, 1, open_low=True)).allows(at_least):
        raise SettingError("at_least", allowed.expected, at_least)
    if model.categories_:
        raise ValueError("X: expected numbers, got a model of categories. Try fit, with all rows.")
    confidence, K = model._typicality(model._checked(X))["confidence"], model.n_clusters_
    unsure = confidence < threshold(model.reject_quantiles_["confidence"], SHARE)
    if unsure.mean() < at_least:
        return model
    labels = model.predict(seen)
    if len(missing := np.setdiff1d(np.arange(K), labels)):
        raise ValueError(f"seen: expected rows of all {K} clusters, got none of {missing.tolist()}. Keep some of each.")
    settings = model.get_params(deep=False) | {"n_clusters": K + 1, "n_restarts": 1}
    settings["init"] = np.concatenate([labels, np.where(unsure, K, -1)])
    grown = NVISA(**settings).fit(np.concatenate([np.asarray(seen), np.asarray(X)]))
    grown.cluster_names_ = [*model._names, ""]
    del grown.classes_
    return grown


def load(path: str | Path, device: str = "cpu") -> Any:
    """Read the fitted clusterer that ``save`` wrote. No code from the files is executed.

    Parameters
    ----------
    path
        The model directory.
    device
        Where its networks go: "cpu", "cuda", ..., or "auto".

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
        fitted = manifest["fitted"]
        with torch.device("meta"):  # without memory of their own, to be filled from the file
            networks: Any = clusterer._networks(blank_units(fitted), fitted)
        persistence.restore(clusterer, networks, manifest, arrays)
    except (TypeError, ValueError, RuntimeError, LookupError, OverflowError, AttributeError, MemoryError) as error:
        # A manifest can be wrong in as many ways as settings have types; all of them are one to the user.
        raise ModelError(f"{path}: {error}") from error
    persistence.warn_of_versions(path, manifest)
    clusterer.module_.to(torch_device(device))
    return clusterer


def _unfitted(manifest: persistence.Manifest) -> DeepClusterer:
    """The clusterer of the manifest's class, with its settings."""
    kinds = {kind.__name__: kind for kind in METHODS.values()}
    name = manifest["class"]
    if name not in kinds:
        raise ModelError(f"expected a method among {', '.join(kinds)}, got {name!r}. Upgrade nvisa?")
    params = {key: persistence.decode(value, SETTINGS) for key, value in manifest["params"].items()}
    return kinds[name](**params)
