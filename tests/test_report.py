"""The report: scores against scikit-learn and by hand, bad tables, and a page that never says NaN."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from communique.eval import baselines, slices, views
from communique.eval.compare import compare, mcnemar_p
from communique.eval.eval_cli import app
from communique.eval.exports import numbers, tex
from communique.eval.metrics import calibration_error, evaluate
from communique.eval.report import Head, Settings, build
from communique.eval.report_page import FILES, page
from communique.eval.resample import Resampler
from communique.eval.table import Row, Table, align, read_table
from communique.eval.verdict import verdict
from communique.model.errors import InputError
from communique.model.labels import LABELS, label_index

metrics = pytest.importorskip("sklearn.metrics", reason="needs the eval extra")
pytest.importorskip("statsmodels", reason="needs the eval extra")
pytest.importorskip("jinja2", reason="needs the eval extra")

NAMES = list(map(str, LABELS))
HEAD = Head("communique eval report t.jsonl", "2024-01-01 00:00 UTC", {"t.jsonl": "0" * 64}, {"Python": "3"})
QUICK = Settings(resamples=60)


def record(i=0, **changes):
    row = {"doc_id": "d0", "sent_id": i, "text": f"Sentence {i} of Belmar.", "gold": "demand"}
    return (
        row
        | {"p_position": 0.1, "p_demand": 0.6, "p_concession": 0.1, "p_agreement": 0.1, "p_none": 0.1}
        | changes
    )


def random_records(n=300, seed=0, documents=30, strength=2.0, **changes):
    rng, truths = np.random.default_rng(seed), np.random.default_rng(99).integers(0, 5, n)
    rows = []
    for i, gold in enumerate(truths):
        z = rng.normal(size=5)
        z[gold] += strength
        p = np.round(np.exp(z) / np.exp(z).sum(), 4)
        named = dict(zip([f"p_{name}" for name in NAMES], map(float, p), strict=True))
        where = {
            "doc_id": f"d{i % documents}",
            "issuer": f"I{i % documents % 3}",
            "date": f"{2020 + i % 2}-01-02",
        }
        drawn = {"sample": "random", "weight": 2.0 + i % 3} if i % 2 else {"sample": "cue", "weight": None}
        annotators = {"label_a": NAMES[gold], "label_b": NAMES[gold if i % 5 else (gold + 1) % 5]}
        rows.append(record(i, gold=NAMES[gold], **where, **drawn, **annotators, **named) | changes)
    return rows


def saved(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path):
    return read_table(saved(tmp_path / "t.jsonl", random_records(model="ours")), threshold=0.4)


def labelled(golds, found, documents=None):
    """A table that is sure of the labels found."""
    rows = tuple(
        Row(f"t:{i}", (documents or golds)[i], i, f"Sentence {i}.", gold) for i, gold in enumerate(golds)
    )
    return Table("m", "0" * 64, rows, np.eye(5)[[label_index(x) for x in found]], 0.0)


# --- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "t.jsonl: holds no rows"),
        ([record(), {k: v for k, v in record(1).items() if k != "gold"}], "t.jsonl:2: no column 'gold'"),
        ([{k: v for k, v in record().items() if k != "p_none"}], "t.jsonl:1: no column 'p_none'"),
        ([record(), record(1, gold="threat")], "t.jsonl:2: gold is 'threat': use one of position, demand"),
        ([record(), record(1, p_none=0.3)], "t.jsonl:2: the probabilities sum to 1.2000, not 1"),
        ([record(), record(1), record(0)], r"t.jsonl:3: d0#0 is in t.jsonl:1 already"),
        ([record(p_none=float("nan"))], "t.jsonl:1: p_none is nan"),
        ([record(p_none="0.1")], "t.jsonl:1: p_none is '0.1'"),
        ([record(p_none=-0.1, p_position=0.3)], "p_none is -0.1"),
        ([record(text="")], "text is ''"),
        ([record(sent_id="0")], "sent_id is '0'"),
        ([record(weight=0)], "weight is 0"),
        ([record(date="5 May")], "date is '5 May'"),
        ([record(label_a="x")], "label_a is 'x'"),
        ([record(issuer=3)], "issuer is 3"),
        ([record(threshold=0.2), record(1, threshold=0.3)], "t.jsonl:2: threshold is 0.3"),
        ([record(threshold=2)], "threshold is 2"),
        ([record(label_weights=[1, 1, 0, 1, 1])], "label_weights is"),
        ([record(label_weights={"demand": 2})], "give a number above 0 for each label"),
        ([[1]], "t.jsonl:1: a list"),
    ],
)
def test_a_bad_table_gets_one_line(tmp_path, rows, message):
    path = saved(tmp_path / "t.jsonl", rows)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    done = CliRunner().invoke(app, ["report", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and not (tmp_path / "out").exists()


def test_not_json_not_utf8_not_there(tmp_path):
    path = tmp_path / "t.jsonl"
    for content, message in ((b"{", "t.jsonl:1: not JSON"), (b"\xff\n", "not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_table(path)
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "no.jsonl")


def test_threshold_and_model_come_from_the_table(tmp_path):
    path = saved(tmp_path / "t.jsonl", [record(threshold=0.7, model="ours")])
    table = read_table(path)
    assert (table.name, table.threshold) == ("ours", 0.7)
    assert [NAMES[i] for i in table.found] == ["none"]
    assert [NAMES[i] for i in read_table(path, threshold=0.5).found] == ["demand"]
    heavy = saved(
        tmp_path / "h.jsonl", [record(label_weights=[20, 1, 1, 1, 1], p_position=0.1, p_demand=0.6)]
    )
    assert [NAMES[i] for i in read_table(heavy).found] == ["position"]
    assert read_table(heavy).heavy == [("position", 20)]


def test_tables_are_aligned_by_sentence(tmp_path):
    rows = random_records(20)
    first = read_table(saved(tmp_path / "a.jsonl", rows))
    again = align(first, read_table(saved(tmp_path / "b.jsonl", rows[::-1])))
    assert np.array_equal(again.probabilities, first.probabilities)
    with pytest.raises(InputError, match=r"1 missing, 0 more, first missing d19#19"):
        align(first, read_table(saved(tmp_path / "c.jsonl", rows[:-1])))
    changed = [*rows[:-1], rows[-1] | {"gold": "none" if rows[-1]["gold"] != "none" else "demand"}]
    with pytest.raises(InputError, match=r"d.jsonl:20: gold differs from a.jsonl:20"):
        align(first, read_table(saved(tmp_path / "d.jsonl", changed)))


# --- scores ------------------------------------------------------------------------------------------


def test_scores_equal_scikit_learn_and_evaluate(table):
    gold, found = [NAMES[i] for i in table.truth], [NAMES[i] for i in table.found]
    report = build([table], HEAD, settings=QUICK)
    s = report.systems[0]
    kinds = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}
    for name, function in kinds.items():
        expected = function(gold, found, labels=NAMES, average=None, zero_division=0)
        assert [getattr(s, name)[label].value for label in NAMES] == pytest.approx(expected)
    assert s.accuracy.value == pytest.approx(metrics.accuracy_score(gold, found))
    weights = [row.weight or 0 for row in table.rows]
    four = metrics.f1_score(gold, found, labels=NAMES[:4], average="macro", sample_weight=weights)
    assert s.weighted4.value == pytest.approx(four)
    assert report.counts.tolist() == metrics.confusion_matrix(gold, found, labels=NAMES).tolist()
    same = evaluate(gold, table.probabilities, table.documents, threshold=0.4, resamples=60)
    for mine, theirs in (
        (s.macro4, same.macro_f1),
        (s.macro5, same.macro_f1_five),
        (s.f1["none"], same.f1["none"]),
    ):
        assert vars(mine) == pytest.approx(vars(theirs))
    assert (report.ece, report.brier) == pytest.approx((same.ece, same.brier))


def drawn(concessions, documents=6, each=12, none=12):
    """Random rows, so many of each label in so many documents, and a right answer to all."""
    golds = (
        sorted(["position", "demand", "agreement"] * each) + ["none"] * none + ["concession"] * concessions
    )
    table = labelled(golds, golds, [f"d{i % documents}" for i in range(len(golds))])
    return replace(table, rows=tuple(replace(row, weight=3.0) for row in table.rows))


@pytest.mark.parametrize(
    "table, four, five, lacking",
    [
        (drawn(10), True, True, set()),
        (drawn(9), False, False, {"concession"}),
        (drawn(10, none=9), True, False, {"none"}),
        (drawn(10, documents=4), False, False, set(NAMES)),
    ],
)
def test_too_few_random_rows_of_a_label_carry_no_weighted_mean(table, four, five, lacking):
    report = build([table], HEAD, settings=QUICK)
    s = report.systems[0]
    assert (s.weighted4.value is not None, s.weighted5.value is not None) == (four, five)
    assert {name for name, n in s.weighted_f1.items() if n.value is None} == lacking
    assert s.weighted_accuracy.value == 1 and s.macro4.value == 1  # those can be given all the same
    found = numbers(report)["random_by_label"]
    assert {name for name, x in found.items() if not x["enough"]} == lacking
    words = " ".join(read_page(page(report)).words)
    n, m = report.random.by_label["concession"]
    assert f"{n} ({m})" in words and "do not undo how documents" in words
    assert ("10 random sentences in 5 documents" in words) == bool(lacking)


def test_a_few_random_rows_carry_nothing():
    table = drawn(5, each=5, none=5)  # 25 rows
    s = build([table], HEAD, settings=QUICK).systems[0]
    assert s.weighted_accuracy.value is None and s.weighted4.value is None


def test_weighted_scores_equal_scikit_learn(table):
    s = build([table], HEAD, settings=QUICK).systems[0]
    gold, found = [NAMES[i] for i in table.truth], [NAMES[i] for i in table.found]
    weights = [row.weight or 0 for row in table.rows]
    assert s.weighted_accuracy.value == pytest.approx(
        metrics.accuracy_score(gold, found, sample_weight=weights)
    )
    each = metrics.f1_score(gold, found, labels=NAMES, average=None, sample_weight=weights)
    assert [s.weighted_f1[name].value for name in NAMES] == pytest.approx(each)


def test_a_class_that_is_absent_is_not_estimable():
    table = labelled(
        ["demand", "position", "none"] * 4, ["demand", "position", "concession"] * 4, list("abcdef") * 2
    )
    report = build([table], HEAD, settings=QUICK)
    s = report.systems[0]
    assert s.macro4.value is None and s.f1["concession"].value is None and s.f1["demand"].value == 1
    assert s.accuracy.value == pytest.approx(2 / 3)
    assert "not estimable, since no sentence is labelled concession or agreement" in verdict(report)[0]
    assert "not estimable" in page(report)


def test_few_documents_carry_no_interval():
    report = build([labelled(["demand", "none"], ["demand", "none"])], HEAD, settings=QUICK)
    assert report.systems[0].accuracy.value == 1 and report.systems[0].accuracy.low is None


def test_the_ceiling_of_few_documents_has_no_interval(tmp_path):
    rows = random_records(60, documents=4)
    for documents, known in ((4, False), (5, True)):
        named = [row | {"doc_id": f"d{i % documents}"} for i, row in enumerate(rows)]
        top = views.ceiling(read_table(saved(tmp_path / "t.jsonl", named)), 50, 0)["macro4"]
        assert top.value is not None and (top.low is not None) is known


def test_chance_is_the_mean_of_random_draws():
    dummy = pytest.importorskip("sklearn.dummy").DummyClassifier
    gold = np.array([0] * 50 + [1] * 30 + [2] * 10 + [3] * 5 + [4] * 5)
    tables = np.zeros((1, 5, 5))
    np.add.at(tables[0], (gold, gold), 1)
    expected = baselines.chance_tables(tables, baselines.label_shares(gold))[0]
    assert expected.sum() == pytest.approx(100)
    features = np.zeros((100, 1))
    draws = [
        dummy(strategy="stratified", random_state=i).fit(features, gold).predict(features) for i in range(400)
    ]
    mean = np.mean([metrics.confusion_matrix(gold, draw, labels=range(5)) for draw in draws], axis=0)
    assert np.abs(mean - expected).max() < 0.6


@pytest.mark.parametrize(
    "text, label",
    [
        ("We urge Belmar to reopen the crossing.", "demand"),
        ("Ostrel condemns the seizure.", "position"),
        ("Belmar will lift its levy next month.", "concession"),
        ("The two sides agreed to meet again.", "agreement"),
        ("Does the minister have a comment?", "none"),
        ("The delegation arrived at noon.", "none"),
    ],
)
def test_keyword_rules(text, label):
    assert baselines.keyword_label(text) == label


def test_tfidf_learns_and_needs_two_labels():
    rows = [
        Row("t", f"d{i}", i, text, gold)
        for i in range(10)
        for text, gold in (("urges calm", "demand"), ("hails progress", "position"))
    ]
    found = baselines.tfidf_labels(rows, [Row("t", "x", 0, "Belmar urges talks", "none")])
    assert NAMES[found[0]] == "demand"
    with pytest.raises(ValueError, match="two or more"):
        baselines.tfidf_labels(rows[::2], rows)


def test_training_documents_must_not_be_in_the_table(table):
    with pytest.raises(InputError, match="documents are in the training table and in ours, first 'd0'"):
        build([table], HEAD, train=table.rows, settings=QUICK)


# --- the other views ---------------------------------------------------------------------------------


def test_confused_pairs_by_hand():
    table = labelled(["demand"] * 4 + ["none"] * 2, ["position"] * 3 + ["demand", "demand", "none"])
    first, second = views.confused_pairs(table)
    assert (first.gold, first.found, first.count, first.share) == ("demand", "position", 3, 0.75)
    assert (second.gold, second.found, second.count, second.share) == ("none", "demand", 1, 0.5)
    assert [row.sent_id for row in first.examples] == [0, 1, 2]


def test_reliability_bins_make_up_the_calibration_error(table):
    bins = views.reliability(table)
    assert sum(b.n for b in bins) == len(table.rows)
    gap = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(table.rows)
    assert gap == pytest.approx(calibration_error(table.truth, table.probabilities))


def test_risk_coverage_by_hand():
    p = np.full((4, 5), 0.0)
    p[:, 0] = [0.9, 0.8, 0.8, 0.6]
    p[:, 4] = 1 - p[:, 0]
    rows = tuple(Row("t", "d", i, "x", g) for i, g in enumerate(["position", "position", "none", "none"]))
    table = Table("m", "", rows, p, 0.7)
    curve = [(k.confidence, k.coverage, k.risk) for k in views.risk_coverage(table)]
    assert curve == [(0.9, 0.25, 0.0), (0.8, 0.75, pytest.approx(1 / 3)), (0.6, 1.0, 0.5)]
    kept = views.kept_at(table, 0.7)
    assert (kept.coverage, kept.risk) == (0.75, pytest.approx(1 / 3))
    assert views.kept_at(table, 0.95) is None
    # The last sentence falls below the threshold, becomes none and is right.
    assert [(e.row.sent_id, e.found, e.abstained) for e in views.errors(table)] == [(2, "position", False)]


def test_a_label_taken_by_its_weight_is_no_abstention(tmp_path):
    row = record(gold="position", p_position=0.5, p_demand=0.1, p_concession=0.2, p_agreement=0.1, p_none=0.1)
    heavy = {"label_weights": [1, 1, 3, 1, 1], "threshold": 0.42}
    (error,) = views.errors(read_table(saved(tmp_path / "t.jsonl", [row | heavy])))
    assert (error.found, error.abstained, error.confidence) == ("concession", False, 0.2)
    kept = views.kept_at(read_table(saved(tmp_path / "t.jsonl", [row | heavy])), 0.42)
    assert (kept.coverage, kept.risk) == (1, 1)  # 0.6 of 1.4, and wrong
    assert views.kept_at(read_table(saved(tmp_path / "t.jsonl", [row | heavy])), 0.45) is None


def test_errors_come_surest_first_and_abstentions_last(table):
    wrong = views.errors(table)
    assert len(wrong) == int((table.found != table.truth).sum())
    sure = [e.confidence for e in wrong if not e.abstained]
    assert sure == sorted(sure, reverse=True) and any(e.abstained for e in wrong)
    assert [e.abstained for e in wrong] == sorted(e.abstained for e in wrong)


def test_mcnemar_by_hand():
    """1 against 9: exact two-sided binomial, 2 * (1 + 10) / 2^10."""
    assert mcnemar_p(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar_p(0, 0) is None
    # 30 against 10: chi-square (|30 - 10| - 1)^2 / 40 = 9.025 with one degree of freedom.
    assert mcnemar_p(30, 10) == pytest.approx(0.00266, abs=1e-4)


def test_a_model_against_itself_and_against_a_worse_one(tmp_path):
    good = read_table(saved(tmp_path / "a.jsonl", random_records(strength=3)))
    bad = read_table(saved(tmp_path / "b.jsonl", random_records(seed=5, strength=0.5)))
    resampler = Resampler(len(set(good.documents)), resamples=200)
    same = compare(good, good, resampler)
    assert same.macro4.to_json() == {"value": 0, "low": 0, "high": 0} and same.p_value is None
    gap = compare(good, bad, resampler)
    right = [(t.found == t.truth).mean() for t in (good, bad)]
    assert gap.accuracy.value == pytest.approx(right[0] - right[1])
    assert gap.macro4.low > 0 and gap.p_value < 0.001
    assert gap.only_first - gap.only_other == round((right[0] - right[1]) * 300)
    assert len(gap.changed) == gap.only_first + gap.only_other


def test_slices_are_counted_scored_and_searched():
    golds, found, documents = [], [], []
    for i in range(400):  # documents 0 to 9 are wrong 3 to 7 times in ten, the others never
        golds.append("demand")
        documents.append(f"d{i % 40}")
        found.append("position" if i % 40 < 10 and i // 40 < 3 + i % 5 else "demand")
    table = labelled(golds, found, documents)
    issuers = ["Weak" if i % 40 < 10 else "Tiny" if i < 12 else "Rest" for i in range(400)]
    rows = tuple(
        Row(r.place, r.doc_id, r.sent_id, r.text, r.gold, issuer=x) for r, x in zip(table.rows, issuers)
    )
    table = Table("m", "", rows, table.probabilities, 0.0)
    by = {(s.by, s.name): s for s in slices.slices(table, Resampler(40, resamples=200))}
    weak, tiny = by["issuer", "Weak"], by["issuer", "Tiny"]
    assert weak.weak and weak.accuracy.value == pytest.approx(0.5) and weak.gap.value == pytest.approx(-0.5)
    assert (weak.n, weak.documents, weak.stances) == (100, 10, 1)
    assert not tiny.scored and tiny.n == 2
    assert by["position", "1. first 3 sentences"].n == 3
    assert not any(key[0] == "year" for key in by)  # no row has a date
    assert slices.weakest(list(by.values()))[0] is weak


def test_holm_raises_the_p_values(table):
    resampler = Resampler(30, resamples=200)
    found = [s for s in slices.slices(table, resampler) if s.p_value is not None]
    assert len(found) > 4 and all(0 <= s.p_value <= 1 for s in found)
    # A model that is equally good everywhere: nothing stands out.
    assert not any(s.weak for s in found)


# --- the files ---------------------------------------------------------------------------------------


class Words(HTMLParser):
    """The words a reader sees, and every address the page names."""

    def __init__(self):
        super().__init__()
        self.words, self.addresses, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


def read_page(html):
    reader = Words()
    reader.feed(html)
    return reader


def test_the_whole_report(tmp_path, toy_model):
    tables = [
        saved(tmp_path / f"{name}.jsonl", random_records(seed=i, model=name, threshold=0.4))
        for i, name in enumerate(("ours", "theirs"))
    ]
    train = [row | {"doc_id": f"t{i}"} for i, row in enumerate(random_records(60))]
    behaviour = tmp_path / "b.json"
    runner = CliRunner()
    runner.invoke(app, ["behaviour", "--model", str(toy_model), "--json", str(behaviour), "--threads", "1"])
    options = ["--train", str(saved(tmp_path / "train.jsonl", train)), "--behaviour", str(behaviour)]
    out = tmp_path / "out"
    done = runner.invoke(app, ["report", *map(str, tables), *options, "--out", str(out), "--resamples", "60"])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    html = (out / "report.html").read_text()
    assert len(html.encode()) < 3_000_000
    seen = read_page(html)
    assert all(a.startswith(("#", "data:")) for a in seen.addresses) and "script" not in seen.tags
    assert seen.tags.count("svg") == 7
    assert not re.search(r"\bnan\b|\binf\b", " ".join(seen.words), re.IGNORECASE)
    assert not re.search(r"=\"[^\"]*\bnan\b", html)
    for section in (
        "Scores",
        "Confusion",
        "Calibration",
        "Slices",
        "Model against model",
        "Behaviour",
        "Errors",
    ):
        assert section in seen.words
    numbers = json.loads((out / "report.json").read_text())
    names = ["ours", "theirs", "chance", "most frequent", "keyword rules", "TF-IDF + logistic"]
    assert [s["name"] for s in numbers["systems"]] == names
    assert len(numbers["verdict"]) == 3 and all(s in html for s in numbers["verdict"])
    assert len(numbers["head"]["files"]) == 3 and numbers["head"]["rows"] == 300
    lines = list(csv.DictReader(io.StringIO((out / "report.csv").read_text())))
    (macro,) = [x for x in lines if x["view"] == "scores" and x["name"] == "ours" and x["metric"] == "macro4"]
    assert float(macro["value"]) == pytest.approx(numbers["systems"][0]["macro4"]["value"], abs=1e-5)
    assert f"{float(macro['value']):.3f}" in html
    latex = (out / "report.tex").read_text()
    assert latex.count(r"\\") == 8 and r"\begin{tabular}{lrrrrrrr}" in latex


def test_every_word_is_escaped(tmp_path):
    nasty = '<script>alert("x")</script> & <b>bold</b>'
    rows = random_records(60, text=nasty, before=nasty, issuer=nasty, note=nasty, kind=nasty, model=nasty)
    report = build([read_table(saved(tmp_path / "t.jsonl", rows))], HEAD, settings=Settings(60, min_rows=5))
    html = page(report)
    assert "<script" not in html and "<b>bold" not in html
    assert nasty in "".join(read_page(html).words)
    assert tex(r"50 % of a_b & {c} \ ~^#$") == (
        r"50 \% of a\_b \& \{c\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#\$"
    )


@pytest.mark.parametrize(
    "rows",
    [
        [record()],
        [record(p_demand=0.1, p_none=0.6)],
        [record(i, doc_id=f"d{i}", gold="none", p_demand=0.0, p_none=0.7) for i in range(6)],
        [
            record(i, p_demand=0.2, p_position=0.2, p_concession=0.2, p_agreement=0.2, p_none=0.2)
            for i in range(3)
        ],
    ],
)
def test_thin_tables_make_an_honest_page(tmp_path, rows):
    report = build([read_table(saved(tmp_path / "t.jsonl", rows), threshold=0.9)], HEAD, settings=QUICK)
    words = " ".join(read_page(page(report)).words)
    assert "not estimable" in words and not re.search(r"\bnan\b", words, re.IGNORECASE)


def test_two_tables_of_one_model_are_refused(table):
    with pytest.raises(InputError, match="give each its own `model` field"):
        build([table, table], HEAD, settings=QUICK)
    named = Table("chance", "", table.rows, table.probabilities, 0.4)
    with pytest.raises(InputError, match="the name of a baseline"):
        build([named], HEAD, settings=QUICK)


def test_a_file_that_is_no_behaviour_result(tmp_path):
    path = saved(tmp_path / "t.jsonl", [record()])
    other = tmp_path / "b.json"
    for content in ("{}", "[]", "{"):
        other.write_text(content)
        done = CliRunner().invoke(
            app, ["report", str(path), "--behaviour", str(other), "--out", str(tmp_path / "o")]
        )
        assert done.exit_code == 2 and "behaviour --json" in done.output


def test_the_verdict_names_the_weakest_stance_and_the_commonest_mistake():
    golds = ["position"] * 20 + ["demand"] * 10 + ["concession"] * 10 + ["agreement"] * 10 + ["none"] * 10
    found = [*golds[:30], *["position"] * 8, "concession", "concession", *golds[40:]]
    table = labelled(golds, found, [f"d{i % 12}" for i in range(60)])
    sentences = verdict(build([table], HEAD, settings=QUICK))
    assert len(sentences) == 3 and "60 sentences of 12 documents" in sentences[0]
    assert sentences[2].startswith("Its weakest stance is concession (F1 0.333")
    assert "takes concession for position most often (8 times, 80%)" in sentences[2]


def test_the_verdict_calls_no_sentence_without_a_stance_the_weakest_stance():
    golds = ["position"] * 20 + ["demand"] * 10 + ["concession"] * 10 + ["agreement"] * 10 + ["none"] * 10
    found = [*golds[:20], *["demand"] * 9, "none", *golds[30:50], *["position"] * 10]  # none is never right
    report = build([labelled(golds, found, [f"d{i % 12}" for i in range(60)])], HEAD, settings=QUICK)
    assert report.systems[0].f1["none"].value == 0
    (weakest,) = re.findall(r"weakest stance is (\w+) \(F1 ([\d.]+)", verdict(report)[2])
    assert weakest == ("position", "0.800")  # 20 of 20 found, with 10 too many
