"""Threads are given back; restarts side by side are those one after the other, and each keeps its own checkpoint."""

import os
import time

import joblib
import numpy as np
import pytest
import torch
from numpy.random import RandomState
from threadpoolctl import threadpool_info

import nvisa
from nvisa import NVISA, Network, Training
from nvisa.fitting.config import in_processes, n_jobs_for
from nvisa.maths import products
from nvisa.maths.products import training_factors
from nvisa.settings import SettingError


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
    with pytest.raises(SettingError, match=f"{next(iter(setting))} must be at least 1"), nvisa.config(**setting):
        pass


def test_products_are_of_the_precision_asked_for_and_on_the_cpu_of_what_it_multiplies_faster(monkeypatch):
    cpu, other = torch.device("cpu"), torch.device("meta")
    for fast, auto in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(products, "_multiplies_bfloat16", lambda kind, fast=fast: fast and kind == "cpu")
        with nvisa.config(precision="auto"):
            assert (training_factors(cpu), training_factors(other)) == (auto, torch.float32)
        with nvisa.config(precision="bfloat16"):
            assert (training_factors(cpu), training_factors(other)) == (torch.bfloat16, torch.bfloat16)
            with nvisa.config(precision="float32"):
                assert training_factors(cpu) == torch.float32
            with nvisa.config(n_threads=1):  # of the precision nothing is said
                assert training_factors(cpu) == torch.bfloat16
    with pytest.raises(SettingError, match="precision must be one of 'auto', 'float32', 'bfloat16', got 'half'"):
        nvisa.config(precision="half").__enter__()


def test_a_fit_says_its_precision_and_predicts_in_float32(X, tmp_path):
    def fitted(precision):
        model = NVISA(
            3, init="random", network=Network(hidden=(40,), latent_dim=2), training=Training(epochs=3), random_state=0
        )
        with nvisa.config(precision=precision):
            return model.fit(X)

    rounded, plain = fitted("bfloat16"), fitted("float32")
    assert (rounded.precision_, plain.precision_) == ("bfloat16", "float32")
    assert rounded.history_[-1]["bound"] != plain.history_[-1]["bound"]
    assert rounded.history_[-1]["bound"] == pytest.approx(plain.history_[-1]["bound"], rel=0.05)
    with nvisa.config(precision="bfloat16"):
        inside = rounded.predict_proba(X)
    assert np.array_equal(inside, rounded.predict_proba(X))
    rounded.save(tmp_path / "model")
    assert nvisa.load(tmp_path / "model").precision_ == "bfloat16"


def test_there_are_no_more_processes_than_calls_and_one_unless_asked_for():
    assert n_jobs_for(5) == 1
    with nvisa.config(n_jobs=3):
        assert (n_jobs_for(5), n_jobs_for(2)) == (3, 2)
        with nvisa.config(n_threads=1):  # of jobs nothing is said
            assert n_jobs_for(5) == 3
        with nvisa.config(n_jobs=1):
            assert n_jobs_for(5) == 1
    assert n_jobs_for(5) == 1
    with nvisa.config(n_jobs=-1):
        assert n_jobs_for(1000) == min(joblib.cpu_count(), 1000)


@pytest.mark.slow
def test_calls_in_processes_come_back_in_their_order_each_from_one_thread():
    found = list(in_processes(_told, [(i, 0.05 * (2 - i)) for i in range(3)], 2))
    assert [call for call, *_ in found] == [0, 1, 2]
    assert {threads for _, threads, _ in found} == {1}
    assert os.getpid() not in {process for *_, process in found}


def _told(call, seconds):
    time.sleep(seconds)
    return call, torch.get_num_threads(), os.getpid()


@pytest.mark.slow
def test_restarts_side_by_side_are_bit_for_bit_those_one_after_the_other(X, tmp_path):
    def fitted(n_jobs):
        seen = []
        model = NVISA(
            3, n_restarts=3, init="random", network=Network(hidden=(8,), latent_dim=2),
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
    one.save(tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "2"}  # each lives until its model is on the disk
