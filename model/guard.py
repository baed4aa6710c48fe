"""Around every request of the service: token, time limit, bytes held, security headers, log line, metrics.

    app = Guard(app, token="secret", seconds=60, held=Held(10**8), metrics=Metrics())      # any ASGI app

Texts and tokens never reach the log: a line holds method, route, status and time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter

import prometheus_client as prometheus
from prometheus_client import multiprocess
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("communique.serve")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What /metrics shows; across workers where there are several."""

    def __init__(self) -> None:
        r = self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter("communique_requests", "Requests.", ["path", "status"], registry=r)
        self.seconds = prometheus.Histogram(
            "communique_request_seconds", "Time to the answer's last byte.", ["path"], registry=r
        )
        self.rejected = prometheus.Counter("communique_rejected", "Refused requests.", ["status"], registry=r)
        self.sentences = prometheus.Counter("communique_sentences", "Sentences labelled.", registry=r)
        self.batch = prometheus.Histogram(
            "communique_batch_sentences",
            "Sentences a turn.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=r,
        )
        self.queue = prometheus.Gauge(
            "communique_queued_sentences", "Accepted, not answered.", registry=r, multiprocess_mode="livesum"
        )

    def turn(self, sentences: int) -> None:
        """Count a turn of the worker."""
        self.sentences.inc(sentences)
        self.batch.observe(sentences)

    @contextmanager
    def queued(self, sentences: int) -> Iterator[None]:
        """Show sentences as queued meanwhile."""
        self.queue.inc(sentences)
        try:
            yield
        finally:
            self.queue.dec(sentences)

    def text(self) -> bytes:
        """All workers' numbers in Prometheus' text format."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry)


class Held:
    """Bytes of the bodies of all requests that are under way; a `Guard` counts them."""

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        self.limit = limit


class Guard:
    """Around every request: token, time limit, bytes held, security headers, one line of log, metrics."""

    def __init__(
        self, app: ASGIApp, *, token: str | None, seconds: float, held: Held, metrics: Metrics
    ) -> None:
        self.app = app
        self._tokens = () if token is None else tuple(map(_digest, _on_the_wire(token)))
        self._held = held
        self._seconds = seconds
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, size = perf_counter(), 0, 0

        async def receive_on() -> Message:
            nonlocal size
            message = await receive()
            more = len(message.get("body", b""))
            size += more
            self._held.bytes += more
            return message

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message.setdefault("headers", [])}
                extra = ((k.encode(), v.encode()) for k, v in HEADERS.items())
                message["headers"] = [*message["headers"], *(h for h in extra if h[0] not in own)]
            await send(message)

        try:
            async with asyncio.timeout(self._seconds):
                app = self.app if self._may(scope) else _no_token
                await app(scope, receive_on, send_on)
        except TimeoutError:
            if status:  # an answer cut short must not look whole
                raise
            text = f"took longer than {self._seconds:g} s: send fewer sentences at once, or try again"
            await error_response(503, text, {"retry-after": "5"})(scope, receive, send_on)
        finally:
            self._held.bytes -= size
            self._note(scope, status, perf_counter() - began)

    def _may(self, scope: Scope) -> bool:
        if not self._tokens or not scope["path"].startswith(("/v1/", "/metrics")):
            return True
        scheme, _, token = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        given = _digest(token.strip())
        same = [hmac.compare_digest(given, own) for own in self._tokens]  # all of them, for equal time
        return scheme.lower() == b"bearer" and any(same)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(
            scope.get("route"), "path", "other"
        )  # never the path itself, which anybody may invent
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if status >= 400:
            self._metrics.rejected.labels(status).inc()
        fields = {"method": scope["method"], "path": route, "status": status, "ms": round(seconds * 1000, 1)}
        log.info("request", extra={"fields": fields})


async def _no_token(scope: Scope, receive: Receive, send: Send) -> None:
    text = "a token is needed: send the header 'Authorization: Bearer …'"
    await error_response(401, text, {"www-authenticate": "Bearer"})(scope, receive, send)


def _on_the_wire(token: str) -> Iterator[bytes]:
    """The bytes that a client sends for a token: UTF-8 from most, Latin-1 from some where it can be."""
    yield token.encode("utf-8", "surrogateescape")
    with suppress(UnicodeEncodeError):
        yield token.encode("latin-1")


def _digest(token: bytes) -> bytes:
    """Equal length for every token, so that comparing tells nothing about it."""
    return hashlib.sha256(token).digest()


def error_response(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """What is wrong and what to do, in one line."""
    return JSONResponse({"error": text}, status, headers)
