"""The service: one record a sentence whatever comes in, limits told in one line, a page that runs no text."""

import concurrent.futures
import http.client
import json
import logging
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from communique.model.classifier import StanceClassifier
from communique.model.service import PAGES, create_app
from communique.model.settings import Settings

TOOLS = runpy.run_path(str(Path(__file__).with_name("service_tools.py")))
TEXT, client_for, start = (TOOLS[name] for name in ("TEXT", "client_for", "start"))
FIELDS = [
    "doc_id",
    "sent_id",
    "start",
    "end",
    "text",
    "label",
    "p_position",
    "p_demand",
    "p_concession",
    "p_agreement",
    "p_none",
    "truncated",
    "model_version",
]


@pytest.fixture(scope="module")
def client(toy_model):
    with client_for(toy_model) as client:
        yield client


def test_labels_are_chosen_by_the_models_weights(client, weighing_model):
    assert [r["label"] for r in records(client, text="It lifts condemns.")] == ["position"]
    with client_for(weighing_model) as weighing:
        found = records(weighing, text="It lifts condemns.")[0]
        assert found["label"] == "concession" and found["p_concession"] == found["p_position"]
        assert weighing.get("/v1/model").json()["calibration"]["label_weights"] == [1, 1, 2, 1, 1]


def records(client, **body):
    answer = client.post("/v1/label", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["records"]


def test_the_records_are_those_of_python(client, toy_model):
    expected = StanceClassifier.load(toy_model).records(TEXT, doc_id="text")
    assert records(client, text=TEXT) == expected
    assert list(expected[0]) == FIELDS
    assert [r["label"] for r in expected] == ["demand", "concession", "agreement"]


def test_offsets_count_characters_beyond_the_basic_plane(client):
    text = "🕊️ Peace. Ardenia urges Belmar to stop."
    for r in records(client, text=text):
        assert text[r["start"] : r["end"]] == r["text"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64, 65, 200])
def test_one_record_a_sentence_in_order(client, count):
    words = ["condemns", "urges", "lifts", "agreed"]
    given = [f"{i} {words[i % 4]}" for i in range(count)]
    found = records(client, sentences=given)
    assert [r["text"] for r in found] == given
    labels = ["position", "demand", "concession", "agreement"]
    assert [r["label"] for r in found] == [labels[i % 4] for i in range(count)]


def test_duplicates_empty_and_very_long_sentences_keep_their_place(client):
    long = "urges " * 5000
    found = records(client, sentences=["urges", "urges", "", "urges", {"text": long}, "\x00", "👍"])
    assert len(found) == 7
    assert [r["truncated"] for r in found] == [False] * 4 + [True, False, False]
    assert found[0] == found[1] == found[3]
    assert records(client, text="") == records(client, text=" \n ") == records(client, documents=[]) == []


def test_documents_carry_their_metadata_and_sentences_their_fields(client):
    document = {"id": "a", "text": TEXT, "issuer": "Ardenia", "label": "mine", "nested": {"x": [1, None]}}
    document["input_label"] = "older"
    found = records(client, documents=[document, {"id": "b", "text": "They met."}])
    assert [(r["doc_id"], r["sent_id"]) for r in found] == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert found[0]["issuer"] == "Ardenia" and found[0]["nested"] == {"x": [1, None]}
    assert (found[0]["label"], found[0]["input_label"]) == ("demand", "older")
    assert found[0]["input_input_label"] == "mine"
    (row,) = records(client, sentences=[{"text": "urges", "before": "x", "row": 7}])
    assert (row["row"], row["before"], row["label"]) == (7, "x", "demand")


def test_threshold_and_forced_stance(client):
    assert (
        records(client, text="It urges them now to go there at once today.", threshold=1)[0]["label"]
        == "none"
    )
    assert records(client, sentences=["met"])[0]["label"] == "none"
    assert records(client, sentences=["met"], abstain=False)[0]["label"] != "none"


BAD = [
    (b"", "body: not JSON"),
    (b"{", "body: not JSON"),
    (b"[]", "body"),
    (b"{}", "exactly one of text, documents, sentences (found none)"),
    (b'{"text": "a", "sentences": []}', "found sentences, text"),
    (b'{"text": 5}', "body.text: should be a valid string, found '5'"),
    (b'{"text": null}', "body.text: should be a valid string"),
    (b'{"txt": "a"}', "body.txt: extra inputs"),
    (b'{"a\\nb": "a"}', "body.'a\\nb': extra inputs"),
    (b'{"' + b"k" * 5_000 + b'": "a"}', "body.kkk"),
    (b'{"documents": [{"text": "a"}]}', "body.documents[0].id: field required"),
    (b'{"documents": [{"id": 3, "text": "a"}]}', "body.documents[0].id"),
    (b'{"sentences": ["a", 5]}', "body.sentences[1]"),
    (b'{"sentences": ["a", {"text": "b", "before": 1}]}', "body.sentences[1].before"),
    (b'{"text": "a", "threshold": 2}', "body.threshold"),
    (b'{"text": "a", "abstain": "no"}', "body.abstain"),
    (b'{"text": "\\ud800"}', "body: not JSON"),
    (b'{"text": "\xff"}', "body: not JSON"),
    (b'{"text": NaN}', "body: not JSON"),
    (b'{"x": ' + b"[" * 10_000, "body: not JSON"),
    (b'{"x": ' + b"9" * 10_000 + b"}", "body: not JSON"),
]


@pytest.mark.parametrize("body, told", BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_body_gets_one_line_that_says_where(client, body, told):
    answer = client.post("/v1/label", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert told in error and "\n" not in error and len(error) < 200


def test_odd_text_never_breaks_the_service(client):
    odd = [
        "\u202eurges",
        "a" * 300_000,
        "\x00\x01",
        "．．．",
        "e\u0301" * 900,
        "👍",
        "\r\n\r\n",
        "\u2029",
        ".",
    ]
    for text in odd:
        for r in records(client, text=text):
            assert text[r["start"] : r["end"]] == r["text"]


def test_limits_are_told(toy_model):
    with client_for(toy_model, max_body_bytes=300, max_sentences=3) as client:
        too_many = client.post("/v1/label", json={"sentences": ["a"] * 4})
        too_long = client.post("/v1/label", json={"text": "a" * 400})
        head = {"content-type": "application/json"}
        parts = client.post("/v1/label", content=iter([b" " * 200] * 3), headers=head)
        assert [a.status_code for a in (too_many, too_long, parts)] == [413] * 3
        assert "4 sentences in one request: send at most 3" in too_many.text
        assert client.post("/v1/label", content=b"{}").status_code == 415
    assert client.get("/nowhere").json() == {"error": "no such page: see /docs"}
    assert client.get("/v1/label").status_code == 405


def test_a_full_queue_refuses_and_recovers_and_concurrent_requests_share_turns(toy_model):
    with client_for(toy_model, max_queued=12) as client:
        service = client.app.app.state.service
        score, go, turns = service.classifier.probabilities, threading.Event(), []

        def slow(inputs):
            turns.append(len(inputs))
            go.wait(10)
            return score(inputs)

        service.classifier.probabilities = slow
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(records, client, sentences=[f"{i} urges", "met"]) for i in range(6)]
            while service.batcher.held < 12:
                time.sleep(0.01)
            full = client.post("/v1/label", json={"sentences": ["a"]})
            streamed = client.post(
                "/v1/label", json={"sentences": ["a"]}, headers={"accept": "application/x-ndjson"}
            )
            go.set()
            answers = [job.result(10) for job in jobs]
        assert full.status_code == streamed.status_code == 429
        assert int(full.headers["retry-after"]) >= 1 and "busy" in full.json()["error"]
        assert [[r["text"] for r in a] for a in answers] == [[f"{i} urges", "met"] for i in range(6)]
        assert len(turns) == 2 and sum(turns) == 12  # one went at once, the other five together
        assert service.batcher.held == 0 and len(records(client, sentences=["a"])) == 1


def test_the_time_limit_ends_a_request(toy_model):
    with client_for(toy_model, max_seconds=0.2) as client:
        service = client.app.app.state.service
        score, go = service.classifier.probabilities, threading.Event()
        service.classifier.probabilities = lambda inputs: (go.wait(10), score(inputs))[1]
        answer = client.post("/v1/label", json={"text": TEXT})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "took longer than 0.2 s" in answer.json()["error"]
        go.set()
        assert service.batcher.held == 0


def test_a_failing_model_is_not_ready_and_says_nothing_of_the_text(toy_model, monkeypatch):
    monkeypatch.setattr("communique.model.service.READY_SECONDS", 0.0)
    with client_for(toy_model) as client:
        assert client.get("/readyz").json()["status"] == "ready"
        service = client.app.app.state.service
        score = service.classifier.probabilities

        def broken(inputs):
            raise RuntimeError("injected")

        service.classifier.probabilities = broken
        failed = client.post("/v1/label", json={"text": "A secret sentence."})
        assert failed.status_code == 500 and "secret" not in failed.text
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        service.classifier.probabilities = score
        assert client.get("/readyz").status_code == 200


def test_the_token(toy_model, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("s3cret-ü\n", encoding="utf-8")
    with client_for(toy_model, token_file=str(file)) as client:
        for head in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            for path in ("/v1/model", "/metrics"):
                answer = client.get(path, headers=head)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/v1/label", json={"text": TEXT}).status_code == 401
        for kind in ("utf-8", "latin-1"):  # as curl and as Python's own client send it
            for scheme in ("Bearer ", "bearer  "):
                good = {"authorization": f"{scheme}s3cret-ü".encode(kind)}
                assert client.get("/v1/model", headers=good).status_code == 200
                assert client.post("/v1/label", json={"text": TEXT}, headers=good).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/docs"):
            assert client.get(path).status_code == 200
    file.write_text("пароль1", encoding="utf-8")
    with client_for(toy_model, token_file=str(file)) as client:
        for token, status in (("пароль1", 200), ("1", 401), ("", 401), ("??????1", 401)):
            head = {"authorization": f"Bearer {token}".encode()}
            assert client.get("/v1/model", headers=head).status_code == status, token
    monkeypatch.setenv("COMMUNIQUE_TOKEN", "from-environment\n")
    with client_for(toy_model) as client:
        good = client.get("/v1/model", headers={"authorization": "Bearer from-environment"})
        assert good.status_code == 200
    monkeypatch.setenv("COMMUNIQUE_TOKEN", " \n")
    with pytest.raises(Exception, match="COMMUNIQUE_TOKEN: holds no token"):
        create_app(Settings(model=str(toy_model)))
    file.write_text(" \n")
    with pytest.raises(Exception, match="holds no token"):
        create_app(Settings(model=str(toy_model), token_file=str(file)))
    with pytest.raises(Exception, match="cannot be read"):
        create_app(Settings(model=str(toy_model), token_file=str(tmp_path / "none")))


def test_origins_by_name_only(client, toy_model):
    asks = {
        "origin": "https://desk.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    assert "access-control-allow-origin" not in client.options("/v1/label", headers=asks).headers
    with client_for(toy_model, cors=("https://desk.example",)) as named:
        allowed = named.options("/v1/label", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == "https://desk.example"
        body = named.post("/v1/label", json={"text": TEXT}, headers={"origin": "https://desk.example"})
        assert body.headers["access-control-allow-origin"] == "https://desk.example"
        other = named.options("/v1/label", headers={**asks, "origin": "https://else.example"})
        assert "access-control-allow-origin" not in other.headers
    for wrong in ("*", "desk.example", "https://desk.example/path"):
        with pytest.raises(Exception, match="name an origin such as"):
            Settings(cors=(wrong,))


def test_a_file_over_http(client, monkeypatch):
    head = {"content-type": "application/pdf"}
    good = client.post("/v1/extract", content=TOOLS["pdf"](["Ardenia urges calm."]), headers=head)
    assert good.json() == {"text": "Ardenia urges calm."}
    bad = client.post("/v1/extract", content=b"rubbish", headers=head)
    assert (bad.status_code, bad.json()["error"]) == (422, "pdf: cannot be read: save it again, or as text")
    assert client.post("/v1/extract", json={}).status_code == 415
    assert client.post("/v1/extract", content=b"x" * 10_000_001, headers=head).status_code == 413


def test_ndjson_has_the_same_records(client):
    given = [f"{i} urges" for i in range(150)]
    answer = client.post("/v1/label", json={"sentences": given}, headers={"accept": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == records(client, sentences=given)


def test_headers_pages_and_nothing_from_elsewhere(client):
    paths = ["/", "/compare", "/docs", *(f"/page/{p.name}" for p in PAGES.glob("*.[jc]s*"))]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert not re.search(
            r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", answer.text
        )
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=\"|style=\"", answer.text)
        for source in re.findall(r'(?:src|href)="(/[^"]*)"', answer.text):
            assert client.get(source).status_code == 200, source
    assert client.get("/page/../../cli.py").status_code == 404
    assert client.get("/page/..%2f..%2fcli.py").status_code == 404


def test_model_metrics_and_openapi(client):
    model = client.get("/v1/model").json()
    assert [x["label"] for x in model["labels"]] == ["position", "demand", "concession", "agreement", "none"]
    even = [1.0] * 5
    assert model["calibration"] == {"temperature": 1.0, "threshold": 0.3, "label_weights": even}
    assert "toy" in model["card"]
    client.get("/some/invented/path")
    numbers = client.get("/metrics").text
    assert 'communique_requests_total{path="/v1/model",status="200"}' in numbers
    assert "invented" not in numbers and "communique_queued_sentences 0.0" in numbers
    for name in ("request_seconds_bucket", "batch_sentences_bucket", "sentences_total", "rejected_total"):
        assert f"communique_{name}" in numbers
    api = client.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(api)))
    assert references <= set(schemas) and "LabelRequest" in references
    for name in references:
        for field, about in schemas[name].get("properties", {}).items():
            assert about.get("description"), f"{name}.{field} is not described"
    for example in schemas["LabelRequest"]["examples"]:
        assert records(client, **example)


def test_the_log_tells_the_request_and_not_the_text(client, caplog):
    from communique.serve import JsonLines

    with caplog.at_level(logging.INFO, logger="communique.serve"):
        client.post(
            "/v1/label", json={"text": "A secret sentence."}, headers={"authorization": "Bearer hush"}
        )
    line = JsonLines().format(caplog.records[-1])
    told = json.loads(line)
    assert (told["path"], told["status"], told["method"]) == ("/v1/label", 200, "POST")
    assert "secret" not in line and "hush" not in line


def test_importing_the_command_needs_no_server_packages():
    code = (
        "import sys, communique.serve; print(sorted({'fastapi', 'uvicorn', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_mounts():
    import typer
    from typer.testing import CliRunner

    from communique.serve import run

    app = typer.Typer()
    app.command("serve")(run)
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert told.exit_code == 0
    assert all(f"--{name}" in told.output for name in ("host", "port", "workers", "token-file", "model"))


def test_the_command_tells_a_bad_model_in_one_line(tmp_path):
    from communique.model.artifact import ArtifactError
    from communique.serve import run

    with pytest.raises(ArtifactError, match="no such model folder"):
        run(model=tmp_path / "none")


SLOW = """
import time
from communique.model.classifier import StanceClassifier
fast = StanceClassifier.probabilities
def slow(self, inputs):
    time.sleep(1.0)
    return fast(self, inputs)
StanceClassifier.probabilities = slow
"""


def test_sigterm_answers_what_was_accepted(toy_model):
    process, port = start(toy_model, SLOW)

    def ask(number):
        body = json.dumps({"sentences": [f"{number} urges"]}).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/label", body, head)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["records"][0]["text"]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(ask, number) for number in range(6)]
        time.sleep(0.5)  # all have been accepted, none answered
        assert not any(job.done() for job in jobs)
        process.send_signal(signal.SIGTERM)
        assert [job.result() for job in jobs] == [f"{n} urges" for n in range(6)]
    _, log = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
    lines = [json.loads(line) for line in log.splitlines()]  # every line of the log is JSON
    assert sum(line.get("path") == "/v1/label" for line in lines) == 6


def label_over(connection, text):
    body = json.dumps({"sentences": [text]})
    connection.request("POST", "/v1/label", body, {"content-type": "application/json"})
    return json.load(connection.getresponse())["records"][0]["text"]


@pytest.mark.slow
def test_two_workers_share_their_numbers_and_a_broken_connection_is_no_error(toy_model):
    process, port = start(toy_model, workers=2)
    try:
        for n in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            assert label_over(connection, f"{n} urges") == f"{n} urges"
            connection.close()
        began = time.perf_counter()
        for n in range(
            20
        ):  # one connection: an answer must not wait for the client's delayed acknowledgement
            label_over(connection, f"{n} urges")
        assert time.perf_counter() - began < 20 * 0.03
        connection.request("GET", "/metrics")
        numbers = connection.getresponse().read().decode()
        assert "communique_sentences_total 40.0" in numbers
        connection.close()
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            half.sendall(b"Content-Length: 50\r\n\r\n{")
        time.sleep(0.3)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert "Traceback" not in log
