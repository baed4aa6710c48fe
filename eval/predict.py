"""Gold rows through a model: what makes an evaluation table of a split.

table, speed = predict(rows, digest, StanceClassifier.load(folder))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from communique.eval.table import Row, Table
from communique.model.artifact import document_digest
from communique.model.classifier import StanceClassifier
from communique.model.tokens import SentenceInput

_CHUNK = 256


@dataclass(frozen=True)
class Heard:
    """What is to be said of a model before its scores are; both empty where it saw none of the documents."""

    warnings: tuple[str, ...] = ()
    """It has learnt from some of them."""
    notes: tuple[str, ...] = ()
    """It could not be checked whether it has."""

    def __add__(self, other: Heard) -> Heard:
        return Heard(self.warnings + other.warnings, self.notes + other.notes)

    def lines(self) -> list[str]:
        """As they stand on standard error."""
        return [f"warning: {w}" for w in self.warnings] + [f"note: {n}" for n in self.notes]


def learnt_from(documents: Sequence[str], trained_on: Sequence[str], model: str, data: str) -> Heard:
    """Whether a model was trained on documents that it is to be scored on.

    Args:
        documents: the document of each sentence to be scored.
        trained_on: `ModelConfig.trained_on` of the model; empty where it is not known.
        model: its name.
        data: what the sentences are, such as the name of a split.
    """
    if not trained_on:
        return unchecked(model, data)
    known = set(trained_on)
    there = set(documents)
    seen = {doc_id for doc_id in there if document_digest(doc_id) in known}
    if not seen:
        return Heard()
    n = sum(doc_id in seen for doc_id in documents)
    return Heard(
        warnings=(
            f"{model} learnt from {len(seen):,} of the {len(there):,} documents ({n:,} of "
            f"{len(documents):,} sentences) of {data}: its scores there are not those of texts it has never "
            "seen, and must not be reported as such.",
        )
    )


def unchecked(model: str, data: str) -> Heard:
    """For a model, or a table of predictions, that does not say what it learnt from."""
    return Heard(
        notes=(
            f"{model} does not say which documents it learnt from: that it has seen none of {data} could not "
            "be checked.",
        )
    )


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
    config = classifier.artifact.config
    cut = config.threshold if threshold is None else threshold
    return Table(classifier.version, digest, tuple(rows), found, cut, config.label_weights), speed
