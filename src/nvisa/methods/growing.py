"""One more cluster for a model whose later rows are unlike those of its fit."""

from typing import Any

import numpy as np

from nvisa.fitting.calibration import threshold
from nvisa.fitting.drift import SHARE
from nvisa.methods.nvisa import NVISA
from nvisa.settings import InRange, SettingError

__all__ = ["grow"]


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
    >>> from nvisa import NVISA, Training
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
