"""Who looks on at a fit: early stopping, the log, scikit-learn's callbacks; and what they see."""

import logging
import pickle
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from nvisa import EarlyStopping, SettingError, Training
from nvisa.fitting.callbacks import log_epoch
from nvisa.methods import base
from nvisa.methods.ae_gmm import AEGMM
from nvisa.methods.nvisa import NVISA
from nvisa.nets.layers import Network

SMALL = {"network": Network(hidden=(8,), latent_dim=2), "random_state": 0}
BOUND = {"init": "random", "consistency": None, **SMALL}


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).randn(60, 3) + np.repeat([[0], [6], [12]], 20, axis=0)


def epochs(n):
    return Training(epochs=n)


def stages(history):
    """(stage, its last epoch, epochs planned) in order."""
    ends = [a for a, b in pairwise([*history, {"epoch": 1, "stage": ""}]) if b["epoch"] == 1]
    return [(r["stage"], r["epoch"], r["n_epochs"]) for r in ends]


# ---- early stopping --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_it_stops_when_nothing_better_has_come_for_so_long(values, patience, delta, is_max):
    """The definition, by looking back: no value of the last ``patience`` is better than the best before them."""
    rule = EarlyStopping(patience=patience, min_delta=float(delta), mode="max" if is_max else "min")
    signed = values if is_max else [-v for v in values]
    kept = signed[0]  # the best so far, as it is kept: only a change of more than delta replaces it
    since = 0
    for value in signed[1:]:
        since, kept = (0, value) if value - kept > delta else (since + 1, kept)

    class Fit:
        history_ = [
            {"stage": "pretraining", "bound": 99.0},
            *({"stage": "training", "bound": float(v)} for v in values),
        ]

    assert rule(Fit, Fit.history_[-1]) == (since >= patience)
    if delta == 0 and len(values) > patience and rule(Fit, Fit.history_[-1]):
        assert max(signed[-patience:]) <= max(signed[:-patience])


def test_a_fit_ends_there_and_says_so(X):
    whole = NVISA(3, training=epochs(40), **BOUND).fit(X)
    curve = [record["bound"] for record in whole.history_]
    rule = EarlyStopping("bound", patience=2, min_delta=0.5 * (max(curve) - curve[0]))
    stopped = NVISA(3, training=epochs(40), **BOUND).on_epoch(rule).fit(X)
    n = len(stopped.history_)
    assert n < 40
    assert [r["bound"] for r in stopped.history_] == curve[:n]
    assert stopped.stop_reason_ == f"a callback ended it: {n} epochs of 40 planned"
    assert whole.stop_reason_.startswith("all 40 epochs")
    # the floors are where the schedule was left, not at its end: the density is that of the networks as trained
    assert whole.std_floor_x_ < stopped.std_floor_x_ <= stopped.history_[-1]["std_floor_x"]


@pytest.mark.parametrize("answer", [None, 7, "written", np.float64(1.0)])
def test_only_true_ends_a_stage(X, answer):
    model = AEGMM(3, training=epochs(3), **SMALL).on_epoch(lambda *_: answer).fit(X)
    assert stages(model.history_) == [("pretraining", 3, 3)]


def test_a_stage_ends_and_the_next_one_begins(X):
    model = NVISA(3, init="gmm", consistency=None, training=epochs(8), **SMALL)
    model.on_epoch(lambda _, record: np.bool_(record["stage"] == "pretraining")).fit(X)
    assert [(stage, end) for stage, end, _ in stages(model.history_)] == [
        ("pretraining", 1), ("distillation", 1), ("training", 8),
    ]  # fmt: skip


def test_a_killed_fit_stops_where_it_would_have(X, tmp_path):
    rule = EarlyStopping("bound", patience=3, min_delta=1e9)  # nothing is better: the fourth epoch is the last
    whole = NVISA(3, training=epochs(9), **BOUND).on_epoch(rule).fit(X)

    def killed(clusterer, record):
        if record["epoch"] == 3:
            raise KeyboardInterrupt
        return rule(clusterer, record)

    with pytest.raises(KeyboardInterrupt):
        NVISA(3, training=epochs(9), **BOUND).on_epoch(killed).fit(X, checkpoint=tmp_path)
    resumed = NVISA(3, training=epochs(9), **BOUND).on_epoch(rule).fit(X, checkpoint=tmp_path)
    assert len(whole.history_) == len(resumed.history_) == 4
    np.testing.assert_array_equal(whole.predict_proba(X), resumed.predict_proba(X))


def test_a_name_that_no_record_has_is_refused(X):
    with pytest.raises(SettingError, match="monitor must be one of .*bound"):
        NVISA(3, training=epochs(3), **BOUND).on_epoch(EarlyStopping("accuracy")).fit(X)


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"mode": "up"}, {"min_delta": -1.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(SettingError, match=f"^{next(iter(wrong))} must be"):
        EarlyStopping(**wrong)


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_has_every_tenth_and_at_debug_every_epoch(X, caplog):
    with caplog.at_level(logging.DEBUG, "nvisa"):
        model = AEGMM(3, training=epochs(20), **SMALL).fit(X)
    lines = [(r.levelname, r.getMessage().split(":")[0]) for r in caplog.records if r.getMessage()[0] == "p"]
    assert lines == [("INFO" if n % 2 == 0 else "DEBUG", f"pretraining {n}/20") for n in range(1, 21)]
    assert str(np.bincount(model.labels_).tolist()) in caplog.records[-1].getMessage()


def test_nobody_listens_and_nothing_is_said(X, caplog, capsys):
    with caplog.at_level(logging.WARNING, "nvisa"):
        AEGMM(3, training=epochs(2), **SMALL).fit(X)
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_a_line_is_written_by_the_logger_of_the_package(caplog):
    with caplog.at_level(logging.INFO):
        log_epoch(None, {"stage": "training", "epoch": 9, "n_epochs": 9, "seconds": 3.0, "bound": -1.5})
    assert [(r.name, r.getMessage()) for r in caplog.records] == [("nvisa", "training 9/9: bound -1.5 · 0:00 left")]


# ---- scikit-learn's callbacks ----------------------------------------------------------------------------------------


class Watching:
    """A callback of scikit-learn's protocol that keeps what it is called with."""

    def __init__(self, stop_at=None, fail_at=None):
        self.seen, self.stop_at, self.fail_at = [], stop_at, fail_at
        self.lock = threading.Lock()  # cannot be pickled, as a writer of files cannot

    def setup(self, estimator, context):
        self.seen.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.seen.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context, *, X=None):
        self.seen.append(("begin", context.task_name, len(X)))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        epoch = getattr(fitted_estimator, "history_", [{}])[-1].get("epoch")
        self.seen.append(("end", context.task_name, epoch))
        if fitted_estimator is not None and context.task_name == "epoch":
            self.proba = fitted_estimator.predict_proba(X)
        if epoch is not None and epoch == self.fail_at:
            raise OSError("disk full")
        return epoch is not None and epoch == self.stop_at


def of_sklearn(callback):
    pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")
    return callback


def test_they_see_the_fit_its_stages_and_their_epochs(X):
    watching = of_sklearn(Watching())
    model = AEGMM(3, training=epochs(2), **SMALL)
    assert model.set_callbacks(watching) is model
    model.fit(X)
    alone = AEGMM(3, training=epochs(2), **SMALL).fit(X)
    assert watching.seen == [
        ("setup", "fit"), ("begin", "fit", 60),
        ("begin", "pretraining", 60),
        ("begin", "epoch", 60), ("end", "epoch", 1),
        ("begin", "epoch", 60), ("end", "epoch", 2),
        ("end", "pretraining", None),
        ("end", "fit", 2), ("teardown", "fit"),
    ]  # fmt: skip
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))  # looking changes nothing
    assert not [name for name in vars(model) if name.startswith("_callback")]


def test_what_they_are_handed_predicts_as_the_fit_that_stops_there(X):
    model = NVISA(3, training=epochs(9), **BOUND).set_callbacks(watching := of_sklearn(Watching(stop_at=4))).fit(X)
    assert len(model.history_) == 4
    order = np.argsort(-np.bincount(watching.proba.argmax(1), minlength=3), kind="stable")  # the largest is number 0
    np.testing.assert_array_equal(model.predict_proba(X), watching.proba[:, order])


def test_teardown_comes_after_an_error_too_and_the_clusterer_is_as_it_was(X):
    model = AEGMM(3, training=epochs(3), **SMALL).set_callbacks(watching := of_sklearn(Watching(fail_at=2)))
    with pytest.raises(OSError, match="disk full"):
        model.fit(X)
    assert watching.seen[-1] == ("teardown", "fit")
    assert not hasattr(model, "module_")
    assert not hasattr(model, "_callback_fit_ctx")


def test_restarts_in_processes_of_their_own_report_when_they_are_done(X, monkeypatch):
    """Processes are those of joblib, in test_config.py; here what goes to one is pickled, and callbacks cannot be."""
    monkeypatch.setattr(base, "n_jobs_for", lambda _: 2)
    monkeypatch.setattr(base, "in_processes", lambda f, calls, _: [pickle.loads(pickle.dumps(f))(*c) for c in calls])
    model = NVISA(3, n_restarts=2, training=epochs(2), **BOUND).set_callbacks(watching := of_sklearn(Watching()))
    model.fit(X)
    assert [seen[1:] for seen in watching.seen if seen[0] == "end"] == [
        *[("epoch", 1), ("epoch", 2), ("training", None)] * 2, ("fit", 2),
    ]  # fmt: skip


def test_the_progress_bar_and_a_search_over_settings_take_them(X, capsys):
    of_sklearn(None)
    from sklearn.callback import ProgressBar

    model = NVISA(3, training=epochs(2), **BOUND)
    clone(model).set_callbacks(ProgressBar()).fit(X)
    assert "training" in capsys.readouterr().out
    search = GridSearchCV(model, {"n_clusters": [2, 3]}, cv=2).set_callbacks(ProgressBar(max_propagation_depth=None))
    assert search.fit(X).best_params_["n_clusters"] in (2, 3)
    assert "_parent_callback_ctx" not in vars(search.best_estimator_)
    pickle.loads(pickle.dumps(search.best_estimator_)).predict(X)


def test_an_older_scikit_learn_is_told_of(monkeypatch):
    import importlib
    import sys

    import nvisa.fitting.callbacks as module

    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = importlib.util.spec_from_file_location("older", module.__file__)
    older = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "older", older)
    spec.loader.exec_module(older)
    with pytest.raises(ImportError, match=r"1\.9.*on_epoch"):
        older.CallbackSupportMixin().set_callbacks(Watching())
    assert older.with_callbacks(len) is len
