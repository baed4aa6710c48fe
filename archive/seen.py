"""Which documents were met before: the same text once, every id once, in bounded memory.

    with Seen(folder) as seen:
        name, pointer = seen.admit(document)

The table lies on disk (SQLite, memory for pages only), so that ten million documents need no more
memory than ten. It is rebuilt when a run goes on, and removed when it ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any, Self

from communique.archive.tables import Document

_NAME = ".seen.sqlite"


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
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)

    def admit(self, document: Document) -> tuple[str | None, dict[str, Any] | None]:
        """Name under which a document is labelled (None: not at all), and what to note about it.

        A text met before is not labelled again; the note points to the document that was. An id met
        before with another text gets eight digits of the text's hash behind it, and a note.
        """
        key = text_key(document)
        where = {"file": document.file, "place": document.place}
        if document.neighbours is not None:  # rows that are sentences may repeat
            return document.doc_id or f"{document.file}#{document.place.removeprefix('row ')}", None
        doc_id = document.doc_id or f"{document.file}#{key.hex()[:8]}"
        first = self._put("texts", key, doc_id, document.file)
        if first is not None:
            note = {"kind": "text", "doc_id": doc_id, **where, "same_as": first[0], "first_file": first[1]}
            return None, {**note, "metadata": dict(document.metadata)}
        taken = self._put("ids", _digest(doc_id), doc_id, document.file)
        if taken is None:
            return doc_id, None
        fresh = f"{doc_id}#{key.hex()[:8]}"
        note = {"kind": "id", "doc_id": fresh, **where, "same_as": doc_id, "first_file": taken[1]}
        return fresh, note

    def _put(self, table: str, key: bytes, doc_id: str, file: str) -> tuple[str, str] | None:
        """Add a key; the document that has it already, if there is one."""
        added = self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", (key, doc_id, file))
        if added.rowcount:
            return None
        found: tuple[str, str] = self._db.execute(
            f"SELECT doc_id, file FROM {table} WHERE key = ?", (key,)
        ).fetchone()
        return found


def text_key(document: Document) -> bytes:
    """128 bits of a hash of the text: two texts share them by chance once in 10^24 for 10^7 documents."""
    return _digest(document.text)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
