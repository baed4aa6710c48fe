"""Reading and writing JSON files so that a fault has a place and a file is never half-written.

>>> from pathlib import Path
>>> from communique.train.files import read_jsonl
>>> for place, record in read_jsonl(Path("data/annotations/real.jsonl")):  # doctest: +SKIP
...     place, record["label"]
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from communique.model.errors import InputError


class DataError(InputError, ValueError):
    """An annotation file, a split or an exchange file that cannot be used; one line says what and where."""


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of a JSONL file as (file:row, record); rows count from 1, blank lines are skipped.

    Raises:
        DataError: the file is missing, or a line is not a JSON object.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path.name}:{number}", _object(line, f"{path.name}:{number}")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: name the folder that holds {path.name}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: a {type(record).__name__}, expected an object with one row's fields")
    return record


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object, in which no key may stand twice (JSON itself would keep the last).

    Raises:
        DataError: it cannot be read, is not JSON or no object, or a key stands in it twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise DataError(f"{path.name}: {twice[0]!r} stands twice: keep one")
        return dict(pairs)

    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: a {type(found).__name__}, expected an object")
    return found
