"""`communique eval MODEL --data …`; conformal sets, generalisation, compared reports, the card."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from communique.eval import eval_cli, generalise
from communique.eval.card import BEGIN, END
from communique.eval.conformal import conformal
from communique.eval.eval_cli import app
from communique.eval.generalise import decay, per_doubling, read_results
from communique.eval.metrics import evaluate
from communique.eval.report_page import FILES
from communique.eval.resample import Resampler
from communique.eval.table import Row, Table
from communique.model.artifact import document_digest, load_artifact, write_manifest
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError
from communique.model.labels import LABELS

for package in ("sklearn", "statsmodels", "jinja2", "crepes"):
    pytest.importorskip(package, reason="needs the eval extra")

NAMES = list(map(str, LABELS))
SAYS = {
    "position": "Belmar condemns it {}.",
    "demand": "Belmar urges Ostrel {}.",
    "concession": "Belmar lifts the fee {}.",
    "agreement": "They agreed {}.",
    "none": "They met {}.",
}

CARD_HEADER = """---
model-index:
- name: communique
  results:
  - task: {type: text-classification}
    dataset: {type: communique-annotations, name: communique annotations, split: test}
    metrics:
    - {type: f1, name: macro-F1 of the four stances, value: 0.1234}
---
# A model
"""


def gold(n=60, documents=12, start=0, wrong=()):
    """Rows that the toy model labels rightly but for those in `wrong`."""
    rows = []
    for i in range(start, start + n):
        label = NAMES[i % 5]
        said = NAMES[(i + 1) % 5] if i in wrong else label
        rows.append(
            {"doc_id": f"d{start}-{i % documents}", "sent_id": i, "text": SAYS[said].format(i), "gold": label}
            | {"issuer": f"I{i % 2}", "date": f"{2019 + i % 4}-05-01", "label_a": label, "label_b": label}
        )
    return rows


def saved(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def reported(tmp_path_factory, toy_model):
    folder = tmp_path_factory.mktemp("reported")
    test = saved(folder / "test.jsonl", gold(wrong=(7, 8, 19)))
    train = saved(folder / "train.jsonl", gold(80, start=1000))
    dev = saved(folder / "dev.jsonl", gold(200, start=2000, wrong=range(2000, 2200, 9)))
    options = ["--train", train, "--calibrate", dev, "--resamples", 60, "--threads", 1]
    done = invoke(toy_model, "--data", test, "--out", folder / "out", *options)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_one_command_writes_the_whole_report(reported):
    folder, printed = reported
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted(FILES)
    found = json.loads((folder / "out" / "report.json").read_text())
    assert found["head"]["rows"] == 60 and found["systems"][0]["accuracy"]["value"] == pytest.approx(57 / 60)
    assert found["behaviour"]["all"]["pairs"] > 250 and found["sentences_per_second"] > 0
    assert [level["nominal"] for level in found["conformal"]["levels"]] == [0.8, 0.9, 0.95]
    assert "TF-IDF + logistic" in [s["name"] for s in found["systems"]]
    assert sum(map(sum, found["tables"].values())) == 60 and len(found["tables"]) == 12
    assert "macro-F1" in printed
    html = (folder / "out" / "report.html").read_text()
    assert "Conformal sets" in html and "Generalisation" in html and "annotator A against B" in html


def test_a_split_is_read_through_the_command_line(tmp_path, toy_model, monkeypatch):
    asked = []

    def rows(name):
        asked.append(name)
        return gold(start={"test": 0, "dev": 1000, "train": 2000}[name])

    monkeypatch.setattr(eval_cli, "split_rows", rows)
    out = tmp_path / "out"
    done = invoke(toy_model, "--data", "test", "--out", out, "--resamples", 20, "--threads", 1)
    assert done.exit_code == 0, done.output
    assert sorted(asked) == ["dev", "test", "train"]
    files = json.loads((out / "report.json").read_text())["head"]["files"]
    assert {"split test", "split dev", "split train"} <= files.keys()
    monkeypatch.setattr(eval_cli, "split_rows", None)
    done = invoke(toy_model, "--data", "test", "--out", out)
    assert done.exit_code == 2 and "name a JSONL file" in done.output


def test_documents_that_a_model_learnt_from_are_noticed(tmp_path, toy_model):
    folder = shutil.copytree(toy_model, tmp_path / "model")
    config = load_artifact(folder).config
    seen = tuple(map(document_digest, ("d0-1", "d0-2", "elsewhere")))
    write_manifest(folder, dataclasses.replace(config, trained_on=seen))
    test, train = saved(tmp_path / "test.jsonl", gold()), saved(tmp_path / "train.jsonl", gold(start=1000))
    options = ["--out", tmp_path / "out", "--train", train, "--resamples", 20, "--threads", 1]
    done = invoke(folder, "--data", test, *options)
    assert done.exit_code == 0 and "learnt from 2 of the 12 documents (10 of 60 sentences)" in done.output
    (warning,) = json.loads((tmp_path / "out" / "report.json").read_text())["head"]["warnings"]
    assert "2 of the 12" in warning and "2 of the 12" in (tmp_path / "out" / "report.html").read_text()
    write_manifest(folder, dataclasses.replace(config, trained_on=seen[2:]))
    done = invoke(folder, "--data", test, *options)
    assert "learnt from" not in done.output and "note:" not in done.output
    html = (tmp_path / "out" / "report.html").read_text()
    assert 'role="alert"' not in html and "could not be checked" not in html


def test_a_model_that_does_not_say_what_it_learnt_from_is_not_taken_for_unseen(reported, toy_model):
    folder, printed = reported
    assert load_artifact(toy_model).config.trained_on == ()
    assert "note: " in printed and "could not be checked" in printed and "warning:" not in printed
    html = (folder / "out" / "report.html").read_text()
    assert 'role="alert"' not in html and "could not be checked" in html
    head = json.loads((folder / "out" / "report.json").read_text())["head"]
    assert head["warnings"] == [] and "does not say which documents" in head["notes"][0]


def answered(rows, **changes):
    """Rows with the probabilities of a model that is always right."""
    return [r | {f"p_{n}": float(n == r["gold"]) for n in NAMES} | changes for r in rows]


def test_tables_of_predictions_are_of_the_gold_rows_or_refused(tmp_path):
    rows = [row | {"weight": 2.0} for row in gold()]
    test = saved(tmp_path / "test.jsonl", rows)
    mine = answered([{k: v for k, v in r.items() if k != "weight"} for r in rows], model="mine")
    options = ["--data", test, "--out", tmp_path / "out", "--resamples", 20]
    done = invoke(saved(tmp_path / "mine.jsonl", mine[::-1]), *options)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["head"]["random_rows"] == 60  # the gold rows' own weights
    assert found["systems"][0]["accuracy"]["value"] == 1  # whatever the order
    other = [*mine[:-1], mine[-1] | {"gold": "demand"}]
    for lines, message in (
        (mine[:-1], "not of the same sentences (1 missing, 0 more"),
        ([*mine, mine[0] | {"sent_id": 999}], "(0 missing, 1 more"),
        (other, "mine.jsonl:60: gold differs from test.jsonl:60"),
    ):
        done = invoke(saved(tmp_path / "mine.jsonl", lines), *options)
        assert done.exit_code == 2 and message in done.output and done.output.strip().count("\n") == 0


def test_a_table_is_calibrated_from_a_file_or_says_why_not(tmp_path, monkeypatch):
    test = saved(tmp_path / "test.jsonl", gold())
    mine = saved(tmp_path / "mine.jsonl", answered(gold(), model="mine"))
    dev = saved(tmp_path / "dev.jsonl", answered(gold(100, start=1000), model="mine"))
    options = [mine, "--data", test, "--out", tmp_path / "out", "--resamples", 20]
    done = invoke(*options, "--calibrate", dev)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["conformal"]["calibration_rows"] == 100 and str(dev) in found["head"]["files"]
    done = invoke(*options, "--calibrate", "dev")
    assert done.exit_code == 0 and "note: no conformal sets: mine is a table of predictions" in done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["conformal"] is None and "no conformal sets" in " ".join(found["head"]["notes"])
    done = invoke(*options, "--calibrate", saved(tmp_path / "bare.jsonl", gold(start=1000)))
    assert done.exit_code == 2 and "bare.jsonl:1: no column 'p_position'" in done.output


def test_behaviour_runs_alone(toy_model):
    done = invoke("--behaviour", toy_model, "--threads", 1)
    assert done.exit_code == 0 and "Behaviour of" in done.output
    done = invoke(toy_model, "--behaviour", "--data", "x.jsonl")
    assert done.exit_code == 2 and "runs alone" in done.output


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "no --data"),
        (("--data", "no.jsonl"), "no.jsonl does not exist"),
    ],
)
def test_what_cannot_be_evaluated_gets_one_line(toy_model, words, message):
    done = invoke(toy_model, *words)
    assert done.exit_code == 2 and message in done.output and done.output.strip().count("\n") == 0


def test_no_folder_of_a_model(tmp_path):
    test = saved(tmp_path / "t.jsonl", gold())
    done = invoke(tmp_path / "no", "--data", test)
    assert done.exit_code == 2 and "no such model folder" in done.output


# --- conformal sets ----------------------------------------------------------------------------------


def drawn(n, seed, documents=200, shift=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(5, n, p=[0.3, 0.2, 0.1, 0.15, 0.25])
    z = rng.normal(size=(n, 5)) + (1.5 - shift) * np.eye(5)[truth]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    rows = tuple(Row("t", f"{seed}-{i % documents}", i, "x", NAMES[g]) for i, g in enumerate(truth))
    return Table("m", "", rows, p, 0.0)


def test_conformal_sets_cover_each_label():
    cal, test = drawn(10000, 1), drawn(10000, 2)
    for level in conformal(cal, test, Resampler(200, resamples=50)):
        for name in NAMES:
            assert level.coverage[name].value == pytest.approx(level.nominal, abs=0.035)
        assert level.overall.low <= level.overall.value <= level.overall.high
        assert level.single + level.empty <= 1 and 0 < level.size < 5
    harder = conformal(cal, drawn(4000, 3, shift=1.0), Resampler(200, resamples=50))[1]
    assert harder.overall.high < 0.9  # the promise does not hold there, and the report shows it


def test_a_conformal_set_by_hand():
    """Nine calibration demands with p 0.1 … 0.9: p-value of a demand with 0.35 is (3 + 1) / 10."""
    p = np.zeros((9, 5))
    p[:, 1] = np.arange(1, 10) / 10
    p[:, 4] = 1 - p[:, 1]
    cal = Table("m", "", tuple(Row("t", f"c{i}", i, "x", "demand") for i in range(9)), p, 0.0)
    q = np.array([[0, 0.35, 0, 0, 0.65], [0, 0.05, 0, 0, 0.95]])
    test = Table("m", "", tuple(Row("t", f"d{i}", i, "x", "demand") for i in range(2)), q, 0.0)
    level = conformal(cal, test, Resampler(2, resamples=10))[0]  # nominal 0.8: kept from p-value 0.2 up
    # The first holds demand (0.4), the second (0.1) does not; four labels never calibrated stay in both.
    assert level.coverage["demand"].value == 0.5 and level.size == 4.5
    assert level.coverage["position"].value is None


def test_calibration_on_the_same_documents_is_refused():
    table = drawn(50, 1)
    with pytest.raises(InputError, match="calibrate on other documents"):
        conformal(table, table, Resampler(50, resamples=5))


# --- generalisation ----------------------------------------------------------------------------------


def test_decay_by_hand():
    """Right 10 of 10, 9 of 10, 8 of 10 in three years: a tenth less each year."""
    rows, p = [], []
    for year in range(3):
        for i in range(10):
            rows.append(Row("t", f"d{year}-{i % 5}", i, "x", "demand", date=f"{2020 + year}"))
            p.append(np.eye(5)[1 if i >= year else 0])
    table = Table("m", "", tuple(rows), np.array(p), 0.0)
    found = decay(table, Resampler(15, resamples=100))
    assert found.value == pytest.approx(-0.1) and found.low <= found.value <= found.high
    two = Table("m", "", tuple(rows[:20]), np.array(p[:20]), 0.0)
    assert decay(two, Resampler(10, resamples=10)).value is None


def entry(**changes):
    base = {"name": "curve", "held_out": "test", "train_rows": 100, "macro_f1": 0.5, "low": 0.4}
    return base | {"high": 0.6, "n": 50, "seconds": None} | changes


def test_results_are_read_and_drawn(tmp_path):
    path = tmp_path / "r.json"
    curve = [entry(train_rows=100 * 2**i, macro_f1=0.5 + 0.1 * i) for i in (2, 0, 1)]
    curve[0]["energy_kwh"] = 0.0421
    left = entry(name="leave-issuer-out", held_out="US <b>", macro_f1=None, low=None, high=None)
    path.write_text(json.dumps([*curve, left]))
    results = read_results(path)
    assert per_doubling(results) == pytest.approx(0.1) and per_doubling(results[:2]) is None
    assert [r.energy_kwh for r in results] == [0.0421, None, None, None]
    assert [r.train_rows for r in generalise.of(results, "curve")] == [100, 200, 400]
    table = saved(tmp_path / "t.jsonl", [r | {f"p_{n}": 0.2 for n in NAMES} for r in gold()])
    done = invoke("report", table, "--results", path, "--out", tmp_path / "out", "--resamples", 20)
    assert done.exit_code == 0, done.output
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Learning curve" in html and "US &lt;b&gt;" in html and "+0.100" in html
    assert json.loads((tmp_path / "out" / "report.json").read_text())["results"][3]["score"]["value"] is None
    assert html.count("<td>0.0421</td>") == 1 and html.count("<td>not measured</td>") == 3
    lines = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert "generalisation,curve: 400 rows,,energy_kwh,0.0421,,,50" in lines
    # Drawn by size, whatever the order in the file: the line rises from left to right.
    line = re.search(r'Learning curve: macro-F1.*?<polyline points="([^"]*)"', html, re.DOTALL)
    across, down = np.array([point.split(",") for point in line[1].split()], float).T
    assert (np.diff(across) > 0).all() and (np.diff(down) < 0).all() and len(across) == 3


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot be read"),
        ("[]", "expected a JSON list"),
        ("[1]", "entry 1: no field"),
        (json.dumps([entry(name="x")]), "name is 'x'"),
        (json.dumps([entry(n=-1)]), "n is -1"),
        (json.dumps([entry(macro_f1=float("nan"))]), "macro_f1 is nan"),
        (json.dumps([entry(energy_kwh=-1)]), "energy_kwh is -1"),
    ],
)
def test_bad_results_get_one_line(tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(path)


# --- labels worth a second look ----------------------------------------------------------------------


def test_labels_worth_a_second_look(tmp_path):
    pytest.importorskip("cleanlab", reason="needs the eval extra")
    rng = np.random.default_rng(0)
    lines = gold(400, documents=40, start=1000)
    planted = set(rng.choice(400, 25, replace=False).tolist())
    for i, row in enumerate(lines):
        p = (rng.dirichlet(np.ones(5)) * 0.2).round(4)
        p[NAMES.index(row["gold"])] = 0
        p[NAMES.index(row["gold"])] = round(1 - p.sum(), 4)
        row |= {f"p_{name}": float(v) for name, v in zip(NAMES, p, strict=True)} | {"fold": i % 5}
        if i in planted:
            row["gold"] = NAMES[(NAMES.index(row["gold"]) + 1) % 5]
    table = saved(tmp_path / "t.jsonl", answered(gold(), model="mine"))
    folds = saved(tmp_path / "folds.jsonl", lines)
    options = ["report", table, "--out", tmp_path / "out", "--resamples", 20]
    done = invoke(*options, "--folds", folds)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert str(folds) in found["head"]["files"] and found["label_issues"]["rows"] == 400
    candidates = found["label_issues"]["candidates"]
    assert 20 < len(candidates) <= 25 and {c["sent_id"] - 1000 for c in candidates} <= planted
    assert all(NAMES[(NAMES.index(c["likely"]) + 1) % 5] == c["gold"] for c in candidates)
    html = (tmp_path / "out" / "report.html").read_text()
    section = html[html.index('<section id="labels">') : html.index('<section id="made">')]
    assert "candidates, not mistakes" in section and "communique data queue" in section
    assert re.findall(r"d1000-\d+#(\d+)", section) == [str(c["sent_id"]) for c in candidates[:20]]
    lines[3].pop("fold")
    done = invoke(*options, "--folds", saved(folds, lines))
    assert done.exit_code == 2 and "folds.jsonl:4: no fold" in done.output
    assert invoke(*options).exit_code == 0
    assert "second look" not in (tmp_path / "out" / "report.html").read_text()


# --- two reports, and the card -----------------------------------------------------------------------


def test_two_reports_compared(reported, toy_model, tmp_path):
    folder, _ = reported
    rows = gold(wrong=(7, 8, 19))
    for i, row in enumerate(rows):  # the other model has 7 right and 20, 21 wrong
        label = NAMES[(i + 1) % 5] if i in (8, 19, 20, 21) else row["gold"]
        row |= {f"p_{n}": float(n == label) for n in NAMES} | {"model": "other"}
    table = saved(tmp_path / "o.jsonl", rows)
    assert invoke("report", table, "--out", tmp_path / "o", "--resamples", 60).exit_code == 0
    path = tmp_path / "c.json"
    done = invoke(
        "compare", folder / "out/report.json", tmp_path / "o/report.json", "--json", path, "--resamples", 60
    )
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())
    assert found["paired"] and (found["mended"], found["broken"]) == (1, 2)
    gaps = {x["score"]: x["gap"] for x in found["lines"]}
    assert (
        gaps["accuracy"]["value"] == pytest.approx(-1 / 60, abs=1e-5) and gaps["accuracy"]["low"] is not None
    )
    both = (
        json.loads((tmp_path / "o/report.json").read_text()),
        json.loads((folder / "out/report.json").read_text()),
    )
    four = [report["systems"][0]["macro4"]["value"] for report in both]
    assert gaps["macro4"]["value"] == pytest.approx(four[0] - four[1], abs=1e-5)


def test_reports_of_other_sentences_are_only_put_beside_each_other(reported, tmp_path):
    folder, _ = reported
    rows = [r | {f"p_{n}": float(n == r["gold"]) for n in NAMES} for r in gold(30)]
    assert invoke("report", saved(tmp_path / "t.jsonl", rows), "--out", tmp_path / "o").exit_code == 0
    done = invoke("compare", folder / "out/report.json", tmp_path / "o/report.json")
    assert done.exit_code == 0 and "says nothing of the models" in done.output.replace("\n", " ")
    (tmp_path / "x.json").write_text("{}")
    done = invoke("compare", folder / "out/report.json", tmp_path / "x.json")
    assert done.exit_code == 2 and "x.json: not a result of `communique eval`" in done.output


def test_the_card_is_filled_and_the_model_still_loads(reported, toy_model, tmp_path):
    folder, _ = reported
    model = shutil.copytree(toy_model, tmp_path / "model")
    version = load_artifact(model).version
    for _ in range(2):
        done = invoke("card", folder / "out/report.json", model)
        assert done.exit_code == 0, done.output
    card = (model / "README.md").read_text()
    assert card.count(BEGIN) == card.count(END) == 1 and "TF-IDF" in card
    found = json.loads((folder / "out" / "report.json").read_text())
    assert f"{found['systems'][0]['macro4']['value']:.3f}" in card
    assert StanceClassifier.load(model, threads=1).version == version
    assert "documents; 95 %" in card  # a file is no split
    other = json.loads((folder / "out/report.json").read_text())
    other["head"]["model"] = "somebody-else"
    path = tmp_path / "r.json"
    path.write_text(json.dumps(other))
    done = invoke("card", path, model)
    assert done.exit_code == 2 and "the report is of somebody-else" in done.output


def test_a_report_of_a_split_keeps_its_name_in_the_card(toy_model, tmp_path, monkeypatch):
    starts = {"test": 0, "dev": 1000, "train": 2000}
    monkeypatch.setattr(eval_cli, "split_rows", lambda name: gold(start=starts[name], wrong=(7, 1007, 1008)))
    model = shutil.copytree(toy_model, tmp_path / "model")
    before = load_artifact(model)
    (model / "README.md").write_text(CARD_HEADER)
    write_manifest(model, dataclasses.replace(before.config, metrics={"test": 1, "quantisation": 2}))
    out = ["--out", tmp_path / "out", "--resamples", 20, "--threads", 1]

    def filled(data):
        done = invoke(model, "--data", data, *out)
        assert done.exit_code == 0, done.output
        done = invoke("card", tmp_path / "out/report.json", model)
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / "out/report.json").read_text())
        return (model / "README.md").read_text(), found["systems"][0]["macro4"]["value"]

    card, value = filled(saved(tmp_path / "rows.jsonl", gold(start=3000, wrong=(3001, 3002))))
    assert value < 1 and card.startswith(CARD_HEADER.rstrip())  # not the test split's value
    assert load_artifact(model).config.metrics == {"test": 1, "quantisation": 2}
    card, value = filled("dev")
    assert "split: dev}" in card and f"value: {value:.4f}}}" in card and "documents of the dev split;" in card
    after = load_artifact(model)
    assert after.version == before.version
    assert after.config.metrics.keys() == {"test", "quantisation", "dev"}
    kept = after.config.metrics["dev"]
    assert kept.keys() == evaluate(["none"], np.eye(5)[[4]], ["d"], threshold=0).to_json().keys()
    assert kept["macro_f1"]["value"] == pytest.approx(value) and kept["sentences"] == 60
    card, value = filled("test")
    assert "split: test}" in card and f"value: {value:.4f}}}" in card and card.count("split: ") == 1
    done = invoke(model, "--data", "dev", *out, "--threshold", 0.9)
    done = invoke("card", tmp_path / "out/report.json", model)
    assert done.exit_code == 2 and "scored at a threshold of 0.9" in done.output
