"""Labelled sentences as batches of token ids under a token budget, padded no further than they need.

    batches = TokenBatches(data.lengths, budget=1024, seed=1)
    loader = DataLoader(data, batch_sampler=batches, collate_fn=Collator(pad_id=0, token_types=True))

The plan of an epoch depends on the seed and the epoch's number alone, never on what was drawn before,
so a run that goes on in the middle of an epoch sees the batches that a straight run sees.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from communique.model.labels import LABELS, label_index
from communique.model.tokens import SentenceInput, SentenceTokenizer

BUCKET = 32
"""Lengths are rounded up to a multiple of this where the model is compiled: one graph a bucket."""


@dataclass(frozen=True)
class TrainRow:
    """A sentence to learn from: a label, or a teacher's probabilities."""

    text: str
    before: str = ""
    after: str = ""
    label: str = ""
    soft: tuple[float, ...] = ()
    """Probabilities for `LABELS`, taught in place of `label`; empty where the label alone is known."""
    weight: float = 1.0
    source: str = ""
    doc_id: str = ""
    """The document of an annotated sentence."""


class EncodedRows(Dataset[dict[str, Any]]):
    """Rows as token ids and target distributions."""

    def __init__(
        self, rows: Sequence[TrainRow], tokenizer: SentenceTokenizer, smoothing: float = 0.0
    ) -> None:
        encoded = tokenizer.encode([SentenceInput(r.text, r.before, r.after) for r in rows])
        self.ids = [e.ids for e in encoded]
        self.first_context = [e.first_context for e in encoded]
        self.targets = np.stack([_target(row, smoothing) for row in rows]).astype(np.float32)
        self.weights = np.array([row.weight for row in rows], dtype=np.float32)
        self.lengths = [len(ids) for ids in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "ids": self.ids[index],
            "first_context": self.first_context[index],
            "target": self.targets[index],
            "weight": self.weights[index],
        }


def _target(row: TrainRow, smoothing: float) -> npt.NDArray[np.float64]:
    """Distribution over the labels that the row teaches, shape (5,)."""
    if row.soft:
        return np.asarray(row.soft)
    target = np.full(len(LABELS), smoothing / len(LABELS))
    target[label_index(row.label)] += 1 - smoothing
    return target


@dataclass(frozen=True)
class Collator:
    """Pads encoded rows to the longest of the batch: int64 (batch, tokens).

    With a `bucket`, to the next multiple of it; with a `budget` too, the batch is filled to
    `budget // tokens` rows by repeating its first row with weight 0, so that a compiled model meets one
    shape a bucket.
    """

    pad_id: int
    token_types: bool
    bucket: int = 1
    budget: int = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack rows; targets become `labels` (batch, 5), weights `weight` (batch,)."""
        longest = rounded(max(len(row["ids"]) for row in rows), self.bucket)
        missing = max(0, self.budget // longest - len(rows))
        rows = [*rows, *[{**rows[0], "weight": np.float32(0)}] * missing]
        ids = torch.full((len(rows), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            n = len(row["ids"])
            ids[i, :n] = torch.tensor(row["ids"])
            mask[i, :n] = 1
            types[i, row["first_context"] : n] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.token_types:
            batch["token_type_ids"] = types
        batch["labels"] = torch.from_numpy(np.stack([row["target"] for row in rows]))
        batch["weight"] = torch.from_numpy(np.array([row["weight"] for row in rows]))
        return batch


def rounded(length: int, bucket: int) -> int:
    """The next multiple of `bucket`, in tokens."""
    return -(-length // bucket) * bucket


class TokenBatches:
    """Batches of similar length under a token budget, shuffled anew each epoch from the seed.

    Args:
        lengths: tokens of each row.
        budget: most tokens a batch, padding included, for each process.
        seed: decides the plan, and with the epoch's number the order.
        bucket: lengths are rounded up to a multiple of it, and a batch holds rows of one bucket.
        process, processes: this one and how many there are. At each step every process takes a batch
            of about the same length, so that none waits for another, and every process takes as many
            steps: the last group is filled up with batches of the first.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        budget: int,
        seed: int,
        *,
        bucket: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._lengths = [rounded(length, bucket) for length in lengths]
        self._budget = budget
        self._seed = seed
        self._epoch = 0
        self._process = process
        self._apart = bucket > 1
        # The names that torch's and accelerate's loaders ask a batch sampler for.
        self.batch_size = None
        self.drop_last = False
        # Every epoch has the same batches in another order: the scheduler wants one number of steps.
        planned = self._plan()
        planned += list(itertools.islice(itertools.cycle(planned), -len(planned) % processes))
        groups = len(planned) // processes
        self._groups = [planned[i * processes : (i + 1) * processes] for i in range(groups)]

    def _plan(self) -> list[list[int]]:
        # Lengths are jittered before sorting so that a batch is not always one length of sentence.
        jitter = random.Random(self._seed)
        spread = 0.0 if self._apart else 0.15
        noisy = [length * jitter.uniform(1 - spread, 1 + spread) for length in self._lengths]
        chance = [jitter.random() for _ in noisy] if self._apart else noisy
        order = sorted(range(len(noisy)), key=lambda i: (noisy[i], chance[i]), reverse=True)
        planned: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for index in order:
            length = self._lengths[index]
            full = (len(batch) + 1) * max(longest, length) > self._budget
            if batch and (full or (self._apart and length != longest)):
                planned.append(batch)
                batch, longest = [], 0
            longest = max(longest, length)
            batch.append(index)
        return [*planned, batch] if batch else planned

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch, after a resume too."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self._groups)))
        random.Random(self._seed * 1_000_003 + self._epoch).shuffle(order)
        return (self._groups[i][self._process] for i in order)
