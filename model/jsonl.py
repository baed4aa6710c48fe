"""JSON Lines read so that a fault has a place, and files written whole or not at all.

>>> from pathlib import Path
>>> from communique.model.jsonl import read_jsonl
>>> for place, record in read_jsonl(Path("data/annotations/real.jsonl")):  # doctest: +SKIP
...     place, record["label"]
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from communique.model.errors import InputError


def read_jsonl(path: Path, error: type[InputError] = InputError) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of a JSONL file as (file:row, record); rows count from 1, blank lines are skipped.

    Args:
        path: the file, UTF-8.
        error: what is raised; a room may have its own kind of InputError.

    Raises:
        InputError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path.name}:{number}", _object(line, f"{path.name}:{number}", error)
    except FileNotFoundError:
        raise error(f"{path} does not exist: name the folder that holds {path.name}") from None
    except OSError as why:
        raise error(f"{path}: cannot be read ({why.strerror}): name a JSONL file") from None
    except UnicodeDecodeError as why:
        raise error(f"{path} is not UTF-8 (byte {why.start}): save it as UTF-8") from None


def _object(line: str, place: str, error: type[InputError]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as why:
        raise error(f"{place}: not JSON ({why.msg} at column {why.colno})") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets without end
        raise error(f"{place}: not JSON that can be read (too deep, or too long a number)") from None
    if not isinstance(record, dict):
        raise error(f"{place}: a {type(record).__name__}, expected an object with one row's fields")
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


def write_text(path: Path, content: str) -> None:
    """The same for text, as UTF-8."""
    write_bytes(path, content.encode())
