"""Numbers with intervals from resampled documents, and None where a number cannot be estimated.

    counts = document_tables(truth, found, documents)              # (documents, 5, 5)
    Resampler(len(counts)).estimate(counts, lambda t: scores_of(t)["f1"])

Every score of the report is a function of confusion tables, so a resample is a weighted sum of documents'
tables (pairs cluster bootstrap: Cameron, Gelbach and Miller 2008). The draws are those of
`communique.eval.metrics.evaluate` for the same seed: both give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from communique.eval.metrics import MIN_DOCUMENTS, RESAMPLES, Floats, Ints, f1_of
from communique.model.labels import LABELS, STANCES


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval; None is "not estimable"."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Rounded to six decimals; null for what is not estimable."""
        return {name: None if n is None else round(n, 6) for name, n in vars(self).items()}


UNKNOWN = Number(None)


class Resampler:
    """Draws of documents, the same for every system, so that differences between systems are paired."""

    def __init__(self, documents: int, *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.documents = documents
        self._draws = rng.multinomial(documents, np.full(documents, 1 / documents), size=resamples)

    def drawn(self, counts: Floats) -> Floats:
        """Documents' counts (documents, …) -> totals of each resample (resamples, …)."""
        flat = self._draws @ counts.reshape(len(counts), -1)
        totals: Floats = flat.reshape(len(self._draws), *counts.shape[1:])
        return totals

    def estimate(self, counts: Floats, statistic: Callable[[Floats], Floats]) -> list[Number]:
        """A statistic of total counts, (n, …) -> (n, k), as k numbers; NaN becomes None.

        Draws in which it is undefined are passed over.
        """
        values = statistic(counts.sum(axis=0)[None])[0]
        drawn = statistic(self.drawn(counts))
        held = int((counts.reshape(len(counts), -1).sum(axis=1) > 0).sum())
        return [_number(float(v), drawn[:, i], held) for i, v in enumerate(values)]


def _number(value: float, drawn: Floats, documents: int) -> Number:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value):
        return UNKNOWN
    if documents < MIN_DOCUMENTS or not len(drawn):
        return Number(value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Number(value, float(low), float(high))


def document_tables(
    truth: Ints, found: Ints, documents: Sequence[str], weights: Floats | None = None
) -> Floats:
    """A confusion table for each document, (documents, 5, 5), rows the truth; documents in sorted order."""
    names, place = np.unique(np.asarray(documents, dtype=str), return_inverse=True)
    tables = np.zeros((len(names), len(LABELS), len(LABELS)))
    np.add.at(tables, (place, truth, found), 1 if weights is None else weights)
    return tables


def scores_of(tables: Floats) -> dict[str, Floats]:
    """Scores of confusion tables (n, 5, 5): precision, recall, f1 (n, 5); macro4, macro5, accuracy (n, 1).

    0 where a score is 0/0, as in scikit-learn with `zero_division=0`.
    """
    hits = np.diagonal(tables, axis1=1, axis2=2)
    f1 = f1_of(tables)
    total = tables.sum(axis=(1, 2))
    return {
        "precision": ratio(hits, tables.sum(axis=1)),
        "recall": ratio(hits, tables.sum(axis=2)),
        "f1": f1,
        "macro4": f1[:, : len(STANCES)].mean(axis=1, keepdims=True),
        "macro5": f1.mean(axis=1, keepdims=True),
        "accuracy": ratio(hits.sum(axis=1), total)[:, None],
    }


def ratio(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where below is 0."""
    shares: Floats = np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)
    return shares
