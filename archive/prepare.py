"""Input files -> shards ready for the model: read, told apart, cut into sentences, encoded.

Where a shard ends depends on the documents alone, never on time or on where an earlier run was killed.
A shard that the journal has is read again only to know what was seen, and checked to be the same.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from communique.archive.documents import read_documents
from communique.archive.seen import Seen, text_key
from communique.archive.sources import Blob, InputFile, Rejected, unpack, walk, why
from communique.archive.tables import Columns, Document, Item
from communique.model.classifier import in_context
from communique.model.errors import InputError
from communique.model.sentences import Span, segment
from communique.model.tokens import SentenceInput, TokenIds

T = TypeVar("T")
_MOST_NOTES = 10_000
"""Notes that a shard may gather; a million bad rows in a row must not fill the memory."""
_PLAIN = frozenset(("utf-8", "utf-8-sig", "ascii"))


@dataclass
class Shard:
    """Documents that are labelled and written together, and what was noted on the way."""

    number: int
    items: int = 0
    """Documents, duplicates and rejected ones read for it."""
    documents: list[tuple[str, Document]] = field(default_factory=list)
    """Each with the id it goes by."""
    firsts: list[int] = field(default_factory=list)
    """The number of each one's first sentence."""
    spans: list[list[Span]] = field(default_factory=list)
    inputs: list[SentenceInput] = field(default_factory=list)
    encoded: list[TokenIds] = field(default_factory=list)
    notes: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"rejected": [], "duplicates": [], "encodings": []}
    )
    encodings: Counter[str] = field(default_factory=Counter)
    done: dict[str, Any] | None = None
    """Its line of the journal, where an earlier run wrote it."""
    consumed: int = 0
    """Bytes of the input files read when it was full."""

    def digest(self) -> str:
        """A hash of its documents' ids and texts."""
        whole = hashlib.blake2b(digest_size=16)
        for doc_id, document in self.documents:
            whole.update(doc_id.encode() + b"\0" + text_key(document))
        return whole.hexdigest()


class Preparer:
    """Makes shards of documents."""

    def __init__(
        self,
        roots: Sequence[InputFile],
        columns: Columns,
        seen: Seen,
        encode: Callable[[Sequence[SentenceInput]], list[TokenIds]],
        *,
        shard_documents: int,
        shard_sentences: int,
        journal: Sequence[dict[str, Any]] = (),
        remembered: int = 0,
    ) -> None:
        self._roots = roots
        self._columns = columns
        self._seen = seen
        self._encode = encode
        self._most_documents = shard_documents
        self._most_sentences = shard_sentences
        self._journal = journal
        self._restored = _latest(journal, remembered)
        self._consumed = 0
        self._noted = ""

    def shards(self) -> Generator[Shard, None, None]:
        """All shards, in order; those of the journal with `done` set.

        Raises:
            InputError: a shard of the journal is not what the inputs give now.
        """
        shard = self._begin(0)
        for item in self._items():
            shard.items += 1
            self._take(shard, item)
            if self._full(shard):
                yield self._finish(shard)
                shard = self._begin(shard.number + 1)
        if shard.items or shard.done:
            yield self._finish(shard)

    def _begin(self, number: int) -> Shard:
        return Shard(number, done=self._journal[number] if number < len(self._journal) else None)

    def _items(self) -> Iterator[Item]:
        for file in walk(self._roots):
            before = self._consumed
            try:
                with file.path.open("rb") as stream:
                    for blob in unpack(file.name, stream):
                        for item in (
                            read_documents(blob, self._columns) if isinstance(blob, Blob) else (blob,)
                        ):
                            if not stream.closed:
                                self._consumed = before + stream.tell()
                            yield item
                self._consumed = before + file.path.stat().st_size
            except OSError as error:
                yield Rejected(file.name, "", f"cannot be read ({why(error)})")

    def _take(self, shard: Shard, item: Item) -> None:
        if isinstance(item, Rejected):
            note = {"file": item.file, "place": item.place, "reason": item.reason}
            shard.notes["rejected"].append(note)
            return
        if item.encoding not in _PLAIN and item.file != self._noted:
            self._noted = item.file
            shard.notes["encodings"].append({"file": item.file, "encoding": item.encoding})
        doc_id, first, pointer = self._seen.admit(item)
        if pointer is not None:
            shard.notes["duplicates"].append(pointer)
        if doc_id is None:
            return
        shard.documents.append((doc_id, item))
        shard.firsts.append(first)
        shard.encodings[item.encoding] += 1
        if shard.done is None or shard.number in self._restored:
            self._cut(shard, item)

    def _cut(self, shard: Shard, document: Document) -> None:
        text = document.text
        if document.neighbours is not None:
            spans, inputs = [Span(0, len(text))], [SentenceInput(text, *document.neighbours)]
        else:
            spans = segment(text)
            inputs = in_context([text[s.start : s.end] for s in spans])
        shard.spans.append(spans)
        shard.inputs += inputs

    def _full(self, shard: Shard) -> bool:
        if shard.done is not None:
            return shard.items == int(shard.done["items"])
        documents = 0 if self._columns.sentences else len(shard.documents)
        return (
            documents >= self._most_documents
            or len(shard.inputs) >= self._most_sentences
            or sum(map(len, shard.notes.values())) >= _MOST_NOTES
        )

    def _finish(self, shard: Shard) -> Shard:
        if shard.done is not None and shard.digest() != shard.done["digest"]:
            raise InputError(
                f"the input changed since shard {shard.number} was written: "
                "use another --out, or --restart to delete these results and begin again"
            )
        shard.encoded = self._encode(shard.inputs) if shard.inputs else []
        shard.consumed = self._consumed
        return shard


def _latest(journal: Sequence[dict[str, Any]], remembered: int) -> set[int]:
    """Numbers of the shards that a run arriving at the journal's end would remember."""
    kept: set[int] = set()
    total = 0
    for number in reversed(range(len(journal))):
        total += int(journal[number]["different"])
        if total > remembered:
            break
        kept.add(number)
    return kept


class _End:
    """What the reading thread puts last: the error that ended it, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Generator[T, None, None], depth: int = 1) -> Generator[T, None, None]:
    """The same items, made in a thread of their own, at most `depth` of them waiting."""
    waiting: queue.Queue[T | _End] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: T | _End) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if stop.is_set():
                        return
            put(_End(None))
        except BaseException as error:  # noqa: BLE001  handed to the thread that asked
            put(_End(error))

    thread = threading.Thread(target=work, name="read", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()
