"""The service against what no friend sends: random bodies, its schema's corners, slow and broken clients."""

import asyncio
import contextlib
import json
import os
import random
import re
import runpy
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from communique.model import extraction
from communique.model.service import create_app
from communique.model.settings import Settings

ROOT = Path(__file__).parent.parent
TOOLS = runpy.run_path(str(Path(__file__).with_name("service_tools.py")))
TEXT, client_for, start, pdf = (TOOLS[name] for name in ("TEXT", "client_for", "start", "pdf"))
BODIES = 10_000
ODD = [
    "",
    " ",
    ".",
    "👍",
    "\u202eurges\u202c",
    "العربية تدعو. بلمار ترفض؟",
    "\x00",
    "\x07\x1b[31m",
    "\ufeff",
    "e\u0301" * 50,
    "\u2028\u2029",
    "'; DROP TABLE x; --",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "urges " * 300,
    "…" * 200,
    "\U0010ffff",
    "１２．３",
    "Ardenia urges Belmar. It lifts the fees!",
]
RAW = [
    b"",
    b"null",
    b"[",
    b'{"text": "\\ud800"}',
    b'{"text": "\\udc00\\ud800"}',
    b'{"text": "\xff\xfe"}',
    b'{"text": 1e999}',
    b'{"text": "a", "threshold": 1e309}',
    b'{"text": "a", "threshold": ' + b"9" * 400 + b"}",
    b'{"text": "a", "text": 5}',
    b"[" * 20_000,
    b'{"documents": ' * 300,
    b'{"text": "a\x00b"}',
    b"\xef\xbb\xbf{}",
    b'{"sentences": [' + b"[" * 500 + b"]" * 500 + b"]}",
]


def value(dice: random.Random, depth: int = 0) -> object:
    """Any JSON value, nested at most five deep."""
    kind = dice.randrange(10 if depth < 5 else 7)
    if kind < 3:
        return "".join(dice.choices(ODD, k=dice.randrange(3)))
    if kind == 3:
        return dice.choice([0, -1, 2**63, -(2**70), 10**300, 1e-300, 0.5, True, False, None])
    if kind < 7:
        return "".join(
            chr(dice.choice([dice.randrange(0xD800), dice.randrange(0xE000, 0x110000)])) for _ in range(9)
        )
    if kind == 7:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    names = ["text", "id", "before", "after", "label", "p_none", "documents", "", "\x00", "__proto__"]
    return {dice.choice(names): value(dice, depth + 1) for _ in range(dice.randrange(4))}


def body(dice: random.Random) -> bytes:
    """Now and then a good request, mostly one that is nearly good, and some bytes that are nothing."""
    kind = dice.randrange(10)
    if kind == 0:
        return dice.choice(RAW)
    if kind == 1:
        return dice.randbytes(dice.randrange(60))
    text = "".join(dice.choices(ODD, k=3))
    good = {
        "text": text,
        "documents": [{"id": "a", "text": text, "x": value(dice)}],
        "sentences": [text, {"text": text, "before": "a"}],
    }
    name = dice.choice(list(good))
    made: dict[str, object] = {name: good[name]}
    if kind < 5:
        made[name] = value(dice)
    if kind == 5:
        made[dice.choice(["threshold", "abstain", "extra", "text"])] = value(dice)
    data = json.dumps(made, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind == 6:  # one byte off
        at = dice.randrange(len(data))
        data = data[:at] + dice.randbytes(1) + data[at + 1 :]
    return data


async def post(app, sent: bytes) -> tuple[int, dict[str, Any]]:
    """One request straight into the app, as a server would hand it on."""
    said: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/label",
        "raw_path": b"/v1/label",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    waiting = [{"type": "http.request", "body": sent, "more_body": False}]

    async def receive():
        return waiting.pop() if waiting else await asyncio.Future()

    async def send_on(message):
        said.append(message)

    await app(scope, receive, send_on)
    return said[0]["status"], json.loads(b"".join(m.get("body", b"") for m in said[1:]))


@pytest.mark.slow
def test_ten_thousand_bodies_get_an_answer_or_one_line(toy_model):
    dice = random.Random(7)
    counts: dict[int, int] = {}

    async def all_bodies():
        guard = create_app(Settings(model=str(toy_model), threads=1))
        async with guard.app.router.lifespan_context(guard.app):
            for _ in range(BODIES):
                sent = body(dice)
                status, answer = await post(guard, sent)
                counts[status] = counts.get(status, 0) + 1
                assert status in (200, 422), (status, sent)
                if status == 422:
                    error = answer["error"]
                    assert error and "\n" not in error and len(error) < 300, (error, sent)
                for record in answer.get("records", []):
                    shares = [v for k, v in record.items() if k.startswith("p_") and k != "p_none"]
                    assert len(shares) == 4 and abs(sum(shares) + record["p_none"] - 1) < 0.001, sent

    asyncio.run(all_bodies())
    print(counts)
    assert min(counts.values()) > BODIES / 5  # both kinds were met


@pytest.mark.slow
def test_very_long_strings_are_answered_or_refused(toy_model):
    with client_for(toy_model, max_body_bytes=12_000_000) as client:
        for text in ("a" * 10_000_000, "é " * 2_000_000, "\u202e" * 1_000_000):
            answer = client.post("/v1/label", json={"sentences": [text]})
            assert answer.status_code == 200 and answer.json()["records"][0]["text"] == text
    with client_for(toy_model) as client:
        assert client.post("/v1/label", json={"text": "a" * 10_000_000}).status_code == 413


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_what_the_openapi_document_allows_and_forbids_gets_a_documented_answer(toy_model, mode):
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (the dev extra)")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import load_all_checks, not_a_server_error, response_schema_conformance

    load_all_checks()

    @schemathesis.serializer(*extraction.KINDS)
    def as_bytes(context, value):
        return value if isinstance(value, bytes) else getattr(value, "data", None) or str(value).encode()

    few = settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    tried: dict[str, int] = {}
    process, port = start(toy_model)
    try:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            if mode == "NEGATIVE" and "application/json" not in [b.media_type for b in operation.body]:
                continue  # nothing that a schema could forbid

            def holds(case):
                tried[case.operation.label] = tried.get(case.operation.label, 0) + 1
                answer = case.call()
                case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])
                documented = case.operation.definition.raw["responses"]
                assert str(answer.status_code) in documented, (answer.status_code, answer.text)

            cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])
            few(given(cases)(holds))()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    print(mode, tried)
    assert mode == "NEGATIVE" or tried["POST /v1/extract"] >= 3
    assert tried["POST /v1/label"] >= 30


def send(port: int, data: bytes) -> socket.socket:
    """A raw connection that has sent something."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(data)
    return connection


HEAD = b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"


@pytest.mark.slow
def test_slow_half_closed_and_broken_clients_hold_up_nobody(toy_model):
    """Bodies that trickle are given up, others do not wait. A client that closes its half of the connection
    before it has its answer is taken to have left: the server closes too, without one."""
    process, port = start(toy_model, "from communique.model import intake; intake.BODY_SECONDS = 2.0")
    try:
        trickling = [send(port, HEAD + b"{") for _ in range(100)]
        headless = [send(port, b"POST /v1/label HTTP/1.1\r\nHo") for _ in range(100)]
        body = b'{"sentences": ["urges"]}'
        half = send(port, HEAD.replace(b"50", str(len(body)).encode()) + body)
        half.shutdown(socket.SHUT_WR)
        for broken in [send(port, HEAD + b"{") for _ in range(20)]:
            broken.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
            )  # reset, no farewell
            broken.close()
        began = time.perf_counter()
        assert label(port, "It urges calm.") == ["It urges calm."]
        assert time.perf_counter() - began < 2
        time.sleep(0.3)
        for connection in trickling:
            connection.sendall(b" ")
        assert b" 408 " in trickling[0].recv(4000)
        assert half.recv(4000) == b""
        for connection in (*trickling, *headless, half):
            connection.close()
        assert label(port, "urges") == ["urges"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert "Traceback" not in log and process.returncode in (0, -signal.SIGTERM)


def label(port: int, *sentences: str) -> list[str]:
    """Texts of the records of a request."""
    given = json.dumps({"sentences": sentences}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/label", given, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return [r["text"] for r in json.load(answer)["records"]]


def workers_of(family: psutil.Process) -> list[int]:
    """Process ids of the workers that live."""
    found = []
    for child in family.children():
        with contextlib.suppress(psutil.Error):  # gone, or not yet buried
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_others_go_on(toy_model):
    process, port = start(toy_model, workers=2)
    try:
        family = psutil.Process(process.pid)
        first = workers_of(family)
        assert len(first) == 2
        killed, kept = first
        os.kill(killed, signal.SIGKILL)
        done = failed = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                done += label(port, "urges") == ["urges"]
            except OSError:  # only what the killed worker had taken
                failed += 1
            now = workers_of(family)
            if len(now) == 2 and killed not in now and done > 50:
                break
        assert len(now) == 2 and killed not in now and kept in now
        assert done > 50 and failed <= 3
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.mark.slow
def test_three_times_too_much_is_refused_and_the_rest_is_quick(toy_model):
    """An open load over the capacity: every answer 200 or 429, the accepted within the bound, memory flat."""
    code = """
import time
from communique.model.classifier import StanceClassifier
fast = StanceClassifier.probabilities
def slow(self, inputs):
    time.sleep(0.01 * len(inputs))
    return fast(self, inputs)
StanceClassifier.probabilities = slow
"""
    process, port = start(toy_model, code, max_wait=1.0)
    statuses: dict[int, int] = {}
    taken: list[float] = []

    def one() -> None:
        given = json.dumps({"sentences": ["urges"] * 10}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/label", given, {"content-type": "application/json"}
        )
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                status = answer.status
                taken.append(time.perf_counter() - began)
        except urllib.error.HTTPError as error:
            assert int(error.headers["retry-after"]) >= 1
            status = error.code
        statuses[status] = statuses.get(status, 0) + 1

    try:
        memory = psutil.Process(process.pid).memory_info
        threads = []
        for n in range(240):  # 30 requests of 10 sentences a second; 100 sentences a second can be done
            threads.append(threading.Thread(target=one))
            threads[-1].start()
            if n == 60:
                early = memory().rss
            time.sleep(1 / 30)
        late = memory().rss
        for thread in threads:
            thread.join()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert set(statuses) == {200, 429} and sum(statuses.values()) == 240
    assert statuses[429] > 60 and statuses[200] > 40
    assert max(taken) < 1.0 + 3.0  # the wait, its own turn, and a busy machine
    assert late < early + 30_000_000


CURL = shutil.which("curl")


@pytest.mark.skipif(CURL is None, reason="needs curl on the path")
def test_the_readme_examples_run(toy_model, tmp_path):
    """Each `curl` line of the README, with its address changed to a service with the toy model."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if b.startswith("curl"))
    commands = block.replace("\\\n", " ").strip().split("\n")
    (tmp_path / "statement.json").write_text(json.dumps({"text": TEXT}))
    (tmp_path / "statement.pdf").write_bytes(pdf(["Ardenia urges calm."]))
    process, port = start(toy_model)
    try:
        told = []
        for command in commands:
            here = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(
                "curl ", "curl --fail-with-body ", 1
            )
            done = subprocess.run(
                ["bash", "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            told.append(done.stdout)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert len(told) == 7
    assert [len(json.loads(t)["records"]) for t in told[:3]] == [2, 1, 1]
    assert json.loads(told[1])["records"][0]["issuer"] == "Ardenia"
    assert [json.loads(line)["label"] for line in told[3].splitlines()] == [
        "demand",
        "concession",
        "agreement",
    ]
    assert json.loads(told[4]) == {"text": "Ardenia urges calm."}
    assert "labels" in json.loads(told[5]) and "communique_requests_total" in told[6]
