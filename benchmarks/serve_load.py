"""64 clients at `nvisa serve` on this machine, then 10,000 malformed requests.

    python benchmarks/serve_load.py [--clients 64] [--requests 1280] [--rows 64]     writes benchmarks/records/serve

A model of digits is served on 127.0.0.1 by a process of its own. Each client sends its share of the requests one after
the other; what is malformed comes from 8 clients, in turn of twelve kinds. Counts and time are bounded, and everything
stops by itself.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from nvisa import NVISA, Training
from nvisa.benchmark.run import processor

FOLDER = Path("benchmarks/records/serve")
MALFORMED = (
    b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"rows": []}', b'{"rows": 1}', b'{"rows": [[1]]}', b'{"rows": [["a"]]}',
    b'{"rows": [[NaN]]}', b"[" * 5_000, b'{"rows": [' + b"[1]," * 500 + b"[1]]}",
)  # fmt: skip


def post(port: int, bodies: list[bytes]) -> list[tuple[int, float]]:
    """(status, seconds) of each body, sent one after the other over one connection."""
    connection, found = HTTPConnection("127.0.0.1", port, timeout=120), []
    for body in bodies:
        started = time.perf_counter()
        try:
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except OSError:
            status = 0
            connection.close()
        found.append((status, time.perf_counter() - started))
    connection.close()
    return found


def get(port: int, path: str) -> str:
    """The text at a path."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def many(port: int, n_clients: int, bodies: list[bytes]) -> tuple[list[tuple[int, float]], float]:
    """What all got, and the seconds that it took, from clients at once."""
    started = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        parts = pool.map(lambda c: post(port, bodies[c::n_clients]), range(n_clients))
        found = [answer for part in parts for answer in part]
    return found, time.perf_counter() - started


def main() -> None:
    """Serve, ask, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1280)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--malformed", type=int, default=10_000)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    X = load_digits().data
    body = json.dumps({"rows": X[: args.rows].tolist()}).encode()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        NVISA(10, training=Training(epochs=5), random_state=0).fit(X).save(f"{folder}/model")
        command = [sys.executable, "-m", "nvisa", "serve", f"{folder}/model", "--port", str(port), "--quiet"]
        server = subprocess.Popen(command)
        try:
            _wait(port)
            answers, seconds = many(port, args.clients, [body] * args.requests)
            refused, _ = many(port, 8, [MALFORMED[i % len(MALFORMED)] for i in range(args.malformed)])
            last = post(port, [body])
            metrics = dict(line.split() for line in get(port, "/metrics").splitlines() if line[0] != "#")
        finally:
            server.terminate()
            server.wait(30)
    record = summary(args, answers, seconds, refused, last)
    record["predictions"] = int(metrics["nvisa_predictions_total"])
    print(json.dumps(record, indent=1))
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "digits.json").write_text(json.dumps(record) + "\n")


def _wait(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("expected the server to listen within two minutes.")


def summary(args: argparse.Namespace, answers: Any, seconds: float, refused: Any, last: Any) -> dict[str, Any]:
    """The record."""
    waits = np.array([wait for _, wait in answers])
    return {
        "processor": processor(), "clients": args.clients, "requests": len(answers),
        "rows_a_request": args.rows, "columns": 64,
        "statuses": {str(s): n for s, n in Counter(s for s, _ in answers).items()},
        "requests_a_second": len(answers) / seconds, "rows_a_second": len(answers) * args.rows / seconds,
        "seconds_p50": float(np.quantile(waits, 0.5)), "seconds_p99": float(np.quantile(waits, 0.99)),
        "malformed": len(refused), "malformed_statuses": {str(s): n for s, n in Counter(s for s, _ in refused).items()},
        "after": last[0][0],
    }  # fmt: skip


if __name__ == "__main__":
    main()
