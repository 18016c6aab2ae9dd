"""partial_fit of NVISA: more rows later, without forgetting the clusters. Beyond the slides."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from sklearn.utils import check_random_state

from nvisa.fitting.consistency import ConsistencyObjective, drift_penalty
from nvisa.fitting.run import Reporter
from nvisa.fitting.training import maximize
from nvisa.maths.schedules import Constant
from nvisa.methods.input import check_unit_interval
from nvisa.nets.layers import generator_from
from nvisa.nets.rows import Source, Table

__all__ = ["train_on_more_rows"]


def train_on_more_rows(clusterer: Any, X: Table, make_bound: Callable[[torch.Generator], Any]) -> None:
    """One pass over checked rows, as ``NVISA.partial_fit`` describes it.

    ``make_bound`` gives the fit's bound at its last floors, with this generator.
    """
    net = clusterer.module_
    if clusterer._is_bernoulli:
        check_unit_interval(X)
    generator = generator_from(check_random_state(clusterer.random_state))
    generator.manual_seed(generator.initial_seed() + clusterer.n_iter_)  # other draws for every chunk
    source = Source(X, net.rescale.shift.device)
    objective = bound = make_bound(generator)
    unbalanced = tuple(replace(item, information=0.0) for item in clusterer._consistency_terms)
    if unbalanced:
        distance = torch.full((len(X),), getattr(clusterer, "neighbor_distance_", 0.0), device=source.device)
        objective = ConsistencyObjective(net, unbalanced, distance, generator, bound)
    penalized = drift_penalty(deepcopy(net), net, objective)
    rate = Constant(0.1 * clusterer._training.rate(0.0))
    once = replace(clusterer._training, epochs=1, learning_rate=rate)
    with clusterer._progress_shown() as report:
        listeners = [] if report is None else [Reporter(net, report)]
        clusterer.history_ += maximize(penalized, net, source, once, generator, listeners, stage="partial_fit")
    clusterer.n_iter_ = len(clusterer.history_)
    clusterer.labels_ = clusterer._mapped(lambda x: clusterer._log_q_y(x).argmax(-1), X)
