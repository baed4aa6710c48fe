"""A teacher's probabilities for sentences that nobody annotated: what a student is distilled on.

    communique train --encoder all-mpnet-base-v2 --out runs/teacher
    communique train soft-labels runs/teacher --file ../soft.jsonl
    communique train --soft-labels ../soft.jsonl --out runs/student

Sentences of held-out documents are never among them, nor any that nearly repeats one: a teacher that
labels the test split for its student would carry what it saw of it. After Hinton, Vinyals and Dean 2015,
"Distilling the knowledge in a neural network": the student learns from the teacher's distribution, on
sentences that the teacher learnt from too, there mixed with the annotators' label.
"""

from __future__ import annotations

import dataclasses
import json
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from communique.model.akn import text_of_akn
from communique.model.classifier import in_context, softmax
from communique.model.errors import InputError
from communique.model.jsonl import write_text
from communique.model.labels import LABELS
from communique.model.sentences import segment
from communique.model.tokens import SentenceInput
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.corpus import Annotations
from communique.train.files import DataError, read_jsonl
from communique.train.fit import predict_logits
from communique.train.public_duplicates import near_duplicates
from communique.train.texts import COUNCIL, COUNCIL_PREFIX, STATEMENTS, shared_folder

_FEWEST_WORDS = 4
"""Shorter sentences are headings and numbers, of which a few hundred teach nothing new."""


def unlabelled(
    annotations: Annotations, shared: Path | None, count: int, seed: int = 1
) -> list[SentenceInput]:
    """Sentences to distil on: all of the corpus that may be used, then Security Council texts.

    Args:
        annotations: whose sentences are left out, with all of the documents of dev and test.
        shared: folder of the texts; as `shared_folder` finds it if None.
        count: how many at most.
        seed: of the draw.

    Raises:
        InputError: the folder holds neither the corpus nor the Security Council texts.
    """
    folder = shared_folder(shared)
    held = {
        doc_id for doc_id, split in annotations.splits.get("split", {}).items() if split in ("dev", "test")
    }
    twins = [set(group) for group in annotations.splits.get("near_duplicates", [])]
    held |= {doc_id for group in twins if group & held for doc_id in group}
    known = [s.text for s in annotations.sentences if s.text is not None]
    found: list[SentenceInput] = []
    for documents in (_statements(folder), _council(folder, seed)):
        pool = [s for doc_id, text in documents if doc_id not in held for s in _sentences(text)]
        random.Random(seed).shuffle(pool)
        # Twice as many as are wanted are compared, since about half of a resolution repeats another.
        pool = pool[: 2 * max(0, count - len(found))]
        gone = near_duplicates([s.text for s in pool], [*known, *(s.text for s in found)])
        found += [s for place, s in enumerate(pool) if place not in gone]
    if not found:
        raise InputError(f"no unlabelled sentence in {folder}: set COMMUNIQUE_SHARED")
    return found[:count]


def _statements(folder: Path) -> Iterator[tuple[str, str]]:
    if (folder / STATEMENTS).is_file():
        for _, record in read_jsonl(folder / STATEMENTS):
            yield record["doc_id"], record["text"]


def _council(folder: Path, seed: int) -> Iterator[tuple[str, str]]:
    if (folder / COUNCIL).is_file():
        with zipfile.ZipFile(folder / COUNCIL) as box:
            names = sorted(name for name in box.namelist() if name.endswith(".xml"))
            for name in random.Random(seed).sample(names, min(len(names), 400)):
                yield COUNCIL_PREFIX + name, text_of_akn(box.read(name), name)


def _sentences(text: str) -> list[SentenceInput]:
    cut = in_context([text[span.start : span.end] for span in segment(text)])
    return [s for s in cut if len(s.text.split()) >= _FEWEST_WORDS]


def soft_labels(
    teachers: Sequence[Path],
    sentences: Sequence[SentenceInput],
    path: Path,
    *,
    annotated: Sequence[SentenceInput] = (),
    threads: int = 0,
    tick: Callable[[int], None] = lambda n: None,
) -> Path:
    """Write the mean of the teachers' calibrated probabilities, one JSON object a line.

    Args:
        teachers: folders that `communique train` wrote.
        sentences: with their neighbours.
        path: written whole or not at all: text, before, after, p (one for each of `LABELS`), and
            annotated (true) where the sentence is one of the train split.
        annotated: sentences of the train split.
        threads: 0 means one a core.
        tick: told how many sentences a teacher has just read.

    Raises:
        InputError: a folder holds no trained model.
    """
    both = [*sentences, *annotated]
    rows = [TrainRow(s.text, s.before, s.after) for s in both]
    total = np.zeros((len(rows), len(LABELS)))
    for teacher in teachers:
        config, temperature = _teacher(teacher)
        if threads:
            config = dataclasses.replace(config, threads=threads)
        total += softmax(predict_logits(teacher, config, rows, tick=tick), temperature)
    lines = []
    for place, (s, p) in enumerate(zip(both, total / len(teachers), strict=True)):
        line = {"text": s.text, "before": s.before, "after": s.after, "p": [round(float(x), 5) for x in p]}
        lines.append(line | {"annotated": True} if place >= len(sentences) else line)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def _teacher(folder: Path) -> tuple[TrainConfig, float]:
    """How a teacher reads a sentence, and its temperature."""
    if not (folder / "train.json").is_file():
        raise InputError(f"{folder}: no train.json; name a folder that `communique train` wrote")
    artifact = folder / "artifact" / "config.json"
    if not artifact.is_file():
        raise InputError(f"{folder}: no artifact; its training has not ended")
    temperature = json.loads(artifact.read_text(encoding="utf-8"))["temperature"]
    return TrainConfig.load(folder / "train.json"), float(temperature)


@dataclass(frozen=True)
class Taught:
    """What a teacher says."""

    rows: tuple[TrainRow, ...] = ()
    """Sentences that nobody annotated."""
    annotated: Mapping[tuple[str, str, str], tuple[float, ...]] = field(default_factory=dict)
    """Probabilities of annotated sentences, by text, before and after."""

    def share(self, row: TrainRow, share: float) -> TrainRow:
        """An annotated row with this share of its target from the teacher, where the teacher read it."""
        p = self.annotated.get((row.text, row.before, row.after))
        if p is None or share == 0:
            return row
        known = row.soft or tuple(float(name == row.label) for name in map(str, LABELS))
        return dataclasses.replace(
            row, soft=tuple((1 - share) * k + share * q for k, q in zip(known, p, strict=True))
        )


def taught(config: TrainConfig) -> Taught:
    """A teacher's probabilities, one JSON object a line: text, before, after, p (five that sum to 1).

    Nothing where no file is named or `soft_weight` is 0.

    Raises:
        DataError: the file cannot be read or holds nothing, or a line is not of this form; with file:row.
    """
    if not config.soft_labels or config.soft_weight == 0:
        return Taught()
    rows, annotated = [], {}
    for place, entry in read_jsonl(Path(config.soft_labels)):
        text, before, after = (entry.get(name) for name in ("text", "before", "after"))
        if not (isinstance(text, str) and isinstance(before, str) and isinstance(after, str) and text):
            raise DataError(
                f"{place}: text, before and after must be texts, the first not empty: {_HOW_SOFT}"
            )
        p = softmax(np.log(_probabilities(entry.get("p"), place) + 1e-6), config.soft_temperature)[0]
        soft = tuple(map(float, p))
        if entry.get("annotated"):
            annotated[text, before, after] = soft
        else:
            rows.append(TrainRow(text, before, after, soft=soft, weight=config.soft_weight, source="soft"))
    if not rows and not annotated:
        raise DataError(f"{config.soft_labels}: holds no rows: {_HOW_SOFT}")
    return Taught(tuple(rows), annotated)


_HOW_SOFT = "write the file with `communique train soft-labels`"


def _probabilities(found: object, place: str) -> npt.NDArray[np.float32]:
    """A row's `p`, shape (1, 5)."""
    if not isinstance(found, list) or len(found) != len(LABELS):
        raise DataError(f"{place}: p is not a list of {len(LABELS)} numbers: {_HOW_SOFT}")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in found):
        raise DataError(f"{place}: p is {found}, expected probabilities in [0, 1]: {_HOW_SOFT}")
    if abs(sum(found) - 1) > 1e-3:  # they are written with five decimals
        raise DataError(f"{place}: p sums to {sum(found):.4f}, not 1: {_HOW_SOFT}")
    return np.array([found], dtype=np.float32)
