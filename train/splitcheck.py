"""Whether `splits.json` keeps apart what must be kept apart.

    communique data check

Every real document stands in one split; train and dev in one fold each; what is nearly the same stands
together; the project's own statements and singly annotated ones are in no dev or test split, and no long
sentence of the project's own nearly repeats one that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from communique.train.composition import SPLIT_NAMES
from communique.train.corpus import Annotations
from communique.train.public_duplicates import near_duplicates as repeated
from communique.train.rows import SPLITS
from communique.train.splits import (
    LONG_SENTENCE_WORDS,
    THRESHOLD,
    SplitPlan,
    near_duplicates,
    shared_sentences,
)

Fault = tuple[str, str, bool]
"""Where, what, and whether it is a problem (or only worth knowing)."""


def split_findings(annotations: Annotations, plan: SplitPlan | None = None) -> Iterator[Fault]:
    """Every fault of the splits; one notice where there are none yet."""
    splits = annotations.splits
    if not any(not s.row.synthetic for s in annotations.sentences):
        return
    if not splits:
        yield SPLITS, "not there yet: write it with `communique data splits`", False
        return
    wrong = [key for key in ("split", "fold") if not isinstance(splits.get(key), dict)]
    wrong += [
        key for key in ("leave_issuer_out", "near_duplicates", "own_dev") if not _names(splits.get(key, []))
    ]
    if wrong:
        yield (
            SPLITS,
            f"{', '.join(wrong)}: missing or not of the right form; `communique data splits` writes it",
            True,
        )
        return
    yield from _placement(annotations, splits)
    yield from _folds(splits)
    yield from _issuers(annotations, splits)
    yield from _leaks(annotations, splits)
    yield from _repeated_by_own(annotations)
    yield from _test_size(annotations, splits, plan or SplitPlan())


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) or _names(item) for item in value)


def _placement(annotations: Annotations, splits: Mapping[str, Any]) -> Iterator[Fault]:
    placed: Mapping[str, str] = splits["split"]
    real = {s.row.doc_id for s in annotations.sentences if not s.row.synthetic}
    own = {s.row.doc_id for s in annotations.sentences if s.row.synthetic}
    single = {s.row.doc_id for s in annotations.sentences if s.row.passes == 1 and not s.row.synthetic}
    for doc_id, name in placed.items():
        where = f"{SPLITS}: {doc_id}"
        if name not in SPLIT_NAMES:
            yield where, f"split {name!r} is not one of {', '.join(SPLIT_NAMES)}", True
        if doc_id in own and name != "train":
            yield where, f"a statement of the project's own stands in {name}: it may only train", True
        elif doc_id not in real | own:
            yield where, "no row is annotated in this document: write the splits again", True
        if doc_id in single and name != "train":
            yield where, f"has sentences of one pass and stands in {name}: it may only train", True
    for doc_id in sorted(real - placed.keys()):
        yield f"{SPLITS}: {doc_id}", "stands in no split: write the splits again", True
    for doc_id in sorted(set(splits.get("own_dev", [])) - own):
        yield f"{SPLITS}: {doc_id}", "listed in own_dev, but not a statement of the project's own", True


def _folds(splits: Mapping[str, Any]) -> Iterator[Fault]:
    placed, folds = splits["split"], splits["fold"]
    learn = {doc_id for doc_id, name in placed.items() if name != "test"}
    for doc_id in sorted(learn - folds.keys()):
        yield f"{SPLITS}: {doc_id}", f"is in {placed[doc_id]}, but in no fold", True
    for doc_id in sorted(folds.keys() - learn):
        yield f"{SPLITS}: {doc_id}", f"is in a fold, but {placed.get(doc_id, 'in no split')}", True
    numbers = sorted(set(folds.values()), key=str)
    if folds and numbers != list(range(len(numbers))):
        yield SPLITS, f"folds are {numbers}, expected 0, 1, 2 and so on", True


def _issuers(annotations: Annotations, splits: Mapping[str, Any]) -> Iterator[Fault]:
    known = {
        s.doc.issuer for s in annotations.sentences if s.row.passes == 2 and s.row.doc_id in splits["fold"]
    }
    for issuer in splits.get("leave_issuer_out", []):
        if issuer not in known:
            yield SPLITS, f"leave_issuer_out has {issuer!r}, who has no sentence in train or dev", True


def _leaks(annotations: Annotations, splits: Mapping[str, Any]) -> Iterator[Fault]:
    """What is nearly the same and stands apart; needs the texts."""
    placed, folds = splits["split"], splits["fold"]
    texts = {doc_id: text for doc_id, text in annotations.texts.items() if doc_id in placed}
    without = len(placed.keys() - texts.keys())
    if without:
        yield (
            SPLITS,
            f"near-duplicates across splits: not looked for in {without} documents without text",
            False,
        )
    near = [(a, b, f"share {n:.0%} of their shingles") for a, b, n in near_duplicates(texts, THRESHOLD)]
    rows = [s.row for s in annotations.sentences]
    same = [(a, b, f"share the sentence “{head} …”") for a, b, head in shared_sentences(rows, texts)]
    for a, b, why in near + same:
        if placed[a] != placed[b]:
            yield f"{a}, {b}", f"{why}, but stand in {placed[a]} and {placed[b]}", True
        elif folds.get(a) != folds.get(b):
            yield f"{a}, {b}", f"{why}, but stand in folds {folds.get(a)} and {folds.get(b)}", True


def _repeated_by_own(annotations: Annotations) -> Iterator[Fault]:
    """Long sentences of the project's own statements, which train, that nearly repeat one of dev or test."""
    held = [s.text for name in ("dev", "test") for s in annotations.split(name) if _is_long(s.text)]
    own = [s for s in annotations.sentences if s.row.synthetic and _is_long(s.text)]
    for place in sorted(repeated([s.text or "" for s in own], map(str, held), among=False)):
        row = own[place].row
        yield (
            f"{row.doc_id}#{row.sent_id}",
            f"“{row.head} …”, of the project's own, nearly repeats a sentence of dev or test: write another",
            True,
        )


def _is_long(text: str | None) -> bool:
    return text is not None and len(text.split()) >= LONG_SENTENCE_WORDS


def _test_size(annotations: Annotations, splits: Mapping[str, Any], plan: SplitPlan) -> Iterator[Fault]:
    test = [s.row for s in annotations.sentences if splits["split"].get(s.row.doc_id) == "test"]
    counts = {
        "sentences": (len(test), plan.test_sentences),
        "concessions": (sum(row.label == "concession" for row in test), plan.test_concessions),
        "documents": (len({row.doc_id for row in test}), plan.test_documents),
    }
    for name, (count, floor) in counts.items():
        if count < floor:
            yield "test split", f"{count:,} {name}, at least {floor:,} wanted", True
