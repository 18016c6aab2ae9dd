"""``nvisa serve``: a model behind HTTP, for programs that do not run Python.

    POST /predict   {"rows": [[...], ...], "reject": 0.01}  ->  {"clusters": [...], "probabilities": [[...], ...]}
    GET  /health    the model and what it expects
    GET  /metrics   counts and seconds, in Prometheus' text format

What is malformed is answered 4xx with a sentence; no request makes the model do more than its limits. Requests that
arrive during a prediction wait, and are answered together by the next one: 16 of 64 rows cost what two cost alone.
"""
# ruff: noqa: PLC0415  what needs torch or starlette is imported when the command runs: --help should not wait for it

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nvisa.commands.options import add_command

__all__ = ["Limits", "Refused", "Service", "add", "application", "parsed"]


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "serve", run, "answer predictions of a model over HTTP (pip install nvisa[serve])")
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="default 8000")
    parser.add_argument("--max-rows", type=int, default=10_000, metavar="N", help="of a request (default 10,000)")
    parser.add_argument("--max-mb", type=float, default=64.0, metavar="MB", help="of a request (default 64)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="of a request's answer (default 30)")


def run(args: argparse.Namespace) -> None:
    """Serve until interrupted."""
    try:
        import uvicorn
    except ImportError as error:
        raise ValueError(f'expected starlette and uvicorn, got: {error}. Try pip install "nvisa[serve]".') from error
    from nvisa.methods import load

    limits = Limits(args.max_rows, int(args.max_mb * 2**20), args.timeout)
    level = "error" if args.quiet else "info"
    server = application(Service(load(args.model), args.model, limits))
    uvicorn.run(server, host=args.host, port=args.port, log_level=level, limit_concurrency=256, access_log=False)


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: rows, bytes, seconds until its answer."""

    rows: int = 10_000
    size: int = 64 * 2**20
    seconds: float = 30.0


class Refused(ValueError):
    """A request that is answered with this status and sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def parsed(body: bytes, n_features: int, max_rows: int) -> tuple[Any, float | None]:
    """(rows [N D], the share to refuse or None) of a request.

    Raises
    ------
    Refused
        With 400 for what is no JSON, 422 for rows that the model cannot take, 413 for too many.
    """
    import numpy as np

    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected a JSON object, got something else ({type(error).__name__}).") from error
    if not isinstance(request, dict) or not isinstance(rows := request.get("rows"), list) or not rows:
        raise Refused(422, 'expected {"rows": [[...], ...]} with at least one row.')
    if len(rows) > max_rows:
        raise Refused(413, f"expected at most {max_rows} rows, got {len(rows)}. Send them in parts.")
    if any(not isinstance(row, list) or len(row) != n_features for row in rows):
        raise Refused(422, f"expected rows of {n_features} numbers, got another.")
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for row in rows for value in row):
        raise Refused(422, "expected numbers, got something else.")
    try:
        X = np.array(rows, dtype=np.float64)  # float32 would blur numbers far from zero
    except OverflowError as error:
        raise Refused(422, "expected numbers that float32 holds, got larger ones.") from error
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(X.astype(np.float32)).all()
    if not is_finite:
        raise Refused(422, "expected finite numbers, got NaN, infinity, or more than float32 holds.")
    reject = request.get("reject")
    if reject is not None and (
        isinstance(reject, bool) or not isinstance(reject, (int, float)) or not 0 < reject <= 0.5
    ):
        raise Refused(422, "expected reject in (0, 0.5].")
    if unknown := request.keys() - {"rows", "reject"}:
        raise Refused(422, f"expected rows and reject, got also {', '.join(sorted(map(repr, unknown)))[:80]}.")
    return X, reject


class Asked:
    """The rows of one request, the share of them to refuse or None, and its answer once it is there."""

    def __init__(self, X: Any, reject: float | None) -> None:
        self.X, self.reject = X, reject
        self.answer: dict[str, Any] | None = None
        self.error: Exception | None = None


def _together(function: Callable[[Any], Any], asked: list[Asked]) -> list[Any]:
    """``function`` of the rows of all, once, and the part of each."""
    import numpy as np

    return np.split(function(np.concatenate([one.X for one in asked])), np.cumsum([len(one.X) for one in asked])[:-1])


@dataclass
class Service:
    """A model, its limits, and what it has been asked so far. One prediction runs at a time, of all that wait."""

    model: Any
    name: str
    limits: Limits = field(default_factory=Limits)
    requests: Counter[int] = field(default_factory=Counter)
    n_rows: int = 0
    n_predictions: int = 0
    seconds: float = 0.0
    _waiting: list[Asked] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def predict(self, body: bytes) -> dict[str, Any]:
        """The answer to a request: made here for all that wait, unless another thread has made it meanwhile."""
        own = Asked(*parsed(body, self.model.n_features_in_, self.limits.rows))
        self._waiting.append(own)  # which is atomic, and so is what `_taken` does to the list
        with self._lock:
            while own.answer is None and own.error is None:
                self._answer(self._taken())
        if own.error is not None:
            raise own.error
        assert own.answer is not None
        return own.answer

    def _taken(self) -> list[Asked]:
        """The oldest of those that wait, as many as the rows of one request may be, at least one."""
        taken = [self._waiting.pop(0)]
        n = len(taken[0].X)
        while self._waiting and n + len(self._waiting[0].X) <= self.limits.rows:
            taken.append(self._waiting.pop(0))
            n += len(taken[-1].X)
        return taken

    def _answer(self, asked: list[Asked]) -> None:
        """Predict the rows of all of them at once; if that fails, of each alone, so that no other one is to blame."""
        import warnings

        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of rows far from those of the fit: it is the asker's to know
                proba = _together(self.model.predict_proba, asked)
                clusters = {id(one): q.argmax(1) for one, q in zip(asked, proba, strict=True)}
                for share in {one.reject for one in asked} - {None}:
                    some = [one for one in asked if one.reject == share]
                    labels = _together(partial(self.model.predict, reject=share), some)
                    clusters |= {id(one): found for one, found in zip(some, labels, strict=True)}
            for one, q in zip(asked, proba, strict=True):
                one.answer = {"clusters": clusters[id(one)].tolist(), "probabilities": q.round(6).tolist()}
        except Exception as error:  # told to the one that asked, in its own thread
            if len(asked) > 1:
                for one in asked:
                    self._answer([one])
                return
            asked[0].error = error
        self.n_predictions += 1
        self.n_rows += sum(len(one.X) for one in asked)
        self.seconds += time.perf_counter() - started

    def health(self) -> dict[str, Any]:
        """What the model is and expects."""
        names = getattr(self.model, "feature_names_in_", None)
        return {
            "status": "ok", "model": self.name, "method": type(self.model).__name__,
            "n_features": self.model.n_features_in_, "n_clusters": self.model._n_found,
            "names": [*self.model._names], "columns": None if names is None else [*map(str, names)],
        }  # fmt: skip

    def metrics(self) -> str:
        """Counts in Prometheus' text format, version 0.0.4."""
        lines = ["# TYPE nvisa_requests_total counter"]
        lines += [f'nvisa_requests_total{{status="{status}"}} {n}' for status, n in sorted(self.requests.items())]
        lines += ["# TYPE nvisa_rows_total counter", f"nvisa_rows_total {self.n_rows}"]
        lines += ["# TYPE nvisa_predictions_total counter", f"nvisa_predictions_total {self.n_predictions}"]
        lines += ["# TYPE nvisa_predict_seconds_total counter", f"nvisa_predict_seconds_total {self.seconds:.6f}"]
        return "\n".join(lines) + "\n"


def application(service: Service) -> Any:
    """The service as an ASGI application."""
    import anyio
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def read(request: Request) -> bytes:
        """The body, read no further than its limit."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > service.limits.size:
                raise Refused(413, f"expected at most {service.limits.size} bytes. Send the rows in parts.")
        return bytes(body)

    async def predict(request: Request) -> Response:
        """Answer, or say why not."""
        try:
            with anyio.fail_after(service.limits.seconds):
                answer, status = await run_in_threadpool(service.predict, await read(request)), 200
        except Refused as error:
            answer, status = {"error": str(error)}, error.status
        except TimeoutError:
            answer, status = {"error": f"expected an answer within {service.limits.seconds:g} s. Send fewer rows."}, 503
        service.requests[status] += 1
        return JSONResponse(answer, status)

    async def health(_: Request) -> Response:
        """That it is there."""
        return JSONResponse(service.health())

    async def metrics(_: Request) -> Response:
        """Counts so far."""
        return PlainTextResponse(service.metrics(), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes)
