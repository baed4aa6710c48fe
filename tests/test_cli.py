"""`communique label`: the same records by every way in, and one line for what cannot be used."""

import csv
import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from communique.archive import writer
from communique.model.classifier import StanceClassifier, set_aside
from communique.model.errors import InputError

TEXT = (
    "The ministers met on 3 May. We call on Belmar to release the crew. Both sides agreed to reopen the port."
)


def run(*args, stdin=None, check=True):
    command = [sys.executable, "-m", "communique.cli", *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


def rows(output):
    return [json.loads(line) for line in output.decode().strip().split("\n")]


def test_the_same_records_by_file_stdin_python_and_rows(tmp_path):
    statement = tmp_path / "s.txt"
    statement.write_text(TEXT)
    by_file = rows(run("label", statement, "--doc-id", "s").stdout)
    by_stdin = rows(run("label", "-", "--doc-id", "s", stdin=TEXT.encode()).stdout)
    by_python = StanceClassifier.load().records(TEXT, doc_id="s")
    given = tmp_path / "rows.jsonl"
    place = ("doc_id", "sent_id", "start", "end", "text")
    texts = ["", *(r["text"] for r in by_file), ""]
    neighbours = [{"before": texts[i], "after": texts[i + 2]} for i in range(len(by_file))]
    with given.open("w") as out:
        for record, near in zip(by_file, neighbours, strict=True):
            out.write(json.dumps({k: record[k] for k in place} | near) + "\n")
    by_rows = rows(run("label", "--sentences", given).stdout)
    assert [{k: v for k, v in r.items() if k not in ("before", "after")} for r in by_rows] == by_file
    assert by_file == by_stdin == by_python
    assert len(by_file) == 3


def test_files_of_three_kinds_give_the_same_sentences(tmp_path):
    (tmp_path / "a.txt").write_text("Joint text\n\nBoth sides agreed to meet.")
    (tmp_path / "a.md").write_text("# Joint text\n\nBoth *sides* agreed to [meet](http://x.example).")
    (tmp_path / "a.html").write_text(
        "<html><body><nav>Menu</nav><article><h1>Joint text</h1><p>Both <b>sides</b> agreed to meet.</p>"
        "</article></body></html>"
    )
    for name in ("a.txt", "a.md", "a.html"):
        assert [r["text"] for r in rows(run("label", tmp_path / name).stdout)] == [
            "Joint text",
            "Both sides agreed to meet.",
        ]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_output_files_hold_the_same_records(tmp_path, ending):
    (tmp_path / "s.txt").write_text(TEXT)
    target = tmp_path / f"out.{ending}"
    run("label", tmp_path / "s.txt", "--output", target)
    if ending == "jsonl":
        found = rows(target.read_bytes())
    elif ending == "parquet":
        found = pq.read_table(target).to_pylist()
    else:
        with target.open(newline="") as file:
            found = list(csv.DictReader(file))
    expected = rows(run("label", tmp_path / "s.txt").stdout)
    assert [str(r["label"]) for r in found] == [r["label"] for r in expected]
    assert [int(r["start"]) for r in found] == [r["start"] for r in expected]
    assert [float(r["p_demand"]) for r in found] == [r["p_demand"] for r in expected]


def test_rows_keep_their_fields_in_order_and_a_clash_is_kept_aside(tmp_path):
    row = {
        "z": [1, {"a": None}],
        "text": "We urge Belmar to act.",
        "label": "gold",
        "é": "ü",
        "input_label": "a",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    done = run("label", "--sentences", tmp_path / "rows.jsonl")
    (found,) = rows(done.stdout)
    assert list(found)[:5] == ["z", "text", "input_input_label", "é", "input_label"]
    assert found["z"] == row["z"] and found["label"] == "demand"
    assert found["input_input_label"] == "gold" and found["input_label"] == "a"
    assert b"carried as input_" in done.stderr


def test_a_field_set_aside_writes_over_no_other():
    row = {"input_label": 1, "label": 2, "input_input_label": 3, "x": 4}
    kept = {"input_label": 1, "input_input_input_label": 2, "input_input_label": 3, "x": 4}
    assert set_aside(row, ["label", "text"]) == kept


def test_no_abstain_and_threshold(tmp_path):
    (tmp_path / "s.txt").write_text(TEXT)
    forced = rows(run("label", tmp_path / "s.txt", "--no-abstain").stdout)
    assert "none" not in {r["label"] for r in forced}
    timid = rows(run("label", tmp_path / "s.txt", "--threshold", "1").stdout)
    assert {r["label"] for r in timid} == {"none"}


def test_parquet_takes_what_rows_hold(tmp_path):
    given = [
        {
            "text": "They met.",
            "big": 2**70,
            "none": {},
            "in": [{"a": {}}],
            "object": {"a": 1},
            "before": None,
        },
        {"text": "They met.", "big": 1, "none": {}, "in": [], "object": {"a": 2}, "before": ""},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    run("label", "--sentences", tmp_path / "rows.jsonl", "-o", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(r["big"], r["none"], r["in"]) for r in found] == [
        (str(2**70), "{}", '[{"a": {}}]'),
        ("1", "{}", "[]"),
    ]
    assert [r["object"] for r in found] == [{"a": 1}, {"a": 2}]
    assert found[0]["p_none"] == found[1]["p_none"]  # null is no neighbour


def test_a_disk_that_fills_up_is_told_in_a_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_jsonl", full)
    with pytest.raises(InputError, match=r"out.jsonl: cannot be written \(No space left on device\)"):
        writer.write_records([{"text": "a"}], tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_the_backend_is_the_one_asked_for(tmp_path):
    (tmp_path / "s.txt").write_text(TEXT)
    code = (
        "import sys, communique.cli; from communique.model import classifier, engine; "
        "classifier.choose = lambda name: (sys.stderr.write(name), engine.Engine)[1]; communique.cli.main()"
    )
    for asked, used in (([], "onnxruntime"), (["--backend", "auto"], "auto")):
        command = [sys.executable, "-c", code, "label", str(tmp_path / "s.txt"), *asked]
        assert subprocess.run(command, capture_output=True, text=True).stderr == used


def test_archive_without_its_extra_names_it(tmp_path):
    for module in ("lxml", "charset_normalizer"):
        code = f"import sys; sys.modules['{module}'] = None; import communique.cli; communique.cli.main()"
        command = [sys.executable, "-c", code, "archive", str(tmp_path), "--out", str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == f"communique: {module} is missing: pip install 'communique[archive]'\n"


def bad(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def folder(path):
    path.mkdir()
    return path


DEEP = b'{"text": "a", "x": ' + b"[" * 900 + b"]" * 900 + b"}"
BAD = {
    "missing file": (lambda t: ["label", t / "no.txt"], "no.txt: no such file"),
    "folder": (lambda t: ["label", t], "is a folder"),
    "empty file": (lambda t: ["label", bad(t, "e.txt", b"")], "e.txt: is empty"),
    "blank file": (lambda t: ["label", bad(t, "e.txt", b" \n ")], "e.txt: is empty"),
    "binary file": (lambda t: ["label", bad(t, "b.txt", b"PK\x03\x00\x00")], "binary file (NUL at byte 3)"),
    "bad UTF-8": (
        lambda t: ["label", bad(t, "u.txt", b"caf\xe9 talks")],
        "u.txt: not UTF-8 at byte 3 (0xe9)",
    ),
    "50 MB in one line": (lambda t: ["label", bad(t, "l.txt", b"a " * 25_000_000)], "over 10 MB"),
    "2 MB in one line": (lambda t: ["label", bad(t, "l.txt", b"a " * 1_000_000)], "one line of 2,000,000"),
    "row without text": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": "a"}\n\n{"id": 7}\n')],
        "r.jsonl:3: no field 'text'; fields are 'id'",
    ),
    "row that is no JSON": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b"{'a'}\n")],
        "r.jsonl:1: not JSON",
    ),
    "row that is a list": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b"[1]\n")],
        "r.jsonl:1: expected",
    ),
    "text that is a number": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": 5}\n')],
        "field 'text' must be a string",
    ),
    "blank text": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": " "}\n')],
        "'text' is blank",
    ),
    "row without an end": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": "a", "x": ' + b"[" * 100_000)],
        "r.jsonl:1: not JSON that can be read (too deep",
    ),
    "row too deep to write": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", DEEP)],
        "r.jsonl:1: fields nested over 100 deep",
    ),
    "number without an end": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": "a", "x": ' + b"9" * 5_000 + b"}")],
        "r.jsonl:1: not JSON that can be read",
    ),
    "half a character": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": "a \\ud83d b"}')],
        "r.jsonl:1: holds half a surrogate pair",
    ),
    "neighbour that is a number": (
        lambda t: ["label", "--sentences", bad(t, "r.jsonl", b'{"text": "a", "before": 0}')],
        "field 'before' must be a string",
    ),
    "no rows": (lambda t: ["label", "--sentences", bad(t, "r.jsonl", b"\n")], "holds no rows"),
    "nothing to do": (lambda t: ["label"], "name statements"),
    "both": (lambda t: ["label", "x.txt", "--sentences", "r.jsonl"], "one of the two"),
    "unknown output": (lambda t: ["label", "x.txt", "-o", t / "x.xlsx"], "unknown output format '.xlsx'"),
    "no output folder": (lambda t: ["label", "x.txt", "-o", t / "no" / "x.csv"], "does not exist"),
    "output is a folder": (
        lambda t: ["label", "x.txt", "-o", folder(t / "x.csv")],
        "is a folder: name a file",
    ),
    "output's name": (
        lambda t: ["label", "x.txt", "-o", t / f"{'x' * 300}.csv"],
        "cannot be written (File name",
    ),
    "backend": (lambda t: ["label", "x.txt", "--backend", "abacus"], "--backend 'abacus' is unknown"),
    "no model": (lambda t: ["label", bad(t, "s.txt", b"Hello."), "--model", t / "m"], "no such model folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, case):
    args, words = BAD[case]
    done = run(*args(tmp_path), check=False)
    message = done.stderr.decode()
    assert done.returncode == 2
    assert done.stdout == b""
    assert message.startswith("communique: ") and message.count("\n") == 1
    assert words in message


def test_a_bad_row_leaves_an_earlier_output_alone(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("kept")
    run("label", "--sentences", bad(tmp_path, "r.jsonl", b"{}\n"), "-o", target, check=False)
    assert target.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "r.jsonl"]


def test_ctrl_c_says_so_and_leaves_no_half_file(tmp_path):
    (tmp_path / "long.txt").write_text("We urge Belmar to free the crew. " * 20_000)
    command = [sys.executable, "-m", "communique.cli", "label", str(tmp_path / "long.txt")]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "out.csv")], stderr=subprocess.PIPE)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().startswith("communique: interrupted") and said.count(b"\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["long.txt"]


def test_help_names_every_option():
    text = run("label", "--help").stdout.decode()
    for option in (
        "--sentences",
        "--backend",
        "--output",
        "--no-abstain",
        "--threshold",
        "--model",
        "--quiet",
    ):
        assert option in text


def test_version():
    assert run("--version").stdout.decode().startswith("communique 0.")
