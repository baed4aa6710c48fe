"""The written pairs are sound, and pass, consistency and intervals are what they say."""

import json

import pytest
from typer.testing import CliRunner

from communique.eval.behaviour import PAIRS, Outcome, Pair, families, read_pairs, run_pairs, to_json, wilson
from communique.eval.eval_cli import app
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError

pytest.importorskip("statsmodels", reason="needs the eval extra")


def pair(number, relation, labels, texts=("Belmar urges talks.", "Ostrel urges talks."), family="swap"):
    return Pair(f"p{number}", family, relation, texts, labels, "why")


def line(**changes):
    record = {
        "id": "x-1",
        "family": "swap",
        "relation": "same",
        "a": {"text": "Belmar urges calm.", "label": "demand"},
        "b": {"text": "Ostrel urges calm.", "label": "demand"},
    }
    return json.dumps(record | changes)


def test_the_projects_own_pairs():
    pairs = read_pairs(PAIRS)
    assert len(pairs) >= 250
    assert len({p.family for p in pairs}) >= 12
    assert len({p.texts for p in pairs}) == len(pairs)


def test_pass_and_consistency_by_hand():
    same, differ = ("demand", "demand"), ("demand", "none")
    cases = [
        # relation, right labels, found, passed, consistent
        ("same", same, ("demand", "demand"), True, True),
        ("same", same, ("position", "position"), False, True),
        ("same", same, ("demand", "none"), False, False),
        ("differ", differ, ("demand", "none"), True, True),
        ("differ", differ, ("none", "demand"), False, True),
        ("differ", differ, ("demand", "demand"), False, False),
    ]
    outcomes = [
        Outcome(pair(i, r, right), found, (0.9, 0.9)) for i, (r, right, found, *_) in enumerate(cases)
    ]
    assert [(o.passed, o.consistent) for o in outcomes] == [case[3:] for case in cases]
    same_family, differ_family = families(outcomes)
    assert (same_family.pairs, same_family.passed, same_family.consistent) == (3, 1, 2)
    assert (differ_family.relation, differ_family.passed, differ_family.consistent) == ("differ", 1, 2)
    result = to_json(outcomes, "m")
    assert result["all"]["passed"] == 2 and result["all"]["pairs"] == 6
    assert [f["id"] for f in result["failures"]] == ["p1", "p2", "p4", "p5"]


def test_wilson_by_hand():
    """8 of 10: (0.8 + z²/20 ± z sqrt(0.016 + z²/400)) / (1 + z²/10), z = 1.96."""
    n = wilson(8, 10)
    assert (n.value, n.low, n.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10).low == 0 and wilson(0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert wilson(0, 0).value is None


def test_pairs_through_a_model(toy_model):
    pairs = [
        pair(1, "same", ("demand", "demand")),
        pair(2, "differ", ("demand", "none"), ("Belmar urges talks.", "The ministers met.")),
        pair(3, "same", ("concession", "concession"), ("Belmar gave way.", "Ostrel gave way.")),
    ]
    outcomes = run_pairs(StanceClassifier.load(toy_model, threads=1), pairs)
    assert [o.found for o in outcomes] == [("demand", "demand"), ("demand", "none"), ("none", "none")]
    assert [o.passed for o in outcomes] == [True, True, False] and outcomes[2].consistent


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "holds no pairs"),
        ("{", "p.jsonl:1: not JSON"),
        ("[1]", "p.jsonl:1: .*a pair has"),
        (line(a={"text": "x"}), "p.jsonl:1: 'label'"),
        (line(relation="alike"), "use same or differ"),
        (line(a={"text": "x", "label": "threat"}), "'threat': use one of"),
        (line(relation="differ"), "mend one"),
        (line() + "\n" + line(), "'x-1' stands twice"),
    ],
)
def test_bad_pairs_get_one_line(tmp_path, content, message):
    file = tmp_path / "p.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(file)
    assert "\n" not in str(caught.value)


def test_the_command(toy_model, tmp_path):
    file = tmp_path / "b.json"
    done = CliRunner().invoke(
        app,
        ["behaviour", "--model", str(toy_model), "--json", str(file), "--failures", "3", "--threads", "1"],
    )
    assert done.exit_code == 0, done.output
    result = json.loads(file.read_text())
    assert result["all"]["pairs"] == len(read_pairs())
    assert result["all"]["passed"] + len(result["failures"]) == result["all"]["pairs"]
    assert sum(f["pairs"] for f in result["families"]) == result["all"]["pairs"]
    assert "swap (same)" in done.output and "Failures" in done.output


def test_a_missing_model_is_one_line(tmp_path):
    done = CliRunner().invoke(app, ["behaviour", "--model", str(tmp_path / "no")])
    assert done.exit_code == 2 and done.output.strip().count("\n") == 0
