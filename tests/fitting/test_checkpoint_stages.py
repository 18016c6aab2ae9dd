"""The writer as a listener of the loop: stages in their order, what is put back, and where the parts of a fit go."""

import json

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from nvisa import Training
from nvisa.fitting import checkpoint
from nvisa.fitting.checkpoint import open_checkpoint
from nvisa.fitting.run import Listener
from nvisa.fitting.training import StepOutput, maximize
from nvisa.nets.rows import Source
from oracles import build

RUN = {"class": "Method", "params": {"n_clusters": 2}, "data": "X"}


class KilledError(Exception):
    """The power cut."""


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


@pytest.fixture
def module(rng):
    return build(lambda: torch.nn.Linear(2, 1), rng).float()


def train(module, listeners, n_epochs=2, objective=None):
    source = Source(np.ones((4, 2), np.float32))
    plain = objective or (lambda x, rows, fraction: StepOutput(module(x).squeeze(1), {}))
    return maximize(plain, module, source, Training(epochs=n_epochs), torch.Generator(), listeners)


def test_a_training_inside_another_fit_keeps_out_of_its_checkpoint(module, tmp_path):
    """A callback may fit a clusterer of its own: its stages are not the outer fit's."""

    class Nested(Listener):
        def end_epoch(self, state):
            train(module, ())
            if len(state.history) == 2:
                raise KilledError

    with pytest.raises(KilledError), open_checkpoint(tmp_path, RUN, RandomState(0)) as writer:
        train(module, [Nested(), writer])
    manifest = json.loads((tmp_path / checkpoint.MANIFEST).read_text())
    assert [(stage["name"], len(stage["history"])) for stage in manifest["stages"]] == [("training", 1)]


def test_a_stage_that_ended_before_its_last_epoch_is_not_gone_on_with(module, tmp_path):
    """What has converged has epochs left, and needs none of them."""
    calls = []

    def objective(x, rows, fraction):
        calls.append(fraction)
        return StepOutput(module(x).squeeze(1), {}) if len(calls) == 1 else None

    for _ in range(2):  # the second time from its checkpoint
        with open_checkpoint(tmp_path, RUN, RandomState(0)) as writer:
            assert len(train(module, [writer], 5, objective)) == 1
    assert len(calls) == 2


def test_a_stage_that_is_written_later_is_written_as_it_ended(module, tmp_path, monkeypatch):
    """The next stage trains the same networks on while the state of the first one waits."""

    def run(writer):
        train(module, [writer])
        return module.weight.detach().clone()

    monkeypatch.setattr(checkpoint, "EVERY", 3600.0)
    with open_checkpoint(tmp_path, RUN, RandomState(0)) as writer:
        ended = run(writer)
        assert not torch.equal(run(writer), ended)
    with open_checkpoint(tmp_path, RUN, RandomState(0)) as writer:
        assert torch.equal(run(writer), ended)


def test_without_a_path_nothing_is_kept():
    with open_checkpoint(None, RUN, RandomState(0)) as writer:
        assert writer is None


class Counting:
    """An objective with a state of its own: how often it was asked."""

    def __init__(self, module) -> None:
        self.module, self.asked = module, 0

    def __call__(self, x, rows, fraction):
        self.asked += 1
        labels = (rows + self.asked) % 3
        return StepOutput(self.module(x).squeeze(1), {}, torch.eye(3)[labels].log_softmax(1))

    def state_dict(self):
        return {"asked": torch.tensor(self.asked)}

    def load_state_dict(self, state):
        self.asked = int(state["asked"])


class Killing(Listener):
    """The power cut after this many epochs."""

    def __init__(self, epoch) -> None:
        self.epoch = epoch

    def end_epoch(self, state):
        if len(state.history) == self.epoch:
            raise KilledError


class Looking(Listener):
    """Notes where a stage is taken up, and where it stands after every epoch."""

    def __init__(self) -> None:
        self.after = {}

    @staticmethod
    def snapshot(state):
        of_each = state.optimizer.state_dict()["state"]  # by the number of the parameter
        moments = [of_each[i][name].clone() for i in sorted(of_each) for name in sorted(of_each[i])]
        return {
            "networks": [p.detach().clone() for p in state.module.parameters()],
            "moments": moments,
            "generator": [state.generator.get_state()],
            "objective": [torch.tensor(state.objective.asked)],
            "labels": [state.tally.labels.clone()],
        }

    def begin_stage(self, state):
        if state.history:
            self.found = (len(state.history), self.snapshot(state))

    def end_epoch(self, state):
        self.after[len(state.history)] = self.snapshot(state)


def test_everything_that_changes_from_epoch_to_epoch_is_put_back(module, tmp_path):
    """Networks, Adam's moments, the generator, the objective's state and the rows' labels."""
    look, objective = Looking(), Counting(module)
    with pytest.raises(KilledError), open_checkpoint(tmp_path, RUN, RandomState(0)) as writer:
        train(module, [look, writer, Killing(3)], 5, objective)
    torch.nn.init.zeros_(module.weight)
    again = Looking()
    with open_checkpoint(tmp_path, RUN, RandomState(0)) as writer:
        train(module, [writer, again], 5, Counting(module))
    n_epochs, found = again.found
    assert n_epochs == 3
    left, after_one = look.after[3], look.after[1]
    for part, tensors in found.items():
        assert len(tensors) == len(left[part]) > 0
        assert all(map(torch.equal, tensors, left[part])), part
        assert not all(map(torch.equal, tensors, after_one[part])), part  # there was something to put back


def test_the_part_of_a_fit_that_starts_again_finds_its_own_stages_and_goes_with_the_fit(module, tmp_path):
    """A restart in a process of its own has a folder of its own, which the whole fit removes."""
    steps = []

    def objective(x, rows, fraction):
        steps.append(fraction)
        return StepOutput(-module(x).square().mean(), {})

    def run(folder, settings):
        with open_checkpoint(folder, settings, RandomState(0)) as writer:
            train(module, [writer], 2, objective)
        return module.weight.detach().clone()

    with open_checkpoint(tmp_path / "fit", RUN, RandomState(0)) as whole:
        folder, settings = whole.child(7)
        assert (folder, settings) == (tmp_path / "fit" / "part-7", RUN)
        first = run(folder, settings)
        assert len(steps) == 2
        assert (folder / checkpoint.MANIFEST).exists()
        torch.nn.init.zeros_(module.weight)
        assert torch.equal(run(folder, settings), first)
        assert len(steps) == 2
    whole.remove()
    assert list(tmp_path.iterdir()) == []
