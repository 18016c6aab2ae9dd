"""A server on 127.0.0.1 that can misbehave, and a small MNIST on it."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from made_up import sha256, write_idx
from nvisa.data.datasets import catalog, loading
from nvisa.data.datasets.catalog import IdxFile, IdxSet
from nvisa.data.datasets.download import download


class Mirror(ThreadingHTTPServer):
    """Serves `files`; `cut[name]` hangs up after so many bytes, once; `requests` remembers (name, Range)."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.requests, self.ranges = dict(files), {}, [], True
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.server.requests.append((name, wanted))
        body = self.server.files.get(name)
        if body is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.server.cut.pop(name, None)])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror():
    servers = []

    def start(files=None):
        server = Mirror(files or {})
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


rng_ = np.random.default_rng(3)
ARRAYS = {
    "X_train": rng_.integers(0, 256, size=(6, 4, 5), dtype=np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
    "X_test": rng_.integers(0, 256, size=(3, 4, 5), dtype=np.uint8),
    "y_test": np.array([2, 1, 0], dtype=np.uint8),
}
ARRAYS["X_train"][0, 0, :2] = 0, 255
RAW = {f"{role}-idx": write_idx(array) for role, array in ARRAYS.items()}
PACKED = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in RAW.items()}


@pytest.fixture
def toy(mirror, monkeypatch):
    """A server with the four files, and a catalog in which they are "toy"."""
    server = mirror(PACKED)
    server.arrays, server.raw = ARRAYS, RAW
    files = tuple(
        IdxFile(
            role,
            f"{role}-idx",
            len(PACKED[f"{role}-idx.gz"]),
            sha256(PACKED[f"{role}-idx.gz"]),
            sha256(RAW[f"{role}-idx"]),
        )
        for role in ARRAYS
    )
    spec = IdxSet((server.url,), files, classes=("a", "b", "c"), n_train=6, n_test=3)
    monkeypatch.setitem(catalog.IDX_SETS, "toy", spec)
    of_here = {"insecure": True, "pause": 0.0, "rounds": 2}  # the server has no https
    quick = lambda urls, target, **settings: download(urls, target, **settings | of_here)  # noqa: E731
    monkeypatch.setattr(loading, "download", quick)
    return server
