"""Records to one file, whole or not at all: JSON Lines, CSV or Parquet by the name's ending.

communique label statement.txt --output labels.parquet
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from communique.model.errors import InputError

Record = Mapping[str, Any]
FORMATS = (".jsonl", ".csv", ".parquet")


def check_output(path: Path) -> None:
    """Refuse an output that could not be written, before any work is done.

    Raises:
        InputError: unknown ending, a folder that does not exist or cannot be written to.
    """
    if path.suffix not in FORMATS:
        raise InputError(
            f"{path}: unknown output format {path.suffix!r}: end the name in {', '.join(FORMATS)}"
        )
    if path.suffix == ".parquet":
        _pyarrow()
    try:
        if not path.parent.is_dir():
            raise InputError(f"{path}: folder {path.parent} does not exist: make it first")
        if path.is_dir():
            raise InputError(f"{path}: is a folder: name a file")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_jsonl(records: Sequence[Record], out: TextIO) -> None:
    """One JSON object a line, in the order of the fields."""
    for record in records:
        out.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write all records to `path`; an interrupted write leaves what was there before.

    Raises:
        InputError: see `check_output`; or the disk is full.
    """
    check_output(path)
    try:
        _write(records, path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or error}): choose another place")


def _write(records: Sequence[Record], path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if path.suffix == ".parquet":
                _parquet(records, file)
            else:
                with io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True) as out:
                    _csv(records, out) if path.suffix == ".csv" else write_jsonl(records, out)
                    os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _fields(records: Sequence[Record]) -> list[str]:
    """Every field of any record, in order of first appearance."""
    return list(dict.fromkeys(field for record in records for field in record))


def _csv(records: Sequence[Record], out: TextIO) -> None:
    writer = csv.DictWriter(out, _fields(records), restval="")
    writer.writeheader()
    writer.writerows(
        {k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for k, v in r.items()}
        for r in records
    )


def _parquet(records: Sequence[Record], file: Any) -> None:  # noqa: ANN401  any binary file
    pa, pq = _pyarrow()
    columns = {}
    for field in _fields(records):
        values = [record.get(field) for record in records]
        try:
            column = pa.array(values)
            fits = _parquet_holds(column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # mixed types, more than 64 bits
            fits = False
        columns[field] = (
            column
            if fits
            else pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
        )
    pq.write_table(pa.table(columns), file, compression="zstd")
    file.flush()
    os.fsync(file.fileno())


def _parquet_holds(kind: Any) -> bool:  # noqa: ANN401  PyArrow is untyped
    """Whether Parquet has the type of a column; it has no object without fields."""
    pa, _ = _pyarrow()
    if pa.types.is_list(kind):
        return _parquet_holds(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_parquet_holds(field.type) for field in kind)
    return True


def _pyarrow() -> Any:  # noqa: ANN401  two modules
    """PyArrow, which weighs as much as the rest of the core together and is needed for Parquet alone."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError(
            "Parquet needs PyArrow: pip install 'communique[archive]', or write .jsonl"
        ) from None
    return pyarrow, pyarrow.parquet


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
