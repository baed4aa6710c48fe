"""The surest mistakes, for a reader: what the model said, what the annotators said, and what may explain it.

    communique benchmark errors --split test --out ../errors.md

The file holds sentences of real statements, so it is not written into a repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from communique.eval.table import Row, Table
from communique.eval.views import Wrong, errors
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError
from communique.model.jsonl import write_text
from communique.model.tokens import SentenceInput
from communique.train.corpus import Sentence

LONG = 60
"""Words from which a sentence is called long."""
SHORT = 6


def write_errors(
    classifier: StanceClassifier, sentences: Sequence[Sentence], out: Path, most: int = 30
) -> str:
    """Write the surest mistakes as Markdown, and say in one line how many there were.

    Raises:
        InputError: `out` lies in a repository, or no sentence has its text.
    """
    check_outside(out)
    known = [s for s in sentences if s.text is not None]
    if not known:
        raise InputError("no sentence has its text: set COMMUNIQUE_SHARED")
    places = {(s.row.doc_id, s.row.sent_id): s for s in known}
    probabilities, _ = classifier.probabilities(
        [SentenceInput(s.text or "", s.before, s.after) for s in known]
    )
    rows = tuple(Row("", s.row.doc_id, s.row.sent_id, s.text or "", s.row.label) for s in known)
    config = classifier.artifact.config
    found = np.asarray(probabilities)
    table = Table(classifier.version, "", rows, found, config.threshold, config.label_weights)
    wrong = errors(table)
    shown = wrong[:most]
    blocks = [_block(n, e, places[e.row.key]) for n, e in enumerate(shown, 1)]
    head = (
        f"# {classifier.version}: the {len(shown)} surest of {len(wrong)} mistakes "
        f"in {len(known)} sentences\n\nHolds texts that belong to others: keep it out of the repository.\n"
    )
    write_text(out, "\n".join([head, *blocks]))
    return f"{len(wrong)} of {len(known)} labels are wrong; the {len(shown)} surest are in {out}\n"


def check_outside(path: Path) -> None:
    """Refuse a path in a git repository.

    Raises:
        InputError: it lies in one.
    """
    for folder in path.resolve().parents:
        if (folder / ".git").exists():
            raise InputError(f"{path} lies in the repository {folder}: it would hold texts, write elsewhere")


def hints(s: Sentence, error: Wrong) -> list[str]:
    """What the annotations and the sentence say about a mistake; empty where they say nothing."""
    row, found = s.row, []
    passes = [p for p in (row.a, row.b) if p is not None]
    if row.also == error.found:
        found.append("the annotators gave the model's label as a second act of the sentence")
    if any(p.label == error.found for p in passes) and row.label != error.found:
        found.append("one annotator gave the model's label")
    elif any(p.sure == 1 for p in passes):
        found.append("an annotator was torn")
    if error.abstained:
        found.append("no stance was probable enough")
    words = len(error.row.text.split())
    if words >= LONG:
        found.append(f"long ({words} words)")
    if words <= SHORT:
        found.append(f"short ({words} words)")
    if row.why:
        found.append(f"adjudicated: {row.why}")
    return found


def _block(number: int, error: Wrong, s: Sentence) -> str:
    said = "; ".join(hints(s, error)) or "nothing in the annotations explains it"
    return (
        f"## {number}. {error.row.doc_id}#{error.row.sent_id}: {error.row.gold}, taken for {error.found} "
        f"(p {error.confidence:.2f}, of the gold label {error.p_gold:.2f})\n\n"
        f"> {error.row.text}\n\nBefore it: {s.before or '—'}\n\nWhy: {said}.\n"
    )
