"""The evaluation table: a JSONL file with one sentence a row, its gold label and the model's probabilities.

    communique eval report test.jsonl --out report/

Every row must have `doc_id`, `sent_id`, `text`, `gold` and `p_position` … `p_none` (summing to 1). It may
have `before`, `after`, `issuer`, `kind`, `date`, `sample`, `weight` (1 / inclusion probability; null or
absent for rows that were not drawn at random), `label_a`, `label_b` (the two annotators' own labels) and
`note` (why the label was decided so). `model`, `threshold` and `label_weights`
(what each label's probability is multiplied by where one is chosen), where given, are the same in every row.
Fields with other names are passed over. A fault is reported by file and row.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from communique.eval.metrics import Floats, Ints
from communique.model.artifact import sha256_file
from communique.model.classifier import decide, shares
from communique.model.errors import InputError
from communique.model.jsonl import read_jsonl
from communique.model.labels import EVEN, LABELS, label_index

SPLITS = ("train", "dev", "test")
"""Of the annotations; the name of anything else is a file's."""
TOLERANCE = 1e-3
"""How far from 1 the five probabilities of a row may sum: they are written with four decimals."""
_WORDS = ("before", "after", "issuer", "kind", "date", "sample", "note")


@dataclass(frozen=True)
class Row:
    """A sentence with its gold label and what is known of where it stands."""

    place: str
    """File and row it was read from."""
    doc_id: str
    sent_id: int
    text: str
    gold: str
    before: str = ""
    after: str = ""
    issuer: str = ""
    kind: str = ""
    date: str = ""
    sample: str = ""
    note: str = ""
    weight: float | None = None
    """1 / inclusion probability; None where the row was not drawn at random."""
    label_a: str | None = None
    label_b: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What names the sentence."""
        return self.doc_id, self.sent_id


@dataclass(frozen=True, eq=False)
class Table:
    """A read table: rows and, in the same order, probabilities (rows, 5)."""

    name: str
    sha256: str
    rows: tuple[Row, ...]
    probabilities: Floats
    threshold: float
    """Share, see `shares`, below which a stance becomes `none`."""
    label_weights: tuple[float, ...] = EVEN
    """What each label's probability is multiplied by where one is chosen."""

    @cached_property
    def truth(self) -> Ints:
        """Index of each row's gold label in `LABELS`, (rows,)."""
        return np.array([label_index(row.gold) for row in self.rows], dtype=np.int64)

    @cached_property
    def found(self) -> Ints:
        """Index of the label given, after abstention, (rows,)."""
        labels = decide(self.probabilities, threshold=self.threshold, label_weights=self.label_weights)
        return np.array([LABELS.index(label) for label in labels], dtype=np.int64)

    @cached_property
    def shares(self) -> Floats:
        """What each label was chosen from, (rows, 5): probabilities by their weights."""
        return shares(self.probabilities, self.label_weights)

    @cached_property
    def heavy(self) -> list[tuple[str, float]]:
        """Labels that do not count once where one is chosen, with their weights."""
        return [(str(name), w) for name, w in zip(LABELS, self.label_weights, strict=True) if w != 1]

    @cached_property
    def documents(self) -> list[str]:
        """The document of each row."""
        return [row.doc_id for row in self.rows]

    @cached_property
    def gold_sha256(self) -> str:
        """Of document, number and gold label of every row, sorted: the same for the same task."""
        lines = sorted(f"{row.doc_id}\t{row.sent_id}\t{row.gold}\n" for row in self.rows)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def weighted(self) -> bool:
        """Whether some rows were drawn at random with known probability."""
        return any(row.weight is not None for row in self.rows)


def read_table(path: Path, threshold: float | None = None) -> Table:
    """Read and check a table with predictions.

    Args:
        path: the JSONL file.
        threshold: abstention threshold; the table's own field if not given, else 0 (no abstention).

    Raises:
        InputError: the file or a row cannot be used; the message has file and row.
    """
    records, digest = _records(path)
    rows = _rows(records, path)
    probabilities = np.array([probabilities_of(record, place) for place, record in records])
    own = _constant(records, "threshold")
    if own is not None and (not is_number(own) or not 0 <= own <= 1):
        raise InputError(f"{path.name}: threshold is {own!r}: give a number in [0, 1] or leave it out")
    cut = threshold if threshold is not None else float(own or 0)
    name = _constant(records, "model")
    weights = _label_weights(_constant(records, "label_weights"), path)
    return Table(str(name) if name else path.stem, digest, rows, probabilities, cut, weights)


def _label_weights(given: Any, path: Path) -> tuple[float, ...]:  # noqa: ANN401  whatever the field held
    if given is None:
        return EVEN
    whole = isinstance(given, list | tuple) and len(given) == len(EVEN)
    if not whole or not all(is_number(w) and w > 0 for w in given):
        raise InputError(f"{path.name}: label_weights is {given!r}: give a number above 0 for each label")
    return tuple(map(float, given))


def read_labelled(path: Path) -> tuple[tuple[Row, ...], str]:
    """Rows of a table that needs no predictions (what a baseline learns from), and the file's SHA-256.

    Raises:
        InputError: as for `read_table`.
    """
    records, digest = _records(path)
    return _rows(records, path), digest


def labelled_rows(records: Sequence[Mapping[str, Any]], name: str) -> tuple[tuple[Row, ...], str]:
    """The same for rows at hand: `name` stands in messages for the file.

    Raises:
        InputError: as for `read_table`.
    """
    if not records:
        raise InputError(f"{name}: holds no rows with their text: set COMMUNIQUE_SHARED, or name a file")
    digest = hashlib.sha256(
        "".join(json.dumps(dict(r), sort_keys=True) for r in records).encode()
    ).hexdigest()
    return _rows([(f"{name}:{i}", dict(r)) for i, r in enumerate(records, 1)], Path(name)), digest


def align(first: Table, other: Table) -> Table:
    """`other` in the row order of `first`.

    Raises:
        InputError: they do not hold the same sentences with the same gold labels.
    """
    places = {row.key: i for i, row in enumerate(other.rows)}
    missing = [row for row in first.rows if row.key not in places]
    extra = len(places) - (len(first.rows) - len(missing))
    if missing or extra:
        example = f", first missing {missing[0].doc_id}#{missing[0].sent_id}" if missing else ""
        raise InputError(
            f"{other.name} and {first.name} are not of the same sentences ({len(missing)} missing, {extra} "
            f"more{example}): predict the same table with both models"
        )
    order = [places[row.key] for row in first.rows]
    rows = tuple(other.rows[i] for i in order)
    for row, mine in zip(first.rows, rows, strict=True):
        if row.gold != mine.gold or row.text != mine.text:
            what = "gold" if row.gold != mine.gold else "text"
            raise InputError(f"{mine.place}: {what} differs from {row.place}: use one gold table for both")
    return replace(other, rows=rows, probabilities=other.probabilities[order])


def on_gold(table: Table, rows: Sequence[Row], data: str) -> Table:
    """A table's probabilities on gold rows, in their order and with what they say of each sentence.

    Raises:
        InputError: the table is not of the same sentences with the same gold labels.
    """
    gold = Table(data, "", tuple(rows), np.empty((len(rows), len(LABELS))), 0.0)
    return replace(align(gold, table), rows=gold.rows)


def _records(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    records = list(read_jsonl(path))
    if not records:
        raise InputError(f"{path}: holds no rows: give one JSON object a line")
    return records, sha256_file(path)


def _rows(records: Sequence[tuple[str, dict[str, Any]]], path: Path) -> tuple[Row, ...]:
    rows = tuple(_row(record, place) for place, record in records)
    seen: dict[tuple[str, int], str] = {}
    for row in rows:
        if row.key in seen:
            raise InputError(
                f"{row.place}: {row.doc_id}#{row.sent_id} is in {seen[row.key]} already: keep one of the two"
            )
        seen[row.key] = row.place
    return rows


def _row(record: Mapping[str, Any], place: str) -> Row:
    for name, kind in (("doc_id", str), ("sent_id", int), ("text", str), ("gold", str)):
        value = required(record, name, place)
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise InputError(f"{place}: {name} is {value!r}: expected a {kind.__name__}, not empty")
    labels = {name: record.get(name) for name in ("label_a", "label_b")}
    for name, label in (("gold", record["gold"]), *labels.items()):
        if label is not None and label not in map(str, LABELS):
            raise InputError(f"{place}: {name} is {label!r}: use one of {', '.join(LABELS)}")
    words = {name: record.get(name) or "" for name in _WORDS}
    for name, value in words.items():
        if not isinstance(value, str):
            raise InputError(f"{place}: {name} is {value!r}: expected text")
    if words["date"] and not re.match(r"\d{4}(-|$)", words["date"]):
        raise InputError(f"{place}: date is {words['date']!r}: write YYYY-MM-DD, or leave it empty")
    weight = record.get("weight")
    if weight is not None and (not is_number(weight) or weight <= 0):
        raise InputError(f"{place}: weight is {weight!r}: expected a number above 0, or null")
    named = {name: record[name] for name in ("doc_id", "sent_id", "text", "gold")}
    fields: dict[str, Any] = {**named, **words, **labels}
    return Row(place, **fields, weight=None if weight is None else float(weight))


def probabilities_of(record: Mapping[str, Any], place: str) -> list[float]:
    """The five probabilities of a record; InputError where they are none or do not sum to 1."""
    values = []
    for label in LABELS:
        value = required(record, f"p_{label}", place)
        if not is_number(value) or not 0 <= value <= 1:
            raise InputError(f"{place}: p_{label} is {value!r}: expected a probability in [0, 1]")
        values.append(float(value))
    if abs(sum(values) - 1) > TOLERANCE:
        raise InputError(f"{place}: the probabilities sum to {sum(values):.4f}, not 1: write all five")
    return values


def required(record: Mapping[str, Any], name: str, place: str) -> Any:  # noqa: ANN401
    """A field of a record; InputError where it has none."""
    if name not in record:
        raise InputError(f"{place}: no column {name!r}; there are {', '.join(record) or 'none'}")
    return record[name]


def _constant(records: Sequence[tuple[str, dict[str, Any]]], name: str) -> Any:  # noqa: ANN401
    first = records[0][1].get(name)
    for place, record in records:
        if record.get(name) != first:
            raise InputError(
                f"{place}: {name} is {record.get(name)!r}, in {records[0][0]} it is {first!r}: one a table"
            )
    return first


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
