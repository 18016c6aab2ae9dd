"""A killed fit that goes on is the fit that was never killed; a checkpoint of another fit is refused."""

import hashlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from sklearn.mixture import GaussianMixture

from nvisa import DEC, NVISA, ModelError, Network, Training, VaDE
from nvisa.fitting import checkpoint
from nvisa.fitting.checkpoint import CheckpointWriter, data_digest, fingerprint, progress, remove_checkpoint
from nvisa.json_values import with_digest

TINY = Network(hidden=(8,), latent_dim=2)
SMALL = {"network": TINY, "training": Training(epochs=4, batch_size=16), "random_state": 0}


class KilledError(Exception):
    """The power cut."""


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


@pytest.fixture(scope="module")
def X():
    rng = RandomState(0)
    return np.concatenate([rng.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)


def killed_at(n_calls):
    """A callback that ends the fit at its n-th call."""
    calls = []

    def callback(clusterer, record):
        calls.append((record["stage"], record["epoch"]))
        if len(calls) == n_calls:
            raise KilledError

    return callback, calls


def tensors(clusterer):
    return {name: value.clone() for name, value in clusterer.module_.state_dict().items()}


def assert_same(one, other, X):
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    np.testing.assert_array_equal(one.labels_, other.labels_)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    histories = [[{k: v for k, v in r.items() if k != "seconds"} for r in c.history_] for c in (one, other)]
    assert histories[0] == histories[1]
    assert getattr(one, "restarts_", None) == getattr(other, "restarts_", None)


# NVISA: 2 epochs of pretraining, 1 of distillation, 4 of training, of each of two restarts.
KILLED = {
    "pretraining": (NVISA, {"init": "gmm", "n_restarts": 2}, 2),
    "distillation": (NVISA, {"init": "gmm", "n_restarts": 2}, 3),
    "first epoch of training": (NVISA, {"init": "gmm", "n_restarts": 2}, 4),
    "training": (NVISA, {"init": "gmm", "n_restarts": 2}, 6),
    "second restart": (NVISA, {"init": "gmm", "n_restarts": 2}, 13),
    "running moments": (NVISA, {"init": "random", "inference": "nvil"}, 3),
    "vade's pretraining": (VaDE, {"pretraining": Training(epochs=3), "n_init": 2}, 2),
    "vade's training": (VaDE, {"pretraining": Training(epochs=3), "n_init": 2}, 6),
    "dec's target": (DEC, {"pretraining": Training(epochs=2), "n_init": 2, "update_interval": 6, "tol": 0.0}, 5),
}


@pytest.mark.parametrize("case", KILLED)
def test_a_killed_fit_goes_on_bit_for_bit(X, tmp_path, case):
    kind, settings, n_calls = KILLED[case]
    whole, calls = kind(3, **SMALL, **settings), []
    whole.on_epoch(lambda clusterer, record: calls.append((record["stage"], record["epoch"]))).fit(X)
    callback, seen = killed_at(n_calls)
    with pytest.raises(KilledError):
        kind(3, **SMALL, **settings).on_epoch(callback).fit(X, checkpoint=tmp_path / "run")
    callback, after = killed_at(0)
    resumed = kind(3, **SMALL, **settings).on_epoch(callback).fit(X, checkpoint=tmp_path / "run")
    assert_same(whole, resumed, X)
    assert seen[:-1] + after == calls  # no epoch is trained twice but the one whose end was not seen
    again = kind(3, **SMALL, **settings).on_epoch(callback).fit(X, checkpoint=tmp_path / "run")
    assert_same(whole, again, X)
    assert seen[:-1] + after == calls  # a fit that is done is not trained again
    again.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_fit_that_is_killed_again_and_again_arrives(X, tmp_path):
    settings = {**SMALL, "init": "gmm"}
    whole = NVISA(3, **settings).fit(X)
    for _ in range(7):  # each run gets one epoch further: 2 + 1 + 4 epochs
        with pytest.raises(KilledError):
            NVISA(3, **settings).on_epoch(killed_at(2)[0]).fit(X, checkpoint=tmp_path)
        if progress(tmp_path) == "training, epoch 3":
            break
    assert_same(whole, NVISA(3, **settings).fit(X, checkpoint=tmp_path), X)


def test_without_a_seed_it_goes_on_with_the_numbers_it_was_started_with(X, tmp_path):
    settings = {**SMALL, "init": "gmm", "random_state": RandomState(5)}
    whole = NVISA(3, **settings).fit(X)
    settings["random_state"] = RandomState(5)
    with pytest.raises(KilledError):
        NVISA(3, **settings).on_epoch(killed_at(5)[0]).fit(X, checkpoint=tmp_path)
    settings["random_state"] = RandomState(77)  # as a new process would have
    assert_same(whole, NVISA(3, **settings).fit(X, checkpoint=tmp_path), X)


def test_a_fit_with_a_checkpoint_is_the_fit_without(X, tmp_path):
    assert_same(NVISA(3, init="gmm", **SMALL).fit(X), NVISA(3, init="gmm", **SMALL).fit(X, checkpoint=tmp_path), X)


# ---- what belongs together -------------------------------------------------------------------------------------------


@pytest.fixture
def left(X, tmp_path):
    """A checkpoint of a fit that was killed in its third epoch of training."""
    with pytest.raises(KilledError):
        NVISA(3, init="random", **SMALL).on_epoch(killed_at(3)[0]).fit(X, checkpoint=tmp_path / "run")
    return tmp_path / "run"


def go_on(X, folder, **settings):
    return NVISA(**{"n_clusters": 3, "init": "random", **SMALL, **settings}).fit(X, checkpoint=folder)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"training": Training(epochs=5, batch_size=16)}, "params.training"),
        ({"random_state": 1}, "params.random_state"),
        ({"n_clusters": 2}, "params.n_clusters"),
        ({"consistency": None, "n_samples": 5}, "params.consistency, params.n_samples"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings_is_refused_by_their_names(X, left, settings, named):
    before = {path.name: path.read_bytes() for path in left.iterdir()}
    with pytest.raises(ModelError, match=f"differs in {named}\\. Give the same settings"):
        go_on(X, left, **settings)
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before


def test_a_start_that_is_an_object_is_told_from_another_one(X, tmp_path):
    """JSON holds neither; two clusterers differ in their networks, other models in the clusters that they give."""
    mixtures = [GaussianMixture(3, random_state=0).fit(rows) for rows in (X, X + 0.5)]
    clusterers = [NVISA(3, init="random", **SMALL | {"random_state": seed}).fit(X) for seed in (0, 1)]
    for case, (one, other) in {"mixture": mixtures, "clusterer": clusterers}.items():
        for k, (first, second) in enumerate([(one, other), (("random", one), ("random", other))]):
            settings = {"n_restarts": k + 1, "init": first}
            folder = tmp_path / f"{case}{k}"
            with pytest.raises(KilledError):
                NVISA(3, **SMALL, **settings).on_epoch(killed_at(3)[0]).fit(X, checkpoint=folder)
            with pytest.raises(ModelError, match=r"differs in params\.init"):
                NVISA(3, **SMALL, **settings | {"init": second}).fit(X, checkpoint=folder)
            whole = NVISA(3, **SMALL, **settings).fit(X)
            assert_same(whole, NVISA(3, **SMALL, **settings).fit(X, checkpoint=folder), X)


def test_a_setting_that_could_not_be_told_from_another_is_refused(X):
    with pytest.raises(ModelError, match="tell one fit from another"):
        fingerprint(("random", object()), X)


def test_a_checkpoint_of_other_data_is_refused(X, left):
    other = X.copy()
    other[59, 2] += 1e-6
    with pytest.raises(ModelError, match=r"data\.sha256"):
        go_on(other, left)
    with pytest.raises(ModelError, match=r"data\.sha256, data\.shape"):
        go_on(X[:-1], left)


def test_rows_of_every_block_enter_the_digest():
    X = RandomState(0).randn(20_000, 2).astype(np.float32)  # more than two blocks
    found = data_digest(X)
    assert found == {"shape": [20_000, 2], "type": "<f4", "sha256": hashlib.sha256(X.tobytes()).hexdigest()}


def test_a_checkpoint_of_another_method_is_refused(X, left):
    with pytest.raises(ModelError, match="class"):
        VaDE(3, **SMALL).fit(X, checkpoint=left)


def test_showing_progress_is_no_other_setting(X, left, capsys):
    """It goes on: the same model, and only the epochs that were left are shown."""
    whole = NVISA(3, init="random", **SMALL).fit(X)
    callback, after = killed_at(0)
    resumed = NVISA(3, init="random", **SMALL, verbose=1).on_epoch(callback).fit(X, checkpoint=left)
    assert_same(whole, resumed, X)
    assert after == [("training", 3), ("training", 4)]
    assert "training 4/4" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused(X, left):
    (state,) = left.glob("*.safetensors")
    whole = state.read_bytes()
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="changed file or none"):
        go_on(X, left)
    state.unlink()
    with pytest.raises(ModelError, match="changed file or none"):
        go_on(X, left)
    for content, message in {"{": "unreadable", '{"format": "x", "schema": 1}': "expected nvisa checkpoint"}.items():
        (left / checkpoint.MANIFEST).write_text(content)
        with pytest.raises(ModelError, match=message):
            go_on(X, left)


@pytest.mark.parametrize(
    "damage",
    [
        {"run": None},
        {"run": {}},
        {"run": {"class": "NVISA", "params": [1]}},
        {"rng": []},
        {"stages": {}},
        {"rng": {"a": 1}},
        {"stages": [{"finished": True}]},
        {"stages": ["training"]},
    ],
    ids=str,
)
def test_a_checkpoint_whose_manifest_is_json_and_no_whole_one_is_refused(X, left, damage):
    file = left / checkpoint.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(ModelError, match="it was changed|damaged at"):
        go_on(X, left)
    with_new_digest(left)
    with pytest.raises(ModelError, match="Remove the folder to start again"):
        go_on(X, left)


def with_new_digest(folder, **changes):
    file = folder / checkpoint.MANIFEST
    manifest = {key: value for key, value in json.loads(file.read_text()).items() if key != "digest"}
    file.write_text(json.dumps(with_digest(manifest | changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "expected nvisa checkpoint, schema 1, got another"),
        (
            {"stages": [{"name": "warming", "history": [], "finished": False, "sha256": "0" * 64}]},
            "expected a checkpoint of training, got warming",
        ),
    ],
    ids=["schema", "stages"],
)
def test_a_checkpoint_of_another_schema_or_of_other_stages_is_refused(X, left, changes, message):
    with_new_digest(left, **changes)
    with pytest.raises(ModelError, match=message):
        go_on(X, left)


def test_a_folder_with_other_things_is_left_alone(X, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ModelError, match="empty folder or a checkpoint"):
        go_on(X, tmp_path)
    with pytest.raises(ModelError, match="empty folder or a checkpoint"):
        go_on(X, tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_of_the_user_in_the_folder_stay(X, left):
    for name in ("mine.safetensors", "part-list.txt"):
        (left / name).write_text("mine")
    go_on(X, left).save(left.parent / "model")
    assert sorted(path.name for path in left.iterdir()) == ["mine.safetensors", "part-list.txt"]


def test_only_the_states_that_the_manifest_names_are_kept_and_nothing_is_pickled(X, left):
    manifest = json.loads((left / checkpoint.MANIFEST).read_text())
    (stage,) = manifest["stages"]
    names = {f"{stage['sha256']}.safetensors", checkpoint.MANIFEST}
    assert {path.name for path in left.iterdir()} == names
    assert (stage["name"], len(stage["history"]), stage["finished"]) == ("training", 2, False)
    assert progress(left) == "training, epoch 2"


def test_a_kill_while_writing_leaves_the_checkpoint_before(X, left, monkeypatch):
    """The disk is full when the manifest is due: the one that is there still has its state."""

    def full(path, content, write=checkpoint.write_file):
        if path.name == checkpoint.MANIFEST:
            raise OSError("no space left")
        write(path, content)

    whole = NVISA(3, init="random", **SMALL).fit(X)
    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(OSError, match="no space left"):
        go_on(X, left)
    monkeypatch.undo()
    assert_same(whole, go_on(X, left), X)


def test_it_writes_no_more_often_than_it_should(X, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 3600.0)
    with pytest.raises(KilledError):
        NVISA(3, init="random", **SMALL).on_epoch(killed_at(3)[0]).fit(X, checkpoint=tmp_path)
    assert progress(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.MANIFEST]


def test_it_is_due_so_long_after_the_last_writing(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoint, "EVERY", 30.0)
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    writer, due = CheckpointWriter(tmp_path, {}, RandomState(0)), []
    for clock[0] in (29.0, 31.0, 60.0, 62.0):
        due.append(writer.is_due)
        if writer.is_due:
            writer.write()
    assert due == [False, True, False, True]


# ---- what a kill can leave -------------------------------------------------------------------------------------------


DEAD = 4194304  # no process has this number: Linux counts to one below


@pytest.mark.parametrize(
    "names",
    [
        (f".checkpoint.json.{DEAD}-0123abcd.part", checkpoint.LOCK),
        ("checkpoint.json.part",),  # of the version before
        ("a" * 64 + ".safetensors",),
        ("a" * 64 + ".safetensors.part", "part-0/checkpoint.json.part"),
    ],
    ids=["first manifest", "first manifest, before", "removed in part, before", "state in part, before"],
)
def test_what_a_kill_left_before_there_was_a_manifest_is_started_from_anew(X, tmp_path, names):
    for name in names:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(b"{")
    whole = go_on(X, tmp_path / "run")
    assert_same(whole, NVISA(3, init="random", **SMALL).fit(X), X)
    whole.save(tmp_path / "model")
    assert not (tmp_path / "run" / checkpoint.MANIFEST).exists()
    assert not list((tmp_path / "run").glob("*safetensors*")) if (tmp_path / "run").exists() else True


@pytest.mark.parametrize("n_calls", range(1, 6))
def test_a_kill_while_a_checkpoint_is_removed_leaves_one_that_can_be_used(X, tmp_path, monkeypatch, n_calls):
    """After each removal of a file in turn."""
    fitted, unlink, calls = go_on(X, tmp_path / "run"), checkpoint.Path.unlink, []

    def killed(path, **how):
        calls.append(path)
        if len(calls) == n_calls:
            raise KilledError
        unlink(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Path, "unlink", killed)
        try:
            remove_checkpoint(tmp_path / "run")
        except KilledError:
            assert (tmp_path / "run").exists()
    assert_same(fitted, go_on(X, tmp_path / "run"), X)


def test_a_checkpoint_outlives_a_save_that_fails(X, tmp_path, monkeypatch):
    fitted = go_on(X, tmp_path / "run")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nvisa.persistence.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            fitted.save(tmp_path / "model")
    callback, calls = killed_at(0)
    again = NVISA(3, init="random", **SMALL).on_epoch(callback).fit(X, checkpoint=tmp_path / "run")
    assert calls == []
    again.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_one_fit_at_a_time_is_at_a_checkpoint_and_the_other_is_told_who(X, tmp_path):
    def another(clusterer, record):
        with pytest.raises(ModelError, match=rf"got one in use by process {os.getpid()} on "):
            go_on(X, tmp_path / "run")

    NVISA(3, init="random", **SMALL).on_epoch(another).fit(X, checkpoint=tmp_path / "run")


def test_saving_does_not_remove_the_checkpoint_of_another_fit_that_has_come_since(X, left, tmp_path):
    first = go_on(X, left)
    remove_checkpoint(left)
    go_on(X, left, random_state=1)
    first.save(tmp_path / "model")
    assert (left / checkpoint.MANIFEST).exists()
