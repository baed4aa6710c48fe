"""Annotations joined with the texts they point into, and as a `datasets.Dataset`.

    >>> from communique.train.corpus import load_annotations, to_dataset
    >>> annotations = load_annotations()                      # doctest: +SKIP
    >>> train = to_dataset(annotations.split("train"))        # doctest: +SKIP

The repository holds labels that point into real statements; the statements lie in a folder of their
own (`--shared`, the variable COMMUNIQUE_SHARED, or `shared` beside the repository), which holds
`corpus/statements.jsonl` and `public/un-security-council-en.zip`. Every sentence's hash is checked
before its label is used. Without the folder the real rows come without text, the notice says what is
missing, and the project's own statements, which carry their text, still train a model.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from communique.model.labels import LABELS
from communique.model.sentences import Span, segment
from communique.train.files import DataError, read_jsonl, read_object
from communique.train.rows import (
    DOCUMENTS,
    OWN,
    OWN_DOCUMENTS,
    REAL,
    SPLITS,
    Document,
    Row,
    document_from,
    row_from,
    sentence_sha256,
)
from communique.train.texts import load_texts, missing_texts, shared_folder

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Sentence:
    """An annotated sentence in its document; `text` is None where it could not be joined."""

    row: Row
    doc: Document
    text: str | None = None
    before: str = ""  # the neighbouring sentences, empty at the edges of the document
    after: str = ""


@dataclass(frozen=True)
class Unjoined:
    """A row without its sentence, and why."""

    row: Row
    reason: str  # "no text" or "hash mismatch"


@dataclass(frozen=True)
class Annotations:
    """Everything annotated: sentences, the documents they come from, and the splits."""

    sentences: tuple[Sentence, ...]
    documents: Mapping[str, Document]
    texts: Mapping[str, str] = field(repr=False)
    splits: Mapping[str, Any]
    unjoined: tuple[Unjoined, ...] = ()
    notice: str = ""

    @cached_property
    def _linked(self) -> dict[str, frozenset[str]]:
        groups = [frozenset(group) for group in self.splits.get("near_duplicates", [])]
        return {doc_id: group for group in groups for doc_id in group}

    def split(self, name: str, own: bool = True) -> list[Sentence]:
        """Sentences of "train", "dev", "test" or "own-dev".

        Real sentences go where `splits.json` puts their document. The project's own are only ever in
        "train" (left out with `own=False`), or in "own-dev" if `splits.json` lists them in `own_dev`.
        Dev and test hold sentences of two passes only.

        Raises:
            DataError: no such split, or no `splits.json`.
        """
        own_dev = set(self.splits.get("own_dev", ()))
        if name == "own-dev":
            return [s for s in self.sentences if s.row.synthetic and s.row.doc_id in own_dev]
        if name not in ("train", "dev", "test"):
            raise DataError(f"no split {name!r}: use train, dev, test or own-dev")
        placed = self._placed("split")
        real = [s for s in self.sentences if not s.row.synthetic and placed.get(s.row.doc_id) == name]
        if name != "train":
            return [s for s in real if s.row.passes == 2]
        return real + (self._own_for_training() if own else [])

    def fold(self, number: int, own: bool = True) -> tuple[list[Sentence], list[Sentence]]:
        """Fold `number` of train + dev as (to train on, held out); the test split is in neither.

        Raises:
            DataError: no such fold, or no `splits.json`.
        """
        folds = self._placed("fold")
        if number not in folds.values():
            raise DataError(f"no fold {number}: splits.json has {sorted(set(folds.values()))}")
        real = [s for s in self.sentences if not s.row.synthetic and s.row.doc_id in folds]
        held = [s for s in real if folds[s.row.doc_id] == number and s.row.passes == 2]
        train = [s for s in real if folds[s.row.doc_id] != number]
        return train + (self._own_for_training() if own else []), held

    def leave_issuer_out(self, *issuers: str, own: bool = True) -> tuple[list[Sentence], list[Sentence]]:
        """Train + dev as (everybody else's sentences, these issuers'); the test split is in neither.

        What shares a document nearly word for word with a held-out issuer, whoever issued it, is left
        out of training too.

        Raises:
            DataError: an issuer is not in the list of `splits.json`.
        """
        listed = self.splits.get("leave_issuer_out", [])
        for issuer in issuers:
            if issuer not in listed:
                raise DataError(
                    f"issuer {issuer!r} is not held out: use one of {', '.join(listed) or '(none listed)'}"
                )
        folds = self._placed("fold")
        real = [s for s in self.sentences if not s.row.synthetic and s.row.doc_id in folds]
        held = [s for s in real if s.doc.issuer in issuers and s.row.passes == 2]
        twins = {twin for s in held for twin in self._linked.get(s.row.doc_id, ())}
        pool = real + (self._own_for_training() if own else [])
        return [s for s in pool if s.doc.issuer not in issuers and s.row.doc_id not in twins], held

    def _own_for_training(self) -> list[Sentence]:
        own_dev = set(self.splits.get("own_dev", ()))
        return [s for s in self.sentences if s.row.synthetic and s.row.doc_id not in own_dev]

    def _placed(self, key: str) -> Mapping[str, Any]:
        if key not in self.splits:
            raise DataError(f"{SPLITS} has no {key!r}: write it with `communique data splits`")
        placed: Mapping[str, Any] = self.splits[key]
        return placed


# --- loading and joining -------------------------------------------------------------------------


def default_folder() -> Path:
    """`data/annotations` of the source tree, or of the current folder if the package was installed bare."""
    here = Path(__file__).resolve().parent.parent / "data" / "annotations"
    return here if here.is_dir() else Path.cwd() / "data" / "annotations"


def load_annotations(folder: Path | None = None, shared: Path | None = None) -> Annotations:
    """Every annotated sentence, joined with its text and verified.

    Args:
        folder: where the annotation files lie; `data/annotations` if not given. `real.jsonl` or
            `own.jsonl` may be absent, not both; `splits.json` may be.
        shared: where the texts of real statements lie (see `shared_folder`).

    Raises:
        DataError: a file is missing or a row is not sound; the message has file and row.
    """
    folder = folder or default_folder()
    if not any((folder / name).is_file() for name in (REAL, OWN)):
        raise DataError(f"{folder} has neither {REAL} nor {OWN}: name the folder of the annotations")
    documents, texts = _own_documents(folder)
    if (folder / REAL).is_file():
        real = [document_from(record, place) for place, record in read_jsonl(folder / DOCUMENTS)]
        documents |= {doc.doc_id: doc for doc in real}
        texts |= load_texts((doc.doc_id for doc in real), shared)
    rows = _rows(folder, documents)
    sentences, unjoined = join(rows, documents, texts)
    return Annotations(
        sentences=tuple(sentences),
        documents=documents,
        texts=texts,
        splits=read_object(folder / SPLITS) if (folder / SPLITS).is_file() else {},
        unjoined=tuple(unjoined),
        notice=_notice(unjoined, len(rows), shared_folder(shared)),
    )


def _own_documents(folder: Path) -> tuple[dict[str, Document], dict[str, str]]:
    documents: dict[str, Document] = {}
    texts: dict[str, str] = {}
    if (folder / OWN).is_file():
        for place, record in read_jsonl(folder / OWN_DOCUMENTS):
            doc = document_from(record, place, own=True)
            documents[doc.doc_id], texts[doc.doc_id] = doc, record["text"]
    return documents, texts


def _rows(folder: Path, documents: Mapping[str, Document]) -> list[Row]:
    rows = []
    for name in (REAL, OWN):
        if (folder / name).is_file():
            for place, record in read_jsonl(folder / name):
                row = row_from(record, place, own=name == OWN)
                if row.doc_id not in documents:
                    home = OWN_DOCUMENTS if name == OWN else DOCUMENTS
                    raise DataError(f"{place}: document {row.doc_id!r} is not in {home}: add its line there")
                rows.append(row)
    return rows


def join(
    rows: Sequence[Row], documents: Mapping[str, Document], texts: Mapping[str, str]
) -> tuple[list[Sentence], list[Unjoined]]:
    """Rows with their sentence and its neighbours; those whose text or hash fails are bare and listed."""
    spans: dict[str, list[Span]] = {}
    sentences: list[Sentence] = []
    unjoined: list[Unjoined] = []
    for row in rows:
        text, doc = texts.get(row.doc_id), documents[row.doc_id]
        found = None if text is None else text[row.start : row.end]
        if text is None or found is None or sentence_sha256(found) != row.sha256:
            unjoined.append(Unjoined(row, "no text" if text is None else "hash mismatch"))
            sentences.append(Sentence(row, doc))
            continue
        if row.doc_id not in spans:
            spans[row.doc_id] = segment(text)
        before, after = neighbours(text, spans[row.doc_id], row.start, row.end)
        sentences.append(Sentence(row, doc, found, before, after))
    return sentences, unjoined


def neighbours(text: str, spans: Sequence[Span], start: int, end: int) -> tuple[str, str]:
    """The nearest sentence that ends by `start` and the nearest that begins from `end` on, or ""."""
    left = bisect_right(spans, start, key=lambda span: span.end) - 1
    right = bisect_left(spans, end, key=lambda span: span.start)
    before = text[spans[left].start : spans[left].end] if left >= 0 else ""
    return before, text[spans[right].start : spans[right].end] if right < len(spans) else ""


def _notice(unjoined: Sequence[Unjoined], n_rows: int, folder: Path) -> str:
    """One paragraph on what could not be joined: how many, why, the first of each, and the remedy."""
    if not unjoined:
        return ""
    lines = [f"{len(unjoined)} of {n_rows} rows could not be joined with their sentence."]
    for reason, remedy in (
        (
            "no text",
            f"{folder} lacks {missing_texts(folder)}; name the folder with --shared or COMMUNIQUE_SHARED",
        ),
        (
            "hash mismatch",
            f"the text in {folder} is not the one that was annotated; fetch that version again",
        ),
    ):
        some = [item.row for item in unjoined if item.reason == reason]
        if some:
            examples = ", ".join(f"{row.doc_id}#{row.sent_id}" for row in some[:3])
            lines.append(f"{reason}: {len(some)} rows, first {examples}: {remedy}.")
    return " ".join(lines)


def to_dataset(sentences: Sequence[Sentence]) -> Dataset:
    """Sentences as a Hugging Face dataset, one row each; `label` is a ClassLabel in the order of `LABELS`.

    Raises:
        DataError: a sentence has no text.
    """
    from datasets import ClassLabel, Dataset, Features, Value

    bare = [s for s in sentences if s.text is None]
    if bare:
        first = bare[0].row
        place = f"{first.doc_id}#{first.sent_id}"
        raise DataError(f"{len(bare)} sentences have no text, first {place}: name the folder of the texts")
    kinds = {int: "int64", str: "string", bool: "bool", float: "float64"}
    features = Features({name: Value(kinds[kind]) for name, kind in _COLUMNS.items()})
    features["label"] = ClassLabel(names=[str(label) for label in LABELS])
    records = [_flat(s) for s in sentences]
    return Dataset.from_dict(
        {name: [record[name] for record in records] for name in _COLUMNS}, features=features
    )


_COLUMNS: dict[str, type] = {
    "doc_id": str, "sent_id": int, "start": int, "end": int, "text": str, "before": str, "after": str,
    "label": str, "also": str, "passes": int, "label_a": str, "label_b": str, "sure_a": int, "sure_b": int,
    "decided": str, "sample": str, "weight": float, "synthetic": bool, "issuer": str, "issuer_name": str,
    "kind": str, "date": str, "source": str, "trade": bool,
}  # fmt: skip


def _flat(s: Sentence) -> dict[str, Any]:
    row, second = s.row, s.row.b
    passes = {"label_a": row.a.label, "sure_a": row.a.sure}
    passes |= {"label_b": second.label if second else None, "sure_b": second.sure if second else None}
    whole = {**vars(s.doc), **vars(row), **passes, "text": s.text, "before": s.before, "after": s.after}
    return {name: whole[name] for name in _COLUMNS}
