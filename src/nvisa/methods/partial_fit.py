"""partial_fit: more rows later, without forgetting the clusters. The same for every method that says what it maximizes.

    maximize   objective(x) - KL( q_before(y|x) || q(y|x) )         one pass, at a tenth of the first learning rate

Beyond the papers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils import check_random_state

from nvisa.fitting.consistency import ConsistencyObjective, drift_penalty
from nvisa.fitting.run import Reporter
from nvisa.fitting.training import StepOutput, maximize
from nvisa.maths.schedules import Constant
from nvisa.maths.shapes import Data
from nvisa.methods.input import Rows, check_unit_interval
from nvisa.nets.layers import generator_from
from nvisa.nets.rows import Source

__all__ = ["Objective", "StreamingClusterer", "consistent_with_bound"]

Objective = Callable[[Data, np.ndarray, float], StepOutput]
Streaming = TypeVar("Streaming", bound="StreamingClusterer")


class StreamingClusterer(ABC):
    """A method that goes on with rows that come later; it defines ``_objective``."""

    module_: Any
    fit: Callable[..., Any]
    _checked: Callable[..., Any]

    @abstractmethod
    def _objective(self, net: Any, n_rows: int, generator: torch.Generator) -> Objective:
        """What is maximized over this many rows, in these networks, once the fit has found its clusters."""

    def partial_fit(self: Streaming, X: Rows, y: object = None) -> Streaming:
        """Go on training with one pass over new rows [N D]; the clusters keep their numbers. Before any fit: ``fit``.

        Floors, batch norm and mixtures of codes stay as the fit has left them, the learning rate is a tenth of its
        first, information is not rewarded (a chunk tells nothing about the sizes of clusters), and
        ``-KL( q_before(y|x) || q(y|x) )`` is added, so that nothing is forgotten. ``labels_`` becomes that of X.
        Whether the rows have become others: :meth:`drift`, before this call.
        """
        fitted: Any = self
        if not hasattr(self, "module_"):
            return self.fit(X)
        rows, net = self._checked(X), self.module_
        if fitted._is_bernoulli:
            check_unit_interval(rows)
        generator = generator_from(check_random_state(fitted.random_state))
        generator.manual_seed(generator.initial_seed() + fitted.n_iter_)  # other draws for every chunk
        source = Source(rows, net.rescale.shift.device)
        objective = drift_penalty(deepcopy(net), net, self._objective(net, len(rows), generator))
        once = replace(fitted._training, epochs=1, learning_rate=Constant(0.1 * fitted._training.rate(0.0)))
        history = fitted.history_
        with fitted._progress_shown() as report:
            listeners = [] if report is None else [Reporter(net, report)]
            history = history + maximize(objective, net, source, once, generator, listeners, stage="partial_fit")
        fitted.history_, fitted.n_iter_ = history, len(history)
        fitted.labels_ = fitted._mapped(lambda x: fitted._log_q_y(x).argmax(-1), rows)
        return self


def consistent_with_bound(
    clusterer: Any, net: Any, n_rows: int, generator: torch.Generator, bound: Any = None
) -> Objective:
    """The bound beside the clusterer's consistency terms, none of which rewards information."""
    terms = tuple(replace(item, information=0.0) for item in clusterer._consistency_terms)
    if not terms:
        return bound
    distance = torch.full((n_rows,), getattr(clusterer, "neighbor_distance_", 0.0), device=net.rescale.shift.device)
    return ConsistencyObjective(net, terms, distance, generator, bound)
