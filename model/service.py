"""The HTTP service as an ASGI app: endpoints and pages around one classifier.

    app = create_app(Settings(model="my-model/"))       # what `communique serve` runs

A request is read, checked and segmented, then its sentences take turns with those of other requests
in one worker thread (`communique.model.batching`); nothing of this runs on the event loop unless it
is tiny.

The pages are static files with one style sheet and one script between them, sent as they are: the content
policy then needs neither hashes nor exceptions, and no file is longer than a reader's breath.
"""

from __future__ import annotations

import asyncio
import dataclasses
import mimetypes
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import pydantic_core
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import multiprocess
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from communique.model import extraction, requests
from communique.model.batching import Batcher, QueueFullError, Scores
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError
from communique.model.guard import Guard, Held, Metrics, error_response
from communique.model.intake import Intake, RefusedError, content_type
from communique.model.labels import DEFINITIONS
from communique.model.settings import Settings
from communique.model.tokens import SentenceInput

PAGES = Path(__file__).resolve().parent / "page"
PIECE = 64
"""Sentences of one request that take a turn together."""
PART = 65_536
"""Bytes of an answer that are sent at a time: a client that reads none of a long one meets the time limit,
where whole it would lie in the server's buffer for as long as the client likes."""
READY_SECONDS = 5.0
"""How long an answer of /readyz is remembered."""
EXTRACTING = 2
"""Files read at once, each in a process of its own."""
_EXAMPLE = SentenceInput("The two sides agreed to meet again.")


def create_app(settings: Settings | None = None) -> ASGIApp:
    """The service, its model loaded: a `Guard` around the FastAPI app, and around it what CORS asks for.

    Raises:
        ArtifactError: the model folder cannot be used.
        InputError: the token file cannot be used.
    """
    settings = Settings() if settings is None else settings
    token = settings.token()
    metrics = Metrics()
    classifier = StanceClassifier.load(settings.model, threads=settings.threads, backend=settings.backend)
    held = Held(settings.max_held_bytes)
    service = Service(classifier, settings, metrics, held)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.batcher:
            yield
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    app = FastAPI(
        title="communique",
        description="Labels every sentence of an official statement with the stance it takes.",
        version=service.classifier.version,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from another host
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={RefusedError: _refuse, Exception: _fail, 404: _no_page, 405: _no_method},
    )
    app.state.service = service
    service.mount(app)
    guard = Guard(app, token=token, seconds=settings.max_seconds, held=held, metrics=metrics)
    if not settings.cors:
        return guard
    return CORSMiddleware(  # outermost: a browser asks for permission without the token
        guard,
        allow_origins=settings.cors,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after"],
    )


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error_response(error.status, str(error), error.headers)


async def _fail(request: Request, error: Exception) -> Response:
    return error_response(500, "the service failed on this request; its log says why")


async def _no_page(request: Request, error: Exception) -> Response:
    return error_response(404, "no such page: see /docs")


async def _no_method(request: Request, error: Exception) -> Response:
    return error_response(405, "wrong method for this address: see /docs")


_ROUTES = {"index.html": "/", "compare.html": "/compare", "docs.html": "/docs"}


def _sender(path: Path) -> Callable[[], Awaitable[Response]]:
    """An endpoint that sends a file, read once."""
    data, kind = path.read_bytes(), mimetypes.guess_type(path.name)[0] or "text/plain"

    async def send() -> Response:
        return Response(data, media_type=kind, headers={"cache-control": "no-cache"})

    return send


class Service:
    """The endpoints, around one classifier."""

    def __init__(
        self, classifier: StanceClassifier, settings: Settings, metrics: Metrics, held: Held
    ) -> None:
        config = classifier.artifact.config
        self.classifier = classifier
        self.settings = settings
        self.metrics = metrics
        self.batcher = Batcher(
            self._score,
            limit=settings.max_queued,
            max_wait=settings.max_wait,
            max_work=0.75 * settings.max_seconds,
            reads=(config.max_tokens, config.before_tokens, config.after_tokens),
            on_turn=metrics.turn,
        )
        self._extracting = asyncio.Semaphore(EXTRACTING)
        self.intake = Intake(settings, held, retry_after=lambda: self.batcher.retry_after)
        self._ready = (-READY_SECONDS, "")
        self._pass: asyncio.Task[None] | None = None

    def _score(self, inputs: Sequence[SentenceInput]) -> Scores:
        scores = self.classifier.probabilities(inputs)
        self._ready = (perf_counter(), "")  # a turn that went well is as good as a pass for /readyz
        return scores

    def mount(self, app: FastAPI) -> None:
        """Add the endpoints and pages to the app."""
        add = app.add_api_route
        add(
            "/v1/label",
            self.label,
            methods=["POST"],
            summary="Label sentences",
            responses=requests.ANSWERS,
            openapi_extra=requests.BODY,
        )
        add(
            "/v1/extract",
            self.extract,
            methods=["POST"],
            summary="Text of a .docx or .pdf file",
            responses=requests.TEXT,
            openapi_extra=requests.FILE,
        )
        token: dict[int | str, dict[str, Any]] = {401: requests.ANSWERS[401]}
        add("/v1/model", self.model, summary="Labels, definitions, calibration, card", responses=token)
        add("/healthz", self.health, summary="The process is up")
        broken: dict[int | str, dict[str, Any]] = {
            503: {**requests.ANSWERS[503], "description": "Not ready."}
        }
        add("/readyz", self.ready, summary="A real forward pass, remembered 5 s", responses=broken)
        add("/metrics", self.numbers, summary="Prometheus metrics", response_class=Response, responses=token)
        for path in sorted(PAGES.iterdir()):
            route = _ROUTES.get(path.name, f"/page/{path.name}")
            add(route, _sender(path), include_in_schema=False)
        plain = app.openapi

        def openapi() -> dict[str, Any]:
            document = plain()
            document.setdefault("components", {}).setdefault("schemas", {}).update(requests.SCHEMAS)
            return document

        app.openapi = openapi  # type: ignore[method-assign]

    async def label(self, request: Request) -> Response:
        """Label every sentence of a statement, of several, or of sentences already cut."""
        pieces = self._pieces(await self.intake.work(request))
        # Before the answer starts, so that a full queue is told by its status, also of a stream.
        first: list[dict[str, Any]] = await anext(pieces, [])
        if "application/x-ndjson" in request.headers.get("accept", ""):
            return StreamingResponse(_lines(first, pieces), media_type="application/x-ndjson")
        found = first + [record async for piece in pieces for record in piece]
        answer = {"model_version": self.classifier.version, "records": found}
        data = _json(answer) if len(found) <= PIECE else await asyncio.to_thread(_json, answer)
        if len(data) <= PART:
            return Response(data, media_type="application/json")
        head = {"content-length": str(len(data))}
        return StreamingResponse(_parts(data), media_type="application/json", headers=head)

    async def extract(self, request: Request) -> dict[str, str]:
        """Text of the Word or PDF file that is the request's body, one paragraph a block, to be labelled."""
        kind = extraction.KINDS.get(content_type(request))
        if kind is None:
            raise RefusedError(415, f"content type: send one of {', '.join(extraction.KINDS)}")
        # Read first: a slow upload is no reason to keep others from being read.
        data = await self.intake.body(request, extraction.MAX_FILE_BYTES)
        if self._extracting.locked():
            raise RefusedError(429, "busy with other files: try again in 2 s", retry_after="2")
        async with self._extracting:
            try:
                return {"text": await extraction.extract(data, kind)}
            except InputError as error:
                raise RefusedError(422, str(error)) from None

    async def _pieces(self, work: requests.Work) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Records piece by piece, each piece in a turn of its own.

        Labelling runs ahead of a client that reads slowly, so that it gives back its room in the queue:
        scores are small. Records, which are not, are made when they are sent.
        """
        version, config = self.classifier.version, self.classifier.artifact.config
        size = len(work.inputs)
        pieces = list(requests.pieces(work, PIECE))
        turns: asyncio.Queue[asyncio.Task[Scores]] = asyncio.Queue()

        async def ahead(done: Callable[[int], None]) -> None:
            for piece in pieces:
                turn = asyncio.create_task(self.batcher.score(work.inputs[piece]))
                try:
                    await asyncio.wait([turn])
                finally:
                    turn.cancel()  # nothing to a turn that is over
                turns.put_nowait(turn)
                if turn.exception() is not None:
                    return
                done(piece.stop - piece.start)

        try:
            with self.batcher.room(size) as done, self.metrics.queued(size):
                labelling = asyncio.create_task(ahead(done))
                try:
                    for piece in pieces:
                        scores = await (await turns.get())
                        yield list(requests.records(work, piece, scores, config=config, version=version))
                finally:
                    labelling.cancel()
        except QueueFullError as full:
            raise RefusedError(429, str(full), retry_after=str(full.retry_after)) from None

    async def model(self) -> dict[str, Any]:
        """What labels: its version, labels, calibration, limits and card."""
        artifact = self.classifier.artifact
        config = dataclasses.asdict(artifact.config)
        return {
            "model_version": artifact.version,
            "engine": self.classifier.engine,
            "labels": [{"label": str(label), "definition": text} for label, text in DEFINITIONS.items()],
            "calibration": {name: config[name] for name in ("temperature", "threshold", "label_weights")},
            "config": config,
            "limits": {k: v for k, v in dataclasses.asdict(self.settings).items() if k.startswith("max_")},
            "card": artifact.path("README.md").read_text(encoding="utf-8"),
        }

    async def health(self) -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "up"}

    async def ready(self) -> Response:
        """Whether the model labels."""
        if perf_counter() - self._ready[0] > READY_SECONDS:
            if self._pass is None or self._pass.done():
                self._pass = asyncio.create_task(self._try())
            await asyncio.shield(self._pass)  # everybody's: one who leaves does not end it
        if self._ready[1]:
            return error_response(503, f"the model does not label ({self._ready[1]})")
        return JSONResponse({"status": "ready", "model_version": self.classifier.version})

    async def _try(self) -> None:
        """A forward pass of one sentence, for `ready`."""
        task = asyncio.create_task(self.batcher.score([_EXAMPLE]))
        await asyncio.wait([task])
        error = task.exception()
        self._ready = (perf_counter(), "" if error is None else f"{type(error).__name__}: {error}")

    async def numbers(self) -> Response:
        """Requests, latency, queue, batches, sentences, rejections."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _json(value: object) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="null")


async def _parts(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), PART):
        yield data[start : start + PART]


async def _lines(
    first: list[dict[str, Any]], rest: AsyncGenerator[list[dict[str, Any]], None]
) -> AsyncGenerator[bytes, None]:
    """One record a line, a piece at a time."""
    async with aclosing(rest):
        yield b"".join(_json(record) + b"\n" for record in first)
        async for piece in rest:
            yield b"".join(_json(record) + b"\n" for record in piece)
