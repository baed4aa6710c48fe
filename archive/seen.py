"""Which documents were met before: the same text once, every id once, in bounded memory.

    with Seen(folder) as seen:
        name, first, pointer = seen.admit(document)

The table lies on disk (SQLite, memory for pages only), so that ten million documents need no more
memory than ten. It is rebuilt when a run goes on, and removed when it ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple, Self

from communique.archive.tables import Document

_NAME = ".seen.sqlite"


class Admitted(NamedTuple):
    """What becomes of a document."""

    doc_id: str | None
    """None: it is not labelled."""
    first: int
    """Number of its first sentence: 0, but for rows of one id that are sentences."""
    note: dict[str, Any] | None


class Seen:
    """A set of texts and ids on disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._path.unlink(missing_ok=True)
        # Used by the reading thread alone; only closing happens elsewhere.
        self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-32768")  # KiB
        for table in ("texts", "ids"):
            self._db.execute(
                f"CREATE TABLE {table} (key BLOB PRIMARY KEY, doc_id TEXT, file TEXT) WITHOUT ROWID"
            )
        self._db.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, met INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)

    def admit(self, document: Document) -> Admitted:
        """Name and number under which a document is labelled, and what to note about it.

        A text met before is not labelled again; the note points to the document that was. An id met
        before with another text gets digits of the text's hash behind it, and a note. Rows that are
        sentences may repeat; those of one id are numbered as they come.
        """
        if document.neighbours is not None:
            doc_id = document.doc_id or f"{document.file}#{document.place.removeprefix('row ')}"
            return Admitted(doc_id, self._count(doc_id), None)
        key = text_key(document)
        where = {"file": document.file, "place": document.place}
        doc_id = document.doc_id or f"{document.file}#{key.hex()[:8]}"
        first = self._get("texts", key)
        if first is not None:
            pointer = {"same_as": first[0], "first_file": first[1], "metadata": dict(document.metadata)}
            return Admitted(None, 0, {"kind": "text", "doc_id": doc_id, **where, **pointer})
        fresh = doc_id
        note: dict[str, Any] | None = None
        taken = self._get("ids", _digest(doc_id))
        while self._get("ids", _digest(fresh)) is not None:
            fresh = f"{fresh}#{key.hex()[:16]}"
        if taken is not None:
            note = {"kind": "id", "doc_id": fresh, **where, "same_as": doc_id, "first_file": taken[1]}
        self._put("ids", _digest(fresh), fresh, document.file)
        self._put("texts", key, fresh, document.file)
        return Admitted(fresh, 0, note)

    def _get(self, table: str, key: bytes) -> tuple[str, str] | None:
        """Id and file of the document that has a key already, if there is one."""
        found: tuple[str, str] | None = self._db.execute(
            f"SELECT doc_id, file FROM {table} WHERE key = ?", (key,)
        ).fetchone()
        return found

    def _put(self, table: str, key: bytes, doc_id: str, file: str) -> None:
        self._db.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (key, doc_id, file))

    def _count(self, doc_id: str) -> int:
        """How many rows of this id came before."""
        key = _digest(doc_id)
        found = self._db.execute("SELECT met FROM rows WHERE key = ?", (key,)).fetchone()
        met = found[0] if found else 0
        self._db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (key, met + 1))
        return int(met)


def text_key(document: Document) -> bytes:
    """128 bits of a hash of the text: two texts share them by chance once in 10^24 for 10^7 documents."""
    return _digest(document.text)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
