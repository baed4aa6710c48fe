"""Annotations: rows, texts, joining, splits, the check and its command; all statements here are invented."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from communique.model.akn import text_of_akn
from communique.model.sentences import segment
from communique.train.composition import compose
from communique.train.corpus import load_annotations, to_dataset
from communique.train.data_cli import app
from communique.train.datacheck import Floors, check
from communique.train.files import DataError
from communique.train.rows import document_problems, row_problems
from communique.train.splits import (
    SplitPlan,
    extend_splits,
    linked_groups,
    make_splits,
    near_duplicates,
    shared_sentences,
    shingles,
)
from communique.train.texts import load_texts

STEMS = ["bal", "cor", "dun", "fel", "gar", "hin", "jor", "kel", "lum", "mor", "nev", "pol"]
WORDS = [stem + end for stem in STEMS for end in ["ava", "eth", "ion", "oru", "ys", "em"]]
LABELS = ["position", "demand", "concession", "agreement", "none"]
KINDS = ["readout", "joint_statement"]
PLAN = SplitPlan(
    test_sentences=24, test_concessions=2, test_documents=4, issuers=3, issuer_sentences=4, cuts=10
)
FLOORS = Floors(
    sentences=100, documents=20, issuers=5, issuer_share=0.5, labels={"demand": 10}, concessions_in_trade=1,
    concessions_elsewhere=1, own_documents=1, own_sentences=2, own_labels={}, kinds=KINDS, decades=["2010s"],
)  # fmt: skip


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def invented(rng, n):
    """A statement of n sentences that shares no run of words with another."""
    return " ".join(" ".join(rng.choices(WORDS, k=rng.randint(9, 14))).capitalize() + "." for _ in range(n))


def row(doc_id, number, start, end, text, label, passes=2, **changes):
    given = {"label": label, "also": None, "sure": 3, "note": ""}
    fields = {
        "doc_id": doc_id, "sent_id": number, "start": start, "end": end, "sha256": sha(text[start:end]),
        "head": " ".join(text[start:end].split()[:5]), "label": label, "also": None, "passes": passes,
        "a": given, "b": given if passes == 2 else None, "decided": "agreed" if passes == 2 else "single",
        "why": "", "sample": "cue", "weight": None,
    }  # fmt: skip
    return {**fields, **changes}


def document(doc_id, text, i, **changes):
    fields = {
        "doc_id": doc_id, "issuer": f"X{i % 8}", "issuer_name": f"Ministry {i % 8}", "kind": KINDS[i % 2],
        "date": f"201{i % 10}-03-02", "source": "corpus", "text_sha256": sha(text),
        "n_sentences": len(segment(text)), "trade": i % 3 == 0,
    }  # fmt: skip
    return {**fields, **changes}


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


class World:
    """A folder of invented annotations and one of their texts, to be changed and written again."""

    def __init__(self, folder, documents=30, sentences=6):
        rng = random.Random(4)
        self.folder, self.shared = folder / "annotations", folder / "shared"
        self.texts = {f"d{i:02d}": invented(rng, sentences) for i in range(documents)}
        self.texts["d29"] = self.texts["d28"] + " " + invented(rng, 1)  # nearly the same
        self.docs = [document(doc_id, text, i) for i, (doc_id, text) in enumerate(self.texts.items())]
        self.rows = [
            row(doc_id, n, *span, text, LABELS[(i + n) % 5], passes=1 if i in (0, 1) else 2)
            for i, (doc_id, text) in enumerate(self.texts.items())
            for n, span in enumerate(segment(text))
        ]
        self.own_text = (
            "We will lift the ban on plums that you objected to. They met on Tuesday in the old harbour hall."
        )
        doc = {
            "doc_id": "own-1",
            "issuer": "X3",
            "issuer_name": "Ministry 3",
            "kind": "readout",
            "date": "2024",
        }
        self.own_docs = [{**doc, "title": "T", "register": "terse", "text": self.own_text, "synthetic": True}]
        self.own = [
            row("own-1", n, *span, self.own_text, label, synthetic=True, sample="written")
            for n, (span, label) in enumerate(
                zip(segment(self.own_text), ("concession", "none"), strict=True)
            )
        ]
        self.splits = None
        self.write()

    def write(self):
        write(self.folder / "real.jsonl", self.rows)
        write(self.folder / "documents.jsonl", self.docs)
        write(self.folder / "own.jsonl", self.own)
        write(self.folder / "own_documents.jsonl", self.own_docs)
        write(
            self.shared / "corpus" / "statements.jsonl",
            [{"doc_id": d, "text": t} for d, t in self.texts.items()],
        )
        if self.splits is not None:
            (self.folder / "splits.json").write_text(json.dumps(self.splits))
        return self

    def load(self):
        return load_annotations(self.folder, self.shared)

    def cut(self, seed=5):
        found = self.load()
        rows = [s.row for s in found.sentences]
        self.splits = make_splits(rows, found.documents, found.texts, seed, PLAN)
        return self.write()

    def check(self):
        return check(self.folder, self.shared, FLOORS, PLAN)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


# --- rows ------------------------------------------------------------------------------------------


def sound(**changes):
    return row("d", 0, 0, 21, "We will lift the ban.", "concession", **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "concesion"}, "concesion"),
        ({"also": "concession"}, "also repeats"),
        ({"also": "none"}, "also 'none'"),
        ({"end": 0}, "no stretch"),
        ({"sent_id": True}, "sent_id is True"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"head": "We will lift the ban on plums"}, "more than 5 words"),
        ({"b": None}, "passes 2 does not go with b null"),
        ({"passes": 1}, "does not go with b given"),
        ({"decided": "single"}, "decided 'single'"),
        ({"decided": "adjudicated"}, "without a reason"),
        ({"label": "none"}, "the labels are concession, none"),
        ({"a": {"label": "none", "also": None, "sure": 4, "note": ""}}, "a: sure is 4"),
        ({"a": {"label": "none"}}, "a: field 'also' is missing"),
        ({"sample": "random"}, "random rows have one"),
        ({"sample": "random", "weight": 0.5}, "expected 1 or more"),
        ({"sample": "written"}, "sample 'written'"),
        ({"text": "We will lift the ban."}, "standoff"),
    ],
)
def test_a_row_that_is_not_sound_says_why(changes, words):
    assert row_problems(sound(), own=False) == []
    assert any(words in problem for problem in row_problems({**sound(), **changes}, own=False))


def test_own_rows_say_that_they_are_synthetic():
    assert row_problems(sound(synthetic=True, sample="written"), own=True) == []
    assert row_problems(sound(sample="written"), own=True) == ["field 'synthetic' is missing"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"date": "May 2020"}, "YYYY"), ({"trade": 1}, "trade is 1"),
        ({"text": "They met."}, "outside the repository"), ({"source": "web"}, "source 'web'"),
    ],
)  # fmt: skip
def test_a_document_that_is_not_sound_says_why(changes, words):
    good = document("d", "They met.", 1)
    assert document_problems(good, own=False) == []
    assert any(words in problem for problem in document_problems({**good, **changes}, own=False))


# --- joining ---------------------------------------------------------------------------------------


def test_rows_come_with_sentence_neighbours_and_document(world):
    found = world.load()
    sentence = next(s for s in found.sentences if s.row.doc_id == "d05" and s.row.sent_id == 2)
    spans = segment(world.texts["d05"])
    pieces = [world.texts["d05"][a:b] for a, b in spans]
    assert (sentence.before, sentence.text, sentence.after) == (pieces[1], pieces[2], pieces[3])
    assert sentence.doc.issuer_name == "Ministry 5"
    assert found.sentences[0].before == ""
    assert not found.unjoined
    assert found.notice == ""
    assert (
        next(s for s in found.sentences if s.row.synthetic).text
        == "We will lift the ban on plums that you objected to."
    )


def test_a_text_that_changed_is_reported_and_not_labelled(world):
    world.texts["d05"] = world.texts["d05"].replace(" ", "  ", 1)
    found = world.write().load()
    assert len(found.unjoined) == 6
    assert {item.reason for item in found.unjoined} == {"hash mismatch"}
    assert "6 of 183 rows" in found.notice
    assert "d05#0" in found.notice
    assert all(s.text is None for s in found.sentences if s.row.doc_id == "d05")


def test_without_the_texts_own_rows_remain_and_the_notice_says_what_to_do(world, tmp_path):
    found = load_annotations(world.folder, tmp_path / "nowhere")
    assert {s.row.synthetic for s in found.sentences if s.text is not None} == {True}
    assert str(Path("corpus") / "statements.jsonl") in found.notice
    assert "COMMUNIQUE_SHARED" in found.notice
    with pytest.raises(DataError, match="181 sentences have no text"):
        to_dataset(found.sentences)


def test_the_folder_of_the_texts_may_be_named_by_the_environment(world, monkeypatch):
    monkeypatch.setenv("COMMUNIQUE_SHARED", str(world.shared))
    assert not load_annotations(world.folder).unjoined


def test_a_bad_line_is_named_by_file_and_row(world):
    path = world.folder / "real.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].replace('"cue"', '"cues"'), *lines[4:]]))
    with pytest.raises(DataError, match=r"real\.jsonl:4: sample 'cues'"):
        world.load()
    path.write_text("\n".join([*lines[:2], "{"]))
    with pytest.raises(DataError, match=r"real\.jsonl:3: not JSON"):
        world.load()


AKN = """<akomaNtoso xmlns="http://docs.oasis-open.org/legaldocml/ns/akn/3.0"><statement>
<meta><p>Not this.</p></meta><coverPage><p>Nor this.</p></coverPage>
<preamble><p>\tThe <i>Council</i>,<authorialNote><p>A footnote.</p></authorialNote></p></preamble>
<mainBody><paragraph><num>1.</num><content><p>Calls upon both sides to   rest;</p></content></paragraph>
<paragraph><num>2.</num><list><intro><p>Decides:</p></intro><point><num>(a)</num><content>
<p>To wait;</p></content></point></list></paragraph></mainBody></statement></akomaNtoso>"""


def test_running_text_of_a_council_document():
    wanted = ["The Council,", "1. Calls upon both sides to rest;", "2. Decides:", "(a) To wait;"]
    assert text_of_akn(AKN.encode()).split("\n\n") == wanted
    broken = AKN.replace(
        "</content></paragraph>\n<paragraph><num>2.", "</paragraph></content>\n<paragraph><num>2."
    )
    assert text_of_akn(broken.encode()).split("\n\n") == wanted


def test_council_documents_are_read_from_their_zip(world):
    path = world.shared / "public" / "un-security-council-en.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("2020/one.xml", AKN)
    text = text_of_akn(AKN.encode())
    world.docs.append(document("unsczip:2020/one.xml", text, 1, source="unsc"))
    world.rows.append(row("unsczip:2020/one.xml", 1, *segment(text)[1], text, "demand"))
    last = [s for s in world.write().load().sentences if not s.row.synthetic][-1]
    assert last.text == "1. Calls upon both sides to rest;"
    assert last.before == "The Council,"


@pytest.mark.corpus
def test_real_council_documents_have_text(shared):
    with zipfile.ZipFile(shared / "public" / "un-security-council-en.zip") as archive:
        members = [f"unsczip:{name}" for name in archive.namelist() if name.endswith(".xml")][::200]
    texts = load_texts(members, shared)
    assert texts.keys() == set(members)
    assert all(len(text.split()) > 30 for text in texts.values())


# --- splits ----------------------------------------------------------------------------------------


def test_near_duplicates_are_those_of_a_plain_count(world):
    sets = {doc_id: shingles(text) for doc_id, text in world.texts.items()}
    plain = [
        (a, b) for a in sets for b in sets if a < b and len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= 0.5
    ]
    found = near_duplicates(world.texts)
    assert [(a, b) for a, b, _ in found] == plain == [("d28", "d29")]
    assert found[0][2] == pytest.approx(len(sets["d28"] & sets["d29"]) / len(sets["d28"] | sets["d29"]))


def test_groups_are_transitive():
    groups = linked_groups("abcde", [("b", "c"), ("e", "c")])
    assert groups == {"a": "a", "b": "b", "c": "b", "d": "d", "e": "b"}


def test_splits_keep_their_promises(world):
    splits = world.cut().splits
    split, found = splits["split"], world.load()
    assert split["d28"] == split["d29"]
    assert splits["near_duplicates"] == [["d28", "d29"]]
    assert {split["d00"], split["d01"]} == {"train"}  # singly annotated
    assert set(split) == set(world.texts)
    test = [s.row for s in found.split("test")]
    assert len(test) >= 24
    assert len({r.doc_id for r in test}) >= 4
    assert sum(r.label == "concession" for r in test) >= 2
    assert splits["fold"].keys() == {d for d, name in split.items() if name != "test"}
    assert sorted(set(splits["fold"].values())) == [0, 1, 2, 3, 4]
    assert splits["fold"].get("d28") == splits["fold"].get("d29")
    assert 0.5 * len(test) <= len(found.split("dev")) <= len(test)
    assert len(splits["leave_issuer_out"]) == 3


def test_splits_are_the_same_whatever_the_order_of_rows(world):
    first = world.cut().splits
    random.Random(1).shuffle(world.rows)
    assert world.write().cut().splits == first
    assert world.cut(seed=6).splits != first


def test_documents_with_a_long_sentence_in_common_stay_together(world):
    world.texts["d10"] += " " + world.texts["d20"].split(". ")[0] + "."
    text = world.texts["d10"]
    world.docs[10] = document("d10", text, 10)
    world.rows.append(row("d10", 6, *segment(text)[6], text, "none"))
    found = world.write().load()
    pairs = [pair[:2] for pair in shared_sentences([s.row for s in found.sentences], found.texts)]
    assert ("d10", "d20") in pairs
    splits = world.cut().splits
    assert ["d10", "d20"] in splits["near_duplicates"]
    assert splits["split"]["d10"] == splits["split"]["d20"]


def test_extended_splits_move_nothing_and_place_what_is_new(world):
    full = world.cut().splits
    linked = {"d28", "d29"}
    new = {"d29", "d12"}
    known = {
        **full,
        "split": {d: part for d, part in full["split"].items() if d not in new},
        "fold": {d: fold for d, fold in full["fold"].items() if d not in new},
    }
    found = world.load()
    made = extend_splits(known, [s.row for s in found.sentences], found.texts)
    assert made["split"].keys() == full["split"].keys()
    assert {d: made["split"][d] for d in known["split"]} == known["split"]
    assert len({made["split"][d] for d in linked}) == 1
    assert made["split"]["d12"] == "train" and made["fold"]["d12"] in range(5)


def test_splits_are_extended_only_where_there_are_some_and_texts(world, tmp_path):
    done = run("splits", "--extend", "--folder", world.folder, "--shared", world.shared)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "no splits.json to extend" in done.stderr
    done = run("splits", "--extend", "--folder", world.cut().folder, "--shared", tmp_path / "nowhere")
    assert done.exit_code == 2 and "have no text" in done.stderr


def test_too_little_data_is_refused_in_words(world):
    found = world.load()
    rows = [s.row for s in found.sentences]
    with pytest.raises(DataError, match="annotate more documents"):
        make_splits(rows, found.documents, found.texts, 1)
    with pytest.raises(DataError, match="have no text"):
        make_splits(rows, found.documents, {}, 1)


def test_own_statements_only_train(world):
    found = world.cut().load()
    assert any(s.row.synthetic for s in found.split("train"))
    assert not any(s.row.synthetic for s in found.split("train", own=False))
    for name in ("dev", "test"):
        assert not any(s.row.synthetic for s in found.split(name))
    world.splits["own_dev"] = ["own-1"]
    found = world.write().load()
    assert not any(s.row.synthetic for s in found.split("train"))
    assert {s.row.doc_id for s in found.split("own-dev")} == {"own-1"}
    with pytest.raises(DataError, match="no split 'validation'"):
        found.split("validation")


def test_folds_and_issuers_left_out_share_nothing(world):
    found = world.cut().load()
    test = {s.row.doc_id for s in found.split("test")}
    held_out = set()
    for number in range(5):
        train, held = found.fold(number)
        docs, others = {s.row.doc_id for s in held}, {s.row.doc_id for s in train}
        assert docs
        assert not (docs | test) & others
        held_out |= docs
    assert held_out == set(world.texts) - test - {"d00", "d01"}
    world.splits["leave_issuer_out"] = ["X3"]
    world.splits["split"] |= {"d28": "train", "d29": "train", "d03": "train"}
    world.splits["fold"] |= {"d28": 0, "d29": 0, "d03": 0}
    world.docs[28]["issuer"] = "X3"  # its near-duplicate d29 has another issuer
    train, held = world.write().load().leave_issuer_out("X3")
    assert {"d03", "d28"} <= {s.row.doc_id for s in held}
    assert not {"d29", "own-1"} & {s.row.doc_id for s in train}
    assert {s.doc.issuer for s in train}.isdisjoint({"X3"})


@pytest.mark.slow
def test_dataset_has_class_labels_in_order(world):
    data = to_dataset(world.cut().load().split("train"))
    assert data.features["label"].names == LABELS
    first = data[0]
    assert LABELS[first["label"]] == first["label_a"]
    assert first["label_b"] is None  # d00 was annotated once
    assert {"text", "before", "after", "issuer", "synthetic", "weight"} <= first.keys()


# --- the check -------------------------------------------------------------------------------------


def test_sound_data_has_no_problem(world):
    report = world.cut().check()
    assert report.problems == ()
    assert report.verified == report.rows == 183
    assert report.composition.sentences["real"] == 181
    assert report.composition.documents["own"] == 1
    assert sum(report.composition.sections["label"]["demand"][c] for c in ("train", "dev", "test")) == sum(
        r["label"] == "demand" for r in world.rows
    )


def plant_hash(world):
    world.rows[20]["sha256"] = sha("another sentence")


def plant_twin_apart(world):
    world.splits["split"]["d28"], world.splits["split"]["d29"] = "train", "dev"
    world.splits["fold"] |= {"d28": 0, "d29": 0}


def plant_twin_folds(world):
    world.splits["split"] |= {"d28": "train", "d29": "train"}
    world.splits["fold"] |= {"d28": 0, "d29": 1}


def plant_single_in_test(world):
    world.splits["split"]["d00"] = "test"
    del world.splits["fold"]["d00"]


def plant_missing_fold(world):
    del world.splits["fold"]["d00"]


def plant_unsplit(world):
    del world.splits["split"]["d07"]


def plant_own_in_test(world):
    world.splits["split"]["own-1"] = "test"


def plant_own_repeats_test(world):
    """A sentence of test, word for word but the first, in a statement of the project's own."""
    held = next(d for d, part in world.splits["split"].items() if part == "test")
    start, end = segment(world.texts[held])[0]
    text = "Dear " + world.texts[held][start:end]
    (span,) = segment(text)
    world.own_docs.append({**world.own_docs[0], "doc_id": "own-2", "text": text})
    world.own.append(row("own-2", 0, *span, text, "none", synthetic=True, sample="written"))


def plant_overlap(world):
    world.rows.append({**world.rows[20], "sent_id": 17, "start": world.rows[20]["start"] + 1})


def plant_head(world):
    world.rows[20]["head"] = "Other words stand here now"


def plant_text_version(world):
    world.docs[5]["text_sha256"] = sha("an older version")


def plant_issuer(world):
    for doc in world.docs[:20]:
        doc["issuer"] = "X1"


def plant_unknown_issuer(world):
    world.splits["leave_issuer_out"] = ["NOBODY"]


def plant_form(world):
    world.rows[4]["label"] = "concesion"


def plant_document(world):
    del world.docs[6]


def plant_form_of_splits(world):
    world.splits["fold"] = []


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (plant_hash, "hash mismatch: 1 rows"), (plant_twin_apart, "stand in train and dev"),
        (plant_twin_folds, "stand in folds 0 and 1"), (plant_single_in_test, "has sentences of one pass"),
        (plant_missing_fold, "in no fold"), (plant_unsplit, "stands in no split"),
        (plant_own_in_test, "it may only train"),
        (plant_own_repeats_test, "own-2#0: “Dear"), (plant_overlap, "one stretch, one row"),
        (plant_head, "first five words in 1 rows"), (plant_text_version, "not the version annotated"),
        (plant_issuer, "X1 issued 69.6%"), (plant_unknown_issuer,  "'NOBODY'"),
        (plant_form, "real.jsonl:5: label 'concesion'"),
        (plant_document, "is not in documents.jsonl"),
        (plant_form_of_splits, "fold: missing or not of the right form"),
    ],
)  # fmt: skip
def test_every_planted_fault_is_found(world, plant, words):
    plant(world.cut())
    problems = [f"{p.where}: {p.what}" for p in world.write().check().problems]
    assert any(words in problem for problem in problems), problems


def test_a_document_twice_in_the_splits_is_refused(world):
    world.cut()
    path = world.folder / "splits.json"
    path.write_text(path.read_text().replace('"split": {', '"split": {"d05": "test", ', 1))
    with pytest.raises(DataError, match="'d05' stands twice"):
        world.check()


def test_floors_are_counted(world):
    problems = [p.what for p in check(world.cut().folder, world.shared).problems]
    assert "real sentences in two passes: 169, at least 3,500 wanted" in problems
    assert "own sentences: 2, at least 1,400 wanted" in problems
    assert any("1990s" in what for what in problems)


def test_without_texts_only_notices_speak_of_them(world, tmp_path):
    report = check(world.cut().folder, tmp_path / "nowhere", FLOORS, PLAN)
    assert report.problems == ()
    assert report.verified == 2
    assert any("COMMUNIQUE_SHARED" in finding.what for finding in report.findings)


def test_counts_cross_label_kind_issuer_and_split(world):
    found = world.cut().load()
    crossed = compose(found.sentences, found.splits).to_json()["label_kind_issuer_split"]
    assert sum(cell["sentences"] for cell in crossed) == 183
    assert {cell["split"] for cell in crossed} == {"train", "dev", "test", "own"}


# --- the command -----------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_check_command(world, tmp_path):
    counts = tmp_path / "counts.json"
    done = run("check", "--folder", world.cut().folder, "--shared", world.shared, "--json", counts)
    assert done.exit_code == 1  # the floors
    assert "183 of 183 rows joined" in done.stdout
    assert "by decade" in done.stdout
    assert json.loads(counts.read_text())["sentences"]["real"] == 181


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    for command in ("check", "agree", "splits"):
        done = run(command, "--folder", tmp_path)
        assert done.exit_code == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert "neither real.jsonl nor own.jsonl" in done.stderr


def test_splits_command_refuses_too_little(world):
    done = run("splits", "--folder", world.folder, "--shared", world.shared)
    assert done.exit_code == 2
    assert "annotate more documents" in done.stderr
    assert not (world.folder / "splits.json").exists()
