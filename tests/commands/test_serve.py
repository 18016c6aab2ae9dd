"""`nvisa serve`: what is asked well is answered as the model says it, everything else 4xx, within limits."""

import json
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import numpy as np
import pytest

import nvisa
from nvisa.commands.serve import Limits, Refused, Service, application, parsed

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def model(trained):
    return nvisa.load(str(trained))


@contextmanager
def serving(service):
    """The service at a free port of this machine; calls ``(method, path, body) -> (status, text)``."""
    server = uvicorn.Server(uvicorn.Config(application(service), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def call(method, path, body=None):
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    yield call
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def call(model):
    with serving(Service(model, "m", Limits(rows=50, size=20_000))) as call:
        yield call


def test_an_answer_is_what_the_model_says(model, call, frame):
    X = frame[frame.columns[:4]].to_numpy()
    status, text = call("POST", "/predict", {"rows": X.tolist(), "reject": 0.2})
    assert status == 200
    with pytest.warns(UserWarning, match="feature names"):
        expected = model.predict(X.astype(np.float32), reject=0.2)
    assert json.loads(text)["clusters"] == expected.tolist()
    assert np.sum(json.loads(text)["probabilities"], 1) == pytest.approx(np.ones(45), abs=1e-4)
    said = call("GET", "/metrics")[1]
    assert 'nvisa_requests_total{status="200"} 1\n' in said
    assert "nvisa_rows_total 45\n" in said


def test_health_says_what_is_expected(call):
    said = json.loads(call("GET", "/health")[1])
    assert (said["n_features"], said["n_clusters"]) == (4, 3)
    assert said["columns"] == ["age", "height", "weight", "pulse"]


MALFORMED = {
    "nothing": (b"", 400),
    "no JSON": (b"{rows: 1}", 400),
    "deep": (b"[" * 100_000, 413),
    "not UTF-8": (b"\xff\xfe{}", 400),
    "no object": (b"[1, 2]", 422),
    "no rows": (b'{"rows": []}', 422),
    "short": (b'{"rows": [[1, 2, 3]]}', 422),
    "ragged": (b'{"rows": [[1, 2, 3, 4], [1]]}', 422),
    "text": (b'{"rows": [[1, 2, 3, "4"]]}', 422),
    "true": (b'{"rows": [[1, 2, 3, true]]}', 422),
    "NaN": (b'{"rows": [[1, 2, 3, NaN]]}', 422),
    "huge": (b'{"rows": [[1, 2, 3, 1e300]]}', 422),
    "digits": (b'{"rows": [[1, 2, 3, ' + b"9" * 4000 + b"]]}", 422),
    "too many digits": (b'{"rows": [[1, 2, 3, ' + b"9" * 9000 + b"]]}", 400),
    "many": (json.dumps({"rows": [[1, 2, 3, 4]] * 51}).encode(), 413),
    "reject": (b'{"rows": [[1, 2, 3, 4]], "reject": 2}', 422),
    "unknown": (b'{"rows": [[1, 2, 3, 4]], "k": 2}', 422),
}


@pytest.mark.parametrize(("body", "status"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_with_a_sentence(call, body, status):
    got, text = call("POST", "/predict", body)
    assert got == status
    assert json.loads(text)["error"].startswith("expected ")
    assert f'status="{status}"' in call("GET", "/metrics")[1]


def test_other_paths_and_verbs_are_refused(call):
    assert call("GET", "/predict")[0] == 405
    assert call("POST", "/elsewhere")[0] == 404


def test_a_deep_body_within_the_limit_is_no_fault():
    with pytest.raises(Refused, match="expected a JSON object"):
        parsed(b'{"rows": ' + b"[" * 100_000, 4, 10)


def test_an_answer_that_takes_too_long_is_given_up(model):
    with serving(Service(model, "m", Limits(seconds=0.0))) as call:
        status, text = call("POST", "/predict", {"rows": [[1, 2, 3, 4]]})
    assert status == 503
    assert "within 0 s" in json.loads(text)["error"]
