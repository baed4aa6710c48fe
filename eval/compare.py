"""Model against model on the same sentences: paired document bootstrap and McNemar's test.

communique eval report mine.jsonl theirs.jsonl --out report/
compare(mine, align(mine, theirs), Resampler(len(set(mine.documents))))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from communique.eval.metrics import Floats, Ints
from communique.eval.resample import UNKNOWN, Number, Resampler, scores_of
from communique.eval.table import Row, Table
from communique.eval.views import NAMES, counts_of
from communique.model.labels import LABELS, STANCES


@dataclass(frozen=True)
class Changed:
    """A sentence that two models label differently and one of them rightly."""

    row: Row
    first: str
    other: str


@dataclass(frozen=True)
class Comparison:
    """Two models on the same sentences; differences are the first less the other."""

    first: str
    other: str
    macro4: Number
    macro5: Number
    accuracy: Number
    only_first: int
    """Sentences that only the first has right."""
    only_other: int
    p_value: float | None
    """McNemar's test; None where the two never differ in being right."""
    changed: list[Changed]


def compare(first: Table, other: Table, resampler: Resampler) -> Comparison:
    """Paired document bootstrap and McNemar's test of two tables in the same row order.

    McNemar's test (1947; exact below 25 discordant sentences) takes sentences as independent, which those
    of one document are not: the bootstrap interval decides, the test is given because readers look for it.
    """
    counts = [counts_of(table, table.found) for table in (first, other)]
    right = [table.found == table.truth for table in (first, other)]
    only_first, only_other = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    support = np.bincount(first.truth, minlength=len(LABELS))
    gaps = difference(counts[0], counts[1], support, resampler)
    changed = [
        Changed(first.rows[i], NAMES[first.found[i]], NAMES[other.found[i]])
        for i in np.flatnonzero(right[0] != right[1])
    ]
    return Comparison(
        first.name, other.name, *gaps, only_first, only_other, mcnemar_p(only_first, only_other), changed
    )


def difference(
    first: Floats, other: Floats, support: Ints, resampler: Resampler
) -> tuple[Number, Number, Number]:
    """Macro-F1 of four and of five labels and accuracy: first less other, with paired intervals.

    `first` and `other` are (documents, 5, 5) of the same documents; a mean over a label without support is
    not estimable.
    """

    def gap(tables: Floats) -> Floats:  # (n, 2, 5, 5) -> (n, 3)
        one, two = scores_of(tables[:, 0]), scores_of(tables[:, 1])
        return np.concatenate([one[key] - two[key] for key in ("macro4", "macro5", "accuracy")], axis=1)

    four, five, accuracy = resampler.estimate(np.stack([first, other], axis=1), gap)
    return (
        four if (support[: len(STANCES)] > 0).all() else UNKNOWN,
        five if (support > 0).all() else UNKNOWN,
        accuracy,
    )


def mcnemar_p(only_first: int, only_other: int) -> float | None:
    """McNemar's two-sided p from the discordant counts: exact below 25, else chi-square with correction."""
    from statsmodels.stats.contingency_tables import mcnemar

    n = only_first + only_other
    if n == 0:
        return None
    return float(mcnemar([[0, only_first], [only_other, 0]], exact=n < 25, correction=True).pvalue)
