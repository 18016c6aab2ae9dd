"""One more cluster for a model whose later rows are unlike those of its fit."""

from typing import Any

import numpy as np

from nvisa.fitting.calibration import threshold
from nvisa.fitting.drift import SHARE
from nvisa.methods.nvisa import NVISA
from nvisa.settings import InRange, SettingError

__all__ = ["grow"]


def grow(model: NVISA, X: Any, *, at_least: float = 0.5, n_replayed: int = 5_000) -> NVISA:
    """The model with one more cluster, if most rows of X are unlike those of its fit; else the model itself.

    A row is unlike them if its largest q(y|x) lies below the 5 % quantile of the fit's rows. Such rows of X are the new
    cluster. What was seen before is gone, and is drawn from the model in its place: generative replay (Shin, Lee, Kim
    and Kim, "Continual learning with deep generative replay", NeurIPS 2017). The new model is fitted to both. Its old
    clusters keep their numbers, and rows of X that the model was sure of go where they are most probable.

    Parameters
    ----------
    model
        A fitted :class:`NVISA`, which stays as it is.
    X
        New rows [N D].
    at_least
        The share of X that has to be unlike the fit's rows: about 0.05 are if nothing has changed.
    n_replayed
        Rows to draw from the model, as many of each cluster.

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
    >>> grow(model, old) is model
    True
    """
    if not (allowed := InRange(0, 1, open_low=True)).allows(at_least):
        raise SettingError("at_least", allowed.expected, at_least)
    if model.categories_:
        raise ValueError("X: expected numbers, got categories, which are not replayed. Try fit, with all rows.")
    confidence = model._typicality(model._checked(X))["confidence"]
    unsure = confidence < threshold(model.reject_quantiles_["confidence"], SHARE)
    if unsure.mean() < at_least:
        return model
    n, K = max(20, n_replayed // model.n_clusters_), model.n_clusters_
    replayed = [model.sample(n, cluster=k, random_state=model.n_iter_ + k)[0] for k in range(K)]
    labels = np.concatenate([np.repeat(np.arange(K), n), np.where(unsure, K, -1)])
    settings = model.get_params(deep=False) | {"n_clusters": K + 1, "init": labels, "n_restarts": 1}
    grown = NVISA(**settings).fit(np.concatenate([*replayed, np.asarray(X)]))
    grown.cluster_names_ = [*model._names, ""]
    del grown.classes_
    return grown
