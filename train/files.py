"""Reading and writing JSON files so that a fault has a place and a file is never half-written.

>>> from pathlib import Path
>>> from communique.train.files import read_jsonl
>>> for place, record in read_jsonl(Path("data/annotations/real.jsonl")):  # doctest: +SKIP
...     place, record["label"]
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from communique.model import jsonl
from communique.model.errors import InputError
from communique.model.jsonl import write_bytes

__all__ = ["DataError", "read_jsonl", "read_object", "write_bytes"]


class DataError(InputError, ValueError):
    """An annotation file, a split or an exchange file that cannot be used; one line says what and where."""


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of a JSONL file as (file:row, record), as `communique.model.jsonl` reads them.

    Raises:
        DataError: the file is missing, or a line is not a JSON object.
    """
    return jsonl.read_jsonl(path, DataError)


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
    except OSError as why:
        raise DataError(f"{path}: cannot be read ({why.strerror}): name a JSON file") from None
    except UnicodeDecodeError as why:
        raise DataError(f"{path} is not UTF-8 (byte {why.start}): save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: a {type(found).__name__}, expected an object")
    return found
