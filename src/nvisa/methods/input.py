"""What a clusterer may be handed: checked, and made rows for its networks, or refused with what, where and what next.

* numbers as they are; infinity, and what float32 cannot hold, is refused
* columns far from zero beside their spread: less their mean, in float64 (``nets/units.py``)
* NaN is a gap for methods that take gaps (``nets/gaps.py``): in a fit, and after a fit to rows that had some
* text, booleans and pandas' categories are categories for methods that take them (``categories.py``)
* scipy's sparse matrices stay sparse, and are dense for a batch at a time (``nets/sparse.py``)
* counts, where the likelihood is of counts: whole numbers, some in every row (``nets/counts.py``)
* images and other arrays of more axes, where the networks see them (``nets/modules.py``)
* tensors, loaders, masked arrays, arrays on disk: ``nets/conversion.py``

A fit does this once, before anything else; whatever follows sees rows of two axes and their units.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import TransformerMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted, validate_data

from nvisa.fitting.consistency import Augment
from nvisa.methods.categories import decoded, encoded, has_categories
from nvisa.nets.conversion import as_rows
from nvisa.nets.counts import COUNT_LIKELIHOODS, CountUnits, NegativeBinomial, check_counts
from nvisa.nets.gaps import Fill
from nvisa.nets.modules import SHAPED
from nvisa.nets.rows import Table, blocks, count_gaps, numbers
from nvisa.nets.sparse import SparseRows
from nvisa.nets.tables import TableUnits
from nvisa.nets.units import Directions, Rescale, centered, make_units, origin_of, warn_of_units
from nvisa.settings import SettingError

__all__ = ["CheckedInput", "Rows", "blank_units", "category_levels", "check_shaped_and_counted", "check_unit_interval"]

Rows = Any  # whatever scikit-learn's validation accepts; it refuses the rest in its own words


class CheckedInput(TransformerMixin):  # whose tags it adds to
    """What a fit learns of its rows, and what it then asks of others.

    Attributes
    ----------
    n_features_in_ : int
    categories_ : dict
        Of a data frame with categories: the values of each such column, by its number as a string; else empty.
    fills_gaps_ : bool
        Whether rows of the fit had gaps (NaN) or categories, so that others may have gaps.
    n_axes_ : int
        Of wide sparse rows, the axes that they are projected on for distances; else 0.
    origin_ : ndarray of shape (D,)
        Only if columns vary little beside their mean, as times in seconds since 1970 do: what is subtracted from rows
        in float64, before the networks see them in float32. Whatever comes back in the user's units has it added.
    sees_directions_ : bool
        Only with ``Network(scaling="cosine")``: True.
    count_batches_ : dict
        Only of counts: the column that says the batch, and its values; empty where there is none.
    image_shape_ : tuple
        Only of arrays of more than two axes: the shape of a row.
    """

    TAKES_SPARSE: ClassVar[bool] = True  # whether rows are read through Source and Rescaled alone
    TAKES_CATEGORIES: ClassVar[bool] = False  # whether p(x|z) has a head for them
    TAKES_GAPS: ClassVar[bool] = False  # whether p(x|z) is that of what is observed, so that NaN can be a gap

    network: Any  # the setting
    module_: Any
    n_features_in_: int
    categories_: dict[str, list[Any]]

    def _learn_input(self, X: Rows, scaling: str, rng: RandomState, *, at_least: int) -> tuple[Table, Rescale]:
        """The rows of a fit for the networks, at least so many, and the units in which these see them."""
        self.__dict__.pop("origin_", None)
        X = self._finite_rows(X, reset=True)
        if self.TAKES_GAPS and (empty := np.flatnonzero(count_gaps(X) == len(X))).size:
            names = ", ".join(self._column_name(d) for d in empty)
            raise ValueError(f"Expected numbers in every column, got gaps only in {names}. Leave it out.")
        if len(X) < at_least:
            hint = "give more rows or ask for fewer clusters."
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={at_least}: {hint}")
        if (counting := self._counting) is not None:
            return X, self._learn_counts(X, counting, scaling, rng)
        if scaling != "cosine" and (origin := origin_of(X)) is not None:
            origin[[int(d) for d in self.categories_]] = 0.0  # codes stay codes
            self.origin_ = origin
            X = centered(X, origin)
        levels = category_levels(vars(self)) if self.categories_ else []
        weight = 1.0 if self.network is None else self.network.category_weight
        units = TableUnits.of(X, scaling, levels, rng, weight=weight) if levels else make_units(X, scaling, rng)
        self.fills_gaps_, self.n_axes_ = units.fill is not None, units.n_axes
        if isinstance(units, Directions):
            self.sees_directions_ = True
        return X, units

    @property
    def _counting(self) -> NegativeBinomial | None:
        """The likelihood, if it is one of counts."""
        given = getattr(self, "likelihood", None)
        given = COUNT_LIKELIHOODS.get(given) if isinstance(given, str) else given
        return given if isinstance(given, NegativeBinomial) else None

    def _learn_counts(self, X: Table, counting: NegativeBinomial, scaling: str, rng: RandomState) -> CountUnits:
        """Units of counts; what says the batch may be a category, and nothing else."""
        column = counting.column(X.shape[1], getattr(self, "feature_names_in_", None))
        if wrong := [d for d in map(int, self.categories_) if d != column]:
            raise SettingError(
                "likelihood",
                "another than one of counts beside categories",
                self._column_name(np.int64(wrong[0])),
                "Leave the column out, or name it: NegativeBinomial(batch=...).",
            )
        if scaling == "cosine":
            raise SettingError("network.scaling", "another than 'cosine' for counts", scaling)
        check_counts(X, column)
        units = CountUnits.of(X, column, scaling, rng)
        self.count_batches_ = {} if column is None else {"column": column, "values": units.batches.tolist()}
        self.fills_gaps_, self.n_axes_ = False, units.n_axes
        return units

    def _checked(self, X: Rows) -> Table:
        """Rows for the networks of a fitted clusterer."""
        check_is_fitted(self)
        X = self._finite_rows(X, reset=False)
        if self.TAKES_GAPS and not getattr(self, "fills_gaps_", False):
            self._refuse_gaps(X)
        if (batches := getattr(self, "count_batches_", None)) is not None:
            check_counts(X, batches.get("column"), batches=batches.get("values"))
        X = X if self._origin is None else centered(X, self._origin)
        warn_of_units(X, self.module_.rescale)
        return X

    def _finite_rows(self, X: Rows, *, reset: bool) -> Table:
        """Scikit-learn's checks of what is handed in, block by block; what is floating is not copied.

        ``reset`` in a fit, which learns the number of columns and their names, and the categories.
        """
        X = X if type(X) is np.ndarray else as_rows(X)
        X = self._encoded(self._flat(X, reset=reset), reset=reset)
        accepted = "csr" if self.TAKES_SPARSE else False
        checked = validate_data(
            self, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=False, accept_sparse=accepted
        )
        name, gaps = type(self).__name__, self.TAKES_GAPS and not issparse(checked)
        checked = SparseRows(checked) if issparse(checked) else checked
        for rows in numbers(checked):
            with np.errstate(over="ignore"):  # in the networks' float32 it would be infinite
                rows32 = rows.astype(np.float32, copy=False)
            assert_all_finite(rows32, estimator_name=name, input_name="X", allow_nan=gaps)
        return checked

    def _flat(self, X: Any, *, reset: bool) -> Any:
        """Rows of two axes, of arrays of more: a fit learns their shape, if its networks see shapes."""
        if not isinstance(X, np.ndarray) or X.ndim <= 2 or not isinstance(self.network, SHAPED):
            return X
        if reset:
            self.image_shape_ = X.shape[1:]
        elif (known := tuple(getattr(self, "image_shape_", X.shape[1:]))) != X.shape[1:]:
            raise ValueError(f"X: expected rows of shape {known}, as those of the fit were, got {X.shape[1:]}.")
        return X.reshape(len(X), -1)

    def _encoded(self, X: Any, *, reset: bool) -> Any:
        """X with numbers in place of its categories, which a fit learns."""
        known = {} if reset else getattr(self, "categories_", {})
        if self.TAKES_CATEGORIES and (known or (hasattr(X, "select_dtypes") and has_categories(X))):
            if not reset and not hasattr(X, "select_dtypes"):
                raise ValueError(f"Expected a data frame, as that of the fit was, got {type(X).__name__}.")
            if reset:
                X, known = encoded(X)
            elif list(X.columns) == list(self.feature_names_in_):  # else scikit-learn says what is wrong
                X, _ = encoded(X, known)
        self.categories_ = known
        return X

    def _refuse_gaps(self, X: Table) -> None:
        """Raise an error that says where the first gap is; sparse rows have none."""
        start = 0
        for rows in () if isinstance(X, SparseRows) else blocks(X):
            if np.isnan(rows).any():
                n, d = np.argwhere(np.isnan(rows))[0]
                raise ValueError(
                    f"Expected rows without gaps, as those of the fit were, got NaN in row {start + n}, column "
                    f"{self._column_name(d)}. Fit to rows that have gaps too, or fill it in."
                )
            start += len(rows)

    def _column_name(self, column: np.integer) -> str:
        """The name of a column, or its number."""
        names = getattr(self, "feature_names_in_", None)
        return str(column) if names is None else repr(str(names[column]))

    # ---- and back

    @property
    def _origin(self) -> NDArray[np.float64] | None:
        return getattr(self, "origin_", None)

    def _in_user_units(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Rows of the networks, x less ``origin_``, in the user's units; categories as codes."""
        return x if self._origin is None else x + self._origin

    def _as_given(self, x: NDArray[np.floating]) -> Rows:
        """Rows of the networks as the user's: a data frame, where the fit's had categories."""
        return decoded(self._in_user_units(x), self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's checks may expect."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan, tags.input_tags.sparse = self.TAKES_GAPS, self.TAKES_SPARSE
        return tags


def category_levels(fitted: Mapping[str, Any]) -> list[int]:
    """Number of categories of each column, 0 for numbers, by the ``categories_`` of a clusterer."""
    known = fitted.get("categories_") or {}
    return [len(known.get(str(d), ())) for d in range(fitted["n_features_in_"])]


def blank_units(fitted: Mapping[str, Any]) -> Rescale:
    """Units of the shapes that these fitted attributes of a clusterer tell of, to be filled from a file."""
    n_features, levels = fitted["n_features_in_"], category_levels(fitted)
    if (batches := fitted.get("count_batches_")) is not None:
        values = batches.get("values", [0.0])
        return CountUnits.blank(n_features, len(values), batches.get("column"), fitted.get("n_axes_", 0))
    if any(levels):
        return TableUnits.blank(levels)
    fill = Fill.blank(n_features) if fitted.get("fills_gaps_", False) else None
    n_axes = fitted.get("n_axes_", 0)
    axes = torch.zeros(n_features, n_axes) if n_axes else None
    kind = Directions if fitted.get("sees_directions_", False) else Rescale
    return kind(torch.zeros(n_features), torch.ones(n_features), fill, axes)


def check_shaped_and_counted(clusterer: Any, starts: Sequence[Any], terms: Sequence[Any]) -> None:
    """Raise a SettingError for what counts, or networks that see shapes, do not go with."""
    counts, shaped = clusterer._counting is not None, isinstance(clusterer.network, SHAPED)
    if shaped and (counts or clusterer.fills_gaps_):
        raise SettingError("network", "a Network for counts, gaps and categories", clusterer.network)
    masked = [start for start in starts if getattr(start, "masked", 0.0)]
    if counts and masked:
        raise SettingError("init", "a start without masked counts, of which the library is made", masked[0])
    if counts and any(isinstance(term, Augment) for term in terms):
        raise SettingError("consistency", "another than Augment for counts", clusterer.consistency, "Try 'vat'.")


def check_unit_interval(X: Table) -> None:
    """Raise a SettingError unless all numbers lie in [0, 1]; gaps may lie anywhere."""
    low, high = np.nanmin([(np.nanmin(rows), -np.nanmax(rows)) for rows in blocks(X)], 0) * (1, -1)
    if low < 0 or high > 1:
        raise SettingError(
            "likelihood",
            f"another than 'bernoulli', which needs data in [0, 1], for data in {low:g} .. {high:g}",
            "bernoulli",
            "Rescale them, or use likelihood='gaussian_shared'.",
        )
