"""Progress says what a person wants to know, in a terminal as a bar, in a file as a few plain lines."""

import io
import re

import numpy as np
import pytest

from nvisa import AEGMM, NVISA, Network, Training
from nvisa.fitting.progress import EpochProgress, clock, describe, time_left


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(epoch, n_epochs=40, stage="training", **more):
    return {"stage": stage, "epoch": epoch, "n_epochs": n_epochs, "seconds": 2.0 * epoch, "bound": -12.345, **more}


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (75.0, "1:15"), (3661.0, "1:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_time_left_is_the_pace_times_what_remains():
    assert time_left(record(10)) == 60.0
    assert time_left(record(40)) == 0.0


def test_an_epoch_in_words():
    text = describe(record(10, clusters_in_use=9, std_floor_x=0.12345))
    assert text == "bound -12.35 · 9 clusters in use · std floor 0.123 · 1:00 left"
    half = {"epoch": 1, "n_epochs": 2, "seconds": 1.0}
    assert describe(half | {"reconstruction_error": 0.5}) == "error 0.5 · 0:01 left"
    assert describe(half | {"log_fooled": -0.7}) == "0:01 left", "the game of GMGAN has nothing else to show"


@pytest.mark.parametrize(("n_epochs", "n_lines"), [(100, 10), (40, 10), (10, 10), (3, 3), (1, 1)])
def test_a_file_gets_a_plain_line_every_tenth(n_epochs, n_lines):
    out = io.StringIO()
    with EpochProgress(out) as progress:
        for epoch in range(1, n_epochs + 1):
            progress(None, record(epoch, n_epochs))
    lines = out.getvalue().splitlines()
    assert len(lines) == n_lines
    assert lines[-1].startswith(f"training {n_epochs}/{n_epochs}: bound -12.35")
    assert "\x1b" not in out.getvalue()


def test_restarts_are_counted():
    out = io.StringIO()
    clusterer = NVISA(n_restarts=2)
    with EpochProgress(out) as progress:
        for _ in range(2):
            for stage in ("pretraining", "training"):
                progress(clusterer, record(1, 1, stage))
    starts = [line.split(":")[0] for line in out.getvalue().splitlines()]
    assert starts == ["pretraining 1/2 1/1", "training 1/2 1/1", "pretraining 2/2 1/1", "training 2/2 1/1"]


def test_starts_of_a_mixture_are_no_restarts():
    """The one pretraining of AEGMM is not the first of ten."""
    out = io.StringIO()
    with EpochProgress(out) as progress:
        progress(AEGMM(2, n_init=10), record(1, 1, "pretraining"))
    assert out.getvalue().startswith("pretraining 1/1: ")


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    with EpochProgress(out) as progress:
        for epoch in (1, 20, 40):
            progress(None, record(epoch, stage="pretraining", clusters_in_use=9))
        progress(None, record(1, clusters_in_use=10))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "40/40" in text
    assert "now looking for a first assignment" in text
    assert "10 clusters in use" in text


@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_shows_the_fit_on_standard_error(capsys, verbose):
    X = np.random.RandomState(0).randn(30, 3)
    small = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=2), "init": "random"}
    seen = []
    clusterer = NVISA(2, verbose=verbose, random_state=0, **small)
    clusterer.on_epoch(lambda c, r: seen.append(c.predict(X).shape)).fit(X)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("training 2/2: bound" in captured.err) == bool(verbose)
    assert seen == [(30,), (30,)]
    assert not hasattr(clusterer, "_progress")


def test_a_fit_that_fails_takes_its_progress_away():
    clusterer = NVISA(2, verbose=1, init="random", training=Training(epochs=1), random_state=0)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clusterer.on_epoch(stop).fit(np.random.RandomState(0).randn(30, 3))
    assert not hasattr(clusterer, "_progress")
