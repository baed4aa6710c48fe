"""What one request may take of the service (bytes, sentences, room in the queue) and must leave to others."""

import asyncio
import contextlib
import json
import runpy
import signal
import socket
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from communique.model import extraction, requests
from communique.model.artifact import load_artifact
from communique.model.batching import Batcher
from communique.model.classifier import StanceClassifier
from communique.model.service import create_app
from communique.model.settings import Settings
from communique.model.tokens import SentenceInput

TOOLS = runpy.run_path(str(Path(__file__).with_name("service_tools.py")))
client_for, pdf = TOOLS["client_for"], TOOLS["pdf"]
MOST = {"most_sentences": 5_000, "most_carried": 20_000_000}


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("field", ["note", "id"])
def test_what_every_record_repeats_is_bounded(toy_model, field):
    document = {"id": "a", "text": "It urges calm. " * 300, field: "x" * 10_000}
    with client_for(toy_model) as client:
        one = client.post("/v1/label", json={"documents": [document]})  # 3 MB of records
        eight = client.post("/v1/label", json={"documents": [document] * 8})  # 24 MB
        assert one.status_code == 200 and len(one.json()["records"]) == 300
        assert eight.status_code == 413
        told = eight.json()["error"]
        assert "bytes in each of 300 records" in told and "\n" not in told
    with client_for(toy_model, max_carried_bytes=2_000_000) as client:
        assert client.post("/v1/label", json={"documents": [document]}).status_code == 413


def test_a_piece_carries_little_and_no_sentence_is_lost(toy_model):
    documents = [
        {"id": "a", "text": "It urges calm. " * 90, "note": "x" * 200_000},
        {"id": "b", "text": "They met. " * 200},
    ]
    work = requests.prepare(body(documents=documents), **MOST)
    pieces = list(requests.pieces(work, 64))
    assert [i for p in pieces for i in range(p.start, p.stop)] == list(range(290))
    assert all(p.stop - p.start <= 64 for p in pieces)
    for piece in pieces:
        scores = np.full((piece.stop - piece.start, 5), 0.2), [False] * (piece.stop - piece.start)
        found = list(
            requests.records(work, piece, scores, config=load_artifact(toy_model).config, version="1")
        )
        assert len(json.dumps(found)) < requests.PIECE_BYTES + 64 * 500
    alone = requests.prepare(
        body(documents=[{"id": "c", "text": "It urges. They met.", "note": "x" * 1_500_000}]), **MOST
    )
    assert list(requests.pieces(alone, 64)) == [slice(0, 1), slice(1, 2)]


@pytest.mark.parametrize(
    "given",
    [
        b'{"sentences": [' + b'"",' * 30_000 + b'""]}',
        b'{"documents": [' + b'{"id":"","text":""},' * 5_000 + b"{}]}",
    ],
    ids=["sentences", "documents"],
)
def test_too_many_are_refused_before_anything_is_made_of_them(given):
    def peak(most_sentences):
        tracemalloc.start()
        try:
            requests.prepare(given, most_sentences=most_sentences, most_carried=1_000_000)
        except requests.InputError as error:
            return tracemalloc.get_traced_memory()[1], error
        finally:
            tracemalloc.stop()

    cost, error = peak(5_000)
    assert isinstance(error, requests.TooLargeError) and "in one request: send at most 5,000" in str(error)
    assert cost < 3_000_000  # the parsed JSON


def test_a_text_with_too_many_sentences_is_not_cut_up(monkeypatch):
    monkeypatch.setattr(requests, "in_context", None)  # would fail if it came to that
    with pytest.raises(requests.TooLargeError, match="6,000 sentences in one request"):
        requests.prepare(body(text="They met. " * 6_000), **MOST)


def test_what_no_model_reads_is_not_encoded(toy_model):
    long = "It urges them all to go. " * 3_000
    work = requests.prepare(body(sentences=[{"text": long, "before": "a" + long, "after": long}]), **MOST)
    (kept,) = work.inputs
    assert {len(kept.text), len(kept.before), len(kept.after)} == {requests.MOST_CHARACTERS}
    assert long.startswith(kept.text) and long.endswith(kept.before) and long.startswith(kept.after)
    blank = {"text": " " * requests.MOST_CHARACTERS + "urges"}
    with client_for(toy_model) as client:
        found = client.post("/v1/label", json={"sentences": [long, blank, "urges"]}).json()["records"]
    (whole,) = StanceClassifier.load(toy_model).label_sentences([long])
    assert [found[0][f"p_{n}"] for n in ("demand", "none")] == [whole.probabilities[i] for i in (1, 4)]
    assert [r["text"] for r in found] == [long, blank["text"], "urges"]
    assert [r["truncated"] for r in found] == [True, True, False]  # cut by the model, by the service, not


def test_a_turn_counts_the_neighbours_that_the_model_reads():
    turns = []

    def score(inputs):
        turns.append(len(inputs))
        time.sleep(0.05)
        return np.zeros((len(inputs), 5)), [False] * len(inputs)

    async def all_of(reads):
        turns.clear()
        neighbour = SentenceInput("urges", "before " * 100, "after " * 100)
        async with Batcher(score, budget=200, reads=reads) as batcher:
            await asyncio.gather(*(batcher.score([neighbour]) for _ in range(9)))
        return list(turns)

    assert asyncio.run(all_of((128, 0, 0))) == [9]
    assert asyncio.run(all_of((128, 32, 0))) == [5, 4]  # 35 tokens each
    assert asyncio.run(all_of((128, 32, 32))) == [2, 2, 2, 2, 1]


@contextlib.asynccontextmanager
async def running(toy_model, **settings):
    """The app and its service, on the test's own loop."""
    guard = create_app(Settings(model=str(toy_model), threads=1, **settings))
    async with guard.app.router.lifespan_context(guard.app):
        yield guard, guard.app.state.service


class Client:
    """A request straight into the app; it sends its body and reads its answer only as far as it is let."""

    def __init__(self, app, sent, path="/v1/label", kind="application/json", accept="*/*"):
        self.status, self.data = 0, b""
        self.sends, self.reads = asyncio.Event(), asyncio.Event()
        self._sent, self._begun = sent, False
        head = {"content-type": kind, "accept": accept}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in head.items()],
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self):
        if not self._begun:  # a first byte comes at once
            self._begun = True
            return {"type": "http.request", "body": self._sent[:1], "more_body": True}
        await self.sends.wait()
        rest, self._sent = self._sent[1:], b""
        return {"type": "http.request", "body": rest} if rest else await asyncio.Future()

    async def _send(self, message):
        self.status = message.get("status", self.status)
        self.data += message.get("body", b"")
        if self.data:
            await self.reads.wait()

    async def whole(self):
        """Send and read all."""
        self.sends.set()
        self.reads.set()
        await asyncio.wait_for(self.task, 30)
        return self.status


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_slow_readers_of_lines_hold_no_room_in_the_queue(toy_model):
    given = [f"{i} urges" for i in range(300)]

    async def scenario():
        async with running(toy_model, max_queued=300) as (app, service):
            slow = []
            for _ in range(2):
                slow.append(Client(app, body(sentences=given), accept="application/x-ndjson"))
                slow[-1].sends.set()
                await until(lambda: slow[-1].data and service.batcher.held == 0)
            assert not any(reader.task.done() for reader in slow)
            assert await Client(app, body(sentences=["urges"])).whole() == 200
            assert await slow[0].whole() == 200
            lines = [json.loads(line)["text"] for line in slow[0].data.splitlines()]
            slow[1].task.cancel()
            await asyncio.wait([slow[1].task])
            assert service.batcher.held == app._held.bytes == 0
            return lines

    assert asyncio.run(scenario()) == given


@pytest.mark.slow
def test_a_long_answer_that_nobody_reads_meets_the_time_limit(toy_model):
    """Whole it would lie in the server's buffer, its request long counted as answered."""
    # 15 MB of answer, more than the sockets of both sides hold.
    sent = body(documents=[{"id": "a", "text": "It urges calm. " * 150, "note": "x" * 100_000}])
    head = (
        f"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
    )
    process, port = TOOLS["start"](toy_model, max_seconds=4.0)
    try:
        with socket.socket() as unread, socket.create_connection(("127.0.0.1", port)) as read:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread.connect(("127.0.0.1", port))
            read.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + sent)
            answer = b"".join(iter(lambda: read.recv(1_000_000), b""))
            assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["records"]) == 150
            unread.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + sent)
            time.sleep(5)
            cut = b""
            with contextlib.suppress(ConnectionError):
                while more := unread.recv(1_000_000):
                    cut += more
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert cut.startswith(b"HTTP/1.1 200") and len(cut) < len(answer)


def test_the_bytes_that_requests_hold_are_bounded(toy_model):
    async def scenario():
        async with running(toy_model, max_held_bytes=1_500) as (app, service):
            score, go = service.classifier.probabilities, threading.Event()
            service.classifier.probabilities = lambda inputs: (go.wait(20), score(inputs))[1]
            first = Client(app, body(sentences=["urges " * 160]))
            first.sends.set()
            await until(lambda: service.batcher.held)
            refused = Client(app, body(sentences=["urges " * 160]))
            assert await refused.whole() == 429 and b"busy" in refused.data
            go.set()
            assert await first.whole() == 200
            assert await Client(app, body(sentences=["urges " * 160])).whole() == 200
            assert app._held.bytes == 0

    asyncio.run(scenario())


def test_slow_uploads_keep_no_file_from_being_read(toy_model):
    kind = "application/pdf"
    file = pdf(["Ardenia urges calm."])

    async def scenario():
        async with running(toy_model) as (app, _):
            slow = [Client(app, file, "/v1/extract", kind) for _ in range(5)]
            await asyncio.sleep(0.1)
            quick = Client(app, file, "/v1/extract", kind)
            assert await quick.whole() == 200 and json.loads(quick.data) == {"text": "Ardenia urges calm."}
            assert await slow[0].whole() == 200
            for upload in slow[1:]:
                upload.task.cancel()
            await asyncio.wait([u.task for u in slow])

    asyncio.run(scenario())


def test_the_reader_of_files_does_not_see_the_token(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\ncat > /dev/null\nenv\n")
    script.chmod(0o755)
    monkeypatch.setenv("COMMUNIQUE_TOKEN", "hush")
    monkeypatch.setenv("SOME_PASSWORD", "hush")
    monkeypatch.setattr(extraction.sys, "executable", str(script))
    told = asyncio.run(extraction.extract(b"", "pdf"))
    assert "PATH=" in told and "hush" not in told


def test_many_who_ask_whether_it_is_ready_share_one_pass(toy_model):
    async def scenario():
        async with running(toy_model) as (_, service):
            score, go, passes = service.classifier.probabilities, threading.Event(), []

            def slow(inputs):
                passes.append(len(inputs))
                go.wait(20)
                return score(inputs)

            service.classifier.probabilities = slow
            asked = [asyncio.create_task(service.ready()) for _ in range(20)]
            await until(lambda: passes)
            asked.append(asyncio.create_task(service.ready()))
            asked.pop(0).cancel()  # it is the others' pass too
            await asyncio.sleep(0.05)
            go.set()
            answers = await asyncio.gather(*asked)
            assert [a.status_code for a in answers] == [200] * 20 and passes == [1]

    asyncio.run(scenario())
