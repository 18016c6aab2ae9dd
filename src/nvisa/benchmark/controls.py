"""Controls: what a table's rows are held against. scikit-learn's clusterers, made as recipes want them.

k-means sees the rows as they are; the mixture has full covariances on 50 principal components, since 784 x 784
covariances of 6,000 rows are noise.
"""

from collections.abc import Callable
from typing import Any

from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline

__all__ = ["CONTROLS"]


def kmeans(n_clusters: int, random_state: int, n_init: int = 10) -> KMeans:
    """k-means, the tightest of ``n_init`` starts."""
    return KMeans(n_clusters, n_init=n_init, random_state=random_state)


def gmm(n_clusters: int, random_state: int) -> Pipeline:
    """Principal components, then a full-covariance mixture from one k-means start."""
    components = PCA(50, svd_solver="randomized", random_state=random_state)
    mixture = GaussianMixture(n_clusters, reg_covar=1e-4, max_iter=200, random_state=random_state)
    return make_pipeline(components, mixture)


CONTROLS: dict[str, Callable[..., Any]] = {"kmeans": kmeans, "gmm": gmm}
