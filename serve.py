"""The service that stays up, and its page.

communique serve                                  # http://127.0.0.1:8000 is the page; /docs, the API
curl --json '{"text": "We urge Belmar to free the crew."}' http://127.0.0.1:8000/v1/label

Endpoints and pages are in `communique.model.service`, what is around every request in
`communique.model.guard`, the queue in `communique.model.batching`; this starts and stops them. On
SIGTERM no new connection is taken, every accepted request is answered, and the process ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from communique.model.errors import InputError
from communique.model.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

_SETTINGS = "COMMUNIQUE_SERVE_SETTINGS"
"""Environment variable that carries the settings to worker processes."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def run(
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless named.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with its own model.")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Ask for the bearer token in this file (or set COMMUNIQUE_TOKEN)."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder; the model that ships if not given.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads a worker; the cores shared out if not given.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="What runs the model: auto, onnxruntime or openvino.")
    ] = "auto",
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of a request, in seconds.")] = 60.0,
    max_sentences: Annotated[int, typer.Option(min=1, help="Most sentences in a request.")] = 5_000,
    max_queued: Annotated[int, typer.Option(min=1, help="Most sentences waiting; then 429.")] = 10_000,
    max_wait: Annotated[
        float, typer.Option(min=0.1, help="Longest wait for a turn, in seconds; then 429.")
    ] = 2.0,
    cors: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may ask; none unless named.")
    ] = None,
) -> None:
    """Serve the page and the HTTP API until stopped."""
    try:
        import uvicorn

        import communique.model.service  # noqa: F401  fails here rather than in a worker
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: pip install 'communique[serve]'") from None
    from communique.model.artifact import load_artifact
    from communique.model.backends import choose
    from communique.model.engine import available_cores

    settings = Settings(
        model=None if model is None else str(model),
        threads=threads or max(1, available_cores() // workers),
        token_file=None if token_file is None else str(token_file),
        backend=backend,
        max_seconds=max_seconds,
        max_sentences=max_sentences,
        max_queued=max_queued,
        max_wait=max_wait,
        cors=tuple(cors or ()),
    )
    # What is wrong with model or token is told here, in one line, not by every worker.
    load_artifact(None if model is None else Path(model))
    choose(backend)
    token = settings.token()
    os.environ[_SETTINGS] = json.dumps(dataclasses.asdict(settings))
    config = uvicorn.Config(
        "communique.serve:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        server_header=False,
        log_config=LOGGING,
        timeout_graceful_shutdown=round(max_seconds) + 5,
    )
    if token is None and host not in _LOOPBACK:
        logging.getLogger("communique.serve").warning("%s is not loopback and no token is asked for", host)
    with config.bind_socket() as listening:
        # Inherited by every connection; otherwise a keep-alive client waits 40 ms for each answer.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if workers == 1:
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it is stopped
                uvicorn.Server(config).run(sockets=[listening])
        else:
            _run_workers(config, listening)


def _run_workers(config: uvicorn.Config, listening: socket.socket) -> None:
    """Several processes on one socket; Prometheus adds up their numbers in files."""
    from uvicorn.supervisors import Multiprocess

    with tempfile.TemporaryDirectory(prefix="communique-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        Multiprocess(config, sockets=[listening]).run()


def application() -> ASGIApp:
    """The app of one worker process, from the settings that `run` left in the environment."""
    from communique.model import service

    return service.create_app(Settings(**json.loads(os.environ[_SETTINGS])))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields given."""

    def format(self, record: logging.LogRecord) -> str:
        """A log record as a line of JSON."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False}
        for name in ("uvicorn", "communique.serve")
    },
}
