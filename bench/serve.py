"""The service under load: against the obvious handler, against the bare engine, and at three times capacity.

    make bench-serve                      # about three minutes
    python bench/serve.py --seconds 10    # a shorter overload

Three processes on loopback: the service, the handler that everybody writes first (FastAPI calling a Hugging
Face pipeline for each request, same weights), and this one, which loads them. Throughput is measured in
turns of a few seconds, first one then the other, and given as the median of the turns' ratios, so that a
busy machine slows both. The overload is open: requests are sent at three times the measured capacity no
matter how long answers take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from communique.model.artifact import load_artifact
from communique.model.classifier import StanceClassifier
from communique.model.engine import available_cores
from communique.model.tokens import SentenceInput

ROOT = Path(__file__).parent.parent
CONNECTIONS = 32
TURNS = 5
TURN_SECONDS = 4.0
KEPT = 3.0
"""Seconds that an idle connection is used again; the server keeps it for five."""
FORTY = (
    "The Foreign Minister of Ardenia called on the Government of Belmar to release the eleven crew of "
    "the trawler without delay and to share the report of its inspectors with both capitals before long."
)
"""A sentence of about 40 tokens."""
HANDLER = """
import sys; sys.path.insert(0, {bench!r})
from fastapi import FastAPI
from hf_model import pipeline_of
from pydantic import BaseModel
from communique.model.artifact import load_artifact
import torch, uvicorn
torch.set_num_threads({threads})
pipe, app = pipeline_of(load_artifact()), FastAPI()
class Body(BaseModel):
    text: str
@app.get("/healthz")
def up(): return {{}}
@app.post("/v1/label")
def label(body: Body): return pipe(body.text)[0]
uvicorn.run(app, port={port}, log_level="warning")
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(command: list[str], port: int) -> Iterator[psutil.Process]:
    """A server process, up on its port and answering."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
                break
            if process.poll() is not None:
                raise SystemExit(f"{command[:4]} ended with {process.returncode}")
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def own_sentences() -> list[str]:
    """Sentences of the project's own statements."""
    lines = (ROOT / "data/annotations/own_documents.jsonl").read_text(encoding="utf-8").splitlines()
    classifier = StanceClassifier.load(threads=1)
    return [p.text for line in lines[:20] for p in classifier.label(json.loads(line)["text"])]


class Connection:
    """A kept-open HTTP connection: the least a client can do, so that it takes little of the machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self.used = time.perf_counter()

    async def post(self, body: bytes) -> int:
        """Send a body to label; the answer's status."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = "POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        await self._reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        self.used = time.perf_counter()
        return int(answer.split()[1])

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()


async def throughput(
    port: int, bodies: list[bytes], seconds: float, process: psutil.Process
) -> tuple[float, float]:
    """Requests a second over 32 connections, each sending its next when it has its answer; the server's
    processor milliseconds a request."""
    before = sum(process.cpu_times()[:2])
    done, end = 0, time.perf_counter() + seconds

    async def one(number: int) -> None:
        nonlocal done
        connection = Connection(port)
        while time.perf_counter() < end:
            assert await connection.post(bodies[(number + done) % len(bodies)]) == 200
            done += 1
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(CONNECTIONS)))
    rate = done / (time.perf_counter() - began)
    return rate, 1000 * (sum(process.cpu_times()[:2]) - before) / done


async def single(port: int, body: bytes, rounds: int, bare: StanceClassifier) -> list[tuple[float, float]]:
    """Milliseconds of a request to an idle server and of the bare call, in turns."""
    connection, taken = Connection(port), []
    inputs = [SentenceInput(FORTY)]
    for _ in range(rounds):
        start = time.perf_counter()
        await connection.post(body)
        middle = time.perf_counter()
        bare.probabilities(inputs)
        taken.append((1000 * (middle - start), 1000 * (time.perf_counter() - middle)))
    connection.close()
    return taken[rounds // 10 :]


async def overload(
    port: int, bodies: list[bytes], rate: float, seconds: float, process: psutil.Process
) -> tuple[Counter[str], list[float], list[int]]:
    """Requests at a fixed rate, whatever comes back: statuses, seconds of the accepted, memory."""
    statuses: Counter[str] = Counter()
    taken: list[float] = []
    memory: list[int] = []
    idle: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(body: bytes) -> None:
        while idle and time.perf_counter() - idle[-1].used > KEPT:  # the server is about to hang up
            idle.pop().close()
        connection = idle.pop() if idle else Connection(port)
        start = time.perf_counter()
        try:
            status = await connection.post(body)
        except (OSError, asyncio.IncompleteReadError):
            statuses["broken"] += 1
            return
        statuses[str(status)] += 1
        if status == 200:
            taken.append(time.perf_counter() - start)
        idle.append(connection)

    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        while sent < now * rate:
            task = asyncio.create_task(one(bodies[sent % len(bodies)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        if len(memory) < now:  # once a second
            memory.append(process.memory_info().rss)
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    statuses["sent"] = sent
    return statuses, taken, memory


def engine_of(port: int) -> str:
    """What runs the model of a server, e.g. `onnxruntime-fp32`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model", timeout=30) as answer:
        return str(json.load(answer)["engine"])


async def measure(
    ours: int,
    theirs: int,
    process: psutil.Process,
    handler: psutil.Process,
    seconds: float,
    wait: float,
    backend: str,
) -> Table:
    """All measurements, as a table."""
    sentences = own_sentences()
    mine = [json.dumps({"sentences": [s]}).encode() for s in sentences]
    plain = [json.dumps({"text": s}).encode() for s in sentences]
    pairs = []
    for turn in range(TURNS + 1):
        seconds_a_turn = TURN_SECONDS if turn else 1.0
        a = await throughput(ours, mine, seconds_a_turn, process)
        b = await throughput(theirs, plain, seconds_a_turn, handler)
        pairs.append((*a, *b))
    pairs = pairs[1:]  # the first warmed them
    capacity = statistics.median(p[0] for p in pairs)
    table = Table(title=f"serve: {load_artifact().version}, {available_cores()} cores")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row(f"requests/s, {CONNECTIONS} connections: communique serve", f"{capacity:,.0f}")
    other = statistics.median(p[2] for p in pairs)
    table.add_row("requests/s: FastAPI and a pipeline a request", f"{other:,.0f}")
    table.add_row("ratio (median of turns; target 5)", f"{statistics.median(p[0] / p[2] for p in pairs):.1f}")
    used = statistics.median(p[1] for p in pairs), statistics.median(p[3] for p in pairs)
    table.add_row("processor ms a request, communique serve", f"{used[0]:.1f}")
    table.add_row("processor ms a request, a pipeline a request", f"{used[1]:.1f}")

    bare = StanceClassifier.load(threads=available_cores(), backend=backend)
    engine = engine_of(ours)
    if bare.engine != engine:
        raise SystemExit(f"the server runs {engine}, the bare call {bare.engine}: nothing to compare")
    forty = json.dumps({"sentences": [FORTY]}).encode()
    taken = await single(ours, forty, 300, bare)
    request, call = (statistics.median(x) for x in zip(*taken, strict=True))
    table.add_row(f"ms, one 40-token sentence, idle server ({engine}), p50", f"{request:.1f}")
    table.add_row(f"ms, the bare call ({bare.engine}), p50", f"{call:.1f}")
    table.add_row("ratio (target 2)", f"{request / call:.2f}")

    statuses, accepted, memory = await overload(ours, mine, 3 * capacity, seconds, process)
    accepted.sort()
    settled = memory[len(memory) // 4 :]
    table.add_row(f"overload: sent in {seconds:.0f} s at {3 * capacity:,.0f}/s", f"{statuses.pop('sent'):,}")
    for status, count in sorted(statuses.items()):
        table.add_row(f"answered {status}", f"{count:,}")
    table.add_row("s, accepted, p50", f"{accepted[len(accepted) // 2]:.2f}")
    table.add_row(f"s, accepted, longest (they may wait {wait:g} s for a turn)", f"{accepted[-1]:.2f}")
    table.add_row("MB, after a quarter of the time", f"{settled[0] / 1e6:,.0f}")
    table.add_row("MB, at the end", f"{settled[-1] / 1e6:,.0f}")
    await asyncio.sleep(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{ours}/readyz", timeout=30) as answer:
        table.add_row("ready afterwards", str(answer.status == 200))
    return table


def main() -> None:
    """Start both servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="length of the overload")
    parser.add_argument("--wait", type=float, default=2, help="what --max-wait of the service is set to")
    parser.add_argument("--backend", default="auto", help="what runs the model, in the server and bare")
    given = parser.parse_args()
    ours, theirs = free_port(), free_port()
    os.environ.pop("COMMUNIQUE_TOKEN", None)
    serve = [
        sys.executable,
        "-m",
        "communique.cli",
        "serve",
        "--port",
        str(ours),
        "--max-wait",
        str(given.wait),
        "--backend",
        given.backend,
    ]
    code = HANDLER.format(bench=str(ROOT / "bench"), threads=available_cores(), port=theirs)
    with server(serve, ours) as process, server([sys.executable, "-c", code], theirs) as handler:
        table = asyncio.run(measure(ours, theirs, process, handler, given.seconds, given.wait, given.backend))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
