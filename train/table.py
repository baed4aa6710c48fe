"""A split with a model's probabilities beside the annotators' labels: what `communique eval` reads.

communique data table ../test.jsonl --split test
communique eval report ../test.jsonl --out reports/test
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from communique.model.classifier import StanceClassifier
from communique.model.labels import LABELS
from communique.model.tokens import SentenceInput
from communique.train.corpus import Sentence


def gold_fields(s: Sentence) -> dict[str, Any]:
    """The sentence, its neighbours and its label."""
    return {
        "doc_id": s.row.doc_id,
        "sent_id": s.row.sent_id,
        "text": s.text,
        "before": s.before,
        "after": s.after,
        "gold": s.row.label,
    }


def probability_fields(p: Iterable[float]) -> dict[str, float]:
    """`p_position` … `p_none` to six digits, from probabilities in the order of `LABELS`."""
    return {f"p_{label}": round(float(value), 6) for label, value in zip(LABELS, p, strict=True)}


def table_rows(
    sentences: Sequence[Sentence], classifier: StanceClassifier | None
) -> Iterator[dict[str, Any]]:
    """One row a sentence that has its text; without a classifier, one to train a baseline on."""
    known = [s for s in sentences if s.text is not None]
    inputs = [SentenceInput(s.text or "", s.before, s.after) for s in known]
    probabilities = [None] * len(known) if classifier is None else classifier.probabilities(inputs)[0]
    for s, p in zip(known, probabilities, strict=True):
        row: dict[str, Any] = {
            **gold_fields(s),
            "issuer": s.doc.issuer,
            "kind": s.doc.kind,
            "date": s.doc.date,
            "sample": s.row.sample,
            "weight": s.row.weight,
            "note": s.row.why,
        }
        if s.row.b is not None:
            row |= {"label_a": s.row.a.label, "label_b": s.row.b.label}
        if classifier is not None and p is not None:
            row |= {
                **probability_fields(p),
                "model": classifier.version,
                **classifier.artifact.config.rule,
            }
        yield row
