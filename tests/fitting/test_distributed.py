"""Ranks that share batches are one process: the same bounds to rounding, one checkpoint, one end."""

import os
import pickle
import signal
import socket

import numpy as np
import pytest
import torch

import nvisa
from nvisa import NVISA, DivergedError, Network, Training, VaDE
from nvisa.fitting import checkpoint, distributed
from nvisa.fitting.distributed import RankError, Ranks, fit_on_ranks
from nvisa.fitting.whole_batch import WholeBatch
from nvisa.settings import SettingError

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")
RNG = np.random.RandomState(0)
X = np.concatenate([RNG.randn(50, 4) + 4 * np.eye(3, 4)[k] for k in range(3)]).astype(np.float32)
LABELS = np.where(RNG.rand(150) < 0.8, np.repeat([0, 1, 2], 50), -1)
FEW = np.where(RNG.rand(150) < 0.3, np.repeat([0, 1, 2], 50), -1)
EPOCHS = 4


def clusterer(**settings):
    small = {
        "network": Network(hidden=(16,), latent_dim=2),
        "training": Training(epochs=EPOCHS, batch_size=40, device="cpu"),
    }
    return NVISA(3, **{"init": "random", "consistency": None, "random_state": 0} | small | settings)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def on_ranks(size, work, home):
    """What ``work(rank)`` returns, or its error, on each of so many ranks; None for one that was killed."""
    here = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    children = []
    for rank in range(size):
        if (child := os.fork()) == 0:
            os.environ |= here | {"RANK": str(rank)}
            try:
                with nvisa.config(n_threads=1, precision="float32"):
                    answer = work(rank)
            except BaseException as error:
                answer = error
            try:
                (home / f"{rank}").write_bytes(pickle.dumps(answer))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    files = [home / f"{rank}" for rank in range(size)]
    return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def alone(**settings):
    with nvisa.config(n_threads=1, precision="float32"):
        return clusterer(**settings).fit(X)


def numbers(history):
    return [{key: r[key] for key in r if key not in ("stage", "seconds", "label_change")} for r in history]


def assert_same(one, other):
    """Numbers and q(y|x) to rounding; labels but where two clusters are as probable as each other.

    Biases below batch norm have no gradient but rounding, which Adam makes steps of: q(y|x) then is to half a percent.
    """
    near = 5e-3 if other.network.batch_norm else 1e-4
    for found, expected in zip(numbers(one.history_), numbers(other.history_), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    proba = other.predict_proba(X)
    np.testing.assert_allclose(one.predict_proba(X), proba, atol=near)
    clear = np.diff(np.sort(proba)[:, -2:])[:, 0] > 2 * near
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(one.labels_[clear], other.labels_[clear])
    moved = [[record.get("label_change", 0.0) for record in fit.history_] for fit in (one, other)]
    np.testing.assert_allclose(*moved, atol=0.03)


NO_NORM = Network(hidden=(16,), latent_dim=2, batch_norm=False)
KINDS = {
    "nvil, sigma_x(z), mean field": (2, {"inference": "nvil", "likelihood": "gaussian", "posterior": "mean_field"}),
    "consistency": (3, {"consistency": "vat"}),
    "labels of most rows": (2, {"init": LABELS, "consistency": "vat", "network": NO_NORM}),
    "labels of few rows": (2, {"init": nvisa.Supervision(labels=FEW, start="auto"), "network": NO_NORM}),
}


@pytest.mark.slow
@pytest.mark.global_rng  # torch.distributed's, when it is imported
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_give_the_bounds_and_labels_of_one_process(kind, tmp_path):
    """Batches of 38 and 37 rows: parts of several sizes, odd ones too."""
    size, settings = KINDS[kind]
    first, *others = on_ranks(size, lambda rank: fit_on_ranks(clusterer(**settings), X), tmp_path)
    assert others == [None] * (size - 1)
    assert_same(first, alone(**settings))


@pytest.mark.slow
def test_two_and_four_ranks_give_the_first_fifty_bounds_of_one(tmp_path):
    """An epoch is a step: the bounds of 50 steps with the same batch."""
    settings = {"network": NO_NORM, "training": Training(epochs=50, batch_size=len(X), device="cpu")}
    bounds = [record["bound"] for record in alone(**settings).history_]
    assert len(bounds) == 50
    for size in (2, 4):
        first, *_ = on_ranks(size, lambda rank: fit_on_ranks(clusterer(**settings), X), tmp_path)
        assert [record["bound"] for record in first.history_] == pytest.approx(bounds, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_a_callback_of_rank_0_ends_training_on_all(tmp_path):
    def work(_):
        return fit_on_ranks(clusterer().on_epoch(lambda _, record: record["epoch"] == 2), X)

    first, second = on_ranks(2, work, tmp_path)
    assert second is None
    assert len(first.history_) == 2


class _StopError(Exception):
    """Somebody's reason."""


def stopping(rank, folder):
    def stop(_, record):
        if record["epoch"] == 2:
            raise _StopError("enough")

    checkpoint.EVERY = 0.0
    return fit_on_ranks(clusterer(n_samples=4).on_epoch(stop if rank == 0 else None), X, checkpoint=folder)


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_goes_on_on_any_number_and_the_others_hear_why_it_ended(tmp_path):
    first, second = on_ranks(2, lambda rank: stopping(rank, tmp_path / "c"), tmp_path)
    assert isinstance(first, _StopError)
    assert isinstance(second, RankError)
    assert "rank 0 has ended: _StopError: enough" in str(second)
    with nvisa.config(n_threads=1, precision="float32"):
        one = clusterer(n_samples=4).fit(X, checkpoint=tmp_path / "c")
    assert_same(one, alone(n_samples=4))
    on_ranks(2, lambda rank: stopping(rank, tmp_path / "d"), tmp_path)
    three = on_ranks(3, lambda rank: fit_on_ranks(clusterer(n_samples=4), X, checkpoint=tmp_path / "d"), tmp_path)
    assert_same(three[0], one)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_with_the_reason_and_the_fit_can_be_resumed(tmp_path):
    step = Ranks.step

    def work(rank):
        checkpoint.EVERY, calls = 0.0, []

        def dying(self, *arguments):
            calls.append(1)
            if rank == 1 and len(calls) == 7:  # in the middle of the second epoch of four batches
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *arguments)

        distributed.Ranks.step = dying
        return fit_on_ranks(clusterer(), X, checkpoint=tmp_path / "c")

    first, second = on_ranks(2, work, tmp_path)
    assert second is None
    assert isinstance(first, RankError)
    assert "goes on from its checkpoint" in str(first)
    assert checkpoint.progress(tmp_path / "c") == "training, epoch 1"
    with nvisa.config(n_threads=1, precision="float32"):
        assert_same(clusterer().fit(X, checkpoint=tmp_path / "c"), alone())


@pytest.mark.slow
def test_a_divergence_is_told_on_all_ranks_as_on_one(tmp_path):
    diverging = {"training": Training(epochs=2, batch_size=40, learning_rate=1e30, device="cpu")}
    with pytest.raises(DivergedError) as told:
        alone(**diverging)
    first, second = on_ranks(2, lambda rank: fit_on_ranks(clusterer(**diverging), X), tmp_path)
    assert (type(first), first.term) == (DivergedError, told.value.term)
    assert isinstance(second, RankError)


def test_what_cannot_be_shared_is_refused_by_name(monkeypatch):
    with pytest.raises(SettingError, match="clusterer must be NVISA on several ranks, got 'VaDE'"):
        fit_on_ranks(VaDE(3), X)
    with pytest.raises(SettingError, match="n_restarts must be 1 on several ranks"):
        fit_on_ranks(clusterer(n_restarts=2), X)
    with pytest.raises(SettingError, match="batch_size must be at least 8 rows in each batch of 4 ranks"):
        Ranks(0, 4).parts(7)
    with WholeBatch(0, [0, 4, 8]), pytest.raises(NotImplementedError, match="bernoulli of a part of a batch"):
        torch.bernoulli(torch.ones(4), generator=torch.Generator())
    with WholeBatch(0, [0, 4, 8]), pytest.raises(NotImplementedError, match="3 rows where a rank has 4"):
        torch.rand(3, 2, generator=torch.Generator())


@pytest.mark.parametrize("shape", [(8, 3), (2, 8, 3), (4, 3)])
def test_the_parts_of_a_draw_are_the_draw_of_the_whole(shape):
    """Of all rows of a batch, or of every second one, the last axis but one."""
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parts, bounds = [], [0, 2, 6, 8]
    for rank in range(3):
        n = (bounds[rank + 1] - bounds[rank]) * shape[-2] // 8
        with WholeBatch(rank, bounds):
            parts.append(torch.randn((*shape[:-2], n, 3), generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(torch.cat(parts, -2), whole, rtol=0, atol=0)


def _normalized_gradients(rank):
    """Loss, its gradient in x and the weight, and the running moments of batch norm of 3 + 5 rows, in float64."""
    x = torch.linspace(-1, 2, 24, dtype=torch.float64).reshape(8, 3).square()
    target = torch.sin(torch.arange(24.0, dtype=torch.float64)).reshape(8, 3)
    norm = torch.nn.BatchNorm1d(3).double()
    bounds = [0, 2, 8]
    if rank is None:
        own = slice(None)
        y = norm(x.requires_grad_())
    else:
        torch.distributed.init_process_group("gloo")
        own = slice(bounds[rank], bounds[rank + 1])
        with WholeBatch(rank, bounds):
            y = norm(x := x[own].clone().requires_grad_())
    (y * target[own]).sum().backward()
    weight = norm.weight.grad.clone()
    if rank is not None:
        torch.distributed.all_reduce(weight)
    return y.detach(), x.grad, weight, norm.running_mean, norm.running_var


@pytest.mark.slow
def test_batch_norm_of_parts_is_that_of_the_whole_with_its_gradient(tmp_path):
    whole = _normalized_gradients(None)
    parts = on_ranks(2, _normalized_gradients, tmp_path)
    for k in (0, 1):
        torch.testing.assert_close(torch.cat([part[k] for part in parts]), whole[k])
    for part in parts:
        for k in (2, 3, 4):
            torch.testing.assert_close(part[k], whole[k])
