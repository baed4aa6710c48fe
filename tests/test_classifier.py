"""Probabilities, abstention, order, and that a batch's company changes nothing."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from communique.model.artifact import load_artifact
from communique.model.classifier import StanceClassifier, decide, in_context, softmax
from communique.model.engine import batches
from communique.model.labels import LABELS, STANCES, Stance, label_index
from communique.model.tokens import SentenceInput, SentenceTokenizer

STATEMENT = (
    "The ministers met. Country A condemns the raid. It urges B to stop. B lifts its ban. Both agreed."
)


@pytest.fixture(scope="module")
def toy(toy_model):
    return StanceClassifier.load(toy_model, threads=1)


def test_the_toy_labels_by_its_words(toy):
    labels = [p.label.value for p in toy.label(STATEMENT)]
    assert labels == ["none", "position", "demand", "concession", "agreement"]


def test_offsets_and_records(toy):
    for number, record in enumerate(toy.records(STATEMENT, doc_id="d1", metadata={"issuer": "A"})):
        assert STATEMENT[record["start"] : record["end"]] == record["text"]
        assert record["sent_id"] == number and record["doc_id"] == "d1" and record["issuer"] == "A"
        assert sum(record[f"p_{label}"] for label in LABELS) == pytest.approx(1, abs=5e-4)
    assert list(record) == [
        *["doc_id", "sent_id", "start", "end", "text", "label"],
        *["p_position", "p_demand", "p_concession", "p_agreement", "p_none"],
        *["truncated", "model_version", "issuer"],
    ]


def test_one_prediction_each_in_order_with_duplicates(toy):
    sentences = ["A condemns.", "B urges.", "A condemns.", "", "x " * 500, "They agreed."]
    found = toy.label_sentences(sentences)
    assert [p.text for p in found] == sentences
    assert [p.label.value for p in found][:3] == ["position", "demand", "position"]
    assert [p.truncated for p in found] == [False, False, False, False, True, False]


def test_no_sentences_no_predictions(toy):
    assert toy.label("") == [] and toy.label_sentences([]) == []


def test_threshold_and_forced_choice(toy):
    assert {p.label for p in toy.label(STATEMENT, threshold=1.0)} == {Stance.NONE}
    assert Stance.NONE not in {p.label for p in toy.label(STATEMENT, abstain=False)}
    with pytest.raises(ValueError, match="threshold"):
        toy.label(STATEMENT, threshold=2)


def test_decide_by_hand():
    p = np.array([[0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.3, 0.1, 0.1, 0.4], [0.2, 0.25, 0.2, 0.2, 0.15]])
    assert decide(p, threshold=0.3) == [Stance.POSITION, Stance.NONE, Stance.NONE]
    assert decide(p, threshold=0) == [Stance.POSITION, Stance.NONE, Stance.DEMAND]
    assert decide(p, threshold=0.9, abstain=False) == [Stance.POSITION, Stance.DEMAND, Stance.DEMAND]


def test_decide_by_weights_by_hand():
    p = np.array([[0.5, 0.1, 0.2, 0.1, 0.1], [0.5, 0.2, 0.1, 0.1, 0.1]])
    weighted = {"label_weights": (1, 1, 3, 1, 1)}
    assert decide(p, threshold=0, **weighted) == [Stance.CONCESSION, Stance.POSITION]
    assert decide(p, threshold=0.43, **weighted) == [Stance.NONE, Stance.NONE]  # 0.6 of 1.4, 0.5 of 1.2
    assert decide(p, threshold=0.42, **weighted) == [Stance.CONCESSION, Stance.NONE]
    assert decide(p, threshold=0.9, abstain=False, **weighted) == [Stance.CONCESSION, Stance.POSITION]
    assert decide(p, threshold=0.5, label_weights=(2, 2, 2, 2, 2)) == decide(p, threshold=0.5)


def test_softmax_by_hand():
    p = softmax(np.array([[np.log(8), 0.0]], dtype=np.float32), temperature=3.0)
    assert p[0] == pytest.approx([2 / 3, 1 / 3])


def test_runner_up(toy):
    (prediction,) = toy.label_sentences(["A condemns and urges, urges."])
    assert (prediction.label, prediction.runner_up) == (Stance.DEMAND, Stance.POSITION)


def test_unknown_label_names_the_five():
    with pytest.raises(ValueError, match="'praise'.*position, demand, concession, agreement, none"):
        label_index("praise")
    assert [s.value for s in STANCES] == ["position", "demand", "concession", "agreement"]


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 600))
def test_batches_hold_each_index_once_within_the_budget(lengths, budget):
    found = list(batches(lengths, budget))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_context_is_cut_to_its_share(toy_model):
    import dataclasses

    config = dataclasses.replace(
        load_artifact(toy_model).config, max_tokens=8, before_tokens=2, after_tokens=3
    )
    tokenizer = SentenceTokenizer.from_file(toy_model / "tokenizer.json", config)
    (e,) = tokenizer.encode([SentenceInput("met " * 9, "urges lifts agreed", "condemns " * 5)])
    word = dict(zip(["condemns", "urges", "lifts", "agreed", "met"], range(4, 9), strict=True))
    sep, cls = tokenizer.sep_id, tokenizer.cls_id
    expected = [
        cls,
        *[word["met"]] * 8,
        sep,
        word["lifts"],
        word["agreed"],
        sep,
        *[word["condemns"]] * 3,
        sep,
    ]
    assert list(e.ids) == expected
    assert e.first_context == 10 and e.truncated


def test_neighbours():
    assert in_context(["a", "b"]) == [SentenceInput("a", "", "b"), SentenceInput("b", "a", "")]
    assert in_context([]) == []


# --- the model that ships ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return StanceClassifier.load()


def test_shipped_model_on_plain_cases(shipped):
    plain = {
        "We call on the Government of Ardenia to release the detained fishermen without delay.": "demand",
        "The two ministers signed a memorandum of understanding on joint border patrols.": "agreement",
        "Ardenia strongly condemns the attack and rejects any change of the border by force.": "position",
        "As requested by Belmar, Ardenia will lift the ban on its fish imports next week.": "concession",
        "The Foreign Minister met his counterpart in the capital on Tuesday.": "none",
    }
    found = {p.text: p.label.value for p in shipped.label_sentences(list(plain))}
    assert found == plain


@settings(deadline=None, max_examples=5)
@given(st.randoms(use_true_random=False))
def test_company_in_a_batch_does_not_change_a_label(shipped, rng: random.Random):
    sentences = [f"The {w} side {v} the {n} plan {'again ' * k}." for k, (w, v, n) in enumerate(WORDS)]
    alone = {s: shipped.label_sentences([s])[0] for s in sentences}
    rng.shuffle(sentences)
    for p in shipped.label_sentences(sentences):
        assert p.label == alone[p.text].label
        assert p.probabilities == pytest.approx(alone[p.text].probabilities, abs=2e-4)


WORDS = [
    ("northern", "rejects", "new"),
    ("other", "accepts", "revised"),
    ("first", "urges", "whole"),
    ("second", "agreed", "joint"),
    ("third", "noted", "old"),
]
