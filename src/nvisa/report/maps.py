"""The latent space in the plane: principal components, t-SNE, or UMAP's objective (:mod:`nvisa.fitting.layout`)."""

from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from nvisa.fitting.graph import nearest
from nvisa.fitting.layout import graph_layout

__all__ = ["MAPS", "TSNE_ROWS", "chosen_maps", "plane"]

Array = NDArray[np.floating[Any]]
MAPS = ("auto", "pca", "tsne", "umap")
TSNE_ROWS = 3_000  # up to here t-SNE takes seconds, and "auto" draws it; beyond, "umap"
NEIGHBORS = 15  # of a row in the graph that "umap" lays out


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
    return "UMAP", graph_layout(*nearest(z, NEIGHBORS), 2, rng)
