"""Rows that come back from a tool, put into the annotation files.

communique data import ../team.json --from labelstudio --dry-run    # what would change
communique data import ../team.json --from labelstudio
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from communique.train.files import DataError, read_jsonl, write_bytes
from communique.train.rows import DOCUMENTS, OWN, OWN_DOCUMENTS, REAL, Row, row_from


@dataclass(frozen=True)
class Merged:
    """How many rows were replaced, added, or came back as they are."""

    changed: int
    added: int
    same: int


def merge_rows(folder: Path, rows: Sequence[Row], write: bool = True) -> Merged:
    """Put rows in the place of those over the same stretch of text; new ones go to the end.

    Args:
        folder: of the annotations.
        rows: from a tool; real ones go to `real.jsonl`, synthetic ones to `own.jsonl`.
        write: or only count what would change.

    Raises:
        DataError: two rows are for one stretch, or a row's document is not known here; nothing is written.
    """
    plans = [_plan(folder, own, [row for row in rows if row.synthetic == own]) for own in (False, True)]
    for plan in plans:
        if write and plan.changed + plan.added:
            write_bytes(plan.path, "".join(f"{line}\n" for line in plan.lines).encode())
    changed, added = sum(plan.changed for plan in plans), sum(plan.added for plan in plans)
    return Merged(changed, added, len(rows) - changed - added)


@dataclass(frozen=True)
class _Plan:
    path: Path
    lines: list[str]  # of the file after the merge; an unchanged row's line stays as it was, byte for byte
    changed: int
    added: int


def _plan(folder: Path, own: bool, rows: Sequence[Row]) -> _Plan:
    path = folder / (OWN if own else REAL)
    coming: dict[tuple[str, int, int], Row] = {}
    for row in rows:
        if row.key in coming:
            raise DataError(f"{row.doc_id}#{row.sent_id} comes twice: keep one in the tool's file")
        coming[row.key] = row
    if rows:
        home = OWN_DOCUMENTS if own else DOCUMENTS
        known = {record.get("doc_id") for _, record in read_jsonl(folder / home)}
        strange = [row for row in rows if row.doc_id not in known]
        if strange:
            raise DataError(
                f"document {strange[0].doc_id!r} is not in {folder / home}: add its line there first"
            )
    old = [row_from(record, place, own) for place, record in read_jsonl(path)] if path.is_file() else []
    texts = path.read_text(encoding="utf-8").split("\n") if old else []
    lines, changed = [], 0
    for row, line in zip(old, (line for line in texts if line.strip()), strict=True):
        new = coming.pop(row.key, row)
        changed += new != row
        lines.append(line if new == row else _line(new))
    return _Plan(path, [*lines, *map(_line, coming.values())], changed, len(coming))


def _line(row: Row) -> str:
    return json.dumps(row.to_json(), ensure_ascii=False)
