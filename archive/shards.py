"""Records on disk: shards that appear whole or not at all, and the journal that says which are done.

    out/records/part-00000.parquet …     the table: one schema, opened as one by any tool
    out/journal.jsonl                    one line a shard, appended once the shard is safe on disk
    out/rejected.jsonl, duplicates.jsonl, encodings.jsonl
    out/summary.json                     when the run has ended

A shard without its line is written again; a line cut short is dropped; notes behind the last line's
offsets are cut off. That is all there is to going on after a kill.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from communique.archive.csv_lines import MOST_CELL
from communique.model.errors import InputError
from communique.model.labels import LABELS

RECORDS = "records"
NOTES = ("rejected", "duplicates", "encodings")
JOURNAL, SUMMARY = "journal.jsonl", "summary.json"
OUTPUTS = (JOURNAL, SUMMARY, ".seen.sqlite", *(f"{name}.jsonl" for name in NOTES))
FORMATS = ("parquet", "jsonl", "csv")
OTHER = "other_metadata"
"""Column for metadata that the first shard did not have, or that is of another kind there: a JSON object."""
_PROBABILITIES = tuple(f"p_{label}" for label in LABELS)
_FIXED = {
    "doc_id": "string",
    "sent_id": "int64",
    "start": "int64",
    "end": "int64",
    "text": "string",
    "label": "string",
    **dict.fromkeys(_PROBABILITIES, "double"),
    "truncated": "bool",
    "model_version": "string",
    "file": "string",
}
_PREFIX = "input_"
_MOST_COLUMNS = 200
_SLICE = 64 * 2**20
"""Characters of strings that are handed to Parquet at a time: 4,096 records may carry 100 KB each."""
_KINDS: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "double"}

Columns = dict[str, str]
"""Metadata columns and their kinds, the same in every shard of a run."""


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn a failed write into one line that says what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}); every shard in the journal is safe: "
            "make room and run the same command again"
        ) from None


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it appears whole or not at all, also when the power fails.

    Raises:
        InputError: the disk is full, or the folder cannot be written to.
    """
    part = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be synchronised there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- the table ---------------------------------------------------------------------------------


def metadata_columns(documents: Iterable[Mapping[str, Any]]) -> Columns:
    """Columns for the metadata of the first shard's documents: the kind that fits all, else a string."""
    kinds: dict[str, set[str]] = {}
    for metadata in documents:
        for name, value in metadata.items():
            kinds.setdefault(column_name(name), set()).update([] if value is None else [_KINDS[type(value)]])
    return {name: _common(found) for name, found in list(kinds.items())[:_MOST_COLUMNS]}


def column_name(name: str) -> str:
    """A carried column's name; one of the record's own becomes `input_NAME`, that one `input_input_NAME` …

    So no two fields ever share a column, whichever of them the first shard had.
    """
    own = name
    while own.startswith(_PREFIX):
        own = own.removeprefix(_PREFIX)
    return f"{_PREFIX}{name}" if own in _FIXED or own == OTHER else name


def _common(kinds: set[str]) -> str:
    if kinds == {"int64", "double"}:
        return "double"
    return kinds.pop() if len(kinds) == 1 else "string"


def fit_metadata(metadata: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """A document's metadata in the run's columns; what fits none of them goes into `OTHER`, unaltered."""
    row: dict[str, Any] = dict.fromkeys(columns)
    other = {}
    for name, value in metadata.items():
        column = column_name(name)
        kind = columns.get(column)
        if value is None:
            continue
        if kind is not None and _KINDS[type(value)] == kind:
            row[column] = value
        elif (
            kind == "double" and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
        ):
            row[column] = float(value)
        else:
            other[name] = value
    return {**row, OTHER: json.dumps(other, ensure_ascii=False) if other else None}


def write_shard(path: Path, records: Sequence[Mapping[str, Any]], columns: Columns) -> None:
    """Write records, all with the same fields in the same order, in the format that the name ends in."""
    fields = [*_FIXED, *columns, OTHER]
    if path.suffix == ".parquet":
        write_whole(path, lambda file: _parquet(file, records, {**_FIXED, **columns, OTHER: "string"}))
    elif path.suffix == ".csv":
        write_whole(path, lambda file: _csv(file, records, fields))
    else:
        write_whole(path, lambda file: file.writelines(json_line({f: r[f] for f in fields}) for r in records))


def _parquet(file: IO[bytes], records: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> None:
    """One row group a slice, so that memory does not follow from what the records carry."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in _slices(records):
            columns = [pa.array([r[field.name] for r in part], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _slices(records: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The records in order, cut where their strings reach `_SLICE`."""
    begin = size = 0
    for at, record in enumerate(records, start=1):
        size += sum(len(value) for value in record.values() if isinstance(value, str))
        if size >= _SLICE or at == len(records):
            yield records[begin:at]
            begin, size = at, 0


def _csv(file: IO[bytes], records: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    # All strings are quoted: with this lineterminator Python 3.11 would leave a lone "\r" bare.
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(records)
    text.detach()


def read_labels(path: Path) -> list[tuple[str, tuple[float, ...]]]:
    """Label and probabilities of each record of a shard, as they were written."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.ParquetFile(path).read(columns=["label", *_PROBABILITIES]).to_pylist()
    else:
        csv.field_size_limit(MOST_CELL)
        with path.open(encoding="utf-8", newline="") as file:
            rows = (
                list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]
            )
    return [(row["label"], tuple(float(row[p]) for p in _PROBABILITIES)) for row in rows]


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line of JSON Lines."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


# --- the journal -------------------------------------------------------------------------------


class Journal:
    """What is done. Every line is on disk before the next shard's is written."""

    def __init__(self, out: Path) -> None:
        """Read the journal and put the folder into the state of its last line.

        Raises:
            InputError: a shard that the journal names is gone or of another size.
        """
        self._out = out
        self._path = out / JOURNAL
        self.entries = self._read()
        for entry in self.entries:
            self._verify(entry)
        (out / RECORDS).mkdir(exist_ok=True)
        for part in (out / RECORDS).glob(".part-*"):
            part.unlink()
        offsets = self.entries[-1]["offsets"] if self.entries else {}
        for name in NOTES:
            _cut_to(self._out / f"{name}.jsonl", offsets.get(name, 0))

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return bool(self.entries) and bool(self.entries[-1].get("done"))

    @property
    def columns(self) -> Columns | None:
        """The metadata columns, once a shard with records is written."""
        return next((e["columns"] for e in self.entries if "columns" in e), None)

    def append(self, entry: Mapping[str, Any], notes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Write a shard's notes, then its line, each safe on disk before the next.

        Raises:
            InputError: the disk is full.
        """
        with disk_errors(self._out):
            offsets = {name: _append(self._out / f"{name}.jsonl", notes.get(name, ())) for name in NOTES}
            whole = {**entry, "offsets": offsets}
            _append(self._path, [whole])
        self.entries.append(whole)

    def _read(self) -> list[dict[str, Any]]:
        """The lines that were written whole; a torn last one is cut off."""
        if not self._path.is_file():
            return []
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self._path, len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise InputError(f"{self._path}: altered ({error}): --restart begins again") from None

    def _verify(self, entry: Mapping[str, Any]) -> None:
        if entry.get("shard") is None:
            return
        path = self._out / RECORDS / entry["shard"]
        found = path.stat().st_size if path.is_file() else None
        if found != entry["bytes"]:
            state = "is gone" if found is None else f"has {found} bytes, the journal says {entry['bytes']}"
            raise InputError(f"{path}: {state}: put it back, or --restart to begin again")


def _append(path: Path, lines: Sequence[Mapping[str, Any]]) -> int:
    """Append lines; the file's length after it."""
    with path.open("ab") as file:
        if lines:
            file.write(b"".join(json_line(line) for line in lines))
            file.flush()
            os.fsync(file.fileno())
        return file.tell()


def _cut_to(path: Path, length: int) -> None:
    """Drop what a killed run wrote behind its last line of the journal."""
    found = path.stat().st_size if path.is_file() else 0
    if found < length:
        raise InputError(f"{path}: is gone or cut short: put it back, or --restart to begin again")
    if found > length or not path.is_file():
        with path.open("ab") as file:
            file.truncate(length)
