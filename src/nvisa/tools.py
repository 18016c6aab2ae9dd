"""Clusters of the cells of an AnnData object, written into it: ``nvisa.tools.cluster(adata)``.

AnnData is only read and written through its attributes, so nothing here needs the package.
"""

from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack, issparse

from nvisa.methods.nvisa import NVISA
from nvisa.nets.counts import COUNT_LIKELIHOODS, NegativeBinomial
from nvisa.settings import SettingError

__all__ = ["cluster", "counts_of"]


def cluster(
    adata: Any,
    n_clusters: int | str = "auto",
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    genes: str | None = "highly_variable",
    key_added: str = "nvisa",
    **settings: Any,
) -> NVISA:
    """Cluster the cells by their counts, and write what was found into ``adata``.

    Parameters
    ----------
    adata
        An ``anndata.AnnData`` with raw counts, whose library sizes and logarithms nobody needs to compute.
    n_clusters
        K, or "auto": as many as the neighbor graph has cheap borders for.
    layer
        Where the counts are, as in ``adata.layers["counts"]``; None: ``adata.X``.
    batch_key
        The column of ``adata.obs`` with the batch of each cell, such as its donor.
    genes
        A column of ``adata.var`` that says which genes are used; all, if it is not there or None.
    key_added
        First part of the names of what is written.
    settings
        Of :class:`nvisa.NVISA`; the likelihood is "negative_binomial" unless it is said.

    Returns
    -------
    NVISA
        Fitted. In ``adata`` stand, for ``key_added="nvisa"``: ``obs["nvisa"]``, the cluster of each cell, and
        ``obs["nvisa_probability"]``, how sure it is; ``obsm["X_nvisa"]``, the latent vectors, and
        ``obsm["nvisa_probabilities"]``, q(y|x) [N K]; ``uns["nvisa"]``, how it was made.

    Raises
    ------
    KeyError
        If there is no such layer or column.
    ValueError
        If what is there are no counts.

    Examples
    --------
    >>> import nvisa.tools
    >>> model = nvisa.tools.cluster(adata, n_clusters=8, batch_key="donor")  # doctest: +SKIP
    >>> adata.obs["nvisa"].value_counts()  # doctest: +SKIP
    """
    likelihood = settings.pop("likelihood", "negative_binomial")
    likelihood = COUNT_LIKELIHOODS.get(likelihood, likelihood) if isinstance(likelihood, str) else likelihood
    if not isinstance(likelihood, NegativeBinomial) or likelihood.batch is not None:
        expected = f"one of {', '.join(map(repr, COUNT_LIKELIHOODS))} (the batch is batch_key)"
        raise SettingError("likelihood", expected, likelihood, "For others: NVISA(...).fit(adata.X).")
    X = counts_of(adata, layer, batch_key, genes)
    batch = None if batch_key is None else -1
    model = NVISA(n_clusters, likelihood=NegativeBinomial(likelihood.zero_inflated, batch), **settings).fit(X)
    _write(adata, model, X, key_added)
    adata.uns[key_added]["counts"] = {
        "layer": layer or "X",
        "batch_key": batch_key or "",
        "n_genes": _n_genes(X, batch),
    }
    return model


def counts_of(
    adata: Any, layer: str | None = None, batch_key: str | None = None, genes: str | None = "highly_variable"
) -> Any:
    """The counts of the genes used [N D], and a last column with the number of the batch; what the model then takes."""
    X = adata.X if layer is None else adata.layers[layer]
    X = X.to_memory() if hasattr(X, "to_memory") else X
    if genes is not None and genes in adata.var:
        X = X[:, np.flatnonzero(adata.var[genes].to_numpy(dtype=bool))]
    if batch_key is None:
        return X if issparse(X) else np.asarray(X)
    codes = adata.obs[batch_key].astype("category").cat.codes.to_numpy().astype(np.float32)
    if (codes < 0).any():
        raise ValueError(
            f"Expected a batch of every cell in obs[{batch_key!r}], got none in row {int(codes.argmin())}."
        )
    return csr_array(hstack([csr_array(X), csr_array(codes[:, None])])) if issparse(X) else np.c_[np.asarray(X), codes]


def _n_genes(X: Any, batch: int | None) -> int:
    return int(X.shape[1] - (batch is not None))


def _write(adata: Any, model: NVISA, X: Any, key: str) -> None:
    """Labels, probabilities, codes, and how they came to be."""
    probabilities = model.predict_proba(X)
    adata.obs[key] = model.labels_.astype(str)
    adata.obs[key] = adata.obs[key].astype("category")
    adata.obs[f"{key}_probability"] = probabilities.max(1)
    adata.obsm[f"X_{key}"] = model.transform(X)
    adata.obsm[f"{key}_probabilities"] = probabilities
    adata.uns[key] = {
        "n_clusters": probabilities.shape[1],
        "stop_reason": model.stop_reason_,
        "preferred": getattr(model, "diagnosis_", {}).get("preferred", ""),
        "settings": {name: repr(value) for name, value in model.get_params(deep=False).items()},
    }
