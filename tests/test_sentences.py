"""Sentence boundaries: the written set, the offsets, and the places where official prose is hard."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from communique.model.sentences import segment

DATA = Path(__file__).parent / "data"


def boundaries(spans: list[tuple[int, int]]) -> set[int]:
    return {end for _, end in spans[:-1]}


def score(file: str) -> tuple[float, int]:
    """Boundary F1 over a set of texts, and how many boundaries it has."""
    hits = wrong = missed = 0
    for line in (DATA / file).read_text(encoding="utf-8").strip().split("\n"):
        entry = json.loads(line)
        at, gold = 0, []
        for sentence in entry["sentences"]:
            start = entry["text"].index(sentence, at)
            at = start + len(sentence)
            gold.append((start, at))
        found = boundaries([tuple(span) for span in segment(entry["text"])])
        expected = boundaries(gold)
        hits += len(found & expected)
        wrong += len(found - expected)
        missed += len(expected - found)
    return 2 * hits / (2 * hits + wrong + missed), hits + missed


def test_boundary_f1_on_the_written_set():
    f1, count = score("segmentation.jsonl")
    assert count >= 250
    assert f1 >= 0.99


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("The U.S. Secretary left. China-U.S. relations are stable.", 2),
        ("She was in the U.S. The Minister was not.", 2),
        ("H.E. Dr. Ito and Amb. J. P. Roe met at 3 p.m. Tuesday.", 1),
        ("Talks ended at 3 p.m. The sides agreed.", 2),
        ("Under Art. 5 para. 2 and No. 2231 the measure stands.", 1),
        ('"We will not yield!" he said. "They must go." She agreed.', 3),
        ("1. Decides to act;\n2. Urges restraint; and\n\n(a) To report.", 3),
        ("The two sides, which met in the\ncapital, agreed on a text.", 1),
        ("HEADING\n\nIt rained. It stopped.", 3),
        ("Trade grew by 1.5 percent to $2.3 billion. It will grow.", 2),
    ],
)
def test_hard_places(text, sentences):
    assert len(segment(text)) == sentences


PIECES = st.sampled_from(
    [
        "The U.S. Army",
        "No. 5",
        "\n",
        "\r\n",
        "\n\n",
        " ",
        ". ",
        "! ",
        '."',
        "…",
        "(a) ",
        "• ",
        "é",
        "\u00a0",
        "\u2029",
    ]
)


@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=40).map("".join)))
def test_offsets_index_the_text_and_nothing_is_lost(text):
    spans = segment(text)
    at = 0
    for start, end in spans:
        assert at <= start < end <= len(text)
        assert text[at:start].strip() == ""
        assert text[start:end] == text[start:end].strip()
        at = end
    assert text[at:].strip() == ""


def test_every_statement_is_covered(shared):
    lines = (shared / "corpus" / "statements.jsonl").read_text(encoding="utf-8").strip().split("\n")
    for line in lines:
        text = json.loads(line)["text"]
        assert "".join("".join(text[s.start : s.end].split()) for s in segment(text)) == "".join(text.split())


def test_blank_text_has_no_sentences():
    assert segment("") == segment(" \n\t\n ") == []


def test_one_very_long_line_takes_linear_time():
    assert len(segment("The parties agreed. " * 50_000)) == 50_000


HOSTILE = {
    "stops": "." * 100_000 + "x",
    "stops and quotes": "." * 50_000 + '"' * 50_000 + "x",
    "initials": "J. " * 33_000,
    "one token": "ab.Cd," * 16_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_built_to_be_slow_is_not(name):
    began = time.process_time()
    segment(HOSTILE[name])
    assert time.process_time() - began < 2  # a fifth of one; seconds to hours where a pattern goes back


def test_a_long_sentence_is_looked_at_near_its_stops():
    long = "The sides " + "met and " * 60
    assert len(segment(long + "named it Annex B. They left.")) == 2
    assert len(segment(long + "heard J. Roe. They left.")) == 2
    assert len(segment("   THE CHAIRMAN. The Committee " + "met and " * 60 + "rose.")) == 1


@pytest.mark.parametrize("gap", ["\u00a0", "\u3000", " \u2009"])
def test_a_wide_space_behind_an_initial_is_no_panic(gap):
    text = f"He saw plan B{gap}. 5 ships left. They met."
    assert [text[s.start : s.end] for s in segment(text)][-1] == "They met."
