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
    "half a character": (b'{"rows": [[1, 2, 3, 4]], "\\ud800": 2}', 422),
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


# ---- requests that are answered together -----------------------------------------------------------------------------


class Slow:
    """A model that is in no hurry, and counts: it holds its first prediction until it is let go."""

    n_features_in_, _n_found, _names = 4, 3, ("", "", "")

    def __init__(self, model):
        self.model, self.free, self.sizes = model, threading.Event(), []

    def predict_proba(self, X):
        self.sizes.append(len(X))
        assert self.free.wait(30)
        if (X == 666).any():
            raise ArithmeticError("this row")
        return self.model.predict_proba(X)

    def predict(self, X, reject):
        return self.model.predict(X, reject=reject)


def asked_at_once(service, bodies):
    """The answer, or the error, of each, asked while the first one is being answered."""
    found = [None] * len(bodies)

    def ask(i):
        try:
            found[i] = service.predict(json.dumps(bodies[i]).encode())
        except ArithmeticError as error:
            found[i] = error

    threads = [threading.Thread(target=ask, args=[i]) for i in range(len(bodies))]
    threads[0].start()
    while not service.model.sizes:
        time.sleep(0.001)
    for i, thread in enumerate(threads[1:], start=1):  # in this order
        thread.start()
        while len(service._waiting) < i:
            time.sleep(0.001)
    service.model.free.set()
    for thread in threads:
        thread.join(30)
    return found


@pytest.mark.filterwarnings("ignore:.*feature names")
def test_requests_that_wait_are_answered_together_each_with_its_own_rows(model, frame):
    X = frame[frame.columns[:4]].to_numpy(np.float64)
    cuts = [X[:3], X[3:10], X[10:11], X[11:30], X[30:45]]
    shares = [None, 0.3, None, 0.1, 0.3]
    bodies = [{"rows": x.tolist()} | ({} if r is None else {"reject": r}) for x, r in zip(cuts, shares, strict=True)]
    service = Service(Slow(model), "m", Limits(rows=30))
    found = asked_at_once(service, bodies)
    assert service.model.sizes == [3, 27, 15]  # the oldest first, and never more rows than a request may have
    for x, share, answer in zip(cuts, shares, found, strict=True):
        assert answer["clusters"] == model.predict(x, reject=share).tolist()
        assert answer["probabilities"] == model.predict_proba(x).round(6).tolist()
    assert (service.n_predictions, service.n_rows, service._waiting) == (3, 45, [])
    assert any(-1 in answer["clusters"] for answer in found)


@pytest.mark.filterwarnings("ignore:.*feature names")
def test_a_request_that_fails_fails_alone(model, frame):
    X = frame[frame.columns[:4]].to_numpy(np.float64)
    rows = (X[:2].tolist(), X[:3].tolist(), [[666.0] * 4], X[:4].tolist())
    found = asked_at_once(Service(Slow(model), "m"), [{"rows": some} for some in rows])
    assert [len(answer["clusters"]) for answer in (found[0], found[1], found[3])] == [2, 3, 4]
    assert isinstance(found[2], ArithmeticError)
