"""What is asked for over HTTP, and who answers: an ASGI application over models.

GET  /v2, /v2/health/live, /v2/health/ready
GET  /v2/models/NAME[/versions/DIGEST][/ready]
POST /v2/models/NAME[/versions/DIGEST]/infer       tensors in, tensors out (:mod:`edgetl.serving.protocol`)
POST /v2/models/NAME[/versions/DIGEST]/predict     a file in, its answer out, as of ``edgetl predict --json``
GET  /metrics
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import edgetl
from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.extras import missing
from edgetl.base.memory import shortage
from edgetl.base.wording import printable
from edgetl.serving.metrics import Metrics
from edgetl.serving.model import Limits, Model, named
from edgetl.serving.protocol import RequestError, described
from edgetl.serving.version import Version

#: Seconds after which it is looked again where each path leads.
WATCH_S = 1.0
#: Most labels that an answer names.
_MOST_TOP = 1000
_LENGTH = "Inference-Header-Content-Length"
_GONE = 499
Work = Callable[[Version, Request, bytes], Awaitable[Response]]


def on_stderr(sentence: str) -> None:
    """Where a server tells what happened, unless told otherwise."""
    print(printable(sentence), file=sys.stderr, flush=True)


class Service:
    """Models behind routes; everything but inference happens on the event loop.

    Attributes:
        models: by name.
        draining: whether it takes its last requests: it is not ready any more, and closes each connection it answers.
    """

    def __init__(
        self, models: Mapping[str, Model], limits: Limits, metrics: Metrics, tell: Callable[[str], None]
    ) -> None:
        self.models, self.draining = models, False
        self._limits, self._metrics, self._tell = limits, metrics, tell

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        model = "/v2/models/{name}"
        found: list[BaseRoute] = [
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/metrics", self._told),
        ]
        for base in (model, model + "/versions/{version}"):
            found += [
                Route(base, self._metadata),
                Route(base + "/ready", self._model_ready),
                Route(base + "/infer", self._infer, methods=["POST"]),
                Route(base + "/predict", self._predict, methods=["POST"]),
            ]
        return found

    async def _server(self, request: Request) -> Response:
        about = {"name": "edgetl", "version": edgetl.__version__, "extensions": ["binary_tensor_data"]}
        return JSONResponse(about)

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        found = [await model.ready() for model in self.models.values()]
        ready = all(found) and not self.draining
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _told(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _metadata(self, request: Request) -> Response:
        model = self._model(request)
        version = model.version
        about = {"name": model.name, "versions": [version.digest], "platform": version.backend}
        takes = version.takes
        return JSONResponse({**about, "inputs": described(takes.inputs), "outputs": described(takes.outputs)})

    async def _model_ready(self, request: Request) -> Response:
        model = self._model(request)
        ready = await model.ready() and not self.draining
        return JSONResponse({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def _infer(self, request: Request) -> Response:
        return await self._asked(request, "infer", _inferred)

    async def _predict(self, request: Request) -> Response:
        return await self._asked(request, "predict", _predicted)

    def _model(self, request: Request) -> Model:
        name, version = request.path_params["name"], request.path_params.get("version")
        model = self.models.get(name)
        if model is None:
            raise RequestError(f"there is no model {name!a:.80}", f"there is {', '.join(self.models)}", 404)
        if version not in (None, model.version.digest):
            what = f"{name} is no more, or not yet, the version {version!a:.80}"
            raise RequestError(what, f"it is {model.version.digest}", 404)
        return model

    async def _asked(self, request: Request, route: str, work: Work) -> Response:
        """Have a model's version work on a request, within the limits, and count how that ended."""
        began, model = time.perf_counter(), None
        try:
            model = self._model(request)
            with model.admitted() as version:
                response = await work(version, request, await self._body(request))
        except ClientDisconnect:
            response = Response(status_code=_GONE)
        except Exception as error:  # whatever a runtime raises is answered, and the server goes on
            response = self._refused(error, model)
        name = "" if model is None else model.name
        self._metrics.requests.labels(name, route, str(response.status_code)).inc()
        self._metrics.request_seconds.labels(name).observe(time.perf_counter() - began)
        return response

    async def _body(self, request: Request) -> bytes:
        """All of a request's body, of which no more is held than is allowed.

        Raises:
            RequestError: it is too large, takes too long, or is compressed.
        """
        most = self._limits.most_bytes
        large = RequestError(f"the body has more than {most} bytes", "send less at once, or raise --max-body", 413)
        length = request.headers.get("content-length", "0")
        if len(length) > 15 or int(length) > most:
            raise large
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError("compressed bodies are not read", "send it as it is", 415)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise large
                    parts.append(part)
        except TimeoutError as error:
            raise RequestError("the body did not arrive in time", "send it faster", 408) from error
        return b"".join(parts)

    def _refused(self, error: Exception, model: Model | None) -> Response:
        """The answer to a request that has none, with the status that says whose fault that is."""
        if isinstance(error, RequestError | DataError):
            status = error.status if isinstance(error, RequestError) else 400
            return refusal(str(error), status)
        if (short := shortage(error)) is not None:
            return refusal(short.what, 503)
        known = error if isinstance(error, EdgetlError) else missing(error)
        if model is not None:
            model.failed()
        # What the runtime said may tell of this machine: it is for whoever runs it.
        self._tell(f"a request failed: {known or f'{type(error).__name__}: {error}'}")
        return refusal("the model could not answer: whoever runs this server can see why", 500)


async def _inferred(version: Version, request: Request, body: bytes) -> Response:
    name, length = request.path_params["name"], request.headers.get(_LENGTH)
    content, head = await version.submit(version.infer, body, length, name)
    if head is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={_LENGTH: str(head)}, media_type="application/octet-stream")


async def _predicted(version: Version, request: Request, body: bytes) -> Response:
    top = request.query_params.get("top", "5")
    if not (top.isascii() and top.isdigit() and len(top) < 5 and 1 <= int(top) <= _MOST_TOP):
        raise RequestError(f"top is {top!a:.40}", f"give a number from 1 to {_MOST_TOP}")
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise RequestError("forms are not read", "send the file itself: curl --data-binary @FILE", 415)
    if not body:
        raise RequestError("the body is empty", "send the file: curl --data-binary @FILE")
    return JSONResponse(await version.submit(version.predict, body, int(top)))


def refusal(what: str, status: int) -> Response:
    """An error as clients of the protocol read it."""
    return JSONResponse({"error": what}, status, {"Retry-After": "1"} if status == 503 else None)


async def _refused_request(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return refusal(str(error), error.status)
    assert isinstance(error, HTTPException)
    return refusal(str(error.detail), error.status_code)


class _Closing:
    """Tells clients to close their connections while the server drains: the next request would meet a closed one."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._service.draining:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, closing)


async def _watch(models: Sequence[Model]) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        for model in models:
            await model.refresh()


def app(
    bundles: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    *,
    names: Sequence[str] = (),
    threads: int | None = None,
    queue: int = 64,
    max_body: float = 16.0,
    max_batch: int = 32,
    public_key: str | Path | None = None,
    tell: Callable[[str], None] = on_stderr,
) -> Starlette:
    """Bundles as an ASGI application, for a server of one's own; each has passed its self-test when this returns.

    Args:
        bundles, names, threads, queue, max_body, max_batch, public_key, tell: as for :func:`edgetl.serving.serve`.

    Raises:
        EdgetlError: as :func:`edgetl.serving.serve` does.
    """
    given = [bundles] if isinstance(bundles, str | Path) else bundles
    limits, metrics = Limits(queue, max_body, max_batch), Metrics()

    def load(folder: Path) -> Version:
        return Version(folder, threads=threads, most_samples=max_batch, public_key=public_key)

    models: dict[str, Model] = {}
    try:
        for name, path in named(given, names).items():
            models[name] = Model(name, path, load, limits, metrics, tell)
    except BaseException:
        for model in models.values():
            model.retire()
        raise
    service = Service(models, limits, metrics, tell)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(tuple(models.values())))
        try:
            yield
        finally:
            watching.cancel()
            for model in models.values():
                model.retire()

    handlers: dict[Any, Any] = {RequestError: _refused_request, HTTPException: _refused_request}
    made = Starlette(routes=service.routes(), lifespan=lifespan, exception_handlers=handlers)
    made.add_middleware(_Closing, service=service)
    made.state.service = service
    return made
