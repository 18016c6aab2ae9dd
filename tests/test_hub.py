"""Models on the Hub, which is a folder here: what is sent, what comes back, and what is refused."""

import json
import pickle
import shutil
from fnmatch import fnmatch

import numpy as np
import pytest
import yaml
from sklearn.exceptions import NotFittedError

import nvisa
from nvisa import ModelError, from_hub, push_to_hub
from nvisa.hub import model_card
from nvisa.methods.ae_gmm import AEGMM

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The calls of huggingface_hub that are made, on a folder; their signatures are those of the real ones."""
    made = []

    class Api(huggingface_hub.HfApi):
        def create_repo(self, repo_id, **how):
            made.append(how)
            (tmp_path / repo_id).mkdir(parents=True, exist_ok=how["exist_ok"])

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            made.append(commit_message)
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
            return f"{repo_id}/commit/1"

    def snapshot_download(repo_id, *, revision, token, allow_patterns):
        cache = tmp_path / "cache" / repo_id / str(revision)
        cache.mkdir(parents=True, exist_ok=True)
        for path in (tmp_path / repo_id).iterdir():  # a snapshot is a folder of links
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                (cache / path.name).symlink_to(path)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return tmp_path, made


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).randn(60, 3) + np.repeat([[0], [6], [12]], 20, axis=0)


@pytest.fixture
def model(X):
    return AEGMM(3, training=nvisa.Training(epochs=3), random_state=0).fit(X).name(0, "low | `x`\n<b>")


def test_what_comes_back_predicts_the_same(hub, model, X):
    folder, made = hub
    assert push_to_hub(model, "someone/blobs", license="bsd-3-clause", message="first") == "someone/blobs/commit/1"
    assert made == [{"private": True, "exist_ok": True}, "first"]
    sent = folder / "someone" / "blobs"
    assert {path.name for path in sent.iterdir()} == {"model.safetensors", "manifest.json", "README.md"}
    back = from_hub("someone/blobs", revision="v1")
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
    assert back._names == model._names


def test_what_is_not_a_model_is_not_read(hub, model):
    """A pickle, or code, beside the two files is never fetched; a changed manifest is refused."""
    folder, _ = hub
    push_to_hub(model, "someone/blobs")
    sent = folder / "someone" / "blobs"
    (sent / "model.pkl").write_bytes(pickle.dumps([1]))
    (sent / "modeling.py").write_text("raise SystemExit")
    from_hub("someone/blobs")
    assert {path.name for path in (folder / "cache/someone/blobs/None").iterdir()} == {
        "model.safetensors", "manifest.json",
    }  # fmt: skip
    manifest = json.loads((sent / "manifest.json").read_text())
    (sent / "manifest.json").write_text(json.dumps(manifest | {"class": "os.system"}))
    with pytest.raises(ModelError):
        from_hub("someone/blobs", revision="changed")


def test_nothing_is_sent_before_the_fit(hub):
    with pytest.raises(NotFittedError):
        push_to_hub(AEGMM(3), "someone/blobs")
    assert hub[1] == []


def test_without_the_extra_it_says_which(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"nvisa\[hub\]"):
        from_hub("someone/blobs")


def test_the_card_says_what_the_model_is(model):
    text = model_card(model, "someone/blobs", license="mit")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "nvisa", "tags": ["clustering", "unsupervised", "AEGMM"], "license": "mit",
    }  # fmt: skip
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")][1:]
    assert [int(row[-1]) for row in rows] == np.bincount(model.labels_).tolist()
    assert rows[0][1].split() == ["low", "x", "b"]  # no name breaks the table or writes HTML
    assert 'from_hub("someone/blobs")' in body
    assert "license" not in yaml.safe_load(model_card(model).split("---\n")[1])
