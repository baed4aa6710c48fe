"""Rows of .jsonl, .csv and .parquet -> documents or sentences, one at a time, in bounded memory.

for item in TABLES[".csv"](blob, Columns(text="body", id="speech")):   # Document, or Rejected
    ...
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from communique.archive.csv_lines import MARKED, MOST_CELL, Lines
from communique.archive.encodings import detect
from communique.archive.readers import MAX_STATEMENT_BYTES
from communique.archive.sources import Blob, Rejected, seekable, why
from communique.model.errors import InputError

_HEAD = 2**20
"""Bytes from which a table's encoding is told."""
_LONGEST_LINE = 1_000_000
_PARQUET_ROWS = 1_000


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what."""

    text: str = "text"
    id: str | None = None
    """Its column `doc_id`, else `id`, where not given."""
    sentences: bool = False
    """Whether a row is a sentence (with `before` and `after` where it has them), not a document."""


@dataclass(frozen=True)
class Document:
    """A text and what is known of it."""

    doc_id: str | None
    """None where the source gives none."""
    text: str
    file: str
    place: str
    """Where in the file: "row 3"; empty for a whole file."""
    encoding: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    neighbours: tuple[str, str] | None = None
    """The sentences before and after, where `text` is a sentence."""


Item = Document | Rejected


def _jsonl(blob: Blob, columns: Columns) -> Iterator[Item]:
    stream, encoding = _peek(blob.stream)
    if encoding.startswith(("utf-16", "utf-32")):
        raise InputError(f"JSON Lines in {encoding}: convert it to UTF-8")
    number = 0
    while line := stream.readline(MAX_STATEMENT_BYTES + 1):
        number += 1
        place = f"row {number}"
        if len(line) > MAX_STATEMENT_BYTES:
            yield Rejected(blob.name, place, f"line over {MAX_STATEMENT_BYTES // 1_000_000} MB")
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_STATEMENT_BYTES)
        elif line.strip():
            yield _checked(partial(_object, line, encoding), blob.name, place, encoding, columns)


def _object(line: bytes, encoding: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode(encoding))
    except UnicodeDecodeError as error:
        raise InputError(f"not {encoding} at byte {error.start} of the line: convert the file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets without end
        raise InputError("not JSON that can be read (too deep, or too long a number)") from None
    if not isinstance(row, dict):
        raise InputError(f"expected a JSON object, found {type(row).__name__}")
    return row


def _csv(blob: Blob, columns: Columns) -> Iterator[Item]:
    stream, encoding = _peek(blob.stream)
    text = io.TextIOWrapper(stream, encoding=encoding, errors=MARKED, newline="")
    csv.field_size_limit(MOST_CELL)
    try:
        lines = Lines(text)
        delimiter = max(",;\t|", key=lines.first.count)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next(rows, [])
        except csv.Error as error:
            raise InputError(f"not CSV ({error} in the header)") from None
        _need(columns, header)
        for number in itertools.count(2):
            lines.begin_row()
            try:
                cells = next(rows, None)
            except csv.Error as error:
                again = lines.give_back() if len(header) > 1 else 0
                yield Rejected(blob.name, f"row {number}", f"not CSV ({error}; {lines.place(again)})")
                continue
            if cells is None:
                return
            if cells:
                yield _checked(partial(_cells, header, cells), blob.name, f"row {number}", encoding, columns)
    finally:
        text.detach()


def _cells(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise InputError(f"{len(cells)} cells, the header has {len(header)}")
    return {name: cell for name, cell in zip(header, cells, strict=True) if cell != ""}


def _parquet(blob: Blob, columns: Columns) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Of a value: bad UTF-8, nanoseconds (ValueError), a date beyond the year 9999 (OverflowError), an
    # unknown time zone (LookupError).
    unreadable = (pa.ArrowException, ValueError, OverflowError, LookupError)

    def rows(batch: Any) -> list[dict[str, Any] | None]:  # noqa: ANN401  a RecordBatch
        try:
            return list(batch.to_pylist())
        except unreadable:
            return [None] * batch.num_rows

    def row(found: dict[str, Any] | None, batch: Any, at: int) -> dict[str, Any]:  # noqa: ANN401
        try:
            found = batch.slice(at, 1).to_pylist()[0] if found is None else found
        except unreadable as error:
            raise InputError(f"holds a value that cannot be read ({why(error)})") from None
        return {name: value for name, value in found.items() if value is not None}

    with seekable(blob.stream) as whole:
        number = 0
        try:
            file = pq.ParquetFile(whole)
            _need(columns, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for at, found in enumerate(rows(batch)):
                    number += 1
                    read = partial(row, found, batch, at)
                    yield _checked(read, blob.name, f"row {number}", "utf-8", columns)
        except unreadable as error:
            raise InputError(f"damaged Parquet behind row {number}: {why(error)}") from None


TABLES: dict[str, Callable[[Blob, Columns], Iterator[Item]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _peek(stream: IO[bytes]) -> tuple[IO[bytes], str]:
    """The stream, unread, and its encoding."""
    buffered = io.BufferedReader(_Raw(stream), _HEAD)
    head = buffered.peek(_HEAD)
    if not head.strip():
        raise InputError("is empty")
    encoding = detect(head, whole=False)
    if encoding is None:
        raise InputError("is a binary file, or in no encoding that is known: convert it to UTF-8")
    return buffered, encoding


class _Raw(io.RawIOBase):
    """Any readable thing as a raw stream: decompressors differ in what they offer."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  whatever io hands in
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _need(columns: Columns, header: list[str]) -> None:
    for name, flag in ((columns.text, "--text-field"), (columns.id, "--id-field")):
        if name is not None and name not in header:
            raise InputError(f"no column {name!r}; there are {', '.join(map(repr, header))}: use {flag}")


def _checked(
    read: Callable[[], dict[str, Any]], file: str, place: str, encoding: str, columns: Columns
) -> Item:
    try:
        return _row(read(), file, place, encoding, columns)
    except InputError as error:
        return Rejected(file, place, str(error))


def _row(row: dict[str, Any], file: str, place: str, encoding: str, columns: Columns) -> Document:
    """A row's document.

    Raises:
        InputError: no text, or text that is none.
    """
    if columns.text not in row:
        raise InputError(f"no field {columns.text!r}; fields are {', '.join(map(repr, row)) or 'none'}")
    text = row.pop(columns.text)
    if not isinstance(text, str):
        raise InputError(f"field {columns.text!r} must be a string, found {type(text).__name__}")
    if not text.strip():
        raise InputError(f"field {columns.text!r} is blank")
    names = (columns.id,) if columns.id is not None else ("doc_id", "id")
    given = next((row.pop(name) for name in names if row.get(name) not in (None, "")), None)
    neighbours = None
    if columns.sentences:
        before, after = (
            "" if side is None else side for side in (row.pop("before", ""), row.pop("after", ""))
        )
        if not (isinstance(before, str) and isinstance(after, str)):
            raise InputError("fields 'before' and 'after' must be strings")
        neighbours = (before, after)
    metadata = {str(name): _plain(value) for name, value in row.items()}
    doc_id = None if given is None else str(given)
    try:
        json.dumps([doc_id, text, neighbours, metadata], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"holds characters that are none ({error.reason}): not {encoding}?") from None
    return Document(doc_id, fitting(text), file, place, encoding, metadata, neighbours)


def _plain(value: Any) -> Any:  # noqa: ANN401  whatever a table holds
    """A value that JSON and Parquet hold alike: a string, whole number, number, truth value or None."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)
    return str(value)


def fitting(text: str) -> str:
    """The text, unless it has a line that no statement has."""
    if len(text) > _LONGEST_LINE and max(map(len, text.splitlines())) > _LONGEST_LINE:
        raise InputError(f"one line of over {_LONGEST_LINE:,} characters is no statement: split it")
    return text
