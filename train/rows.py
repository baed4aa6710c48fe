"""The annotation files' records: what a row and a document are, and when they are wrong.

    >>> from communique.train.rows import sentence_sha256
    >>> sentence_sha256("We will lift the ban.")[:8]
    '985e15ad'

A row of `real.jsonl` or `own.jsonl` is a label that points into a text: document, offsets, a hash of
the sentence and its first words, never the sentence. A row of `documents.jsonl` or
`own_documents.jsonl` is the statement it points into; only the project's own carry their text.
`communique data check` prints every fault that the functions here find.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from communique.model.labels import LABELS, STANCES
from communique.train.files import DataError

REAL, OWN = "real.jsonl", "own.jsonl"
DOCUMENTS, OWN_DOCUMENTS = "documents.jsonl", "own_documents.jsonl"
SPLITS = "splits.json"
HEAD_WORDS = 5
"""Words of a sentence that a row shows, so that a reader can find it."""

SOURCES = ("corpus", "unsc", "own")
DECIDED = ("agreed", "adjudicated", "single")
SAMPLES = ("random", "cue", "model", "written")


@dataclass(frozen=True)
class Pass:
    """What one annotator said of one sentence."""

    label: str
    also: str | None
    sure: int  # 3 clear, 2 a careful colleague might differ, 1 torn
    note: str


@dataclass(frozen=True)
class Row:
    """One annotated sentence, standoff."""

    doc_id: str
    sent_id: int  # number within the document when it was annotated
    start: int  # characters, text[start:end]
    end: int
    sha256: str  # of text[start:end] in UTF-8
    head: str
    label: str
    also: str | None
    passes: int
    a: Pass
    b: Pass | None
    decided: str
    why: str
    sample: str
    weight: float | None  # 1 / inclusion probability, for random rows
    synthetic: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """What makes a row the same row: document and place."""
        return self.doc_id, self.start, self.end

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in its file; `synthetic` only where it is true."""
        record = asdict(self)
        if not self.synthetic:
            del record["synthetic"]
        return record


@dataclass(frozen=True)
class Document:
    """What is known of a statement, its text aside."""

    doc_id: str
    issuer: str
    issuer_name: str
    kind: str
    date: str  # YYYY, YYYY-MM or YYYY-MM-DD
    source: str
    text_sha256: str
    n_sentences: int
    trade: bool  # a tariff or trade-deal text
    title: str = ""
    register: str = ""
    synthetic: bool = False


def sentence_sha256(text: str) -> str:
    """SHA-256 of a sentence's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def head_of(text: str) -> str:
    """The first five words of a sentence, one space between them."""
    return " ".join(text.split()[:HEAD_WORDS])


# --- what is wrong with a record -----------------------------------------------------------------

_SHA = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_ROW_TYPES: dict[str, tuple[type, ...]] = {
    "doc_id": (str,), "sent_id": (int,), "start": (int,), "end": (int,), "sha256": (str,), "head": (str,),
    "label": (str,), "also": (str, type(None)), "passes": (int,), "a": (dict,), "b": (dict, type(None)),
    "decided": (str,), "why": (str,), "sample": (str,), "weight": (int, float, type(None)),
}  # fmt: skip
_PASS_TYPES: dict[str, tuple[type, ...]] = {
    "label": (str,), "also": (str, type(None)), "sure": (int,), "note": (str,),
}  # fmt: skip
_DOCUMENT_TYPES: dict[str, tuple[type, ...]] = {
    "doc_id": (str,), "issuer": (str,), "issuer_name": (str,), "kind": (str,), "date": (str,),
}  # fmt: skip
_REAL_DOCUMENT_TYPES: dict[str, tuple[type, ...]] = {
    "source": (str,), "text_sha256": (str,), "n_sentences": (int,), "trade": (bool,),
}  # fmt: skip
_OWN_DOCUMENT_TYPES: dict[str, tuple[type, ...]] = {
    "title": (str,), "register": (str,), "text": (str,), "synthetic": (bool,),
}  # fmt: skip


def row_problems(record: Mapping[str, Any], own: bool) -> list[str]:
    """Everything wrong with a row as read from its file; empty if it is sound.

    Args:
        record: one line of `real.jsonl` or `own.jsonl`.
        own: whether it stands in `own.jsonl`.
    """
    types = {**_ROW_TYPES, "synthetic": (bool,)} if own else _ROW_TYPES
    problems = _type_problems(record, types)
    if problems:
        return problems
    for side in ("a", "b"):
        if record[side] is not None:
            problems += [f"{side}: {text}" for text in _pass_problems(record[side])]
    if problems:
        return problems
    return [
        *_place_problems(record),
        *_act_problems(record),
        *_decision_problems(record),
        *_sample_problems(record, own),
    ]


def document_problems(record: Mapping[str, Any], own: bool) -> list[str]:
    """Everything wrong with a line of `documents.jsonl`, or with `own` of `own_documents.jsonl`."""
    problems = _type_problems(
        record, _DOCUMENT_TYPES | (_OWN_DOCUMENT_TYPES if own else _REAL_DOCUMENT_TYPES)
    )
    if problems:
        return problems
    if not _DATE.fullmatch(record["date"]):
        problems.append(f"date {record['date']!r} is not YYYY, YYYY-MM or YYYY-MM-DD")
    if own and not record["synthetic"]:
        problems.append("synthetic is false: the project's own statements are all marked synthetic")
    if own and not record["text"].strip():
        problems.append("the text is empty")
    if not own and record["source"] not in SOURCES[:2]:
        problems.append(f"source {record['source']!r} is not one of {', '.join(SOURCES[:2])}")
    if not own and not _SHA.fullmatch(record["text_sha256"]):
        problems.append(f"text_sha256 {record['text_sha256']!r} is not 64 hexadecimal digits")
    if not own and "text" in record:
        problems.append("carries a text: the texts of real statements stay outside the repository")
    return problems


def _type_problems(record: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> list[str]:
    problems = [f"field {name!r} is missing" for name in types if name not in record]
    for name, allowed in types.items():
        value = record.get(name)
        wrong_bool = isinstance(value, bool) and bool not in allowed  # bool is an int to Python
        if name in record and (wrong_bool or not isinstance(value, allowed)):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            problems.append(f"{name} is {value!r}, expected {wanted}")
    return problems


def _pass_problems(record: Mapping[str, Any]) -> list[str]:
    problems = _type_problems(record, _PASS_TYPES)
    if problems:
        return problems
    problems = _act_problems(record)
    if record["sure"] not in (1, 2, 3):
        problems.append(f"sure is {record['sure']}, expected 1, 2 or 3")
    return problems


def _act_problems(record: Mapping[str, Any]) -> list[str]:
    problems = []
    if record["label"] not in LABELS:
        problems.append(f"label {record['label']!r} is not one of {', '.join(LABELS)}")
    if record["also"] is not None and record["also"] not in STANCES:
        problems.append(f"also {record['also']!r} is not null or one of {', '.join(STANCES)}")
    if record["also"] == record["label"]:
        problems.append(f"also repeats the label {record['label']!r}")
    return problems


def _place_problems(record: Mapping[str, Any]) -> list[str]:
    problems = []
    if not 0 <= record["start"] < record["end"]:
        problems.append(f"start {record['start']} and end {record['end']} are no stretch of text")
    if record["sent_id"] < 0:
        problems.append(f"sent_id is {record['sent_id']}, expected 0 or more")
    if not _SHA.fullmatch(record["sha256"]):
        problems.append(f"sha256 {record['sha256']!r} is not 64 hexadecimal digits")
    if len(record["head"].split()) > HEAD_WORDS:
        problems.append(f"head has more than {HEAD_WORDS} words: {record['head']!r}")
    if "text" in record:
        problems.append("carries a text: rows are standoff")
    return problems


def _decision_problems(record: Mapping[str, Any]) -> list[str]:
    a, b, decided = record["a"], record["b"], record["decided"]
    if record["passes"] not in (1, 2) or (b is not None) != (record["passes"] == 2):
        return [f"passes {record['passes']} does not go with b {'null' if b is None else 'given'}"]
    if decided not in DECIDED or (decided == "single") != (record["passes"] == 1):
        return [f"decided {decided!r} does not go with passes {record['passes']}"]
    if decided == "adjudicated":
        return [] if record["why"].strip() else ["adjudicated without a reason in why"]
    labels = {record["label"], a["label"], *([b["label"]] if b else [])}
    return [f"decided {decided!r}, but the labels are {', '.join(sorted(labels))}"] if len(labels) > 1 else []


def _sample_problems(record: Mapping[str, Any], own: bool) -> list[str]:
    sample, weight = record["sample"], record["weight"]
    allowed = SAMPLES[3:] if own else SAMPLES[:3]
    if sample not in allowed:
        return [f"sample {sample!r} is not one of {', '.join(allowed)}"]
    if (sample == "random") != (weight is not None):
        return [f"weight is {weight} in a {sample} row: random rows have one, others null"]
    return [f"weight is {weight}, expected 1 or more"] if weight is not None and not weight >= 1 else []


# --- from a file's records ----------------------------------------------------------------------


def row_from(record: Mapping[str, Any], place: str, own: bool = False) -> Row:
    """A sound record as a `Row`.

    Raises:
        DataError: the record is not sound; the message starts with `place` (file:row).
    """
    problems = row_problems(record, own)
    if problems:
        raise DataError(f"{place}: {problems[0]}; `communique data check` lists every fault")
    fields = {name: record[name] for name in _ROW_TYPES if name not in ("a", "b")}
    sides = {side: _pass_from(record[side]) for side in ("a", "b")}
    return Row(**fields, **sides, synthetic=own)  # type: ignore[arg-type]


def _pass_from(record: Mapping[str, Any] | None) -> Pass | None:
    return None if record is None else Pass(**{name: record[name] for name in _PASS_TYPES})


def document_from(record: Mapping[str, Any], place: str, own: bool = False) -> Document:
    """A sound record as a `Document`.

    Raises:
        DataError: the record is not sound; the message starts with `place` (file:row).
    """
    problems = document_problems(record, own)
    if problems:
        raise DataError(f"{place}: {problems[0]}; `communique data check` lists every fault")
    known = {
        name: record[name]
        for name in (*_DOCUMENT_TYPES, *_REAL_DOCUMENT_TYPES, "title", "register")
        if name in record
    }
    if own:
        known |= {"source": "own", "text_sha256": sentence_sha256(record["text"])}
        known |= {"n_sentences": record.get("n_sentences", 0), "trade": bool(record.get("trade", False))}
    return Document(**known, synthetic=own)
