"""Scores of a stance model and their intervals, which resample documents, not sentences.

    scores = evaluate(gold, probabilities, documents, threshold=0.4)
    print(scores.macro_f1)          # Estimate(value=0.86, low=0.83, high=0.88)

Sentences of one statement resemble one another, so an interval that resamples sentences is too narrow:
the bootstrap here draws whole documents (Cameron, Gelbach and Miller 2008, pairs cluster bootstrap).
The first score is the macro-F1 of the four stances: `none` counts as an error where a stance is given to
it, or missed for it, but has no F1 of its own in the mean. The second includes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from communique.model.classifier import decide
from communique.model.labels import EVEN, LABELS, STANCES, label_index

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 1000
MIN_DOCUMENTS = 5
"""Fewer documents carry no interval: of one, every resample is the same, and the interval a point."""
BINS = 15
"""Bins of equal count for the expected calibration error."""


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval (percentiles of the document bootstrap).

    `low` and `high` are None where fewer than `MIN_DOCUMENTS` documents carry no interval.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} [not estimable]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Scores:
    """What `evaluate` found."""

    macro_f1: Estimate
    """Mean F1 of the four stances."""
    macro_f1_five: Estimate
    """Mean F1 of all five labels."""
    accuracy: Estimate
    f1: dict[str, Estimate]
    precision: dict[str, float]
    recall: dict[str, float]
    support: dict[str, int]
    ece: float
    """Expected calibration error of the most probable of the five, in [0, 1]."""
    brier: float
    """Mean squared distance of the probabilities from the truth, in [0, 2]."""
    confusion: list[list[int]]
    """Rows are the truth, columns the prediction, in the order of `LABELS`."""
    sentences: int
    documents: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in reports and model cards; null where not estimable."""
        return asdict(self)


def evaluate(
    gold: Sequence[str],
    probabilities: Floats,
    documents: Sequence[str],
    *,
    threshold: float,
    label_weights: Sequence[float] = EVEN,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    """Score predictions with the abstention that the model ships with.

    Args:
        gold: the adjudicated label of each sentence.
        probabilities: (sentences, 5), calibrated.
        documents: the document each sentence is from; the unit of resampling.
        threshold: stances whose share (see `decide`) lies below it become `none`.
        label_weights: what each label counts where one is chosen.

    Raises:
        ValueError: empty, or lengths that differ.
    """
    if not len(gold) == len(probabilities) == len(documents) or not gold:
        raise ValueError(
            f"need as many labels ({len(gold)}), predictions ({len(probabilities)}) and documents "
            f"({len(documents)}), and at least one"
        )
    truth = np.array([label_index(label) for label in gold])
    labels = decide(probabilities, threshold=threshold, label_weights=label_weights)
    found = np.array([label_index(label) for label in labels])
    tables = _tables(truth, found, documents)  # (documents, 5, 5)
    total = tables.sum(axis=0)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(tables), np.full(len(tables), 1 / len(tables)), size=resamples)
    resampled = np.einsum("rd,dij->rij", draws, tables)  # (resamples, 5, 5)
    f1, f1s = f1_of(total[None])[0], f1_of(resampled)
    precision, recall = _precision_recall(total)
    accuracy = np.trace(total) / total.sum()
    accuracies = np.trace(resampled, axis1=1, axis2=2) / np.maximum(resampled.sum(axis=(1, 2)), 1)
    four = len(STANCES)

    def estimate(value: float, values: Floats) -> Estimate:
        if len(tables) < MIN_DOCUMENTS:
            return Estimate(float(value), None, None)
        low, high = np.percentile(values, [2.5, 97.5])
        return Estimate(float(value), float(low), float(high))

    return Scores(
        macro_f1=estimate(f1[:four].mean(), f1s[:, :four].mean(axis=1)),
        macro_f1_five=estimate(f1.mean(), f1s.mean(axis=1)),
        accuracy=estimate(accuracy, accuracies),
        f1={str(label): estimate(f1[i], f1s[:, i]) for i, label in enumerate(LABELS)},
        precision={str(label): float(precision[i]) for i, label in enumerate(LABELS)},
        recall={str(label): float(recall[i]) for i, label in enumerate(LABELS)},
        support={str(label): int(total[i].sum()) for i, label in enumerate(LABELS)},
        ece=calibration_error(truth, probabilities),
        brier=float(((probabilities - np.eye(len(LABELS))[truth]) ** 2).sum(axis=1).mean()),
        confusion=total.astype(int).tolist(),
        sentences=len(gold),
        documents=len(tables),
    )


def _tables(truth: Ints, found: Ints, documents: Sequence[str]) -> Floats:
    """A confusion table for each document, shape (documents, 5, 5)."""
    names, place = np.unique(np.asarray(documents), return_inverse=True)
    tables = np.zeros((len(names), len(LABELS), len(LABELS)))
    np.add.at(tables, (place, truth, found), 1)
    return tables


def f1_of(tables: Floats) -> Floats:
    """F1 of each label from confusion tables (n, labels, labels) -> (n, labels); 0 where undefined."""
    hits = np.diagonal(tables, axis1=1, axis2=2)
    both = tables.sum(axis=1) + tables.sum(axis=2)  # predicted + true
    f1: Floats = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    return f1


def _precision_recall(table: Floats) -> tuple[Floats, Floats]:
    hits = np.diagonal(table)
    predicted, true = table.sum(axis=0), table.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=true > 0)
    return precision, recall


def calibration_error(truth: Ints, probabilities: Floats, bins: int = BINS) -> float:
    """Expected calibration error of the top label over bins of equal count (Nguyen and O'Connor 2015).

    The mean over sentences of |accuracy - confidence| of the bin that a sentence falls into.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    order = np.argsort(confidence, kind="stable")
    gap = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        gap += len(part) * abs(float(right[part].mean()) - float(confidence[part].mean()))
    return gap / len(order)
