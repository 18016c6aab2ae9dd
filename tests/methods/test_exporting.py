"""What leaves nvisa says what the clusterer says: by onnxruntime, by torch.export, by pickle."""

import pickle
from copy import deepcopy

import jaxtyping
import numpy as np
import pytest
import torch

from nvisa import SettingError
from nvisa.maths import full_covariance
from nvisa.methods.exporting import Predictor, exported
from oracles import normal
from small_methods import make


@pytest.fixture(autouse=True)
def shapes_unchecked():
    """The tests' checker of shapes compares the number of rows with others, and so fixes it in what is exported."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_the_inverse_that_exports_is_the_inverse(rng, monkeypatch):
    tril = (normal(rng, 3, 4, 4).tril() + 3 * torch.eye(4)).float()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(full_covariance.inverse_tril(tril), torch.linalg.inv(tril))


def test_a_predictor_says_what_the_clusterer_says_and_pickles(blobs, fitted):
    X = blobs[0]
    same = pickle.loads(pickle.dumps(Predictor(fitted)))
    with torch.inference_mode():
        proba, latent, score = (part.numpy() for part in same(torch.from_numpy(X)))
    np.testing.assert_allclose(proba, fitted.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(latent, fitted.transform(X), atol=1e-4)
    name = "log_density" if fitted.DENSITY_EXPORTS else "confidence"
    np.testing.assert_allclose(score, fitted._typicality(X)[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.global_rng  # torch's exporter
def test_onnxruntime_says_what_torch_says(blobs, fitted, tmp_path):
    """At one row and at 4,096, of a model that was edited and calibrated."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    X = np.resize(blobs[0], (4096, blobs[0].shape[1]))
    model = deepcopy(fitted).split(0, blobs[0]).merge(1, 2).calibrate(blobs[0])
    model.to_onnx(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "latent", "score"]
    for n in (1, 4096):
        proba, latent, score = session.run(None, {"x": X[:n]})
        np.testing.assert_allclose(proba, model.predict_proba(X[:n]), atol=1e-5)
        scale = np.abs(model.transform(X)).max()
        np.testing.assert_allclose(latent / scale, model.transform(X[:n]) / scale, atol=1e-5)
        name = "log_density" if model.DENSITY_EXPORTS else "confidence"
        np.testing.assert_allclose(score, model._typicality(X[:n])[name], rtol=1e-5, atol=1e-5)
    with pytest.raises(SettingError, match=r"path must be a name ending in \.onnx"):
        model.to_onnx(tmp_path / "m.pt")


@pytest.mark.slow
@pytest.mark.global_rng  # torch's exporter
def test_an_exported_program_takes_any_number_of_rows(blobs, fitted):
    X = blobs[0]
    program = exported(fitted).module()
    with torch.inference_mode():
        np.testing.assert_allclose(program(torch.from_numpy(X))[0].numpy(), fitted.predict_proba(X), atol=1e-5)


@pytest.mark.slow
@pytest.mark.global_rng  # torch's exporter
def test_columns_far_from_zero_are_exported_in_float64(blobs):
    near = np.round(1024 * blobs[0].astype(np.float64)) / 1024
    far = near + 1.7e9
    model = make("ae_gmm").fit(far)
    assert hasattr(model, "origin_")
    found = exported(model).module()(torch.from_numpy(far))
    np.testing.assert_allclose(found[0].detach().numpy(), model.predict_proba(far), atol=1e-5)
