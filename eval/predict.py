"""Gold rows through a model: what makes an evaluation table of a split.

table, speed = predict(rows, digest, StanceClassifier.load(folder))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np

from communique.eval.table import Row, Table
from communique.model.artifact import document_digest
from communique.model.classifier import StanceClassifier
from communique.model.tokens import SentenceInput

_CHUNK = 256
DISTRUST = "its scores there are not those of texts it has never seen, and must not be reported as such."


def learnt_from(rows: Sequence[Row], trained_on: Sequence[str]) -> str:
    """How many documents and rows of `rows` a model was trained on, in words; empty where none.

    Args:
        rows: to be evaluated on.
        trained_on: `ModelConfig.trained_on` of the model; empty where it is not known.
    """
    known = set(trained_on)
    documents = {row.doc_id for row in rows}
    seen = {doc_id for doc_id in documents if document_digest(doc_id) in known}
    if not seen:
        return ""
    n = sum(row.doc_id in seen for row in rows)
    return f"{len(seen):,} of the {len(documents):,} documents ({n:,} of {len(rows):,} sentences)"


def predict(
    rows: Sequence[Row],
    digest: str,
    classifier: StanceClassifier,
    *,
    threshold: float | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> tuple[Table, float]:
    """Label rows with a model, each with its neighbours.

    Args:
        rows: with gold labels.
        digest: SHA-256 of where they come from.
        classifier: the model.
        threshold: abstention threshold; the model's own if not given.
        tick: called with the number of rows done since the last call.

    Returns:
        The table, and sentences per second on this machine.
    """
    began = perf_counter()
    parts = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        parts.append(classifier.probabilities([SentenceInput(r.text, r.before, r.after) for r in chunk])[0])
        tick(len(chunk))
    speed = len(rows) / (perf_counter() - began)
    found = np.concatenate(parts).astype(float)
    cut = classifier.artifact.config.threshold if threshold is None else threshold
    return Table(classifier.version, digest, tuple(rows), found, cut), speed
