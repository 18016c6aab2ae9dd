"""When labels have settled, and how fast the rest of a schedule passes then."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nvisa.fitting.training import StepOutput, Training, has_settled, maximize
from one_vector import Point, rows_source
from oracles import build


def test_labels_have_settled_once_few_rows_moved_in_a_hundred_steps():
    moved = [{"label_change": change} for change in (0.2, 0.003, 0.001, 0.3)]
    assert has_settled(moved, n_batches=100)  # 0.4 % in two epochs
    assert not has_settled(moved, n_batches=34)  # 0.3 % and more in three
    assert not has_settled([{"label_change": 0.0}], n_batches=1000)  # two epochs at least
    assert not has_settled([{}, {}, {}], n_batches=1000)  # an objective without clusters


def test_once_settled_the_rest_of_the_schedule_passes_eight_times_as_fast(rng):
    fractions = []

    def objective(x, rows, fraction):
        fractions.append(fraction)
        return StepOutput(-point.at.square().sum() + 0 * x.sum(1), {}, torch.zeros(len(x), 2).log_softmax(-1))

    point = build(Point, rng)
    source, n_batches = rows_source(6), 6
    schedule = Training(steps=2000, max_epochs=20, batch_size=1, until_settled=True)
    found = maximize(objective, point, source, schedule, rng)
    slow = math.ceil(100 / n_batches) + 1  # the first epoch knows no change
    assert len(found) == slow + math.ceil((20 - slow) / 8)
    by_epoch = np.array(fractions).reshape(-1, n_batches)
    assert by_epoch[slow - 1, 0] == pytest.approx((slow - 1) / 20)
    assert by_epoch[-1, -1] == pytest.approx(min((slow + 8 * 5 / 6) / 20, 1.0))
    for patient in (replace(schedule, until_settled=False), replace(schedule, epochs=20)):
        assert len(maximize(objective, point, source, patient, rng)) == 20
