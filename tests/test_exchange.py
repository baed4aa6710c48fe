"""Round trips to annotation tools and back, and labels changed on the way; all sentences are invented."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import pytest
from cassis import load_cas_from_xmi, load_typesystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from typer.testing import CliRunner

from communique.model.sentences import segment
from communique.train.corpus import Sentence, load_annotations, neighbours
from communique.train.data_cli import app
from communique.train.exchange import TOOLS, export, import_
from communique.train.files import DataError
from communique.train.rows import Document, Pass, Row, head_of, sentence_sha256

NASTY = [
    "« Nous »\u00a0said “we’ll lift it” & <b>more</b> \\n \\\\ {braces} — 100\u202f%",
    "A line\nwrapped here\tand tabbed, with 𝔘nicode 😀 beyond the plane",
    "Zero\u200bwidth, e\u0301 combining, ש\u05c1 right to left, \u2028 a separator, \u0085 next line",
    "Quotes \" and ' and `back`, commas, semicolons; #hash $data % also: demand",
    "  spaces at both ends  ",
]
XML_CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
TEXT = "\n\n".join(
    [
        "The two sides 😀 met on Monday.",
        "Karsovia will lift\nthe ban on “plums” & <figs> at once.\tIt asks Velland to follow.",
        "Both sides agreed on a hotline — 𝔘rgent.",
        "They took note.",
    ]
)


def a_row(span, number, label="concession", **changes):
    text = TEXT[slice(*span)]
    first = Pass(label, None, 3, "")
    row = Row(
        doc_id="unsczip:2020/English/x (1).xml", sent_id=number, start=span[0], end=span[1],
        head=head_of(text), sha256=sentence_sha256(text), label=label, also=None, passes=2,
        a=first, b=first, decided="agreed",
        why="", sample="random", weight=3.0000000000000004,
    )  # fmt: skip
    return replace(row, **changes)


def a_sentence(row, doc):
    before, after = neighbours(TEXT, segment(TEXT), row.start, row.end)
    return Sentence(row, doc, TEXT[row.start : row.end], before, after)


@pytest.fixture
def sentences():
    spans = segment(TEXT)
    doc = Document(
        doc_id="unsczip:2020/English/x (1).xml", issuer="X&Y", issuer_name=NASTY[0], kind="readout",
        date="2020-05", source="unsc", text_sha256=sentence_sha256(TEXT), n_sentences=len(spans),
        trade=True, title=NASTY[3],
    )  # fmt: skip
    b = Pass("demand", "position", 1, NASTY[1])
    rows = [
        a_row(spans[0], 0, "none", sample="cue", weight=None),
        a_row(spans[1], 1, also="agreement", b=b, decided="adjudicated", why=NASTY[0]),
        a_row(spans[2], 2, "demand", a=Pass("demand", "concession", 1, NASTY[2]), also="concession"),
        a_row(spans[3], 3, "agreement", passes=1, b=None, decided="single", sample="model", weight=None),
    ]
    own = replace(doc, doc_id="own-1", source="own", register="terse", synthetic=True)
    rows.append(
        replace(a_row(spans[4], 4, "none", sample="written", weight=None), doc_id="own-1", synthetic=True)
    )
    return [a_sentence(row, own if row.synthetic else doc) for row in rows]


@pytest.fixture
def texts(sentences):
    return {s.row.doc_id: TEXT for s in sentences}


def by_key(sentences):
    return sorted(sentences, key=lambda s: s.row.key)


@pytest.mark.parametrize("tool", TOOLS)
def test_round_trip_loses_nothing(tool, sentences, texts, tmp_path):
    path = tmp_path / "out"
    export(sentences, tool, path, texts)
    assert by_key(import_(path, tool)) == by_key(sentences)
    first = path.read_bytes()
    export(import_(path, tool), tool, path, texts)
    assert sorted(first) == sorted(path.read_bytes())  # inception orders by document


@pytest.mark.parametrize("tool", TOOLS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    note=st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1
    ),
    gap=st.sampled_from(["", "\n", "\r\n", "\t", "\r", '"', "]]>", "&amp;"]),
)
def test_any_note_comes_back(tool, note, gap, sentences, texts, tmp_path):
    text = note + gap + note
    changed = replace(
        sentences[1], row=replace(sentences[1].row, b=Pass("none", None, 1, text), why=text + ".")
    )
    export([changed], tool, tmp_path / "out", texts)
    assert import_(tmp_path / "out", tool) == [changed]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write(path, tasks):
    path.write_text(json.dumps(tasks), encoding="utf-8")


def set_choice(annotation, name, value):
    item = next((r for r in annotation["result"] if r["from_name"] == name), None)
    if item is None:
        item = {"from_name": name, "to_name": "text", "type": "choices", "value": {}}
        annotation["result"].append(item)
    item["value"] = {"choices": [value]}


def test_labelstudio_tasks_are_what_the_tool_reads(sentences, tmp_path):
    export(sentences, "labelstudio", tmp_path / "out.json")
    task = read(tmp_path / "out.json")[1]
    form = etree.parse(tmp_path / "out.config.xml")
    shown = set(form.xpath("//Text/@value")) | set(form.xpath("//Header/@value")[0].split())
    assert {word.strip("$,:") for word in shown} <= task["data"].keys()
    controls = set(form.xpath("//Choices/@name | //Rating/@name | //TextArea/@name"))
    used = {r["from_name"] for annotation in task["annotations"] for r in annotation["result"]}
    assert used == controls
    assert [annotation["ground_truth"] for annotation in task["annotations"]] == [False, False, True]


def test_a_decision_changed_in_labelstudio(sentences, tmp_path):
    path = tmp_path / "out.json"
    export(sentences, "labelstudio", path)
    tasks = read(path)
    tasks[2] |= {"id": 77, "created_at": "today"}  # as the tool adds them
    set_choice(tasks[2]["annotations"][2], "label", "position")
    tasks[2]["annotations"].append({"was_cancelled": True, "result": []})
    write(path, tasks)
    row = import_(path, "labelstudio")[2].row
    assert (row.label, row.decided, row.why) == ("position", "adjudicated", "changed in labelstudio")
    assert row.a == sentences[2].row.a


def test_a_second_pass_added_in_labelstudio(sentences, tmp_path):
    path = tmp_path / "out.json"
    export(sentences, "labelstudio", path)
    tasks = read(path)
    for label, decided in (("agreement", "agreed"), ("position", "adjudicated")):
        second = {"result": [{"from_name": "sure", "type": "rating", "value": {"rating": 2}}]}
        set_choice(second, "pass", "B")
        set_choice(second, "label", label)
        tasks[3]["annotations"].append(second)  # of two by B, the later counts
        write(path, tasks)
        row = import_(path, "labelstudio")[3].row
        assert (row.passes, row.b, row.decided) == (2, Pass(label, None, 2, ""), decided)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t["annotations"][0]["result"].pop(0), "task 2, annotation 1: choose a pass"),
        (lambda t: t["annotations"][0]["result"].pop(), "rate how sure pass A"),
        (lambda t: t["data"].pop("communique"), "task 2: not one of our tasks"),
        (lambda t: t["data"].update(text="Other words."), "task 2: the sentence's text was changed"),
        (lambda t: set_choice(t["annotations"][1], "label", "maybe"), "task 2: b: label 'maybe'"),
    ],
)
def test_what_cannot_be_read_back_is_named(spoil, words, sentences, tmp_path):
    path = tmp_path / "out.json"
    export(sentences, "labelstudio", path)
    tasks = read(path)
    spoil(tasks[1])
    write(path, tasks)
    with pytest.raises(DataError, match=words):
        import_(path, "labelstudio")


@pytest.mark.parametrize(("tool", "field"), [("doccano", "label"), ("prodigy", "accept")])
def test_labels_changed_in_a_line_tool(tool, field, sentences, tmp_path):
    path = tmp_path / "out.jsonl"
    export(sentences, tool, path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert lines[1][field] == ["concession", "also:agreement"]
    lines[0][field], lines[3][field] = ["also:demand", "position"], ["demand"]
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = [s.row for s in import_(path, tool)]
    assert (rows[0].label, rows[0].also, rows[0].decided) == ("position", "demand", "adjudicated")
    assert (rows[3].label, rows[3].a.label, rows[3].decided) == ("demand", "demand", "single")
    assert rows[3].why == f"changed in {tool}" and not sentences[3].row.why
    assert rows[1] == sentences[1].row
    for names in ([], ["demand", "none"], ["demand", "urgent"], ["also:demand"]):
        lines[0][field] = names
        path.write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(DataError, match=r"out\.jsonl:1: labels are"):
            import_(path, tool)


def test_a_sentence_rejected_in_prodigy_needs_a_decision(sentences, tmp_path):
    path = tmp_path / "out.jsonl"
    export(sentences[:1], "prodigy", path)
    path.write_text(path.read_text(encoding="utf-8").replace('"answer": "accept"', '"answer": "reject"'))
    with pytest.raises(DataError, match="the answer is 'reject'"):
        import_(path, "prodigy")


def test_a_label_changed_in_inception(sentences, texts, tmp_path):
    path = tmp_path / "out.zip"
    export(sentences, "inception", path, texts)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == ["0001-own-1.xmi", "0002-unsczip_2020_English_x_1_.xml.xmi", "TypeSystem.xml"]
    name = "0002-unsczip_2020_English_x_1_.xml.xmi"
    types = load_typesystem(io.BytesIO(files["TypeSystem.xml"]))
    cas = load_cas_from_xmi(io.BytesIO(files[name]), typesystem=types)
    spans = cas.select("webanno.custom.Stance")
    assert [span.get_covered_text() for span in spans] == [s.text for s in sentences[:4]]
    spans[0].label = "position"
    files[name] = cas.to_xmi().encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    rows = {s.row.key: s.row for s in import_(path, "inception")}
    changed = rows.pop(sentences[0].row.key)
    assert (changed.label, changed.decided, changed.why) == (
        "position",
        "adjudicated",
        "changed in inception",
    )
    assert rows == {s.row.key: s.row for s in sentences[1:]}


def test_inception_files_hold_utf_16_offsets(sentences, texts, tmp_path):
    export(sentences, "inception", tmp_path / "out.zip", texts)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        root = etree.fromstring(archive.read("0002-unsczip_2020_English_x_1_.xml.xmi"))
    ends = [int(e.get("end")) for e in root.iter("{*}Stance")]
    units = [len(TEXT[: s.row.end].encode("utf-16-le")) // 2 for s in sentences[:4]]
    assert ends == units  # UIMA counts UTF-16 units, we count characters
    assert units[0] == sentences[0].row.end + 1


def test_what_xml_cannot_hold_is_refused(sentences, texts, tmp_path):
    torn = replace(sentences[0], row=replace(sentences[0].row, why="a\x0bb"))
    with pytest.raises(DataError, match="U\\+000B cannot stand in XML"):
        export([torn], "inception", tmp_path / "out.zip", texts)
    with pytest.raises(DataError, match="text is not at hand"):
        export(sentences, "inception", tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_exports_stay_out_of_the_repository(sentences, root, tmp_path):
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    for path in (tmp_path / "x.json", tmp_path / "data" / "annotations" / "x.json", root / "runs" / "x.json"):
        with pytest.raises(DataError, match="lies in the repository"):
            export(sentences, "doccano", path)
        assert not path.exists()


def test_bare_sentences_and_unknown_tools_are_refused(sentences, tmp_path):
    with pytest.raises(DataError, match="1 sentences have no text, first own-1#4"):
        export([*sentences[:4], replace(sentences[4], text=None)], "doccano", tmp_path / "x")
    with pytest.raises(DataError, match="unknown tool 'brat': use one of labelstudio"):
        export(sentences, "brat", tmp_path / "x")
    with pytest.raises(DataError, match="does not exist"):
        import_(tmp_path / "nothing", "labelstudio")
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(DataError, match="not a zip"):
        import_(tmp_path / "x.zip", "inception")


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def folder(sentences, tmp_path):
    """The annotation files and texts of the sentences above."""
    folder, corpus = tmp_path / "repo" / "annotations", tmp_path / "shared" / "corpus"
    folder.mkdir(parents=True)
    corpus.mkdir(parents=True)

    def lines(records):
        return "".join(json.dumps(record) + "\n" for record in records)

    real = [replace(s.row, doc_id="plain") for s in sentences[:4]]
    doc = {**vars(sentences[0].doc), "doc_id": "plain", "source": "corpus"}
    own = {**vars(sentences[4].doc), "text": TEXT}
    (folder / "real.jsonl").write_text(lines(row.to_json() for row in real))
    (folder / "own.jsonl").write_text(lines([sentences[4].row.to_json()]))
    (folder / "documents.jsonl").write_text(lines([doc]))
    (folder / "own_documents.jsonl").write_text(lines([own]))
    (corpus / "statements.jsonl").write_text(lines([{"doc_id": "plain", "text": TEXT}]))
    return folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("tool", TOOLS)
def test_export_and_import_commands(tool, folder, tmp_path):
    out, shared = tmp_path / "team", tmp_path / "shared"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run("export", out, "--to", tool, "--folder", folder, "--shared", shared)
    assert done.exit_code == 0, done.output
    assert "5 sentences written" in done.stdout
    done = run("import", out, "--from", tool, "--folder", folder)
    assert done.exit_code == 0, done.output
    assert "0 rows changed, 0 added, 5 are the same" in done.stdout
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_import_changes_only_what_was_changed(folder, tmp_path):
    out = tmp_path / "team.json"
    run("export", out, "--to", "labelstudio", "--folder", folder, "--shared", tmp_path / "shared")
    tasks = read(out)
    set_choice(tasks[0]["annotations"][2], "label", "position")
    write(out, tasks)
    before = (folder / "real.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    done = run("import", out, "--from", "labelstudio", "--folder", folder, "--dry-run")
    assert "1 rows would be changed" in done.stdout
    assert (folder / "real.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n") == before
    done = run("import", out, "--from", "labelstudio", "--folder", folder)
    assert "1 rows changed, 0 added, 4 are the same" in done.stdout
    after = (folder / "real.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert after[1:] == before[1:]
    assert json.loads(after[0])["label"] == "position"
    assert load_annotations(folder, tmp_path / "shared").sentences[0].row.why == "changed in labelstudio"


def test_import_adds_rows_of_known_documents_only(folder, tmp_path):
    out = tmp_path / "team.jsonl"
    run("export", out, "--to", "doccano", "--folder", folder, "--shared", tmp_path / "shared")
    lines = (folder / "real.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    (folder / "real.jsonl").write_text("\n".join(lines[:2]) + "\n")
    assert "2 added" in run("import", out, "--from", "doccano", "--folder", folder).stdout
    found = (folder / "real.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert found[:2] == lines[:2]  # untouched rows stay as they are, byte for byte
    assert list(map(json.loads, found)) == list(map(json.loads, lines))
    (folder / "documents.jsonl").write_text("")
    done = run("import", out, "--from", "doccano", "--folder", folder)
    assert done.exit_code == 2
    assert "document 'plain' is not in" in done.stderr


def test_export_without_texts_says_so_and_writes_the_own_ones(folder, tmp_path):
    done = run(
        "export", tmp_path / "team", "--to", "prodigy", "--folder", folder, "--shared", tmp_path / "nowhere"
    )
    assert done.exit_code == 0
    assert "1 sentences written" in done.stdout
    assert "4 of 5 rows could not be joined" in done.stderr
