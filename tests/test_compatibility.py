"""Models and checkpoints that the version before today's names wrote still load, and mean the same."""

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone

from nvisa import (
    GMGAN,
    IMSAT,
    NVISA,
    VAT,
    Cosine,
    Geometric,
    ModelError,
    Network,
    StdAnnealing,
    Training,
    WarmStart,
    load,
)
from nvisa.compatibility import upgrade_fit
from nvisa.fitting import checkpoint
from nvisa.fitting.checkpoint import open_checkpoint
from nvisa.methods import SETTINGS

BEFORE = Path(__file__).parent / "before"  # made by before/write.py
PREDICTED = json.loads((BEFORE / "predicted.json").read_text())
SHORT = Training(epochs=4, batch_size=6, learning_rate=Cosine(2e-2), device="cpu")
TINY, PLAIN = Network(hidden=(8, 8), latent_dim=2), Network(hidden=(4,), latent_dim=2, batch_norm=False)
ANNEALING = StdAnnealing(x=Geometric(0.43, 0.02, until=0.7), z=Geometric(0.5, 0.05))
TODAY = {
    "nvisa": NVISA(
        3, init=WarmStart("gmm", masked=0.3), std_annealing=ANNEALING, consistency=VAT(bound_gradient=0.5),
        reparameterize=True, n_restarts=2, network=PLAIN, training=SHORT, random_state=0,
    ),
    "consistency_alone": IMSAT(3, n_restarts=2, network=TINY, training=SHORT, random_state=0),
    "gm_gan": GMGAN(
        3, penalty=0.3, information=1.0, classifier_training=Training(epochs=2, batch_size=16, device="cpu"),
        network=TINY, training=SHORT, random_state=0,
    ),
}  # fmt: skip
SAME_DRAWS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")  # others' normal numbers are others
each_case = pytest.mark.parametrize("name", TODAY)


@pytest.fixture(scope="module")
def X():
    """The rows of before/write.py."""
    rng = np.random.RandomState(0)
    return np.concatenate([rng.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)


# ---- models ----------------------------------------------------------------------------------------------------------


@each_case
def test_a_model_predicts_what_it_predicted(X, name):
    model, before = load(BEFORE / name), PREDICTED[name]
    assert model.predict(X).tolist() == before["labels"] == model.labels_.tolist()
    assert_allclose(model.predict_proba(X), before["proba"], atol=1e-5)
    if "latent" in before:
        assert_allclose(model.transform(X), before["latent"], atol=1e-4)
        assert_allclose(model.sample(5, random_state=1)[0], before["sample"], atol=1e-4)
    if "score" in before:
        assert_allclose(model.score_samples(X), before["score"], rtol=1e-4)


@each_case
def test_its_settings_have_today_s_names_and_values(name):
    model = load(BEFORE / name)
    assert type(model) is type(TODAY[name])
    assert model.get_params() == TODAY[name].get_params()


def keys(value):
    """Every key of nested dictionaries and lists."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set(value if isinstance(value, dict) else ()).union(*map(keys, parts))


@each_case
def test_what_the_fit_found_has_the_names_that_a_fit_gives_it_today(X, name):
    """And what an epoch's record is made of, and the networks."""
    model, fitted = load(BEFORE / name), clone(TODAY[name]).fit(X)
    public = lambda clusterer: {n for n in vars(clusterer) if n.endswith("_")}  # noqa: E731
    assert public(model) - public(fitted) <= {"start_score_"}  # IMSAT has none: it was a random start's NaN
    later = {"diagnosis_", "converged_", "stop_reason_", "n_clusters_", "reject_quantiles_"}
    later |= {"categories_", "fills_gaps_", "n_axes_"}  # than that version
    assert public(fitted) - public(model) <= later
    assert keys(model.history_) == keys(fitted.history_)
    assert keys(getattr(model, "restarts_", [])) == keys(getattr(fitted, "restarts_", []))
    assert model.module_.state_dict().keys() == fitted.module_.state_dict().keys()
    # IMSAT has no decoder to draw weights for: the draws after it are others. NVISA expects a start's sizes now.
    if name not in ("consistency_alone", "nvisa") and SAME_DRAWS:
        assert_allclose(fitted.predict_proba(X), PREDICTED[name]["proba"], atol=1e-4)


@each_case
def test_saved_again_it_is_a_model_of_today(X, name, tmp_path):
    load(BEFORE / name).save(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["schema"] == 2
    assert not keys(manifest) & {"pull", "reparameterise", "n_init", "std_floor", "recognition", "settled"}
    assert_allclose(load(tmp_path / "model").predict_proba(X), PREDICTED[name]["proba"], atol=1e-5)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def left(request, tmp_path):
    """A copy of a checkpoint that the version before left."""
    shutil.copytree(BEFORE / f"{request.param}_checkpoint", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("left", "done"),
    [
        ("nvisa", ["pretraining 1", "pretraining 2", "distillation 1", "distillation 1", "training 1", "training 2"]),
        ("gm_gan", ["game 1", "game 2"]),
        ("consistency_alone", ["training 1", "training 2"]),
    ],
    indirect=["left"],
)
def test_a_killed_fit_goes_on_where_it_was(X, left, done, request):
    """To what the version before would have come to; of what was done nothing is done again."""
    epochs, whole, name = [], [], request.node.callspec.params["left"]
    resumed, fresh = clone(TODAY[name]), clone(TODAY[name])
    resumed.on_epoch(lambda _, record: epochs.append(f"{record['stage']} {record['epoch']}"))
    resumed.fit(X, checkpoint=left)
    exact = 1e-3 if name == "nvisa" else 1e-4  # what is left of its training expects a start's sizes now
    assert_allclose(resumed.predict_proba(X), PREDICTED[name]["proba"], atol=exact if SAME_DRAWS else 0.05)
    assert resumed.labels_.tolist() == PREDICTED[name]["labels"] or not SAME_DRAWS
    fresh.on_epoch(lambda _, record: whole.append(f"{record['stage']} {record['epoch']}")).fit(X)
    assert len(done) + len(epochs) == len(whole)
    assert whole[len(done) :] == epochs
    assert keys(resumed.history_) == keys(fresh.history_)
    resumed.save(left.parent / "model")
    assert not left.exists()


@pytest.mark.parametrize("left", ["nvisa"], indirect=True)
def test_a_checkpoint_of_other_settings_is_refused_by_their_names_of_today(X, left):
    other = TODAY["nvisa"].get_params() | {"n_restarts": 3, "reparameterize": False, "init": "gmm"}
    with pytest.raises(ModelError, match=r"differs in params\.init, params\.n_restarts, params\.reparameterize\."):
        NVISA(**other).fit(X, checkpoint=left)


# ---- damage ----------------------------------------------------------------------------------------------------------

JUNK = (None, -1, "x", [{}], {}, {"$type": "StdFloor", "settled": True}, 1e999)


def damaged(document):
    """Copies of a JSON document with one of its parts gone, or something else."""
    for key, value in document.items():
        yield f"no {key}", {k: v for k, v in document.items() if k != key}
        for junk in JUNK:
            yield f"{key}: {junk}", document | {key: junk}
        for inner in value if isinstance(value, dict) else ():
            yield f"no {key}.{inner}", document | {key: {k: v for k, v in value.items() if k != inner}}
            for junk in JUNK:
                yield f"{key}.{inner}: {junk}", document | {key: value | {inner: junk}}


@pytest.mark.filterwarnings("ignore:.*written with:UserWarning")  # other versions are said
@each_case
def test_a_damaged_model_is_a_model_error_or_still_the_model(X, name, tmp_path):
    shutil.copytree(BEFORE / name, tmp_path / "model")
    file = tmp_path / "model" / "manifest.json"
    n_refused = 0
    for where, document in damaged(json.loads(file.read_text())):
        file.write_text(json.dumps(document))
        try:
            load(tmp_path / "model")
        except ModelError:
            n_refused += 1
        except Exception as error:
            raise AssertionError(where) from error
    assert n_refused > 100


@pytest.mark.parametrize("left", TODAY, indirect=True)
def test_a_damaged_checkpoint_is_a_model_error_or_still_the_checkpoint(left):
    file = left / checkpoint.MANIFEST
    whole = json.loads(file.read_text())
    run, n_refused = upgrade_fit(whole["run"]), 0
    for where, document in damaged(whole):
        file.write_text(json.dumps(document))
        try:
            with open_checkpoint(left, run, np.random.RandomState(0)):
                raise KeyboardInterrupt  # before it is written
        except ModelError:
            n_refused += 1
        except KeyboardInterrupt:
            assert "rng." in where or where == "stages: []"  # a Gaussian less in stock, or nothing done yet
        except Exception as error:
            raise AssertionError(where) from error
    assert n_refused > 30


@pytest.mark.parametrize("left", ["gm_gan"], indirect=True)
def test_a_state_of_other_networks_is_a_model_error(X, left):
    """As a later version may have them; here a tensor less."""
    file = left / checkpoint.MANIFEST
    manifest = json.loads(file.read_text())
    (stage,) = manifest["stages"]
    tensors = safetensors.torch.load((left / f"{stage['sha256']}.safetensors").read_bytes())
    for gone in ("module.maker.latent.loc", "generator", "objective.discriminator.logit.bias"):
        content = safetensors.torch.save({name: tensor for name, tensor in tensors.items() if name != gone})
        stage["sha256"] = hashlib.sha256(content).hexdigest()
        (left / f"{stage['sha256']}.safetensors").write_bytes(content)
        file.write_text(json.dumps(manifest))
        with pytest.raises(ModelError, match="(?s)expected the state of game, got another .*Remove the folder"):
            clone(TODAY["gm_gan"]).fit(X, checkpoint=left)


def test_the_committed_long_run_has_every_setting_of_today_so_that_it_goes_on():
    """A setting that is new changes what a fit is compared by: ``BEFORE`` has to say what it was without."""
    files = sorted((Path(__file__).parents[1] / "benchmarks" / "paper").glob("*/checkpoint/checkpoint.json"))
    assert files
    for file in files:
        params = upgrade_fit(json.loads(file.read_text())["run"])["params"]
        assert params.keys() == NVISA().get_params(deep=False).keys() - {"verbose"}
        level, seen = list(params.values()), set()
        while level:
            below = []
            for value in (value for value in level if isinstance(value, dict)):
                kind = SETTINGS[value["$type"]]
                assert value.keys() - {"$type"} == {field.name for field in fields(kind)}, kind
                seen.add(kind.__name__)
                below += value.values()
            level = below
        assert {"Network", "Training", "StdAnnealing"} <= seen
