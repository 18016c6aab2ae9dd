"""The loop: every row once an epoch, the optimum of a known objective, and an end that names what broke."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from nvisa.fitting.run import DivergedError
from nvisa.fitting.training import (
    StepOutput,
    Training,
    clusters_in_use,
    flush_denormals,
    maximize,
    shuffled_batches,
)
from nvisa.maths.schedules import Cosine, Geometric
from nvisa.settings import SettingError, check_settings
from one_vector import EachEpoch, Point, rows_source, training
from oracles import build

# ---- divergence ------------------------------------------------------------------------------------------------------


def breaks_at(step, module, value=math.nan, gradient=None):
    """An objective whose term "middle" leaves the finite numbers at the given step (or whose gradient does)."""
    calls = []

    def objective(x, rows, fraction):
        calls.append(rows)
        broken = len(calls) > step
        fine = -module.at.square().sum() + 0 * x.sum(1)
        middle = fine * value if broken and gradient is None else fine
        if broken and gradient is not None:
            middle = middle + gradient()
        return StepOutput(middle, {"first": fine, "middle": middle, "last": middle + 1})

    return objective


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("step", "epochs_done"), [(0, 0), (2, 0), (3, 1), (7, 2)])
def test_a_term_that_is_not_finite_ends_the_training_by_its_name_and_the_history_is_kept(rng, value, step, epochs_done):
    module, seen = Point(1.0), []
    with pytest.raises(DivergedError, match=f"middle is not finite after {epochs_done} whole epochs") as caught:
        maximize(breaks_at(step, module, value), module, rows_source(10), training(), rng, [EachEpoch(seen.append)])
    assert caught.value.term == "middle"
    assert caught.value.history == seen
    assert [record["epoch"] for record in seen] == list(range(1, epochs_done + 1))
    assert torch.isfinite(module.at).all()


def test_a_divergence_keeps_what_it_says_on_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(DivergedError("bound", [{"epoch": 1}])))
    assert (error.term, error.history) == ("bound", [{"epoch": 1}])
    assert "bound is not finite after 1 whole epochs" in str(error)


def test_an_objective_that_breaks_without_a_term_is_named_itself(rng):
    module = Point(1.0)
    with pytest.raises(DivergedError) as caught:
        maximize(lambda x, r, f: StepOutput(module.at.sum() * math.nan, {}), module, rows_source(5), training(), rng)
    assert caught.value.term == "objective"


def test_a_gradient_that_is_not_finite_is_named_and_never_applied(rng):
    module = Point(1.0)
    applied = []

    def kink():
        return (0.0 * module.at.sum()).sqrt()  # the value is 0, the slope 0 x infinity

    objective = breaks_at(4, module, gradient=kink)

    def watched(*batch):
        applied.append(module.at.detach().clone())
        return objective(*batch)

    with pytest.raises(DivergedError, match="gradient is not finite") as caught:
        maximize(watched, module, rows_source(10), training(), rng)
    assert caught.value.term == "gradient"
    assert len(caught.value.history) == 1
    assert torch.equal(module.at, applied[-1])


# ---- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (5, 4), (10, 3), (7, 100), (1000, 7)])
def test_batches_hold_every_row_once_and_differ_by_one_row_at_most(rng, n, size):
    batches = shuffled_batches(n, size, rng)
    assert sorted(np.concatenate(batches)) == list(range(n))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= size
    assert len(batches) == math.ceil(n / size) == training(batch_size=size).n_batches(n)


def test_every_epoch_shows_every_row_once_with_its_own_number_in_a_new_order(rng):
    module, shown, fractions = Point(1.0), [], []

    def objective(x, rows, fraction):
        assert (x.numpy() == rows[:, None]).all()
        shown.append(rows)
        fractions.append(fraction)
        return StepOutput(module.at.sum() + 0 * x.sum(1), {})

    maximize(objective, module, rows_source(10), training(), rng)
    epochs = [np.concatenate(shown[3 * e : 3 * e + 3]) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert fractions == pytest.approx([i / 9 for i in range(9)])
    assert all(a < b for a, b in pairwise(fractions))


def test_it_climbs_to_the_maximum_and_not_down(rng):
    """-||at - mean of the rows||^2 / 2 is largest at the mean of the rows."""
    module = Point(8.0, -3.0)

    def objective(x, rows, fraction):
        return StepOutput(-0.5 * (module.at - x).square().sum(1), {})

    settings = training(epochs=400, batch_size=10, learning_rate=Geometric(0.3, 1e-3))
    history = maximize(objective, module, rows_source(10), settings, rng)
    assert module.at.tolist() == pytest.approx([4.5, 4.5], abs=1e-2)
    assert history[-1]["objective"] == pytest.approx(-8.25, abs=1e-3)  # minus the variance of 0..9
    assert history[-1]["objective"] > history[0]["objective"]


def test_the_gradient_is_clipped_to_the_norm_and_the_first_step_is_as_long_as_the_rate(rng):
    module, norms, places = Point(0.0, 0.0), [], []

    def after(record):
        norms.append(float(module.at.grad.norm()))
        places.append(module.at.detach().clone())

    def objective(x, rows, fraction):
        return StepOutput((module.at * torch.tensor([300.0, -400.0])).sum() + 0 * x.sum(1), {})

    settings = training(epochs=2, batch_size=10, clip_norm=10.0, learning_rate=Geometric(0.1, 0.1 / 4))
    maximize(objective, module, rows_source(10), settings, rng, [EachEpoch(after)])
    assert norms == pytest.approx([10.0, 10.0], rel=1e-4)
    # Adam on a constant gradient moves each coordinate by the rate: 0.1, then 0.1 / 2 half way.
    assert places[0].tolist() == pytest.approx([0.1, -0.1], rel=1e-4)
    assert (places[1] - places[0]).tolist() == pytest.approx([0.05, -0.05], rel=1e-4)


def test_a_record_holds_the_mean_over_rows_of_every_term_and_the_assignment(rng):
    """Batches of 4, 3 and 3 rows: the mean of the batches' means would be another number."""
    module = Point(0.0)
    share = np.random.RandomState(0).dirichlet([5, 3, 0.1, 0.1], size=10).astype(np.float32)
    log_q_y = torch.from_numpy(share).log()

    def objective(x, rows, fraction):
        value = x[:, 0] ** 2 + 0 * module.at.sum()
        return StepOutput(value, {"cube": x[None, :, 0] ** 3, "rate": torch.tensor(0.5)}, log_q_y[rows])

    seen = []
    watch = [EachEpoch(seen.append)]
    (record,) = maximize(objective, module, rows_source(10), training(epochs=1), rng, watch, stage="a")
    assert seen == [record]
    i = np.arange(10)
    assert (record["objective"], record["cube"], record["rate"]) == pytest.approx(((i**2).mean(), (i**3).mean(), 0.5))
    assert (record["stage"], record["epoch"], record["n_epochs"]) == ("a", 1, 1)
    mean = share.mean(0)
    assert record["assignment_entropy"] == pytest.approx(-(mean * np.log(mean)).sum(), abs=1e-5)
    counts = np.bincount(share.argmax(1), minlength=4)
    assert record["clusters_in_use"] == (counts >= 0.1 * 10 / 4).sum() < 4


@pytest.mark.parametrize(
    ("sizes", "n_used"),
    [([10, 10], 2), ([1, 19], 2), ([1, 20], 1), ([300, 300, 9, 1, 1, 1], 2), ([7, 0, 0], 1)],  # 1 of 20: just in use
)
def test_clusters_with_a_tenth_of_an_equal_share_are_in_use(sizes, n_used):
    assert clusters_in_use(np.array(sizes)) == n_used


def test_a_cluster_with_exactly_a_tenth_of_an_equal_share_is_in_use(rng):
    """20 rows in 2 clusters: an equal share is 10, a tenth of it one row."""
    module, log_q_y = Point(0.0), torch.eye(2)[[1] + [0] * 19].log_softmax(1)

    def objective(x, rows, fraction):
        return StepOutput(0 * module.at.sum() + 0 * x.sum(1), {}, log_q_y[rows])

    (record,) = maximize(objective, module, rows_source(20), training(epochs=1, batch_size=5), rng)
    assert record["clusters_in_use"] == 2


def moving_labels(rng, n_epochs, **settings):
    """Label of row i in epoch e: ``(i + e // (1 + i % 3)) % 4``; the records, and these labels [n_epochs 10]."""
    module = Point(0.0)
    i, e = np.arange(10), np.arange(n_epochs)[:, None]
    labels = (i + e // (1 + i % 3)) % 4

    def objective(x, rows, fraction):
        log_q_y = torch.eye(4)[labels[int(fraction * n_epochs + 1e-9), rows]].log_softmax(1)
        return StepOutput(0 * module.at.sum() + 0 * x.sum(1), {}, log_q_y, **settings)

    return maximize(objective, module, rows_source(10), training(epochs=n_epochs), rng), labels


def test_label_change_is_the_share_of_rows_whose_most_probable_cluster_is_not_that_of_the_epoch_before(rng):
    history, labels = moving_labels(rng, 7)
    assert "label_change" not in history[0]  # there is nothing to compare with
    counted = (labels[1:] != labels[:-1]).mean(1)
    assert len(set(counted)) > 2
    assert [record["label_change"] for record in history[1:]] == pytest.approx(counted)


def test_rows_that_the_objective_made_have_no_label_to_change(rng):
    history, _ = moving_labels(rng, 3, made=True)
    assert [("label_change" in record, "clusters_in_use" in record) for record in history] == [(False, True)] * 3


def test_an_epoch_that_ends_early_counts_the_rows_it_saw(rng):
    module, steps = Point(0.0), []

    def objective(x, rows, fraction):
        steps.append(rows)
        if len(steps) == 5:  # 10 rows in batches of 4, 3, 3, and one batch more
            return None
        y = np.where(len(steps) > 3, 1, rows % 2)  # in the second epoch, every row is in cluster 1
        return StepOutput(0 * module.at.sum() + 0 * x.sum(1), {}, torch.eye(2)[y].log_softmax(1))

    history = maximize(objective, module, rows_source(10), training(), rng)
    assert history[1]["label_change"] == pytest.approx((steps[3] % 2 == 0).mean())


def test_the_module_trains_in_training_mode_and_is_left_in_evaluation_mode(rng):
    module, modes = build(lambda: nn.Sequential(nn.Linear(2, 1)), rng).float(), []

    def objective(x, rows, fraction):
        modes.append(module.training)
        return StepOutput(module(x).squeeze(1), {})

    maximize(objective, module, rows_source(10), training(), rng)
    assert (set(modes), module.training) == ({True}, False)


def test_the_same_generator_gives_the_same_run_and_no_global_one_is_moved():
    """The global generators are watched by conftest."""

    def run(seed):
        module = Point(1.0, 2.0)
        maximize(
            lambda x, rows, f: StepOutput(-(module.at - x).square().sum(1), {}),
            module, rows_source(10), training(), torch.Generator().manual_seed(seed),
        )  # fmt: skip
        return module.at.tolist()

    assert run(1) == run(1) != run(2)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "n_rows", "expected"),
    [
        ({"epochs": 7}, 10, 7),  # said, so done
        ({"epochs": 7}, 10**7, 7),
        ({"steps": 2500}, 500, 100),  # 2 steps an epoch would need 1250 epochs: at most max_epochs
        ({"steps": 2500, "min_steps": 300}, 500, 150),  # unless these make fewer than min_steps
        ({"steps": 2500, "max_epochs": 5000}, 500, 1250),
        ({"steps": 2500}, 60_000, 11),  # 2500 / 235 = 10.6
        ({"steps": 2500}, 10**7, 1),  # 39,063 steps an epoch, but never less than one
        ({"steps": 2500, "batch_size": 512}, 60_000, 21),
        ({"steps": 235 * 4}, 60_000, 4),
        ({"steps": 2500}, 3, 100),
        ({"steps": 50, "min_steps": 300}, 3, 50),
    ],
)
def test_epochs_make_the_steps_asked_for_within_their_limits(settings, n_rows, expected):
    settings = {"max_epochs": 100, "batch_size": 256, **settings}
    assert Training(**settings).n_epochs(n_rows) == expected


def test_a_shortened_training_is_the_same_share_of_everything_and_never_nothing():
    whole = Training(steps=2500, max_epochs=100, min_steps=300, batch_size=64)
    assert whole.shortened(0.4) == Training(steps=1000, max_epochs=40, min_steps=120, batch_size=64)
    assert Training(epochs=30).shortened(0.1).epochs == 3
    tiny = Training(epochs=3, steps=3, max_epochs=3).shortened(0.01)
    assert (tiny.epochs, tiny.steps, tiny.max_epochs) == (1, 1, 1)
    assert whole.shortened(1.0) == whole


def test_the_learning_rate_is_a_number_or_a_schedule():
    assert [Training(learning_rate=0.1).rate(f) for f in (0.0, 1.0)] == [0.1, 0.1]
    assert [Training(learning_rate=Cosine(0.2)).rate(f) for f in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.1, 0.0])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"epochs": 0}, "a whole number of at least 1 or None"),
        ({"steps": 0}, "a whole number of at least 1"),
        ({"max_epochs": -1}, "a whole number of at least 1"),
        ({"batch_size": 0}, "a whole number of at least 1"),
        ({"learning_rate": -1e-3}, "a Schedule or a number of at least 0"),
        ({"learning_rate": math.nan}, "a Schedule or a number of at least 0"),
        ({"clip_norm": 0.0}, "a number greater than 0"),
    ],
    ids=str,
)
def test_what_trains_nothing_is_refused_by_the_name_of_the_setting(wrong, expected):
    check_settings(Training(learning_rate=0.0), "training.")  # which leaves a start as it is
    ((name, value),) = wrong.items()
    with pytest.raises(SettingError) as caught:
        check_settings(Training(**wrong), "training.")
    assert str(caught.value) == f"training.{name} must be {expected}, got {value!r}."


# ---- denormals -------------------------------------------------------------------------------------------------------


def flushes() -> bool:
    return bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0.0)


@pytest.fixture
def denormal_mode():
    before = flushes()
    yield torch.set_flush_denormal
    torch.set_flush_denormal(before)


@pytest.mark.parametrize("before", [True, False])
def test_denormals_are_zero_inside_and_afterwards_what_they_were_also_after_an_error(denormal_mode, before):
    if not denormal_mode(before):
        pytest.skip("this processor cannot flush denormals")
    with flush_denormals():
        assert flushes()
    assert flushes() == before
    with pytest.raises(KeyError), flush_denormals():
        raise KeyError
    assert flushes() == before
