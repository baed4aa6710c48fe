"""Everything that can be wrong with the annotations, looked for in one go.

    communique data check                            # data/annotations, texts beside the repository
    communique data check --shared /where/texts/lie

A problem makes the command fail; a notice is worth knowing. Faults of form are found first and alone,
since nothing after them can be trusted; then hashes, duplicates, decisions, splits, and the floors that
the project set for the size and spread of its data.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from communique.model.sentences import segment
from communique.train.composition import Composition, compose
from communique.train.corpus import Annotations, Sentence, default_folder, load_annotations
from communique.train.files import read_jsonl
from communique.train.rows import (
    DOCUMENTS,
    OWN,
    OWN_DOCUMENTS,
    REAL,
    Document,
    Row,
    document_problems,
    head_of,
    row_problems,
    sentence_sha256,
)
from communique.train.splitcheck import split_findings
from communique.train.splits import SplitPlan
from communique.train.texts import STATEMENTS, shared_folder

KINDS = (
    "press_conference", "joint_statement", "un_statement", "spokesperson_statement", "readout",
    "agreement_text", "speech", "declaration", "communique",
)  # fmt: skip
DECADES = ("1990s", "2000s", "2010s", "2020s")
_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One thing found: where, what, and whether it makes the data unfit."""

    where: str
    what: str
    fatal: bool = True


@dataclass(frozen=True)
class Floors:
    """The least that the data must hold; real sentences count where they had two passes."""

    sentences: int = 3500
    documents: int = 280
    issuers: int = 140
    issuer_share: float = 0.12  # the most that one issuer may have
    labels: Mapping[str, int] = field(default_factory=lambda: {"demand": 450, "agreement": 550, "none": 550})
    concessions_in_trade: int = 120
    concessions_elsewhere: int = 250
    own_documents: int = 90
    own_sentences: int = 1400
    own_labels: Mapping[str, int] = field(default_factory=lambda: {"concession": 250, "demand": 250})
    kinds: Sequence[str] = KINDS
    decades: Sequence[str] = DECADES


@dataclass(frozen=True)
class Report:
    """What a check found; `composition` is None where faults of form kept it from being counted."""

    findings: tuple[Finding, ...]
    composition: Composition | None = None
    rows: int = 0
    verified: int = 0

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that make the data unfit."""
        return tuple(finding for finding in self.findings if finding.fatal)


def check(
    folder: Path | None = None,
    shared: Path | None = None,
    floors: Floors | None = None,
    plan: SplitPlan | None = None,
) -> Report:
    """Check the annotation files, and whatever of the texts is at hand.

    Args:
        folder: of the annotations; `data/annotations` if not given.
        shared: of the texts (see `communique.train.texts.shared_folder`).
        floors: what the data must hold at least; the project's own if not given.
        plan: what the test split must hold at least; the project's own if not given.

    Raises:
        DataError: a file is missing or a line is not JSON.
    """
    folder = folder or default_folder()
    form = list(_form_findings(folder))
    if form:
        return Report(tuple(form))
    annotations = load_annotations(folder, shared)
    findings = [
        *_text_findings(annotations, shared_folder(shared)),
        *_duplicate_findings(annotations.sentences),
        *_care_findings([s.row for s in annotations.sentences]),
        *(Finding(where, what, fatal) for where, what, fatal in split_findings(annotations, plan)),
        *_floor_findings(annotations, floors or Floors()),
    ]
    rows = len(annotations.sentences)
    composition = compose(annotations.sentences, annotations.splits)
    return Report(tuple(findings), composition, rows, rows - len(annotations.unjoined))


def _form_findings(folder: Path) -> Iterator[Finding]:
    """Faults of single rows, rows without a document, documents listed twice."""
    for rows, documents in ((REAL, DOCUMENTS), (OWN, OWN_DOCUMENTS)):
        if not (folder / rows).is_file():
            continue
        own = rows == OWN
        listed: set[str] = set()
        for place, record in read_jsonl(folder / documents):
            yield from (Finding(place, what) for what in document_problems(record, own))
            if record.get("doc_id") in listed:
                yield Finding(place, f"document {record['doc_id']!r} is listed twice: keep one line")
            listed.add(str(record.get("doc_id")))
        for place, record in read_jsonl(folder / rows):
            yield from (Finding(place, what) for what in row_problems(record, own))
            if str(record.get("doc_id")) not in listed:
                yield Finding(
                    place, f"document {record.get('doc_id')!r} is not in {documents}: add its line there"
                )


def _text_findings(annotations: Annotations, shared: Path) -> Iterator[Finding]:
    """Texts that are missing or not the annotated ones; first words and sentence numbers that are off."""
    at_hand = (shared / STATEMENTS).is_file()
    for reason, fatal in (("hash mismatch", True), ("no text", at_hand)):
        rows = [item.row for item in annotations.unjoined if item.reason == reason]
        if rows:
            yield Finding(_places(rows), f"{reason}: {len(rows)} rows. {annotations.notice}", fatal)
    for doc_id, text in sorted(annotations.texts.items()):
        if sentence_sha256(text) != annotations.documents[doc_id].text_sha256:
            yield Finding(
                doc_id, "the text's SHA-256 is not that of documents.jsonl: not the version annotated"
            )
    heads = [s.row for s in annotations.sentences if s.text is not None and s.row.head != head_of(s.text)]
    if heads:
        yield Finding(_places(heads), f"head is not the sentence's first five words in {len(heads)} rows")
    spans = {doc_id: segment(text) for doc_id, text in annotations.texts.items()}
    moved = [
        s.row
        for s in annotations.sentences
        if s.text is not None and not _numbered(s.row, spans[s.row.doc_id])
    ]
    if moved:
        count = len(moved)
        what = f"sent_id is not today's number of the sentence in {count} rows: joined by hand, or cut anew"
        yield Finding(_places(moved), what, fatal=False)


def _numbered(row: Row, spans: Sequence[tuple[int, int]]) -> bool:
    return row.sent_id < len(spans) and spans[row.sent_id] == (row.start, row.end)


def _duplicate_findings(sentences: Sequence[Sentence]) -> Iterator[Finding]:
    """Rows over the same stretch of text, and the same sentence under two labels."""
    by_doc: defaultdict[str, list[Row]] = defaultdict(list)
    for s in sentences:
        by_doc[s.row.doc_id].append(s.row)
    for doc_id, rows in sorted(by_doc.items()):
        rows.sort(key=lambda row: row.key)
        for above, row in pairwise(rows):
            if row.start < above.end:
                yield Finding(f"{doc_id}#{row.sent_id}", f"overlaps #{above.sent_id}: one stretch, one row")
        for number, count in Counter(row.sent_id for row in rows).items():
            if count > 1:
                yield Finding(
                    f"{doc_id}#{number}", f"{count} rows have this number: number them as they stand"
                )
    labels: defaultdict[str, set[str]] = defaultdict(set)
    first: dict[str, Row] = {}
    for s in sentences:
        labels[s.row.sha256].add(s.row.label)
        first.setdefault(s.row.sha256, s.row)
    torn = [first[sha] for sha, found in labels.items() if len(found) > 1]
    if torn:
        yield Finding(
            _places(torn),
            f"{len(torn)} sentences stand under different labels in different places",
            fatal=False,
        )


def _care_findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Torn annotators without a note, or without a third look."""
    torn = [row for row in rows if row.a.sure == 1 or (row.b is not None and row.b.sure == 1)]
    silent = [row for row in torn if any(p and p.sure == 1 and not p.note.strip() for p in (row.a, row.b))]
    if silent:
        yield Finding(
            _places(silent), f"{len(silent)} rows have sure 1 and no note that says why", fatal=False
        )
    unseen = [row for row in torn if row.decided == "agreed"]
    if unseen:
        yield Finding(_places(unseen), f"{len(unseen)} rows with sure 1 had no third look", fatal=False)


def _floor_findings(annotations: Annotations, floors: Floors) -> Iterator[Finding]:
    """Floors that are not met."""
    every = [s for s in annotations.sentences if not s.row.synthetic]
    real = [s for s in every if s.row.passes == 2]
    own = [s for s in annotations.sentences if s.row.synthetic]
    concessions = Counter(s.doc.trade for s in real if s.row.label == "concession")
    counts = {
        "real sentences in two passes": (len(real), floors.sentences),
        "real documents": (len({s.row.doc_id for s in real}), floors.documents),
        "issuers": (len({s.doc.issuer for s in real}), floors.issuers),
        "concessions in trade texts": (concessions[True], floors.concessions_in_trade),
        "concessions outside trade texts": (concessions[False], floors.concessions_elsewhere),
        "own documents": (len({s.row.doc_id for s in own}), floors.own_documents),
        "own sentences": (len(own), floors.own_sentences),
        **{f"{label}, real": (_count(real, label), floor) for label, floor in floors.labels.items()},
        **{f"{label}, own": (_count(own, label), floor) for label, floor in floors.own_labels.items()},
    }
    for name, (count, floor) in counts.items():
        if count < floor:
            yield Finding("floors", f"{name}: {count:,}, at least {floor:,} wanted")
    docs = [s.doc for s in real]
    yield from _spread_findings(docs, floors)
    for issuer, count in Counter(s.doc.issuer for s in every).most_common(1):
        if count > floors.issuer_share * len(every):
            share = f"{count / len(every):.1%} of the real sentences"
            yield Finding("floors", f"{issuer} issued {share}, at most {floors.issuer_share:.0%} wanted")


def _spread_findings(docs: Sequence[Document], floors: Floors) -> Iterator[Finding]:
    kinds = sorted(set(floors.kinds) - {doc.kind for doc in docs})
    if kinds:
        yield Finding("floors", f"no real sentence of kind {', '.join(kinds)}")
    decades = sorted(set(floors.decades) - {f"{doc.date[:3]}0s" for doc in docs})
    if decades:
        yield Finding("floors", f"no real sentence of the {', '.join(decades)}")


def _count(sentences: Sequence[Sentence], label: str) -> int:
    return sum(s.row.label == label for s in sentences)


def _places(rows: Sequence[Row]) -> str:
    more = ", …" if len(rows) > _EXAMPLES else ""
    return ", ".join(f"{row.doc_id}#{row.sent_id}" for row in rows[:_EXAMPLES]) + more
