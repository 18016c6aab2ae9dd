"""A model directory gives back the clusterer, or says what is wrong with it; nothing written is ever lost."""

import json
import math
import pickle
import pickletools
from copy import deepcopy
from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import walk_packages

import numpy as np
import pytest
import safetensors.torch

import nvisa
from nvisa import (
    NVISA,
    VAT,
    Augment,
    Conv,
    ModelError,
    Modules,
    NegativeBinomial,
    Network,
    Supervision,
    Training,
    WarmStart,
    durable_files,
    json_values,
    persistence,
)
from nvisa.maths.bounds import VIMCO, EnumY
from nvisa.maths.schedules import Constant, Cosine, Geometric, Halving, StdAnnealing
from nvisa.methods import SETTINGS, load

SMALL = {"network": Network(hidden=(16,), latent_dim=2), "training": Training(epochs=2), "init": "random"}

EXAMPLES = [
    Constant(0.5),
    Cosine(2e-3, end=1e-5),
    Geometric(1.3, 0.02, until=0.8),
    Halving(1.0, every=1 / 30, end=1e-4),
    Network(hidden=(7, 5), latent_dim=3, batch_norm=False, scaling="columns"),
    StdAnnealing(x=Halving(), z=Geometric(1.0, 0.1), relative=False),
    WarmStart("umap", masked=0.3),
    Supervision([0, -1, 1], must_link=[(0, 1)], start="gmm"),
    Training(epochs=3, learning_rate=Halving(1e-3), clip_norm=math.inf, device="cpu"),
    VAT(radius=0.1, balance=1.0),
    VIMCO(decoder_samples=2),
    EnumY(min_probability=0.01),
    Augment(image_shape=(2, 3, 1), shift=0.2),
    Conv(channels=(4, 8), image_shape=(8, 8), hidden=(7,)),
    Modules(shape=(1, 8, 8), latent_dim=3),
    NegativeBinomial(zero_inflated=True, batch="donor"),
]


@pytest.fixture(scope="module")
def X():
    rng = np.random.RandomState(0)
    return np.concatenate([rng.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(X):
    return NVISA(3, random_state=0, **SMALL).fit(X)


@pytest.fixture
def model(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def edit(model, **changes):
    """Change the manifest, and its digest with it."""
    file = model / "manifest.json"
    manifest = {key: value for key, value in json.loads(file.read_text()).items() if key != "digest"}
    file.write_text(json.dumps(json_values.with_digest(manifest | changes)))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", EXAMPLES, ids=lambda s: type(s).__name__)
def test_a_setting_comes_back(setting):
    notes = {}
    text = json.dumps(json_values.encode(setting, "s", notes), allow_nan=False)
    assert persistence.decode(json.loads(text), SETTINGS) == setting
    assert notes == {}


def test_every_settings_class_has_an_example_and_a_place_in_the_registry():
    """Constraints on settings are frozen too: they are no settings."""
    rooms = ("maths", "nets", "fitting")
    names = [m.name for m in walk_packages(nvisa.__path__, "nvisa.") if m.name.split(".")[1] in rooms]
    kinds = [kind for name in names for kind in vars(import_module(name)).values() if isinstance(kind, type)]
    here = [kind for kind in kinds if kind.__module__.startswith("nvisa.") and kind.__module__.split(".")[1] in rooms]
    frozen = {
        k.__name__ for k in here if is_dataclass(k) and k.__dataclass_params__.frozen and not hasattr(k, "allows")
    }
    assert frozen == set(SETTINGS) == {type(s).__name__ for s in EXAMPLES}


def test_numpy_scalars_and_lists_are_settings_too():
    written = json_values.encode([np.int64(3), np.float32(0.5), True, None, "x"], "s", {})
    assert written == [3, 0.5, True, None, "x"]


@pytest.mark.parametrize(
    "value", [{"$type": "Popen", "args": "ls"}, {"$type": "os.system"}, {"$type": ["VAT"]}, {"x": 1}, {"$float": "1"}]
)
def test_a_type_that_is_not_ours_is_refused(value):
    with pytest.raises(ModelError, match="expected settings among Augment, Constant"):
        persistence.decode(value, SETTINGS)


def test_a_field_that_is_not_ours_is_refused():
    with pytest.raises(ModelError, match="settings of VAT"):
        persistence.decode({"$type": "VAT", "height": 1}, SETTINGS)


# ---- there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"inference": "nvil", "likelihood": "gaussian", "posterior": "mean_field"},
        {"inference": "enum_y", "likelihood": "bernoulli", "consistency": None},
        {"consistency": VAT(radius=0.1), "std_annealing": StdAnnealing(x=Halving(), relative=False), "n_restarts": 2},
        {"init": ("random", WarmStart("gmm", masked=0.1)), "n_restarts": 2},
        {"network": Network((8, 6), latent_dim=3, batch_norm=False, scaling="columns")},
        {"consistency": (VAT(), Augment(image_shape=(1, 1, 3), information=0.0))},
        {"training": Training(epochs=1, learning_rate=1e-3)},
        {"network": Network((8,), latent_dim=2, prior_components=3)},
        {"network": Network((8,), latent_dim=2, prior_covariance="full")},
        {"network": Network((8,), latent_dim=2, prior_covariance="identity")},
        {"likelihood": "bernoulli_binarized", "init": "random", "consistency": None},
        {"network": None},
        {"random_state": np.int64(7)},
    ],
    ids=str,
)
def test_the_loaded_clusterer_predicts_what_the_saved_one_did(X, tmp_path, settings):
    X = 1 / (1 + np.exp(-X)) if settings.get("likelihood", "").startswith("bernoulli") else X
    before = NVISA(3, **{"random_state": 0, **SMALL, **settings}).fit(X)
    before.save(tmp_path / "m")
    after = nvisa.load(tmp_path / "m")
    assert after.get_params() == before.get_params()
    for method in ("predict", "predict_proba", "transform", "score_samples", "reconstruct"):
        np.testing.assert_array_equal(getattr(after, method)(X), getattr(before, method)(X))
    np.testing.assert_array_equal(after.sample(5)[0], before.sample(5)[0])
    np.testing.assert_array_equal(after.labels_, before.labels_)
    assert after.labels_.dtype == before.labels_.dtype
    assert not after.module_.training


def test_every_fitted_attribute_comes_back(fitted, model):
    loaded = load(model)
    names = {name for name in vars(fitted) if name.endswith("_")}
    assert names == {name for name in vars(loaded) if name.endswith("_")}
    assert loaded.history_ == fitted.history_
    assert loaded.restarts_ == fitted.restarts_
    assert loaded.n_iter_ == fitted.n_iter_
    assert math.isnan(fitted.start_score_)
    assert math.isnan(loaded.start_score_)


def test_a_loaded_model_can_be_saved_and_trained_again(X, model, tmp_path):
    load(model).save(tmp_path / "again")
    again = load(tmp_path / "again")
    np.testing.assert_array_equal(again.predict(X), load(model).predict(X))
    assert all(parameter.requires_grad for parameter in again.module_.parameters())
    np.testing.assert_array_equal(again.fit(X).labels_, load(model).labels_)


def test_names_of_columns_come_back(X, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["age", "größe", "x y"])
    NVISA(3, random_state=0, **SMALL).fit(frame).save(tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert list(loaded.feature_names_in_) == list(frame.columns)
    assert loaded.feature_names_in_.dtype == object
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame.rename(columns={"age": "Age"}))


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_device_is_the_callers(X, fitted, model, device):
    np.testing.assert_array_equal(load(model, device=device).predict(X), fitted.predict(X))


def test_what_has_no_form_in_json_becomes_none_with_a_note(X, fitted, tmp_path):
    settings = {**SMALL, "init": fitted, "random_state": np.random.RandomState(0)}
    clusterer = NVISA(3, **settings).fit(X)
    with pytest.warns(UserWarning, match="not stored") as warned:
        clusterer.save(tmp_path / "m")
    assert sorted(str(w.message).split(": ")[1].split(" object")[0] for w in warned) == [
        "init is a NVISA",
        "random_state is a RandomState",
    ]
    loaded = load(tmp_path / "m")
    assert loaded.init is None
    assert loaded.random_state is None
    np.testing.assert_array_equal(loaded.predict(X), clusterer.predict(X))
    omitted = persistence.read_manifest(tmp_path / "m")["omitted"]
    assert omitted == {"init": "NVISA object, not stored", "random_state": "RandomState object, not stored"}


def test_the_manifest_is_strict_json_and_says_what_wrote_it(fitted, tmp_path):
    extra = {"feature_shape": (1, 3), "source": "here", "score": math.nan}
    fitted.save(tmp_path / "m", extra=extra)

    def refuse(constant):
        raise AssertionError(constant)

    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text(), parse_constant=refuse)
    assert manifest["extra"] == {"feature_shape": [1, 3], "source": "here", "score": None}
    assert (manifest["schema"], manifest["class"]) == (2, "NVISA")
    assert manifest["versions"]["nvisa"] == nvisa.__version__


def test_a_callback_does_not_hinder_saving_or_pickling(X, tmp_path):
    clusterer = NVISA(3, random_state=0, **SMALL).on_epoch(lambda *_: None).fit(X)
    clusterer.save(tmp_path / "m")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clusterer)).predict(X), clusterer.predict(X))


# ---- nothing is executed --------------------------------------------------------------------------------------


def test_no_file_is_a_pickle(model):
    assert sorted(contents(model)) == ["manifest.json", "model.safetensors"]
    for content in contents(model).values():
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            list(pickletools.genops(content))


@pytest.mark.parametrize("name", ["predict", "__class__", "module_", "_callback_"])
def test_a_fitted_attribute_cannot_name_anything_else(model, name):
    edit(model, fitted={"n_features_in_": 3, name: 1})
    with pytest.raises(ModelError, match="expected fitted attributes"):
        load(model)


# ---- damage ---------------------------------------------------------------------------------------------------


def truncated(model):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def tampered(model):
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def not_safetensors(model):
    (model / "model.safetensors").write_bytes(b"x" * 100)
    digest = persistence.hashlib.sha256(b"x" * 100).hexdigest()
    edit(model, sha256=digest)


def other_tensors(model):
    content = safetensors.torch.save({"module.x": safetensors.torch.torch.zeros(2)})
    (model / "model.safetensors").write_bytes(content)
    edit(model, sha256=persistence.hashlib.sha256(content).hexdigest())


def other_types(model):
    arrays = safetensors.torch.load((model / "model.safetensors").read_bytes())
    content = safetensors.torch.save({n: t.double() if n.startswith("module.") else t for n, t in arrays.items()})
    (model / "model.safetensors").write_bytes(content)
    edit(model, sha256=persistence.hashlib.sha256(content).hexdigest())


def param(name, value):
    def damage(model):
        params = json.loads((model / "manifest.json").read_text())["params"]
        edit(model, params=params | {name: value})

    return damage


def renumbered(model):
    file = model / "manifest.json"
    file.write_text(file.read_text().replace('"n_iter_": 2', '"n_iter_": 3'))


def found(name, value):
    """Something else in place of what the fit has found."""

    def change(model):
        manifest = json.loads((model / "manifest.json").read_text())
        edit(model, fitted=manifest["fitted"] | {name: value})

    return change


DAMAGE = {
    "no folder": (lambda m: m.rename(m.with_name("away")), "expected a model directory, got nothing there"),
    "no manifest": (lambda m: (m / "manifest.json").unlink(), "no such file for manifest.json"),
    "no arrays": (lambda m: (m / "model.safetensors").unlink(), "no such file for model.safetensors"),
    "cut arrays": (truncated, "cut or changed after saving"),
    "changed arrays": (tampered, "cut or changed after saving"),
    "no safetensors": (not_safetensors, "expected model.safetensors in safetensors"),
    "other arrays": (other_tensors, "expected the networks that the settings describe"),
    "other types": (other_types, r"and type torch.float32 from the settings, got .* and torch.float64"),
    "cut manifest": (lambda m: (m / "manifest.json").write_text('{"format": "nvisa'), "in JSON"),
    "empty manifest": (lambda m: (m / "manifest.json").write_text(""), "in JSON"),
    "deep manifest": (lambda m: (m / "manifest.json").write_text("[" * 100_000), "in JSON"),
    "NaN": (lambda m: (m / "manifest.json").write_text('{"format": NaN}'), "NaN is not JSON"),
    "bytes": (lambda m: (m / "manifest.json").write_bytes(b"\xff\xfe\x00"), "in JSON"),
    "another's manifest": (lambda m: edit(m, format="web app"), "expected the manifest of an nvisa model"),
    "a list": (lambda m: (m / "manifest.json").write_text("[]"), "expected the manifest of an nvisa model"),
    "newer schema": (lambda m: edit(m, schema=3), r"newer nvisa \(schema 3\), this one reads 2: upgrade"),
    "older schema": (lambda m: edit(m, schema=0), "damaged at schema"),
    "no schema": (lambda m: edit(m, schema=None), "damaged at schema"),
    "no params": (lambda m: edit(m, params=None, sha256=3), "damaged at params, sha256"),
    "unknown class": (lambda m: edit(m, **{"class": "Popen"}), "expected a method among NVISA, .*, got 'Popen'"),
    "unknown setting": (param("color", 1), "unexpected keyword argument 'color'"),
    "unknown type": (param("network", {"$type": "Popen"}), "expected settings among"),
    "other K": (param("n_clusters", 4), r"expected y_logits.weight of shape \(4, 16\).* got \(3, 16\)"),
    "other network": (param("network", {"$type": "Network", "hidden": [16, 16], "latent_dim": 2}), "differing in"),
    "no layers": (param("network", {"$type": "Network", "hidden": []}), "model: list index out of range"),
    "nonsense": (param("n_clusters", "many"), "model: "),
    "no width": (lambda m: edit(m, fitted={}), "n_features_in_"),
    "categories of no column": (found("categories_", {"x": ["a"]}), "expected the categories of columns"),
    "no categories": (found("categories_", {"0": []}), "expected the categories of columns"),
    "a temperature": (found("temperature_", "warm"), "temperature_"),
    "an edit without a name": (found("edits_", [{"x": 1}]), "model: 'order'"),
    "a merge of three": (found("edits_", [{"order": [0, 1.5, 2]}]), "model: .*indices"),
    "some thresholds": (found("reject_quantiles_", {"confidence": [0.0, 0.1]}), "not of the same length"),
    "thresholds of nothing": (found("reject_quantiles_", {"x": [0.0] * 141}), "model: "),
    "one number": (renumbered, "expected the content that was written, with SHA-256 .*it was changed after saving"),
    "a large number": (lambda m: (m / "manifest.json").write_text('{"format": 1e999}'), "larger than a float holds"),
    "half a letter": (lambda m: (m / "manifest.json").write_text('{"format": "\\ud800"}'), "surrogates not allowed"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(model, damage, message):
    damage(model)
    with pytest.raises(ModelError, match=message) as raised:
        load(model)
    assert "model" in str(raised.value)


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "m").write_text("")
    with pytest.raises(ModelError, match="expected a model directory"):
        load(tmp_path / "m")


# ---- writing --------------------------------------------------------------------------------------------------


def test_saving_again_replaces_the_model_and_keeps_other_files(X, fitted, model):
    (model / "labels.csv").write_text("mine")
    other = NVISA(2, random_state=1, **SMALL).fit(X)
    other.save(model)
    assert load(model).n_clusters == 2
    assert (model / "labels.csv").read_text() == "mine"
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_new_parents_and_empty_folders_are_fine(fitted, tmp_path):
    fitted.save(tmp_path / "a" / "b")
    (tmp_path / "empty").mkdir()
    fitted.save(str(tmp_path / "empty"))
    assert load(tmp_path / "a" / "b").n_clusters == load(tmp_path / "empty").n_clusters == 3


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_a_folder_with_other_files_is_refused_and_left_alone(fitted, tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"name": "my web app"}')
    before = contents(tmp_path / "mine")
    with pytest.raises(ModelError, match="a folder with other files"):
        fitted.save(tmp_path / "mine")
    assert contents(tmp_path / "mine") == before


def test_a_file_is_refused_and_left_alone(fitted, tmp_path):
    (tmp_path / "mine").write_text("text")
    with pytest.raises(ModelError, match="got a file"):
        fitted.save(tmp_path / "mine")
    with pytest.raises(ModelError, match="can be written to"):
        fitted.save(tmp_path / "mine" / "model")
    assert (tmp_path / "mine").read_text() == "text"


@pytest.mark.parametrize("moment", ["first file", "second file", "sync", "exchange"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_save_leaves_the_old_model(X, model, monkeypatch, moment, error):
    before, calls = contents(model), []
    where, method = {
        "sync": (durable_files, "sync"),
        "exchange": (durable_files, "_exchange"),
    }.get(moment, (persistence.Path, "write_bytes"))
    original = getattr(where, method)

    def interrupted(*args):
        calls.append(args)
        if len(calls) == (2 if moment == "second file" else 1):
            raise error
        return original(*args)

    other = NVISA(2, random_state=1, **SMALL).fit(X)
    with monkeypatch.context() as patch:
        patch.setattr(where, method, interrupted)
        with pytest.raises(error):
            other.save(model)
    assert contents(model) == before
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    assert load(model).n_clusters == 3


@pytest.mark.parametrize("name", [".model.12345678.old", ".model.4194304-12345678.old"])  # of before, and of today
def test_a_model_that_a_killed_save_had_set_aside_is_back_when_it_is_loaded(model, name):
    """Where the system cannot exchange two names, there is a moment without the model at its own."""
    model.rename(model.with_name(name))
    assert load(model).n_clusters == 3
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(X, fitted, model, monkeypatch):
    """The manifest of the one, then the arrays of the other: no damage."""
    other, read = NVISA(2, random_state=1, **SMALL).fit(X), persistence.read_manifest

    def then_replaced(path):
        manifest = read(path)
        if manifest["params"]["n_clusters"] == 3:
            other.save(path)
        return manifest

    monkeypatch.setattr(persistence, "read_manifest", then_replaced)
    assert load(model).n_clusters == 2


def test_what_cannot_be_tidied_up_after_a_save_is_a_warning(X, model, monkeypatch):
    other = NVISA(2, random_state=1, **SMALL).fit(X)

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "_dissolve", refused)
        with pytest.warns(UserWarning, match=r"model is written; what was to be done after that failed: .*denied"):
            other.save(model)
    assert load(model).n_clusters == 2
    other.save(model)  # sweeps what was left
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_a_name_as_long_as_the_system_allows_can_be_saved_to_and_a_longer_one_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / ("m" * 255))
    assert load(tmp_path / ("m" * 255)).n_clusters == 3
    with pytest.raises(ModelError, match="at most 255 bytes"):
        fitted.save(tmp_path / ("ü" * 128))


def test_a_full_disk_is_told_with_the_name_of_the_model(fitted, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(persistence.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/m'$"):
        fitted.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


UNLOADABLE = ({"n_clusters": 5}, {"likelihood": "no such"}, {"network": 5})
UNBUILDABLE = ({"network": Network(hidden, latent_dim=3)} for hidden in ((16,), (), (-1,)))


@pytest.mark.parametrize("changed", [*UNLOADABLE, *UNBUILDABLE], ids=str)
def test_a_model_that_could_not_be_loaded_is_not_saved(fitted, model, changed):
    before, clusterer = contents(model), deepcopy(fitted)
    with pytest.raises(ModelError, match="Set back what was changed after fit"):
        clusterer.set_params(**changed).save(model)
    assert contents(model) == before


def test_an_unfitted_clusterer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        NVISA().save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
