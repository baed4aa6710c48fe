"""The public data sets: where each file lies, what it must hash to, and how its rows are read.

>>> from communique.train.public_sources import SOURCES
>>> sorted(source.name for source in SOURCES if source.permissive)
['argunsc', 'ngec', 'unsc']

A source's `read` gives raw rows: the text, the label as published, the label that the plain mapping of
that label would give, and whether that mapping was found good enough for rows that nobody has read. The
figures behind that choice are in `communique data public`; the decisions on rows that were read are in
`public_labels/`, and stand above any mapping.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from communique.model.labels import Stance
from communique.train.files import DataError
from communique.train.public_council import council_clauses
from communique.train.public_names import fill


class RawRow(NamedTuple):
    """A published row before any decision."""

    row_id: str
    text: str
    source_label: str
    plain: Stance | None  # what the plain mapping says; None where there is none
    holds: bool  # whether the plain mapping may label a row that nobody has read


@dataclass(frozen=True)
class PublicFile:
    """One published file: where it lies below the folder of public data, and what it must hash to."""

    repo: str  # owner/name, or "" for a file that lies in the folder itself
    path: str
    sha256: str
    split: str = ""  # "train" or "test" as published

    @property
    def place(self) -> Path:
        """Where it lies below the folder: owner+repo/path."""
        return Path(self.repo.replace("/", "+")) / self.path

    @property
    def origin(self) -> str:
        """owner/repo:path, or the file's name."""
        return f"{self.repo}:{self.path}" if self.repo else self.path


@dataclass(frozen=True)
class Source:
    """A data set: its files, its licence and its reader."""

    name: str
    files: tuple[PublicFile, ...]
    licence: str
    permissive: bool
    where: str  # where a reader who has not got it can have it
    read: Callable[[Path, str, Collection[str]], Iterator[RawRow]]  # file, split, keys of read rows


def squeeze(text: str) -> str:
    """One space between words, none at the ends."""
    return " ".join(text.split())


def _table(path: Path, delimiter: str, wanted: set[str]) -> list[dict[str, str]]:
    """Rows of a delimited file that has the wanted columns."""
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), delimiter=delimiter)
    missing = wanted - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}: fetch the published file anew")
    return list(reader)


# --- PLOVER: news sentences with the root of the event they report --------------------------------

_POSITION_ROOTS = dict.fromkeys(("ACCUSE", "REJECT", "SUPPORT", "THREATEN"), Stance.POSITION)
_PLOVER = {
    "REQUEST": Stance.DEMAND,
    "YIELD": Stance.CONCESSION,
    "AGREE": Stance.AGREEMENT,
    **_POSITION_ROOTS,
    **dict.fromkeys(
        ("AID", "ASSAULT", "COERCE", "CONSULT", "COOPERATE", "MOBILIZE", "PROTEST", "SANCTION"), Stance.NONE
    ),
}
PLOVER_ROOTS: Mapping[str, Stance] = dict(sorted(_PLOVER.items()))
"""The 15 roots of Zero-Shot PLOVER and the plain mapping that its benchmark is scored with."""

_ROOTS_THAT_HOLD = {"REJECT", "AID", "ASSAULT", "COERCE", "CONSULT", "MOBILIZE", "SANCTION"}
"""Roots of which four in five read rows fit the plain mapping; every row of the other eight was read."""


def _read_plv(path: Path, split: str, read: Collection[str]) -> Iterator[RawRow]:
    for number, row in enumerate(_table(path, "\t", {"sentence", "gold_root"})):
        root = row["gold_root"]
        if root not in PLOVER_ROOTS:
            raise DataError(f"{path.name}: row {number}: unknown root {root!r}")
        text = squeeze(row["sentence"])
        yield RawRow(f"{split}:{number}", text, root, PLOVER_ROOTS[root], root in _ROOTS_THAT_HOLD)


_GOLD = {
    "DEMAND": Stance.DEMAND,
    "CONCEDE": Stance.CONCESSION,
    "RETREAT": Stance.CONCESSION,
    "AGREE": Stance.AGREEMENT,
    **dict.fromkeys(("DISAPPROVE", "REJECT", "SUPPORT", "THREATEN"), Stance.POSITION),
}
_GOLD_THAT_HOLD = {"DEMAND", "CONCEDE", "RETREAT"}


def _read_gold(path: Path, split: str, read: Collection[str]) -> Iterator[RawRow]:
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for number, record in enumerate(records):  # an id stands twice in the published file
        if "text" in record:
            event = record["event"]
            text = squeeze(record["text"].strip(" {}"))
            row_id = f"{number}:{record['id']}"
            yield RawRow(row_id, text, event, _GOLD.get(event, Stance.NONE), event in _GOLD_THAT_HOLD)


# --- speeches in the Security Council ----------------------------------------------------------------

_ASKING = re.compile(
    r"^(?:\w+,? ){0,4}?we (?:\w+ ){0,3}?(?:call (?:up)?on|call for|urge|demand|appeal to|request)\b", re.I
)
_HOLDING = re.compile(
    r"^(?:\w+,? ){0,4}?we (?:\w+ ){0,2}?(?:condemn|support|welcome|regret|believe|reject|deplore|oppose"
    r"|commend|are (?:deeply |gravely |very )?concerned)\b",
    re.I,
)
_ASKING_TOO = re.compile(r"\b(?:call|urg|demand|must|should|expect|hope)", re.I)


def _read_argunsc(path: Path, split: str, read: Collection[str]) -> Iterator[RawRow]:
    """Argument roles say nothing of acts; a first-person verb does, and the rest is for readers."""
    for number, row in enumerate(_table(path, ",", {"Sentence", "Arg_Type"})):
        text = squeeze(re.sub(r"(?<=\w)-\s*\n\s*(?=\w)", "-", row["Sentence"]))
        plain: Stance | None = None
        if _ASKING.search(text):
            plain = Stance.DEMAND
        elif _HOLDING.search(text) and not _ASKING_TOO.search(text):
            plain = Stance.POSITION
        elif row["Arg_Type"] == "non-arg":
            yield RawRow(f"{number}", text, "non-arg", Stance.NONE, False)
            continue
        yield RawRow(f"{number}", text, row["Arg_Type"], plain, plain is not None)


def _read_unscon(path: Path, split: str, read: Collection[str]) -> Iterator[RawRow]:
    """Conflict or challenge is a position by the plain mapping; only rows that were read are labelled."""
    for number, row in enumerate(_table(path, ",", {"sentence_text", "A0", "B1"})):
        label = row["A0"] if row["A0"] != "_" else row["B1"] if row["B1"] != "_" else "none"
        plain = None if label == "none" else Stance.POSITION
        yield RawRow(f"{number}", untokenise(row["sentence_text"]), label, plain, False)


def untokenise(text: str) -> str:
    """Tokens with a space around every mark, joined as they are written."""
    text = re.sub(r"\s+([,.;:!?)\]%])", r"\1", squeeze(text))
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"\s+('s|n't|'re|'ve|'ll)\b", r"\1", text)
    return text.replace("can not", "cannot")


def _read_unsc(path: Path, split: str, read: Collection[str]) -> Iterator[RawRow]:
    for clause in council_clauses(path, read):
        yield RawRow(clause.row_id, clause.text, clause.lead, clause.label, clause.label is not None)


# --- headlines with slots ----------------------------------------------------------------------------


def _read_ngec(path: Path, split: str, read: Collection[str]) -> Iterator[RawRow]:
    for number, row in enumerate(_table(path, ",", {"event", "title"})):
        title = squeeze(row["title"])
        title = title.rstrip('" ') if title.count('"') % 2 else title
        plain = _GOLD.get(row["event"], PLOVER_ROOTS.get(row["event"], Stance.NONE))
        yield RawRow(f"{number}", fill(title, f"{number}:{title}"), row["event"], plain, False)


SOURCES: tuple[Source, ...] = (
    Source(
        "plover-zeroshot",
        tuple(
            PublicFile("snowood1/Zero-Shot-PLOVER", f"datasets/PLV_{split}.tsv", sha256, split)
            for split, sha256 in (
                ("train", "b184c7623cb05a48011adabd951f1a7f7efa8c80059ef4dc12c3d3231de5f5d3"),
                ("test", "1eaa0cf1e82b2cb7214f5de02975e42dbc8548baf2034f9d7058416a8627df1a"),
            )
        ),
        "none stated", False, "https://github.com/snowood1/Zero-Shot-PLOVER", _read_plv,
    ),
    Source(
        "plover-gold",
        (
            PublicFile(
                "openeventdata/PLOVER", "gold_standard_records/PLOVER_GSR_CAMEO.txt",
                "f0d516858bf7ad05283ed0f8e6b1ea66d9ee4175703877d5ab0598503aa1a558",
            ),
        ),
        "CC-BY-SA-4.0", False, "https://github.com/openeventdata/PLOVER", _read_gold,
    ),
    Source(
        "argunsc",
        (
            PublicFile(
                "mpoiaganova/political-argument-mining", "data/sentence_CP.csv",
                "40718de67adc056502f97a14ca8c01b16db8b8457a06ce109a6d5b977f6c0be7",
            ),
        ),
        "MIT", True, "https://github.com/mpoiaganova/political-argument-mining", _read_argunsc,
    ),
    Source(
        "unscon",
        (
            PublicFile(
                "linatal/UNSCon", "data/conflict_annotations_sentences.csv",
                "a99b1dee3b9be3e0baa06849920f9149944cbec3383c7a962ae91858e5e09836",
            ),
        ),
        "CC-BY-SA", False, "https://github.com/linatal/UNSCon", _read_unscon,
    ),
    Source(
        "unsc",
        (
            PublicFile(
                "", "un-security-council-en.zip",
                "f1f18ba4cca9c61a326faa30c82e00a53ea61d3d95cafa140a95db15f2112515",
            ),
        ),
        "United Nations, source acknowledged", True,
        "the United Nations (https://documents.un.org); this archive comes with the statement texts",
        _read_unsc,
    ),
    Source(
        "ngec",
        (
            PublicFile(
                "ahalterman/NGEC-2025", "setup/train_classifiers/synthetic_headlines.csv",
                "4e8820bb2a019c62c25a09e4ece28f3f9ea120177b5184d8a948cd8f4e343b38",
            ),
        ),
        "MIT (by its pyproject)", True, "https://github.com/ahalterman/NGEC-2025", _read_ngec,
    ),
)  # fmt: skip
