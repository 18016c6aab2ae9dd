"""Schedules: monotone, both ends hit, and the shape that the paper's readers report."""

import pickle
from copy import deepcopy
from dataclasses import FrozenInstanceError, fields
from itertools import pairwise

import pytest

from nvisa.maths.schedules import Constant, Cosine, Geometric, Halving

FRACTIONS = [i / 997 for i in range(998)]
SCHEDULES = {
    "constant": (Constant(0.3), 0.3, 0.3),
    "halving": (Halving(), 1.0, 1e-4),
    "halving slowly": (Halving(2.0, every=0.25, end=0.01), 2.0, 0.125),
    "geometric": (Geometric(1.3, 0.02), 1.3, 0.02),
    "geometric, held": (Geometric(1.0, 0.05, until=0.7), 1.0, 0.05),
    "geometric, rising": (Geometric(0.1, 10.0), 0.1, 10.0),
    "cosine": (Cosine(2e-3), 2e-3, 0.0),
    "cosine to a floor": (Cosine(1.0, 0.2), 1.0, 0.2),
}
EVERY = pytest.mark.parametrize(("schedule", "start", "end"), SCHEDULES.values(), ids=SCHEDULES)


@EVERY
def test_both_ends_are_hit_and_the_way_between_them_is_monotone(schedule, start, end):
    values = [schedule(f) for f in FRACTIONS]
    assert (values[0], values[-1]) == pytest.approx((start, end), rel=1e-12, abs=1e-15)
    sign = -1 if end < start else 1
    assert all(sign * (b - a) >= 0 for a, b in pairwise(values))


@EVERY
def test_settings_are_frozen_equal_to_their_copies_and_written_as_code(schedule, start, end):
    with pytest.raises(FrozenInstanceError):
        setattr(schedule, fields(schedule)[0].name, 9.0)
    assert schedule == deepcopy(schedule) == pickle.loads(pickle.dumps(schedule))
    assert eval(repr(schedule)) == schedule
    assert hash(schedule) == hash(deepcopy(schedule))


def test_halving_has_the_reported_shape_at_every_epoch_of_3000():
    schedule = Halving()
    assert [schedule(e / 3000) for e in range(3001)] == [max(0.5 ** (e // 100), 1e-4) for e in range(3001)]
    reported = {0: 1.0, 100: 0.5, 400: 0.0625, 700: 2**-7, 1000: 2**-10, 1300: 2**-13, 1399: 2**-13, 1400: 1e-4}
    assert {e: schedule(e / 3000) for e in reported} == reported


def test_halving_counts_whole_periods_despite_rounding():
    for n in range(2, 60):
        schedule = Halving(1.0, every=1 / n, end=0.0)
        assert [schedule(i / n) for i in range(n + 1)] == [0.5**i for i in range(n + 1)]


def test_geometric_takes_equal_steps_in_the_logarithm_and_then_holds():
    schedule = Geometric(8.0, 0.5, until=0.8)
    assert [schedule(0.2 * i) for i in range(6)] == pytest.approx([8, 4, 2, 1, 0.5, 0.5])


def test_cosine_passes_its_middle_half_way():
    assert Cosine(1.0, 0.2)(0.5) == pytest.approx(0.6)
    assert Cosine(1.0)(1 / 3) == pytest.approx(0.75)


def test_constant_zero_is_off():
    assert {Constant(0.0)(f) for f in FRACTIONS} == {0.0} == {Constant()(0.5)}
