"""The archive runner: every type read, bad input set aside, nothing twice, one table."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import random
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from communique.archive import archive_cli
from communique.archive.encodings import detect
from communique.archive.labelling import Labeller, Memory, sentence_key, sentence_of
from communique.archive.run import Options, Watch, run_archive
from communique.archive.seen import Seen
from communique.archive.shards import fit_metadata, metadata_columns, read_labels, write_shard
from communique.archive.sources import Rejected, find_roots, walk
from communique.archive.tables import Columns, Document
from communique.model.akn import read_akn, text_of_akn
from communique.model.artifact import load_artifact
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError
from communique.model.tokens import SentenceInput, TokenIds

INVENTED = runpy.run_path(str(Path(__file__).with_name("archive_corpus.py")))
AKN, make, rows, statement = (INVENTED[name] for name in ("AKN", "make", "rows", "statement"))
csv_bytes, jsonl, parquet, read = (INVENTED[name] for name in ("csv_bytes", "jsonl", "parquet", "read"))
tarred, zipped, zst = (INVENTED[name] for name in ("tarred", "zipped", "zst"))

SMALL = Options(format="jsonl", shard_documents=20)
TEXT = "The envoy urges Belmar to open the port. Both sides met."


def table(out, suffix="jsonl"):
    parts = sorted((out / "records").glob(f"*.{suffix}"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]


def notes(out, name):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("archive") / "corpus")


ROW = {"id": 7, "text": TEXT, "year": 2031, "tags": ["a", "b"]}
READ_AS_ONE = {
    "a.txt": TEXT.encode(),
    "a.md": f"# Remarks\n\n*{TEXT}*\n".encode(),
    "a.html": f"<html><body><nav>Menu</nav><article><p>{TEXT}</p></article></body></html>".encode(),
    "a.xml": AKN.encode(),
    "a.jsonl": jsonl([ROW]),
    "a.csv": csv_bytes([{"id": 7, "text": TEXT, "year": 2031}]),
    "a.parquet": parquet([ROW]),
}


@pytest.mark.parametrize("name", READ_AS_ONE)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda name, data: (name, data),
        lambda name, data: (f"{name}.gz", gzip.compress(data)),
        lambda name, data: (f"{name}.zst", zst(data)),
        lambda name, data: ("x.zip", zipped({f"in/{name}": data, "__MACOSX/._x": b"junk"})),
        lambda name, data: ("x.tar", tarred({f"./{name}": data})),
        lambda name, data: ("x.tgz", gzip.compress(tarred({name: data}))),
        lambda name, data: ("x.tar.zst", zst(tarred({f"{name}.gz": gzip.compress(data)}))),
        lambda name, data: ("x.zip", zipped({"y.zip": zipped({f"{name}.zst": zst(data)})})),
    ],
    ids=["plain", "gz", "zst", "zip", "tar", "tgz", "tar.zst of gz", "zip in zip of zst"],
)
def test_every_type_in_every_wrapping(name, wrap):
    (document,) = read(*wrap(name, READ_AS_ONE[name]))
    assert not isinstance(document, Rejected), document
    assert "urges" in document.text and "Menu" not in document.text
    if name.endswith(("jsonl", "csv", "parquet")):
        assert document.doc_id == "7"
        assert str(document.metadata["year"]) == "2031"
        assert "text" not in document.metadata
    if name.endswith("xml"):
        assert document.metadata == {"date": "2031-05-02"}
        assert document.text.startswith("1. The Council")


def test_columns_are_mapped_and_carried():
    row = {"body": TEXT, "speech": "s1", "id": "kept", "when": None, "deep": {"a": 1}, "big": 2**70}
    (document,) = read("a.jsonl", jsonl([row]), Columns(text="body", id="speech"))
    assert document.doc_id == "s1"
    assert document.metadata == {"id": "kept", "when": None, "deep": '{"a": 1}', "big": str(2**70)}


BAD = {
    "empty": ("a.txt", b"", "empty"),
    "binary": ("a.txt", b"\x7fELF\x00\x00\x01", "binary"),
    "unknown type": ("a.pdf", b"%PDF", "unknown type '.pdf'"),
    "menu only": ("a.html", b"<html><body><nav>Home</nav></body></html>", "no text"),
    "no xml": ("a.xml", b"just words", "not XML"),
    "other xml": ("a.xml", b"<config><key>1</key></config>", "Akoma Ntoso"),
    "not json": ("a.jsonl", b"{oops\n", "not JSON"),
    "deep json": ("a.jsonl", b"[" * 100_000 + b"\n", "not JSON"),
    "no field": ("a.jsonl", b'{"body": "x"}\n', "no field 'text'; fields are 'body'"),
    "blank": ("a.jsonl", b'{"text": "  "}\n', "blank"),
    "number": ("a.jsonl", b'{"text": 3}\n', "must be a string"),
    "half a pair": ("a.jsonl", b'{"text": "x \\ud800"}\n', "characters that are none"),
    "a list": ("a.jsonl", b"[1]\n", "expected a JSON object"),
    "no column": ("a.csv", b"body,id\nx,1\n", "no column 'text'"),
    "cells": ("a.csv", b"text,id\nx,1,2\n", "3 cells, the header has 2"),
    "quote": ("a.csv", b'text,id\n"x,1\n', "not CSV"),
    "no parquet": ("a.parquet", b"PAR1junk", "damaged Parquet"),
    "cut gzip": ("a.txt.gz", gzip.compress(random.Random(1).randbytes(9000))[:5000], "damaged"),
    "no gzip": ("a.txt.gz", b"plain", "damaged"),
    "cut zst": ("a.txt.zst", zst(random.Random(1).randbytes(9000))[:5000], "damaged"),
    "no zip": ("a.zip", b"PK nonsense", "damaged archive"),
    "cut tar": ("a.tar", tarred({"a.txt": b"x" * 5000})[:2000], "damaged"),
    "long line": ("a.txt", b"x" * 1_000_001, "one line"),
    "too long": ("a.txt", b"word \n" * 1_700_000, "over 10 MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_rejected_with_its_reason(case):
    name, data, reason = BAD[case]
    found = read(name, data)
    assert found and isinstance(found[0], Rejected)
    assert reason in found[0].reason
    assert found[0].file.startswith(name)
    assert "\n" not in found[0].reason


def test_an_id_column_that_is_not_there_is_not_passed_over():
    (found,) = read("a.csv", b"text,id\nx y,1\n", Columns(id="speech"))
    assert (
        isinstance(found, Rejected) and "no column 'speech'" in found.reason and "--id-field" in found.reason
    )


def test_a_bad_row_or_member_does_not_stop_the_others():
    good = json.dumps({"text": TEXT}).encode() + b"\n"
    found = read("a.jsonl", good + b"nonsense\n" + b"x" * 10_000_001 + b"\n" + good)
    assert [isinstance(f, Rejected) for f in found] == [False, True, True, False]
    assert [f.place for f in found] == ["row 1", "row 2", "row 3", "row 4"]
    damaged = bytearray(zipped({"a.txt": TEXT.encode() * 50, "b.txt": TEXT.encode()}))
    damaged[60:70] = bytes(10)
    first, second = read("x.zip", bytes(damaged))
    assert isinstance(first, Rejected) and first.file == "x.zip/a.txt"
    assert second.text == TEXT
    bomb = TEXT.encode()
    for _ in range(9):
        bomb = zipped({"x.zip": bomb})
    (refused,) = read("x.zip", bomb)
    assert "inside one another" in refused.reason


def test_a_locked_zip_member_is_rejected():
    data = bytearray(zipped({"a.txt": TEXT.encode()}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert zipfile.ZipFile(io.BytesIO(data)).infolist()[0].flag_bits & 1
    (found,) = read("x.zip", bytes(data))
    assert "encrypted" in found.reason


@pytest.mark.parametrize(
    "text, encoding, wanted",
    [
        ("Both sides agreed.", "utf-8", "utf-8"),
        ("The café agreed.", "utf-8-sig", "utf-8-sig"),
        ("The café agreed.", "utf-16", "utf-16"),
        ("The Minister’s “café” agreed.", "cp1252", "cp1252"),
        ("Президент заявил о готовности к диалогу с соседями и партнёрами.", "cp1251", "cp1251"),
    ],
)
def test_encodings_are_detected(text, encoding, wanted):
    data = text.encode(encoding)
    assert detect(data) == wanted
    (document,) = read("a.txt", data)
    assert (document.text, document.encoding) == (text, wanted)


def test_a_declared_charset_is_believed_and_a_bad_byte_costs_one_row():
    page = '<html><head><meta charset="iso-8859-2"></head><body><p>Przyjęła łódź.</p></body></html>'
    assert read("a.html", page.encode("iso-8859-2"))[0].text == "Przyjęła łódź."
    data = csv_bytes([{"text": "The café met."}, {"text": "Plain."}], "cp1252")
    assert [d.text for d in read("a.csv", data)] == ["The café met.", "Plain."]
    late = b'{"text": "Plain."}\n' * 60_000 + b'{"text": "caf\xe9"}\n'
    found = read("a.jsonl", late)
    assert len(found) == 60_001 and isinstance(found[-1], Rejected)


def test_akoma_ntoso_that_does_not_nest_is_mended():
    assert text_of_akn(b"<doc><p>The Council <b>met</p></b><p>It urges peace.</p></doc>").endswith("peace.")
    entity = b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]><d><p>Seen: &x;</p></d>'
    assert text_of_akn(entity) == "Seen: &x;"  # the file was not read


def test_akoma_ntoso_loses_no_text():
    listed = (
        b"<doc><p>Before.</p><blockList><listIntroduction>It <i>urges</i> both sides:</listIntroduction>"
        b"<item><num>(a)</num><p>to meet;</p></item><listWrapUp>without delay.</listWrapUp></blockList>"
        b"<item>Loose <b>words</b> &x; <!-- no --><p>Inner.</p> behind.</item><num>9.</num></doc>"
    )
    assert text_of_akn(listed).split("\n\n") == [
        *("Before.", "It urges both sides:", "(a) to meet;", "without delay."),
        *("Loose words &x;", "Inner.", "behind.", "9."),
    ]
    mended = b"<doc><mainBody><paragraph><span>A title</span></docTitle><p>It met.</p></mainBody></doc>"
    assert text_of_akn(mended) == "A title\n\nIt met."
    assert text_of_akn(b"<rss><title>No statement</title></rss>") == ""


@pytest.mark.parametrize(
    "dates, wanted",
    [
        ({"adoption": "2007-06-20", "publication": "2007-06-25"}, {"date": "2007-06-20"}),
        (
            {"adoption": "0001-01-01", "publication": "2007-06-25", "markup": "2024-02-02"},
            {"date": "2007-06-25"},
        ),
        ({"adoption": "0001-01-01", "markup": "2024-02-02"}, {}),
        ({}, {}),
    ],
)
def test_a_date_that_nobody_filled_in_is_none(dates, wanted):
    found = "".join(f'<FRBRdate name="{name}" date="{date}"/>' for name, date in dates.items())
    xml = f"<akomaNtoso><meta><FRBRWork>{found}</FRBRWork></meta><p>They met.</p></akomaNtoso>"
    assert read_akn(xml.encode())[1] == wanted


def test_walk_is_sorted_and_skips_hidden_files(tmp_path):
    for name in ("b/x.txt", "a.txt", ".hidden.txt", "b/.git/y.txt", "c.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    found = walk(find_roots([str(tmp_path / "in"), str(tmp_path / "in" / "c.txt")]))
    assert [f.name for f in found] == ["in/a.txt", "in/b/x.txt", "in/c.txt"]
    with pytest.raises(InputError, match="no file matches"):
        find_roots([str(tmp_path / "*.zip")])


def test_the_whole_corpus(corpus, toy_model, tmp_path):
    out = tmp_path / "out"
    outcome = run_archive([str(corpus)], out, SMALL, model=toy_model, threads=2)
    summary = outcome.summary
    assert outcome.finished and outcome.worked
    assert summary == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (summary["documents"], summary["rejected"], summary["duplicates"]) == (172, 3, 1)
    records = table(out)
    assert len(records) == summary["sentences"]
    assert Counter(r["label"] for r in records) == {k: n for k, n in summary["labels"].items() if n}
    keys = [(r["doc_id"], r["sent_id"]) for r in records]
    assert len(set(keys)) == len(keys)
    assert {n["file"].rpartition("/")[2] for n in notes(out, "rejected")} == {
        "bad.pdf",
        "empty.txt",
        "rows.jsonl.gz",
    }
    (again, *same_ids) = [n for n in notes(out, "duplicates") if n["kind"] == "text"]
    assert not same_ids and again["same_as"].startswith("corpus/s000.txt#")
    assert notes(out, "encodings") == [{"file": "corpus/old.txt", "encoding": "cp1252"}]
    # Three tables count their rows r0, r1 …: other texts, so all are kept, under ids of their own.
    assert sum(n["kind"] == "id" for n in notes(out, "duplicates")) == 50
    fields = [list(r) for r in records]
    assert fields.count(fields[0]) == len(fields)
    assert {r["text"] for r in records if r["doc_id"] == "r3"}


def test_labels_are_those_of_the_classifier(corpus, toy_model, tmp_path):
    run_archive([str(corpus / "s*.txt")], tmp_path / "out", SMALL, model=toy_model)
    classifier = StanceClassifier.load(toy_model, threads=1)
    text = (corpus / "s004.txt").read_text(encoding="utf-8")
    found = [r for r in table(tmp_path / "out") if r["file"] == "s004.txt"]
    wanted = classifier.records(text, doc_id=found[0]["doc_id"])
    assert [{k: v for k, v in r.items() if k not in ("file", "other_metadata")} for r in found] == wanted


def test_labels_are_chosen_by_the_models_weights(toy_model, weighing_model, tmp_path):
    (tmp_path / "a.txt").write_text("It lifts condemns.")
    for model, label in ((toy_model, "position"), (weighing_model, "concession")):
        run_archive([str(tmp_path / "a.txt")], tmp_path / label, SMALL, model=model)
        assert [r["label"] for r in table(tmp_path / label)] == [label]
        assert [str(p.label) for p in StanceClassifier.load(model).label("It lifts condemns.")] == [label]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_formats_hold_the_same_and_resume_from_it(corpus, toy_model, tmp_path, suffix):
    out = tmp_path / suffix
    options = dataclasses.replace(SMALL, format=suffix)
    stop = threading.Event()
    stop.set()
    assert not run_archive([str(corpus)], out, options, model=toy_model, stop=stop).finished
    outcome = run_archive([str(corpus)], out, options, model=toy_model)
    assert outcome.finished
    whole = tmp_path / "whole"
    run_archive([str(corpus)], whole, options, model=toy_model)
    for part in sorted((whole / "records").iterdir()):
        assert (out / "records" / part.name).read_bytes() == part.read_bytes()
    if suffix == "parquet":
        found = pq.read_table(out / "records")  # one schema, opened as one table
        assert found.num_rows == outcome.summary["sentences"]
        assert found.schema.field("truncated").type == pa.bool_()


def test_a_finished_run_is_a_no_op(corpus, toy_model, tmp_path):
    out = tmp_path / "out"
    first = run_archive([str(corpus)], out, SMALL, model=toy_model)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    again = run_archive([str(corpus)], out, SMALL, model=toy_model)
    assert not again.worked and again.summary == first.summary
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert before == after
    (out / "rejected.jsonl").write_text("")
    with pytest.raises(InputError, match=r"rejected.jsonl: is gone or cut short"):
        run_archive([str(corpus)], out, SMALL, model=toy_model)


def test_changes_are_noticed_and_restart_begins_again(toy_model, tmp_path):
    source, out = make(tmp_path / "in", documents=5), tmp_path / "out"
    run_archive([str(source)], out, SMALL, model=toy_model)

    def refused(message, options=SMALL, model=toy_model):
        with pytest.raises(InputError, match=message) as error:
            run_archive([str(source)], out, options, model=model)
        assert "--restart" in str(error.value)

    refused("shard_documents = 20, now 21", dataclasses.replace(SMALL, shard_documents=21))
    begun = json.loads((out / "run.json").read_text())
    older = {name: value for name, value in begun.items() if name != "folder_format"}
    (out / "run.json").write_text(json.dumps(older))
    refused("folder_format = null, now 2")
    (out / "run.json").write_text(json.dumps(begun))
    refused('text_field = "text", now "body"', dataclasses.replace(SMALL, text_field="body"))
    other = tmp_path / "other"
    shutil.copytree(toy_model, other)
    manifest = json.loads((other / "artifact.json").read_text())
    (other / "artifact.json").write_text(json.dumps(manifest | {"model_version": "toy-2"}))
    refused("model_version", model=other)
    changed = source / "s001.txt"
    text = changed.read_text()
    changed.write_text(text)  # a new time, the same content: nothing changed
    assert not run_archive([str(source)], out, SMALL, model=toy_model).worked
    changed.write_text(text[::-1])
    refused("has other content")
    (source / "zz.txt").write_text(TEXT)
    changed.write_text(text)
    refused("zz.txt is new")
    assert run_archive([str(source)], out, SMALL, model=toy_model, restart=True).worked
    (out / "records" / "part-00000.jsonl").unlink()
    refused("is gone")


def test_what_is_not_ours_is_left_alone(corpus, toy_model, tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(InputError, match=r"holds other files \(thesis.doc\)"):
            run_archive([str(corpus)], tmp_path, SMALL, model=toy_model, restart=restart)
    with pytest.raises(InputError, match="lies inside the input"):
        run_archive([str(corpus)], corpus / "out", SMALL, model=toy_model)
    assert (tmp_path / "thesis.doc").read_text() == "years of work"


def test_sentences_keep_their_order_rows_and_context(toy_model, tmp_path):
    found = [{"text": "It met.", "before": "x", "after": "y", "k": 1}] * 3 + [
        {"text": "He urges peace.", "before": None}
    ]
    (tmp_path / "s.jsonl").write_bytes(jsonl(found))
    options = dataclasses.replace(SMALL, sentences=True, shard_sentences=2)
    outcome = run_archive([str(tmp_path / "s.jsonl")], tmp_path / "out", options, model=toy_model)
    records = table(tmp_path / "out")
    assert [r["doc_id"] for r in records] == [f"s.jsonl#{n}" for n in (1, 2, 3, 4)]
    assert [r["label"] for r in records] == ["none", "none", "none", "demand"]
    assert outcome.summary["shards"] == 2 and outcome.summary["duplicates"] == 0
    assert outcome.summary["repeated"] == 2
    assert "before" not in records[0] and records[0]["k"] == 1


def test_metadata_keeps_its_kind_and_loses_nothing():
    columns = metadata_columns(
        [{"year": 1, "x": 1, "label": "a"}, {"year": 2, "x": 0.5, "mix": True}, {"mix": 3}]
    )
    assert columns == {"year": "int64", "x": "double", "input_label": "string", "mix": "string"}
    row = fit_metadata({"year": "n.d.", "x": 2, "late": "z", "label": "b"}, columns)
    assert row["x"] == 2.0 and row["year"] is None and row["input_label"] == "b"
    assert json.loads(row["other_metadata"]) == {"year": "n.d.", "late": "z"}


def test_a_field_that_has_the_name_of_another_ones_column_keeps_its_own():
    carried = {"label": "a", "input_label": "b", "input_input_label": "c", "input_year": "d"}
    for first in (carried, dict(reversed(carried.items())), {"input_label": "b"}):
        row = fit_metadata(carried, metadata_columns([first]))
        other = json.loads(row.pop("other_metadata") or "{}")
        assert sorted([*row.values(), *other.values()]) == ["a", "b", "c", "d"]
    assert list(metadata_columns([{"label": 1, "input_year": 2}])) == ["input_label", "input_year"]


def record(number, carried):
    chances = dict.fromkeys(("p_position", "p_demand", "p_concession", "p_agreement"), 0.0) | {"p_none": 1.0}
    fixed = {"doc_id": "d", "sent_id": number, "start": 0, "end": 1, "text": "It\rmet.", "label": "none"}
    last = {"truncated": False, "model_version": "m", "file": "f"}
    return {**fixed, **chances, **last, "note": carried, "other_metadata": None}


def test_parquet_is_written_by_slices_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr("communique.archive.shards._SLICE", 1_000_000)
    records = [record(n, "x" * 100_000) for n in range(95)]
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.parquet", records, {"note": "string"})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    file = pq.ParquetFile(tmp_path / "a.parquet")
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [10] * 9 + [5]
    assert file.read(columns=["sent_id", "note"]).to_pylist() == [
        {"sent_id": r["sent_id"], "note": r["note"]} for r in records
    ]
    assert len(read_labels(tmp_path / "a.parquet")) == 95


def test_csv_is_read_back_whatever_it_carries(tmp_path):
    csv.field_size_limit(131_072)  # as in a new process
    write_shard(tmp_path / "a.csv", [record(0, "x" * 200_000), record(1, "y\r")], {"note": "string"})
    assert read_labels(tmp_path / "a.csv") == [("none", (0.0, 0.0, 0.0, 0.0, 1.0))] * 2
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [(r["text"], r["note"][-1:]) for r in csv.DictReader(file)] == [
            ("It\rmet.", "x"),
            ("It\rmet.", "\r"),
        ]
    assert '"It\rmet."' in (tmp_path / "a.csv").read_bytes().decode()


def test_roots_of_one_name_are_told_apart(tmp_path):
    for name in ("a/x.jsonl", "b/x.jsonl", "c/y.jsonl", "c/b/x.jsonl", "d/b/z.txt", "d/b/x.jsonl/w.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TEXT)
    found = find_roots([str(tmp_path / "*" / "x.jsonl"), str(tmp_path / "c" / "y.jsonl")])
    assert [f.name for f in found] == ["a/x.jsonl", "b/x.jsonl", "y.jsonl"]
    inputs = [str(tmp_path / name) for name in ("b/x.jsonl", "c/b/x.jsonl", "d/b", "a/x.jsonl")]
    names = [f.name for f in walk(find_roots(inputs))]
    assert len(set(names)) == len(names) == 5
    top = tmp_path.name
    assert names[:2] == [f"{top}/b/x.jsonl", "c/b/x.jsonl"]


def test_rows_of_one_id_that_are_sentences_are_numbered_also_after_a_stop(toy_model, tmp_path):
    found = [{"text": f"He urges point {n}.", "speech": f"s{n // 5}"} for n in range(12)]
    (tmp_path / "box.zip").write_bytes(zipped({"a.jsonl": jsonl(found), "b.jsonl": jsonl(found[:2])}))
    options = dataclasses.replace(SMALL, sentences=True, id_field="speech", shard_sentences=3)
    inputs, stop = [str(tmp_path / "box.zip")], threading.Event()
    stop.set()
    run_archive(inputs, tmp_path / "out", options, model=toy_model, stop=stop)
    run_archive(inputs, tmp_path / "out", options, model=toy_model)
    keys = [(r["doc_id"], r["sent_id"]) for r in table(tmp_path / "out")]
    assert keys[:6] == [*(("s0", n) for n in range(5)), ("s1", 0)]
    assert len(set(keys)) == len(keys) == 14
    run_archive(inputs, tmp_path / "whole", options, model=toy_model)
    assert table(tmp_path / "whole") == table(tmp_path / "out")


def test_a_new_id_is_not_given_twice_and_is_what_duplicates_point_to(tmp_path):
    def document(doc_id, text):
        return Document(doc_id, text, "f", "row 1", "utf-8")

    with Seen(tmp_path) as seen:
        assert seen.admit(document("r1", "One.")) == ("r1", 0, None)
        name, _, note = seen.admit(document("r1", "Two."))
        assert name.startswith("r1#") and len(name) == len("r1#") + 16
        assert (note["kind"], note["same_as"]) == ("id", "r1")
        again = seen.admit(document("r9", "Two."))
        assert again.doc_id is None and again.note["same_as"] == name
        other, _, _ = seen.admit(document(name, "Three."))
        assert other not in (name, "r1")


def test_the_cache_is_exact_and_bounded(toy_model):
    artifact = load_artifact(toy_model)
    rng = random.Random(3)
    texts = [statement(rng, 1) for _ in range(200)] + ["He urges " + "much " * n + "peace" for n in (35, 36)]
    with Labeller(artifact, threads=2) as labeller:
        encoded = labeller.encode([SentenceInput(t) for t in texts * 2])
        first = labeller.label(encoded)
        second = labeller.label(encoded)
    assert first.labels == second.labels and second.read == 0
    assert first.read == first.different == len({e.ids for e in encoded})
    wanted = StanceClassifier.load(toy_model, threads=1).label_sentences(texts * 2)
    assert [(str(p.label), p.probabilities) for p in wanted] == first.labels
    memory = Memory(most=5)
    labelled = ("demand", (0.1, 0.7, 0.05, 0.1, 0.05))
    for keys in ("ab", "ac", "de"):
        memory.add({key.encode(): labelled for key in keys})
    assert [memory.get(key.encode()) is not None for key in "abcde"] == [True, False, True, True, True]
    assert memory.get(b"a") == labelled
    memory.add({b"f": labelled, b"g": labelled})
    assert [memory.get(key.encode()) is not None for key in "acdefg"] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]


def test_what_is_remembered_is_told_apart_by_every_token():
    ids = [(1, 2), (2, 1), (513,), (1, 2, 0), (70_000,), (4464, 1), (1, 70_000)]  # 70,000 is 4,464 + 65,536
    keys = [sentence_key(TokenIds(i, 1, truncated=False)) for i in ids]
    assert len(set(keys)) == len(ids)
    assert [sentence_of(key) for key in keys] == [TokenIds(i, 1, truncated=False) for i in ids]
    assert len({sentence_key(TokenIds((1, 2), first, truncated=False)) for first in (1, 2)}) == 2


def one_shard(inputs, out, model):
    """Run until one more shard is done."""
    stop = threading.Event()

    class Once(Watch):
        def advance(self, done_bytes, documents, sentences, skipped):
            if not skipped:
                stop.set()

    return run_archive(inputs, out, SMALL, model=model, stop=stop, watch=Once())


def test_shards_of_bad_documents_alone_are_gone_on_with(toy_model, tmp_path, monkeypatch):
    monkeypatch.setattr("communique.archive.prepare._MOST_NOTES", 3)
    (tmp_path / "in").mkdir()
    for number in range(30):
        name = f"{number:02d}.txt" if number in (5, 17) else f"{number:02d}.pdf"
        (tmp_path / "in" / name).write_text(f"It met {number} times.")
    whole = run_archive([str(tmp_path / "in")], tmp_path / "whole", SMALL, model=toy_model).summary
    assert (whole["documents"], whole["rejected"], whole["shards"]) == (2, 28, 2)
    for _ in range(12):
        one_shard([str(tmp_path / "in")], tmp_path / "steps", toy_model)
    steps = run_archive([str(tmp_path / "in")], tmp_path / "steps", SMALL, model=toy_model)
    assert not steps.worked or steps.finished
    assert table(tmp_path / "steps") == table(tmp_path / "whole")
    assert notes(tmp_path / "steps", "rejected") == notes(tmp_path / "whole", "rejected")


def test_remembered_shards_are_forgotten_alike_after_a_stop(corpus, toy_model, tmp_path, monkeypatch):
    read_counts = []
    original = Labeller.label

    def counting(self, encoded, advance=None):
        found = original(self, encoded, advance)
        read_counts.append(found.read)
        return found

    def small(self, artifact, **settings):
        init(self, artifact, **settings, remembered=25)

    init = Labeller.__init__
    monkeypatch.setattr(Labeller, "__init__", small)
    monkeypatch.setattr(Labeller, "label", counting)
    run_archive([str(corpus)], tmp_path / "whole", SMALL, model=toy_model)
    whole, read_counts[:] = list(read_counts), []
    for _ in whole:  # each beginning with what it can read back
        one_shard([str(corpus)], tmp_path / "steps", toy_model)
    assert read_counts == whole


def test_truncated_sentences_are_flagged_and_counted(toy_model, tmp_path):
    (tmp_path / "a.txt").write_text("He urges " + "much " * 60 + "peace. It met.")
    outcome = run_archive([str(tmp_path / "a.txt")], tmp_path / "out", SMALL, model=toy_model)
    assert outcome.summary["truncated"] == 1
    assert [r["truncated"] for r in table(tmp_path / "out")] == [True, False]


def test_only_bad_documents_make_an_empty_table(toy_model, tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    outcome = run_archive([str(tmp_path / "a.pdf")], tmp_path / "out", SMALL, model=toy_model)
    assert outcome.finished and outcome.summary["rejected"] == 1 and outcome.summary["shards"] == 0
    assert not run_archive([str(tmp_path / "a.pdf")], tmp_path / "out", SMALL, model=toy_model).worked


def test_ctrl_c_finishes_the_shard(corpus, toy_model, tmp_path):
    stop = threading.Event()

    class Interrupting(Watch):
        def advance(self, done_bytes, documents, sentences, skipped):
            if documents >= 40:
                stop.set()

    out = tmp_path / "out"
    outcome = run_archive([str(corpus)], out, SMALL, model=toy_model, stop=stop, watch=Interrupting())
    assert not outcome.finished and outcome.summary["documents"] == 40
    assert not (out / "summary.json").exists()
    assert run_archive([str(corpus)], out, SMALL, model=toy_model).summary["documents"] == 172


def test_two_runs_do_not_share_a_folder(corpus, toy_model, tmp_path):
    class Second(Watch):
        def begin(self, total_bytes, resumed):
            with pytest.raises(InputError, match="another run is writing"):
                run_archive([str(corpus)], tmp_path / "out", SMALL, model=toy_model)

    assert run_archive([str(corpus)], tmp_path / "out", SMALL, model=toy_model, watch=Second()).finished


def test_the_command(corpus, toy_model, tmp_path):
    app = typer.Typer()
    app.command()(archive_cli.run)
    command = [str(corpus), "--out", str(tmp_path / "out"), "--model", str(toy_model), "--format", "csv"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (
        "172 documents" in result.stderr
        and "rejected.jsonl" in result.stderr
        and "1 in cp1252" in result.stderr
    )
    assert "nothing to do" in CliRunner().invoke(app, command).stderr
    assert CliRunner().invoke(app, [*command, "--quiet"]).stderr == ""


def test_a_run_that_could_read_nothing_says_so(toy_model, tmp_path):
    (tmp_path / "rows.csv").write_text("id,body\n1,They agreed to meet.\n")
    app = typer.Typer()
    app.command()(archive_cli.run)
    command = [
        str(tmp_path / "rows.csv"),
        "--out",
        str(tmp_path / "out"),
        "--model",
        str(toy_model),
        "--quiet",
    ]
    for _ in range(2):  # the second finds the run finished
        error = CliRunner().invoke(app, command).exception
        assert isinstance(error, InputError)
        assert str(error).startswith("nothing could be read; first rows.csv: no column 'text'")
    assert CliRunner().invoke(app, [*command, "--restart", "--text-field", "body"]).exit_code == 0


def test_sigint_from_a_terminal(toy_model, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    rng = random.Random(5)
    (source / "r.jsonl").write_bytes(jsonl(rows(rng, 6000)))
    code = "import typer; from communique.archive.archive_cli import run; typer.run(run)"
    command = [sys.executable, "-c", code, str(source), "--out", str(tmp_path / "out")]
    command += ["--model", str(toy_model), "--shard-documents", "50", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "journal.jsonl"
    while process.poll() is None and not (journal.is_file() and journal.stat().st_size):
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finishing this shard" in said and "run the same command again" in said
    assert process.wait() == 130
