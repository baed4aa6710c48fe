"""Agreement coefficients against hand-worked cases and the packages; intervals; the ceiling; the command."""

from __future__ import annotations

import json
import time

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score
from typer.testing import CliRunner

from communique.eval.agreement import (
    COEFFICIENTS,
    coefficients,
    compare_passes,
    f1_scores,
    one_against_rest,
    package_coefficients,
    pair_table,
)
from communique.model.labels import LABELS
from communique.train.data_cli import app

NAMES = [str(label) for label in LABELS]
INVENTED = np.array(
    [[42, 1, 0, 2, 1], [2, 26, 0, 1, 2], [0, 1, 10, 1, 0], [0, 2, 0, 25, 0], [2, 0, 2, 0, 20]],
)


def pairs_of(table):
    """The two passes that a table counts."""
    cells = [(i, j) for i, line in enumerate(table) for j, count in enumerate(line) for _ in range(count)]
    first, second = zip(*cells, strict=True)
    return np.array(first), np.array(second)


def passes(n, seed, documents, noise=0.25):
    """Labels of A, B, final, and documents whose sentences are alike."""
    rng = np.random.default_rng(seed)
    doc = rng.integers(0, documents, n)
    hard = rng.random(documents)[doc] * 2 * noise
    final = rng.choice(5, n, p=[0.45, 0.12, 0.08, 0.17, 0.18])
    a, b = (np.where(rng.random(n) < hard, rng.integers(0, 5, n), final) for _ in "ab")
    return [[NAMES[i] for i in labels] for labels in (a, b, final)] + [[f"d{i}" for i in doc]]


def test_worked_by_hand():
    # 40 both yes, 20 both no, 25 only A, 15 only B: po = .60, pe(kappa) = .65*.55 + .35*.45 = .515,
    # AC1: m = .60, pe = 2*.6*.4 = .48; alpha: pe = (120*119 + 80*79) / (200*199) = .5176.
    found = coefficients([[40, 25], [15, 20]])
    assert found["raw"] == pytest.approx(0.60)
    assert found["kappa"] == pytest.approx((0.60 - 0.515) / 0.485)
    assert found["ac1"] == pytest.approx((0.60 - 0.48) / 0.52)
    assert found["alpha"] == pytest.approx(1 - 0.40 / (1 - 20600 / 39800))


def test_where_kappa_fails_and_ac1_does_not():
    # 118 both yes, 5 only A, 2 only B, none both no: 94 % agree. m = .972, pe(AC1) = 2 * .972 * .028.
    found = coefficients([[118, 5], [2, 0]])
    assert found["kappa"] == pytest.approx(-0.0234, abs=1e-4)
    assert found["ac1"] == pytest.approx((0.944 - 0.054432) / (1 - 0.054432))
    assert found["ac1"] == pytest.approx(0.9408, abs=1e-4)


def test_ac1_is_that_of_irrcac():
    # irrCAC 0.4.4, which cannot be installed beside NumPy 2, gave these for the same labels.
    assert coefficients(INVENTED)["ac1"] == pytest.approx(0.84966799, abs=1e-8)
    wanted = [0.89773557, 0.90248055, 0.9661181, 0.93697479, 0.93061701]
    assert coefficients(one_against_rest(INVENTED))["ac1"] == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_closed_forms_are_those_of_the_packages(seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 30, (5, 5)) + np.diag(rng.integers(0, 200, 5))
    a, b = pairs_of(table)
    found = coefficients(table)
    alpha = krippendorff.alpha(np.stack([a, b]), level_of_measurement="nominal")
    assert found["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    assert found["alpha"] == pytest.approx(alpha)
    assert package_coefficients(a, b, 5) == pytest.approx(
        {"kappa": float(found["kappa"]), "alpha": float(alpha)}
    )
    assert f1_scores(table) == pytest.approx(f1_score(a, b, average=None))
    for i, binary in enumerate(one_against_rest(table)):
        assert np.array_equal(binary[::-1, ::-1], pair_table((a == i).astype(int), (b == i).astype(int), 2))


def test_report_is_that_of_plain_counts():
    a, b, final, docs = passes(900, 1, 40)
    report = compare_passes(a, b, final, docs, resamples=50)
    assert report.overall["kappa"].value == pytest.approx(cohen_kappa_score(a, b))
    assert report.overall["raw"].value == pytest.approx(np.mean(np.array(a) == np.array(b)))
    assert report.table.sum() == report.sentences == 900
    assert report.documents == len(set(docs))
    for name, (x, y) in {"a_b": (a, b), "a_final": (final, a), "b_final": (final, b)}.items():
        each = f1_score(x, y, average=None, labels=NAMES)
        assert [report.ceiling[name][label].value for label in NAMES] == pytest.approx(each)
        assert report.ceiling[name]["macro4"].value == pytest.approx(each[:4].mean())
        assert report.ceiling[name]["macro5"].value == pytest.approx(each.mean())
    both = [report.ceiling[name]["macro4"].value for name in ("a_final", "b_final")]
    assert report.ceiling["passes_final"]["macro4"].value == pytest.approx(np.mean(both))


def test_rows_are_pass_a_and_columns_pass_b():
    report = compare_passes(["demand", "demand"], ["none", "demand"], ["demand"] * 2, ["x", "y"], resamples=5)
    assert report.table[1].tolist() == [0, 1, 0, 0, 1]


def test_intervals_hold_the_value_and_repeat_with_the_seed():
    a, b, final, docs = passes(600, 2, 50)
    report = compare_passes(a, b, final, docs, resamples=300, seed=9)
    for estimate in [*report.overall.values(), *report.ceiling["a_b"].values()]:
        assert estimate.low < estimate.value < estimate.high
    assert compare_passes(a, b, final, docs, resamples=300, seed=9).to_json() == report.to_json()
    assert compare_passes(a, b, final, docs, resamples=300, seed=10).to_json() != report.to_json()


def test_documents_are_resampled_not_sentences():
    a, b, final, docs = passes(1200, 3, 24, noise=0.5)
    whole = compare_passes(a, b, final, docs, resamples=400).overall["raw"]
    alone = compare_passes(a, b, final, [str(i) for i in range(1200)], resamples=400).overall["raw"]
    assert whole.high - whole.low > 1.5 * (alone.high - alone.low)


def test_the_interval_is_that_of_a_plain_bootstrap():
    a, b, final, docs = passes(400, 4, 30)
    same, doc = np.array(a) == np.array(b), np.array(docs)
    groups = [same[doc == name] for name in np.unique(doc)]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(groups), (3000, len(groups)))
    plain = [np.concatenate([groups[i] for i in draw]).mean() for draw in draws]
    found = compare_passes(a, b, final, docs, resamples=3000).overall["raw"]
    assert [found.low, found.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)


def test_what_nobody_said_has_no_number():
    a = ["none", "none", "demand"]
    report = compare_passes(a, a, a, ["x", "y", "z"], resamples=20)
    assert report.to_json()["labels"]["concession"]["kappa"] == {"value": None, "low": None, "high": None}
    assert report.ceiling["a_b"]["macro5"].value == 1.0  # of the two labels that were given
    assert report.overall["alpha"].value == pytest.approx(1.0)
    same = compare_passes(["none"] * 3, ["none"] * 3, ["none"] * 3, ["x", "y", "z"], resamples=20)
    assert [same.to_json()["overall"][name]["value"] for name in COEFFICIENTS] == [1.0, None, None, 1.0]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="have \\[1, 2, 1, 1\\] entries"):
        compare_passes(["none"], ["none", "none"], ["none"], ["x"])
    with pytest.raises(ValueError, match="unknown label 'maybe'"):
        compare_passes(["maybe"], ["none"], ["none"], ["x"])
    with pytest.raises(ValueError, match="level 95"):
        compare_passes(["none"], ["none"], ["none"], ["x"], level=95)


def test_six_thousand_rows_take_seconds():
    a, b, final, docs = passes(6000, 5, 350)
    ticks = []
    began = time.perf_counter()
    compare_passes(a, b, final, docs, resamples=1000, tick=ticks.append)
    assert time.perf_counter() - began < 15
    assert sum(ticks) == 1000


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Labels alone, as on a fresh clone: two documents, one row of a single pass."""

    def given(label):
        return {"label": label, "also": None, "sure": 3, "note": ""}

    rows = []
    cases = [("none", "none"), ("demand", "position"), ("concession", "concession"), ("agreement", None)]
    for doc_id in ("x", "y"):
        for i, (a, b) in enumerate(cases):
            decided = "single" if b is None else "agreed" if a == b else "adjudicated"
            rows.append({
                "doc_id": doc_id, "sent_id": i, "start": 10 * i, "end": 10 * i + 9, "sha256": "0" * 64,
                "head": "We", "label": a, "also": None, "passes": 1 if b is None else 2,
                "a": given(a), "b": b and given(b),
                "decided": decided, "why": "a request" if decided == "adjudicated" else "", "sample": "cue",
                "weight": None,
            })  # fmt: skip
    docs = [
        {"doc_id": doc_id, "issuer": doc_id, "issuer_name": doc_id, "kind": "readout", "date": "2020",
         "source": "corpus", "text_sha256": "0" * 64, "n_sentences": 4, "trade": False}
        for doc_id in ("x", "y")
    ]  # fmt: skip
    for name, records in (("real.jsonl", rows), ("documents.jsonl", docs)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_agree_command_needs_no_texts(folder, tmp_path):
    out = tmp_path / "agreement.json"
    done = CliRunner().invoke(
        app, ["agree", "--folder", str(folder), "--resamples", "30", "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "6 sentences, 2 documents" in done.stdout
    assert "Gwet's AC1" in done.stdout
    assert "The ceiling" in done.stdout
    found = json.loads(out.read_text())
    assert found["overall"]["raw"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    assert found["confusion_a_rows_b_columns"][1] == [2, 0, 0, 0, 0]


def test_agree_command_without_second_passes(folder):
    done = CliRunner().invoke(app, ["agree", "--folder", str(folder), "--which", "own"])
    assert done.exit_code == 2
    assert "nothing to compare" in done.stderr
