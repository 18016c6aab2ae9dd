"""Threads are given back; restarts side by side are those one after the other, and each keeps its own checkpoint."""

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from threadpoolctl import threadpool_info

import nvisa
from nvisa import NVISA, Network, Training
from nvisa.fitting.config import _alone, side_by_side
from nvisa.fitting.training import Source, StepOutput, maximize
from oracles import build


@pytest.fixture
def X():
    rng = RandomState(0)
    return np.concatenate([rng.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)


def threads():
    return [pool["num_threads"] for pool in threadpool_info()]


def test_threads_are_those_asked_for_inside_and_those_of_before_outside():
    before = torch.get_num_threads(), threads()
    with nvisa.config(n_threads=2):
        assert torch.get_num_threads() == 2
        with nvisa.config(n_threads=1):
            assert (torch.get_num_threads(), set(threads())) == (1, {1})
        assert torch.get_num_threads() == 2
    assert (torch.get_num_threads(), threads()) == before
    with pytest.raises(ZeroDivisionError), nvisa.config(n_threads=2):
        1 / 0  # noqa: B018
    assert (torch.get_num_threads(), threads()) == before
    with nvisa.config(n_jobs=1):
        assert (torch.get_num_threads(), threads()) == before


@pytest.mark.parametrize("setting", [{"n_threads": 0}, {"n_threads": -1}, {"n_jobs": 0}, {"n_jobs": -2}])
def test_numbers_of_nothing_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be at least 1"), nvisa.config(**setting):
        pass


def test_without_more_jobs_calls_run_here_when_they_are_asked_for():
    seen = []
    calls = side_by_side(seen.append, [(1,), (2,)])
    assert next(calls) == (None, False)
    assert seen == [1]


@pytest.mark.slow
def test_restarts_side_by_side_are_bit_for_bit_those_one_after_the_other(X, tmp_path):
    def fitted(n_jobs):
        seen = []
        model = NVISA(
            3, n_init=3, init="random", network=Network(hidden=(8,), latent_dim=2),
            training=Training(epochs=2, batch_size=16), random_state=0,
        )  # fmt: skip
        with nvisa.config(n_threads=1, n_jobs=n_jobs):
            model.on_epoch(lambda clusterer, record: seen.append((record["epoch"], clusterer.predict(X).shape)))
            return model.fit(X, checkpoint=tmp_path / f"{n_jobs}"), seen

    (one, seen), (other, seen_beside) = fitted(1), fitted(2)
    assert one.restarts_ == other.restarts_
    assert len({restart["neighbor_information"] for restart in one.restarts_}) == 3
    assert one.neighbor_distance_ == other.neighbor_distance_
    for a, b in zip(one.module_.state_dict().values(), other.module_.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert seen == seen_beside == 3 * [(1, (60,)), (2, (60,))]
    assert list(tmp_path.iterdir()) == []  # the checkpoints are gone with the fit


def test_a_process_that_starts_again_finds_its_own_stages(X, tmp_path):
    steps = []

    def train(seed):
        generator = torch.Generator().manual_seed(seed)
        module = build(lambda: torch.nn.Linear(3, 1), generator).float()

        def objective(x, rows, fraction):
            steps.append(seed)
            return StepOutput(-module(x).square().mean(), {})

        maximize(objective, module, Source(X, torch.device("cpu")), Training(epochs=2, batch_size=30), generator)
        return module.weight.detach().clone()

    first = _alone(train, (5,), (tmp_path / "part-0", {"data": "X"}))
    assert steps == [5] * 4
    again = _alone(train, (5,), (tmp_path / "part-0", {"data": "X"}))
    assert steps == [5] * 4
    assert torch.equal(first, again)


def test_the_journal_of_a_fit_removes_those_of_its_parts(tmp_path):
    with nvisa.fitting.checkpoint.checkpointing(tmp_path / "fit", {"data": "X"}, RandomState(0)):
        folder, run = nvisa.fitting.checkpoint.branch(7)
        assert (folder, run) == (tmp_path / "fit" / "part-7", {"data": "X"})
        with nvisa.fitting.checkpoint.checkpointing(folder, run, RandomState(0), keep=True):
            pass
        assert (folder / "checkpoint.json").exists()
    assert list(tmp_path.iterdir()) == []
    assert nvisa.fitting.checkpoint.branch(0) is None
