"""Joining, parting, dropping, ordering and naming the clusters of a fitted model (:mod:`nvisa.fitting.edits`)."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from nvisa.fitting.edits import Edit, gate, n_before, names_after, sources
from nvisa.settings import SettingError

__all__ = ["EditableClusterer"]

Edited = TypeVar("Edited", bound="EditableClusterer")


class EditableClusterer:
    """merge, split, drop, relabel and name: each changes the clusters that it names, and no other row's.

    Attributes
    ----------
    edits_ : list of dict
        What was done, in order; the manifest of a saved model holds it.
    cluster_names_ : list
        The name of each cluster, "" where it has none.
    """

    module_: Any
    labels_: NDArray[np.integer]
    n_clusters_: int
    edits_: list[Edit]
    predict: Callable[..., NDArray[np.int64]]
    transform: Callable[..., NDArray[np.floating]]

    def merge(self: Edited, i: int, j: int) -> Edited:
        """Make one cluster of i and j, with the lower number; those above the higher one move down by one."""
        low, high = sorted((self._checked_cluster("i", i), self._checked_cluster("j", j)))
        if low == high or self.n_clusters_ == 2:
            raise SettingError("j", "another cluster than i, of more than two in all", j)
        self._edit({"merge": [low, high]})
        labels = np.where(self.labels_ == high, low, self.labels_)
        self.labels_ = labels - (labels > high)
        return self

    def split(self: Edited, i: int, X: Any, *, random_state: int = 0) -> Edited:
        """Part cluster i in two by its rows among X [N D]; the second part gets the number K.

        Where X are the rows of the fit, in their order, ``labels_`` follow.
        """
        i = self._checked_cluster("i", i)
        before = self.predict(X)
        if (n := int((before == i).sum())) < 2:
            raise SettingError("X", f"rows of which at least two are in cluster {i}", n, "Give the rows of the fit.")
        weight, bias = gate(self.transform(X)[before == i], random_state)
        self._edit({"split": i, "weight": weight, "bias": bias})
        if np.array_equal(before, self.labels_):
            self.labels_ = self.predict(X)
        return self

    def drop(self: Edited, i: int, X: Any = None) -> Edited:
        """Take cluster i away: a row of it goes where it is most probable else; those above i move down by one.

        For clusters that a stream has left (:meth:`drift`). Where ``labels_`` holds rows of i, X must be those that
        ``labels_`` is of, in their order. p(x) stays that of the fit.
        """
        i = self._checked_cluster("i", i)
        if self.n_clusters_ == 2:
            raise SettingError("i", "a cluster of more than two in all", i)
        made_of = sources(n_before(self.n_clusters_, edits := getattr(self, "edits_", [])), edits)
        if any(set(made_of[i]) & set(parts) for k, parts in enumerate(made_of) if k != i):
            raise SettingError(
                "i", "a cluster that is no part of a split one", i, "Merge it with another part of that."
            )
        if (n := int((self.labels_ == i).sum())) and (X is None or not np.array_equal(self.predict(X), self.labels_)):
            raise SettingError("X", f"the rows of labels_, of which cluster {i} has {n}", None if X is None else len(X))
        self._edit({"drop": i})
        self.labels_ = self.predict(X) if n else self.labels_ - (self.labels_ > i)
        return self

    def relabel(self: Edited, order: Sequence[int]) -> Edited:
        """Renumber: new cluster k is what was cluster ``order[k]``."""
        check_is_fitted(self)
        if sorted(order) != list(range(self.n_clusters_)):
            raise SettingError("order", f"each of 0..{self.n_clusters_ - 1} once", list(order))
        self._edit({"order": [int(k) for k in order]})
        self.labels_ = np.argsort(order)[self.labels_]
        return self

    def name(self: Edited, i: int, text: str) -> Edited:
        """Call cluster i this."""
        i = self._checked_cluster("i", i)
        names = list(self._names)
        names[i] = str(text)
        self.cluster_names_ = names
        return self

    @property
    def _names(self) -> list[Any]:
        """Of each cluster its name, or ""; labels that were given name their clusters."""
        given = getattr(self, "classes_", None)
        named = [] if given is None else [str(name) for name in given]
        return getattr(self, "cluster_names_", [*named, *[""] * (self.n_clusters_ - len(named))])

    def _edit(self, edit: Edit) -> None:
        self.cluster_names_ = names_after(self._names, edit)
        self.__dict__.pop("classes_", None)  # numbers of clusters are no longer those of the labels
        self.edits_ = [*getattr(self, "edits_", []), edit]
        self.n_clusters_ = len(self.cluster_names_)

    def _checked_cluster(self, name: str, k: int) -> int:
        check_is_fitted(self)
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 <= k < self.n_clusters_:
            raise SettingError(name, f"a cluster in 0..{self.n_clusters_ - 1}", k)
        return int(k)
