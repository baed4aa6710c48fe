"""An archive's records as arrays, and the gold rows that belong to them.

    predictions = read_predictions(Path("labelled/records"), ["issuer", "year"])
    gold = read_gold(Path("gold.jsonl"), predictions)

Records are what `communique label` and `communique archive` write: Parquet, JSON Lines or CSV, one file or
a folder of one kind. Gold rows are JSON Lines with `doc_id`, `sent_id`, `gold` and, for the random sample,
`weight` (1 / inclusion probability). Rows of the sample must be sentences of the archive.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from communique.eval.metrics import Floats, Ints
from communique.eval.table import is_number, probabilities_of, required
from communique.model.errors import InputError
from communique.model.jsonl import read_jsonl
from communique.model.labels import LABELS

ENDINGS = (".parquet", ".jsonl", ".csv")
ALL = "all"
_NAMES = tuple(map(str, LABELS))
_COLUMNS = ("doc_id", "sent_id", "label", *(f"p_{name}" for name in _NAMES))
_BATCH = 20_000


@dataclass(frozen=True, eq=False)
class Predictions:
    """Sentences of an archive with what a model said of them, n rows."""

    by: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    """The values of `by` that occur, sorted."""
    group: Ints
    """Index of each row's group, (n,)."""
    document: Ints
    """Number of each row's document, (n,)."""
    found: Ints
    """Index of the label given, (n,)."""
    probabilities: Floats
    """(n, 5)."""
    places: dict[tuple[str, str], int]
    """(doc_id, sent_id) -> row."""
    model: str


@dataclass(frozen=True, eq=False)
class Gold:
    """Labelled sentences of the archive, m rows."""

    row: Ints
    """Where each stands in the predictions, (m,)."""
    truth: Ints
    """(m,)."""
    weight: Floats
    """1 / inclusion probability; NaN where the row was not drawn at random, (m,)."""
    outside: int
    """Gold rows that are no sentences of the archive; they are left out."""


def read_predictions(path: Path, by: Sequence[str] = ()) -> Predictions:
    """Read and check an archive's records.

    Args:
        path: a file or a folder of files that end in `ENDINGS`.
        by: columns to group by; `year` is taken from `date` where there is no such column.

    Raises:
        InputError: no records, a missing column, an unknown label, probabilities that are none or do not
            sum to 1, or a sentence twice; the message has file and row.
    """
    places: dict[tuple[str, str], int] = {}
    documents: dict[str, int] = {}
    keys: dict[tuple[str, ...], int] = {}
    group, document, found, probabilities = [], [], [], []
    model = ""
    for place, record in _records(path, (*by, "date", "model_version")):
        key = str(required(record, "doc_id", place)), str(required(record, "sent_id", place))
        if key in places:
            raise InputError(f"{place}: {key[0]}#{key[1]} stands in the records already: keep one of the two")
        places[key] = len(places)
        label = required(record, "label", place)
        if label not in _NAMES:
            raise InputError(f"{place}: label is {label!r}: use one of {', '.join(_NAMES)}")
        document.append(documents.setdefault(key[0], len(documents)))
        group.append(keys.setdefault(tuple(_value(record, name, place) for name in by), len(keys)))
        found.append(_NAMES.index(label))
        probabilities.append(probabilities_of(record, place))
        model = model or str(record.get("model_version") or "")
    if not places:
        raise InputError(f"{path}: holds no records: name what `communique archive` wrote")
    order = sorted(keys)
    rank = np.empty(len(keys), dtype=np.int64)
    rank[[keys[k] for k in order]] = np.arange(len(keys))
    return Predictions(
        by=tuple(by),
        groups=tuple(order),
        group=rank[np.array(group)],
        document=np.array(document),
        found=np.array(found),
        probabilities=np.array(probabilities),
        places=places,
        model=model,
    )


def read_gold(path: Path, predictions: Predictions, *, simple_random: bool = False) -> Gold:
    """Read gold rows and find their sentences in the predictions.

    Args:
        path: JSON Lines with `doc_id`, `sent_id` and `gold`.
        predictions: of the same archive.
        simple_random: every row was drawn with the same chance, so that none needs a `weight`.

    Raises:
        InputError: a row cannot be used, stands twice, or no row is of the archive.
    """
    rows, truth, weights, outside = [], [], [], 0
    seen: dict[tuple[str, str], str] = {}
    for place, record in read_jsonl(path):
        key = str(required(record, "doc_id", place)), str(required(record, "sent_id", place))
        if key in seen:
            raise InputError(f"{place}: {key[0]}#{key[1]} is in {seen[key]} already: keep one of the two")
        seen[key] = place
        label = required(record, "gold", place)
        if label not in _NAMES:
            raise InputError(f"{place}: gold is {label!r}: use one of {', '.join(_NAMES)}")
        weight = record.get("weight")
        if weight is not None and (not is_number(weight) or weight <= 0):
            raise InputError(f"{place}: weight is {weight!r}: expected a number above 0, or null")
        if key not in predictions.places:
            outside += 1
            continue
        rows.append(predictions.places[key])
        truth.append(_NAMES.index(label))
        weights.append(1.0 if simple_random else np.nan if weight is None else float(weight))
    if not rows:
        raise InputError(
            f"{path}: none of its {len(seen)} rows is a sentence of the records (doc_id and sent_id): "
            "label the archive that the rows were drawn from"
        )
    return Gold(np.array(rows), np.array(truth), np.array(weights), outside)


def _value(record: dict[str, Any], name: str, place: str) -> str:
    if name in record:
        value = record[name]
    elif name == "year":
        value = str(required(record, "date", place) or "")
        if value and not re.match(r"\d{4}(\D|$)", value):
            raise InputError(f"{place}: date is {value!r}: write YYYY-MM-DD, or leave it empty")
        value = value[:4]
    else:
        raise InputError(f"{place}: no column {name!r}: group by one of {', '.join(map(repr, record))}")
    return "not given" if value in (None, "") else str(value)


def _records(path: Path, extra: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in ENDINGS)
        if not files:
            raise InputError(f"{path}: no file that ends in {', '.join(ENDINGS)}: name the folder of records")
        if len({p.suffix for p in files}) > 1:
            raise InputError(f"{path}: files of more than one kind: name one, or a folder of one kind")
    elif path.suffix in ENDINGS:
        files = [path]
    else:
        raise InputError(f"{path}: unknown kind {path.suffix!r}: records end in {', '.join(ENDINGS)}")
    for file in files:
        if file.suffix == ".jsonl":
            yield from read_jsonl(file)
        elif file.suffix == ".csv":
            yield from _csv(file)
        else:
            yield from _parquet(file, extra)


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, record in enumerate(csv.DictReader(file, strict=True), 2):
                place = f"{path.name}:{number}"
                for name in _COLUMNS[3:]:
                    if name in record:
                        record[name] = _float(record[name])
                yield place, record
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not CSV in UTF-8 ({error}): write it anew") from None


def _float(words: str | None) -> Any:  # noqa: ANN401  what is no number is reported with its place
    try:
        return float(words or "")
    except ValueError:
        return words


def _parquet(path: Path, extra: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise InputError("Parquet needs PyArrow: pip install 'communique[archive]'") from None
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in {*_COLUMNS, *extra}]
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            for record in batch.to_pylist():
                number += 1
                yield f"{path.name}:{number}", record
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
