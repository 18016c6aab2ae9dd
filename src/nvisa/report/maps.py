"""The latent space in the plane: principal components, t-SNE or UMAP."""

import warnings
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

__all__ = ["MAPS", "TSNE_ROWS", "chosen_maps", "plane"]

Array = NDArray[np.floating[Any]]
MAPS = ("auto", "pca", "tsne", "umap")
TSNE_ROWS = 3_000  # up to here t-SNE takes seconds, and "auto" draws it; beyond, UMAP


def chosen_maps(maps: tuple[str, ...], n_rows: int) -> list[str]:
    """The names without "auto" and without repeats.

    Raises
    ------
    ValueError
        If a name is none of ``MAPS``.
    """
    for name in maps:
        if name not in MAPS:
            raise ValueError(f"maps: expected names among {', '.join(MAPS)}, got {name!r}. Try maps=('auto',).")
    auto = "tsne" if n_rows <= TSNE_ROWS else "umap"
    return list(dict.fromkeys(auto if name == "auto" else name for name in maps))


def plane(z: Array, name: str, rng: RandomState) -> tuple[str, Array]:
    """(title, points [N 2]) of latent vectors [N Z]; two dimensions or fewer, or few rows, stay as they are."""
    if z.shape[1] <= 2:
        return "latent space", np.pad(z, ((0, 0), (0, 2 - z.shape[1])))
    if name == "pca" or len(z) < 10:
        return "PCA", PCA(2, random_state=rng).fit_transform(z)
    if name == "tsne":
        perplexity = min(30.0, (len(z) - 1) / 3)
        return "t-SNE", TSNE(2, init="pca", perplexity=perplexity, random_state=rng).fit_transform(z)
    return "UMAP", _umap(z, rng)


def _umap(z: Array, rng: RandomState) -> Array:
    """UMAP (McInnes et al. 2018) in the plane; the principal components start it, which keeps the far apart far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's and umap's notes on threads
        from umap import UMAP  # noqa: PLC0415  slow

        start = PCA(2, random_state=rng).fit_transform(z)
        reducer = UMAP(
            n_neighbors=min(15, len(z) - 1),
            min_dist=0.1,
            init=(10 * start / np.abs(start).max()).astype(np.float32),
            random_state=rng.randint(2**31 - 1),
            n_jobs=1,
        )
        return reducer.fit_transform(z)
