"""The page of tables with gaps and categories holds what the records say; gaps are made as it says."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("pandas")


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return import_module


def test_the_page_holds_what_the_records_say(load):
    page = load("tables_page")
    for name in page.PAGES:
        text = (ROOT / name).read_text()
        assert page.rewrite(text, ROOT) == text, "run `make table`"


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_gaps_have_their_rate_and_their_reason(load, rate):
    missing, X = load("missing"), np.random.RandomState(0).randn(4000, 10)
    free = missing.mcar(X, rate, np.random.RandomState(1))
    assert abs(free.mean(0) - rate).max() < 0.04
    caused = missing.mar(X, rate, np.random.RandomState(1))
    whole = ~caused.any(0)
    assert whole.sum() == 3
    assert abs(caused[:, ~whole].mean(0) - rate).max() < 0.04
    reason = [np.abs(np.corrcoef(X[:, whole].T, gaps)[:3, 3]).max() for gaps in caused[:, ~whole].T]
    assert min(reason) > 0.1
    assert np.abs(np.corrcoef(X.T, free.T)[:10, 10:]).max() < 0.1
