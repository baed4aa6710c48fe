"""Scores against scikit-learn and by hand; intervals against a simulation."""

import json

import numpy as np
import pytest

from communique.eval.metrics import calibration_error, evaluate
from communique.model.classifier import decide
from communique.model.labels import LABELS

sklearn = pytest.importorskip("sklearn.metrics", reason="needs the eval extra")


def random_case(seed, n=600, documents=40):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(5), size=n)
    gold = [str(LABELS[rng.choice(5, p=row)]) for row in p]
    return gold, p, [f"d{i % documents}" for i in range(n)]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_scores_equal_scikit_learn(threshold):
    gold, p, documents = random_case(1)
    s = evaluate(gold, p, documents, threshold=threshold, resamples=50)
    found = [str(x) for x in decide(p, threshold=threshold)]
    names = list(map(str, LABELS))
    each = sklearn.f1_score(gold, found, labels=names, average=None)
    assert [s.f1[n].value for n in names] == pytest.approx(each)
    assert s.macro_f1.value == pytest.approx(each[:4].mean())
    assert s.macro_f1_five.value == pytest.approx(each.mean())
    assert s.accuracy.value == pytest.approx(sklearn.accuracy_score(gold, found))
    assert s.confusion == sklearn.confusion_matrix(gold, found, labels=names).tolist()
    assert [s.precision[n] for n in names] == pytest.approx(
        sklearn.precision_score(gold, found, labels=names, average=None)
    )
    truth = np.eye(5)[[names.index(g) for g in gold]]
    assert s.brier == pytest.approx(((p - truth) ** 2).sum(axis=1).mean())


def test_intervals_hold_the_value_and_widen_with_clustering():
    gold, p, _ = random_case(2)
    alone = evaluate(gold, p, [str(i) for i in range(len(gold))], threshold=0)
    assert alone.macro_f1.low < alone.macro_f1.value < alone.macro_f1.high
    # Every document ten copies of one sentence: the interval must be that of the 60 distinct sentences.
    some_gold, some_p = gold[:60], p[:60]
    copied = evaluate(some_gold * 10, np.tile(some_p, (10, 1)), [str(i) for i in range(60)] * 10, threshold=0)
    single = evaluate(some_gold, some_p, [str(i) for i in range(60)], threshold=0)
    width = [s.accuracy.high - s.accuracy.low for s in (copied, single)]
    assert width[0] == pytest.approx(width[1], rel=0.15)


def test_few_documents_carry_no_interval():
    gold, p, _ = random_case(3, n=100)
    for documents, known in ((1, False), (4, False), (5, True)):
        s = evaluate(gold, p, [f"d{i % documents}" for i in range(100)], threshold=0, resamples=50)
        for e in (s.macro_f1, s.macro_f1_five, s.accuracy, *s.f1.values()):
            assert (e.low is not None, e.high is not None) == (known, known) and 0 <= e.value <= 1
            assert ("[not estimable]" in str(e)) is not known and str(e).startswith(f"{e.value:.3f} [")
        plain = json.loads(json.dumps(s.to_json(), allow_nan=False))
        assert (plain["macro_f1"]["low"] is not None) is known


def test_calibration_error_by_hand():
    """Confidence 0.9, right four times in five: off by 0.1."""
    p = np.array([[0.9, 0.025, 0.025, 0.025, 0.025]] * 5)
    assert calibration_error(np.array([0, 0, 0, 0, 1]), p, bins=1) == pytest.approx(0.1)


def test_a_label_that_never_occurs_scores_zero_not_nan():
    p = np.eye(5)[[0, 0, 4]]
    s = evaluate(["position", "position", "none"], p, ["a", "b", "c"], threshold=0.5, resamples=20)
    assert s.f1["demand"].value == 0 and s.support["demand"] == 0
    assert s.macro_f1.value == pytest.approx(0.25)


def test_lengths_must_match():
    with pytest.raises(ValueError, match="need as many"):
        evaluate(["none"], np.eye(5), ["a"], threshold=0)
