"""Who is called back by the loop, when, and with what: enough to put a stage back to where it was left."""

import math
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch

from nvisa.fitting.run import DivergedError, Listener
from nvisa.fitting.training import StepOutput, Tally, maximize
from one_vector import EachEpoch, Point, rows_source, training
from oracles import normal


class Noting(Listener):
    """Notes every call, with its own name and where the stage stands."""

    def __init__(self, name, calls) -> None:
        self.name, self.calls = name, calls

    def begin_stage(self, state) -> None:
        assert (state.history, state.finished) == ([], False)
        self.calls.append((self.name, "begin", state.name, 0))

    def end_epoch(self, state) -> None:
        assert not state.finished
        self.calls.append((self.name, "epoch", state.name, len(state.history)))

    def end_stage(self, state) -> None:
        assert state.finished
        self.calls.append((self.name, "end", state.name, len(state.history)))


def climb(module):
    """An objective that moves the module a little at every step."""
    return lambda x, rows, fraction: StepOutput(-(module.at - x).square().sum(1), {})


def test_listeners_are_called_in_their_order_as_a_stage_begins_after_each_epoch_and_at_its_end(rng):
    module, calls = Point(1.0, 2.0), []
    listeners = [Noting(name, calls) for name in ("first", "second")]
    history = maximize(climb(module), module, rows_source(10), training(epochs=2), rng, listeners, stage="a")
    expected = [("begin", "a", 0), ("epoch", "a", 1), ("epoch", "a", 2), ("end", "a", 2)]
    assert calls == [(name, *call) for call in expected for name in ("first", "second")]
    assert len(history) == 2


def test_a_stage_that_converges_has_an_end_too(rng):
    module, calls = Point(1.0, 2.0), []

    def objective(x, rows, fraction):
        return None if fraction > 0.4 else climb(module)(x, rows, fraction)

    maximize(objective, module, rows_source(10), training(), rng, [Noting("a", calls)])
    assert calls[-1] == ("a", "end", "training", 2)
    assert not module.training


def breaks_after_an_epoch(module):
    return lambda x, rows, fraction: StepOutput(module.at.sum() * (math.nan if fraction > 0.3 else 1.0), {})


def test_a_stage_that_diverges_has_none(rng):
    module, calls = Point(1.0), []
    with pytest.raises(DivergedError):
        maximize(breaks_after_an_epoch(module), module, rows_source(10), training(), rng, [Noting("a", calls)])
    assert [call[1] for call in calls] == ["begin", "epoch"]


class Restoring(Listener):
    """Keeps the state after an epoch, and puts it back where another stage begins."""

    def __init__(self, epoch) -> None:
        self.epoch, self.kept = epoch, None

    def end_epoch(self, state) -> None:
        if len(state.history) == self.epoch:
            kept = state.module.state_dict(), state.optimizer.state_dict(), state.generator.get_state()
            self.kept = deepcopy((*kept, state.tally.state_dict(), state.history))

    def begin_stage(self, state) -> None:
        if self.kept is not None:
            module, optimizer, generator, tally, history = self.kept
            state.module.load_state_dict(module)
            state.optimizer.load_state_dict(optimizer)
            state.generator.set_state(generator)
            state.tally.load_state_dict(tally)
            state.history.extend(history)


def labeled(module):
    """An objective with clusters, so that the tally has a state."""

    def objective(x, rows, fraction):
        log_q_y = torch.stack([module.at[0] * x[:, 0] / 9, module.at[1] - 0 * x[:, 0]], 1).log_softmax(1)
        return StepOutput(log_q_y.exp().mul(x).sum(1), {}, log_q_y)

    return objective


def test_a_listener_can_put_a_stage_back_to_where_it_was_left(rng):
    """And what follows is what followed then: the loop keeps nothing that is not in the state."""
    listener, settings = Restoring(2), training(epochs=5, learning_rate=0.5)
    module = Point(1.0, 0.5)
    whole = maximize(labeled(module), module, rows_source(10), settings, rng, [listener])
    other, seen = Point(-7.0, 3.0), []
    again = maximize(
        labeled(other), other, rows_source(10), settings, torch.Generator(), [listener, EachEpoch(seen.append)]
    )
    assert [record["epoch"] for record in seen] == [3, 4, 5]
    assert without_seconds(again) == without_seconds(whole)
    assert "label_change" in seen[0]  # against the labels of the epoch that was left
    assert torch.equal(other.at, module.at)
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(again))


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def test_a_stage_that_a_listener_says_is_finished_is_not_trained(rng):
    class Finished(Listener):
        def begin_stage(self, state):
            state.history, state.finished = [{"epoch": 1, "seconds": 3.0}], True

    module, seen = Point(1.0), []
    history = maximize(climb(module), module, rows_source(10), training(), rng, [Finished(), EachEpoch(seen.append)])
    assert (history, seen, module.at.tolist()) == ([{"epoch": 1, "seconds": 3.0}], [], [1.0])
    assert not module.training


def test_the_history_that_is_returned_is_no_longer_the_stage_s(rng):
    module, states = Point(1.0), []

    class Keep(Listener):
        def end_stage(self, state):
            states.append(state)

    history = maximize(climb(module), module, rows_source(10), training(), rng, [Keep()])
    history.clear()
    assert len(states[0].history) == 3


def test_the_labels_of_the_epoch_before_are_all_that_a_tally_keeps(rng):
    tally, log_q_y = Tally(4), normal(rng, 4, 3).log_softmax(1)
    assert tally.state_dict() == {}
    for _ in range(2):
        tally.start()
        tally.add(StepOutput(log_q_y.sum(1), {}, log_q_y), np.array([2, 0, 3, 1]))
    assert tally.means()["label_change"] == 0.0
    (labels,) = tally.state_dict().values()
    assert labels.tolist() == log_q_y.argmax(1)[[1, 3, 0, 2]].tolist()
    other = Tally(4)
    other.load_state_dict(tally.state_dict())
    other.add(StepOutput(log_q_y.sum(1), {}, log_q_y.roll(1, 1)), np.array([2, 0, 3, 1]))
    assert other.means()["label_change"] == 1.0
