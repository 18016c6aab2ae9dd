"""A fitted clusterer evaluated on rows, with their labels if there are some: all that its page shows."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from nvisa.report import cluster_statistics
from nvisa.report.encoding import one_line
from nvisa.report.pictures import brightness
from nvisa.report.thumbnails import Thumbnails

__all__ = ["Evaluation"]

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
MAX_POINTS = 100_000  # of the map
SCORED = 2_000  # rows whose log p(x) is computed: each decodes K x 32 latent vectors


class Evaluation:
    """A fitted clusterer evaluated on rows; each quantity is computed once, when it is asked for.

    Parameters
    ----------
    clusterer
        Fitted.
    X
        Rows [N D], or None.
    y
        Labels of the rows, or None.
    feature_shape
        Of rows that are images.
    names
        Of the rows, or None.

    Raises
    ------
    ValueError
        If they do not go together.
    """

    def __init__(
        self,
        clusterer: Any,
        X: Any = None,
        y: Any = None,
        *,
        feature_shape: Sequence[int] | None = None,
        names: Any = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        check_is_fitted(clusterer)
        self.clusterer = clusterer
        self.X: Any = None if X is None else clusterer._checked(X)
        self.y: Any = None if y is None else np.asarray(y)
        self.feature_shape = None if feature_shape is None else tuple(int(n) for n in feature_shape)
        self.names = None if names is None else [one_line(name) for name in names]
        self.about = dict(about or {})
        self._check()

    def _check(self) -> None:
        n_rows = 0 if self.X is None else len(self.X)
        for what, given in (("labels y", self.y), ("names", self.names)):
            if given is not None and len(given) != n_rows:
                raise ValueError(f"{what}: expected one a row, {n_rows}, got {len(given)}. Give those of the rows.")
        n_features = self.clusterer.n_features_in_
        if self.feature_shape is not None and np.prod(self.feature_shape) != n_features:
            raise ValueError(
                f"feature_shape: expected the shape of {n_features} features, got {self.feature_shape}. "
                "Try (height, width) of one image, or None for a table."
            )

    def _of_rows(self, function: Any) -> Any:
        """A function of tensors as one of checked rows, block by block."""
        return lambda X: self.clusterer._mapped(function, X)

    @property
    def n_clusters(self) -> int:
        """K, as it was asked for or found."""
        return int(self.clusterer._n_found)

    @cached_property
    def q(self) -> Array:
        """q(y|x) [N K]."""
        return np.exp(self._of_rows(self.clusterer._log_q_y)(self.X))

    @cached_property
    def labels(self) -> Ints:
        """Cluster of each row [N]; of the training rows where the page has none."""
        return self.clusterer.labels_ if self.X is None else self.q.argmax(1)

    @cached_property
    def sizes(self) -> Ints:
        """Rows of each cluster [K]."""
        return np.bincount(self.labels, minlength=self.n_clusters)

    @cached_property
    def z(self) -> Array:
        """Latent vectors [N Z]."""
        return self._of_rows(self.clusterer.module_.encode)(self.X)

    @cached_property
    def score(self) -> Array | None:
        """log p(x) [N], NaN where it was not computed; None for a method without a density."""
        if not hasattr(self.clusterer, "_log_p_x"):
            return None
        log_p_x, reconstruct = self._of_rows(self.clusterer._log_p_x), self._of_rows(self.clusterer._reconstruct)
        return cluster_statistics.scores(log_p_x, reconstruct, self.X, RandomState(0), SCORED)

    @cached_property
    def columns(self) -> list[str]:
        """Names of the features [D]."""
        known = getattr(self.clusterer, "feature_names_in_", None)
        return [one_line(name) for name in known] if known is not None else [f"x{d}" for d in range(self.n_features)]

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.clusterer.n_features_in_)

    @cached_property
    def classes(self) -> tuple[list[str], Ints]:
        """(names [C], class of each row [N])."""
        distinct, index = np.unique(self.y, return_inverse=True)
        return [one_line(name) for name in distinct.tolist()], index

    @cached_property
    def images(self) -> Thumbnails | None:
        """How rows become images, where they are images."""
        if self.feature_shape is None:
            return None
        return Thumbnails(self.feature_shape, (0.0, 1.0) if self.X is None else brightness(self.X))

    @cached_property
    def shown(self) -> Ints:
        """Row numbers of the map's points, sorted."""
        n = len(self.X)
        return np.arange(n) if n <= MAX_POINTS else np.sort(RandomState(0).permutation(n)[:MAX_POINTS])

    @cached_property
    def contrasts(self) -> tuple[Array, Array, Array]:
        """Means inside and outside of each cluster, and their difference in deviations [K D]; 0 of categories."""
        inside, outside, contrast = cluster_statistics.contrasts(self.X, self.labels, self.n_clusters)
        contrast[:, self.of_categories] = 0.0  # the mean of codes says nothing
        return self.as_given(inside), self.as_given(outside), contrast

    def as_given(self, x: Array) -> Array:
        """Rows such as those of X, in the user's units; categories as codes."""
        return self.clusterer._in_user_units(x)

    @cached_property
    def of_categories(self) -> list[int]:
        """Numbers of the columns that are categories, whose values are codes in X."""
        return [int(d) for d in getattr(self.clusterer, "categories_", None) or {}]

    @cached_property
    def digits(self) -> Ints:
        """Significant digits that tell the values of each column apart [D]: more than four far from zero."""
        if (origin := self.clusterer._origin) is None:
            return np.full(self.n_features, 4)
        scale = self.clusterer.module_.rescale.scale.cpu().numpy()
        deviation = scale if self.X is None else cluster_statistics.mean_and_std(self.X)[1]
        return 4 + np.ceil(np.log10(np.maximum(np.abs(origin) / deviation, 1))).astype(int)

    def written(self, value: Any, column: int | np.integer) -> str:
        """The value of a column as the page shows it: a category by its name, a gap as a dash."""
        if isinstance(value, str | bool | np.bool_):  # of a row that was made, whose categories have their names
            return str(value)
        if np.isnan(value):
            return "\N{EN DASH}"
        if column in self.of_categories:
            return one_line(self.clusterer.categories_[str(column)][int(value)])
        return f"{value:.{self.digits[column]}g}"
