"""Encoded sentences -> labels, for a shard at a time, each different sentence once.

    labeller = Labeller(load_artifact(), threads=2, backend="auto")
    labelled = labeller.label(labeller.encode(inputs))

Batches are made of sentences of like length from all documents of the shard, under a token budget,
and run side by side on streams of one thread each (faster than one stream of many threads, and what
a batch gives does not depend on how many streams there are).

What was labelled is remembered by its token ids (no hash, so no false match) for the latest shards,
as many as hold `REMEMBERED` different sentences. Which shards those are follows from the shards alone,
so a run that goes on after a kill, having read them back, batches exactly as an undisturbed one.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Self

from communique.archive.prepare import Shard
from communique.model.artifact import Artifact
from communique.model.backends import choose
from communique.model.classifier import DIGITS, decide, softmax
from communique.model.engine import Engine, Logits, available_cores
from communique.model.labels import LABELS, label_index
from communique.model.tokens import SentenceInput, SentenceTokenizer, TokenIds

REMEMBERED = 100_000
"""Different sentences kept, some 40 MB."""
_PACKED = struct.Struct("<QB5d")
"""What is remembered of a sentence: its shard's number, its label's, five probabilities."""

Labelled = tuple[str, tuple[float, ...]]
"""A label and the probabilities of all five, rounded as records hold them."""


class ShardLabels(NamedTuple):
    """A shard's labels, one a sentence, in order."""

    labels: list[Labelled]
    different: int
    """Different sentences among them."""
    read: int
    """Those that were not remembered and went through the model."""


class Job(NamedTuple):
    """What is to be done for a shard."""

    keys: list[bytes]
    """All that the model reads of each sentence, in order."""
    fresh: dict[bytes, TokenIds]
    """Different sentences that are not remembered."""
    groups: list[list[bytes]]
    """The batches: keys of `fresh`."""

    def batch(self, group: Sequence[bytes]) -> list[TokenIds]:
        """The sentences of one batch."""
        return [self.fresh[key] for key in group]


class Memory:
    """Labels of the latest shards, by token ids."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._shards: deque[tuple[int, list[bytes]]] = deque()
        self._labels: dict[bytes, bytes] = {}
        self._number = 0
        self._total = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._labels

    def get(self, key: bytes) -> Labelled | None:
        """The label of a sentence met in one of those shards."""
        found = self._labels.get(key)
        if found is None:
            return None
        _, label, *probabilities = _PACKED.unpack(found)
        return str(LABELS[label]), tuple(probabilities)

    def add(self, shard: dict[bytes, Labelled]) -> None:
        """Remember a shard, and forget the oldest beyond the bound."""
        self._number += 1
        self._shards.append((self._number, list(shard)))
        for key, (label, probabilities) in shard.items():
            self._labels[key] = _PACKED.pack(self._number, label_index(label), *probabilities)
        self._total += len(shard)
        while self._total > self._most:
            number, keys = self._shards.popleft()
            self._total -= len(keys)
            for key in keys:
                if _PACKED.unpack(self._labels[key])[0] == number:  # else a later shard has it too
                    del self._labels[key]


def archive_engine(backend: str) -> type[Engine]:
    """The engine's class, see `choose`; torch among them, imported where it is asked for.

    Raises:
        InputError: an unknown name, or a library that is not installed.
    """
    if backend != "torch":
        return choose(backend)
    from communique.archive.torch_engine import torch_engine

    return torch_engine()


class Labeller:
    """A model set up for archives."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int | None = None,
        backend: str = "onnxruntime",
        token_budget: int | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        config = artifact.config
        self.version = artifact.version
        self.remembered = remembered
        self._config = config
        self._tokenizer = SentenceTokenizer.from_file(artifact.path("tokenizer.json"), config)
        self._engine = archive_engine(backend)(
            artifact.path("model.onnx"),
            pad_id=self._tokenizer.pad_id,
            token_types=config.token_types,
            threads=1,
            streams=threads or available_cores(),
            token_budget=token_budget,
        )
        self._pool = ThreadPoolExecutor(self._engine.streams, thread_name_prefix="label")
        self._memory = Memory(remembered)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def encode(self, inputs: Sequence[SentenceInput]) -> list[TokenIds]:
        """Token ids of sentences; safe beside `label` in another thread."""
        return self._tokenizer.encode(inputs)

    def stream(
        self,
        shards: Iterable[Shard],
        restore: Callable[[Shard, dict[str, Any]], list[Labelled]],
        advance: Callable[[Shard, float], None],
    ) -> Iterator[tuple[Shard, ShardLabels | None]]:
        """Shards with their labels, in order; None for those that an earlier run wrote.

        Args:
            shards: shards as `Preparer` makes them.
            restore: gives the labels of a shard that the journal has, or none if too old to matter.
            advance: told after each batch which share of the shard is done.
        """
        for shard in shards:
            if shard.done is not None:
                self.restore(shard.encoded, restore(shard, shard.done))
                yield shard, None
            else:
                yield shard, self.label(shard.encoded, partial(advance, shard))

    def label(
        self, encoded: Sequence[TokenIds], advance: Callable[[float], None] | None = None
    ) -> ShardLabels:
        """Label a shard's sentences.

        Args:
            encoded: all sentences of the shard.
            advance: told after each batch which share of the shard is done.
        """
        job = self.plan(encoded, self._memory)

        def run() -> Iterator[Logits]:
            done = 0
            results = self._pool.map(lambda group: self._engine.logits(job.batch(group)), job.groups)
            for group, logits in zip(job.groups, results, strict=True):
                yield logits
                done += len(group)
                if advance is not None:
                    advance(done / len(job.fresh))

        return self.finish(job, run())

    def plan(self, encoded: Sequence[TokenIds], memory: Memory) -> Job:
        """Which of a shard's sentences to run, in which batches, given what is remembered by then."""
        keys = [sentence_key(e) for e in encoded]
        fresh = {k: e for k, e in zip(keys, encoded, strict=True) if k not in memory}
        names = list(fresh)
        groups = self._engine.groups([len(e.ids) for e in fresh.values()])
        return Job(keys, fresh, [[names[i] for i in group] for group in groups])

    def finish(self, job: Job, results: Iterable[Logits]) -> ShardLabels:
        """A shard's labels from the logits of its batches, in order; remembered from here on."""
        known = {k: found for k in job.keys if (found := self._memory.get(k)) is not None}
        for group, logits in zip(job.groups, results, strict=True):
            known.update(zip(group, self._decide(logits), strict=True))
        self._memory.add(known)
        return ShardLabels([known[key] for key in job.keys], len(known), len(job.fresh))

    def restore(self, encoded: Sequence[TokenIds], labelled: Iterable[Labelled]) -> None:
        """Remember a shard that an earlier run labelled."""
        if encoded:
            self._memory.add(dict(zip(map(sentence_key, encoded), labelled, strict=True)))

    def _decide(self, logits: Logits) -> list[Labelled]:
        probabilities = softmax(logits, self._config.temperature)
        labels = decide(probabilities, **self._config.rule)
        return [
            (str(label), tuple(round(float(p), DIGITS) for p in row))
            for label, row in zip(labels, probabilities, strict=True)
        ]


def sentence_key(encoded: TokenIds) -> bytes:
    """All that the model reads of a sentence, in two bytes a token where they do.

    Of odd length where they do not, so that no key of one kind is one of the other.
    """
    read = (encoded.first_context, *encoded.ids)
    return array("H", read).tobytes() if max(read) < 1 << 16 else b"I" + array("I", read).tobytes()


def sentence_of(key: bytes) -> TokenIds:
    """The sentence of a key; whether it was cut is not in it."""
    first, *ids = array("I", key[1:]) if len(key) % 2 else array("H", key)
    return TokenIds(tuple(ids), first, truncated=False)
