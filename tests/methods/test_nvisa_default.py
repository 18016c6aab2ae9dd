"""What the default does with its own diagnosis."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from nvisa import NVISA, Network, Training
from nvisa.fitting import checkpoint, diagnosis
from nvisa.methods import nvisa as method

X = np.random.RandomState(0).uniform(size=(300, 2)).astype(np.float32)  # no groups: no start is clear
SMALL = Network(hidden=(16, 16), latent_dim=2)


REAL = diagnosis.diagnose


def prepared(monkeypatch, verdicts, **settings):
    """A clusterer whose diagnoses will prefer these, one after the other."""
    told = iter(verdicts)
    monkeypatch.setattr(NVISA, "DEFAULT_TRAINING", Training(steps=120))
    monkeypatch.setattr(diagnosis, "diagnose", lambda *args: REAL(*args) | {"preferred": next(told)})
    return NVISA(2, network=SMALL, random_state=0, **settings)


def fit_with(monkeypatch, verdicts, **settings):
    """It fitted."""
    return prepared(monkeypatch, verdicts, **settings).fit(X)


def n_stages(fitted):
    """How often an epoch 1 of joint training began."""
    return sum(record["stage"] == "training" and record["epoch"] == 1 for record in fitted.history_)


def test_a_fit_to_which_the_criteria_prefer_k_means_goes_back_to_its_start(monkeypatch):
    starts = []
    real = method.start_from
    monkeypatch.setattr(method, "start_from", lambda *args: starts.append(real(*args)) or starts[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted = fit_with(monkeypatch, ["kmeans", "fit"])
    _, start = starts[0]
    assert not start.is_clear
    assert n_stages(fitted) == 2
    assert fitted.stop_reason_.endswith("back to the start")
    agree = np.mean(start.proba.argmax(1) == fitted.labels_[start.rows])
    assert max(agree, 1 - agree) > 0.95  # the larger cluster got number 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_killed_on_the_way_back_to_its_start_it_resumes_to_the_same_bits(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    whole = fit_with(monkeypatch, ["kmeans", "fit"])

    begun = []

    def stop(fitted, record):
        begun.extend([record] if record["stage"] == "training" and record["epoch"] == 1 else [])
        if len(begun) == 2 and record["epoch"] == 3:
            raise KeyboardInterrupt

    for look in (stop, None):
        clusterer = prepared(monkeypatch, ["kmeans", "fit"]).on_epoch(look)
        with nullcontext() if look is None else pytest.raises(KeyboardInterrupt):
            clusterer.fit(X, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(clusterer.predict_proba(X), whole.predict_proba(X))
    assert clusterer.stop_reason_ == whole.stop_reason_


def test_it_says_so_where_the_start_is_no_better(monkeypatch):
    with pytest.warns(UserWarning, match="prefer k-means"):
        assert n_stages(fit_with(monkeypatch, ["kmeans", "kmeans"])) == 2


@pytest.mark.parametrize("settings", [{"training": Training(epochs=2)}, {"init": "umap"}])
def test_a_schedule_and_a_start_of_one_s_own_are_left_as_they_are(monkeypatch, settings):
    assert n_stages(fit_with(monkeypatch, ["kmeans"], **settings)) == 1


def test_a_clear_start_is_kept_by_the_bound_alone_too():
    """Groups of 95, 3 and 2 %, which the bound by itself joins."""
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1, 2], [950, 30, 20])
    rows = rng.randn(1000, 2) + 12 * np.array([[0, 0], [1, 0], [0, 1]])[y]
    fitted = NVISA(3, consistency=None, network=SMALL, training=Training(steps=200), random_state=0).fit(rows)
    assert adjusted_rand_score(y, fitted.labels_) > 0.98
