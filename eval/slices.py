"""Where a model is weak: scores by issuer, kind, year, length, position and sample, and a corrected search.

    for s in slices(table, resampler):
        print(s.by, s.name, s.n, s.accuracy)

Small slices are counted but not scored. The search for weak ones compares each scored slice with all other
rows and corrects for having looked at all of them (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt

import numpy as np
import numpy.typing as npt

from communique.eval.metrics import Floats, f1_of
from communique.eval.resample import UNKNOWN, Number, Resampler, document_tables, ratio
from communique.eval.table import Row, Table
from communique.model.labels import STANCES

MIN_ROWS = 30
"""Rows below which a slice is not scored."""
MIN_DOCUMENTS = 5
"""Documents below which a slice is not scored."""
LEVEL = 0.05


@dataclass(frozen=True)
class Slice:
    """The rows that have something in common."""

    by: str
    name: str
    n: int
    documents: int
    accuracy: Number = UNKNOWN
    macro: Number = UNKNOWN
    """Mean F1 of the stances that have gold rows in the slice."""
    stances: int = 0
    """How many of the four those are."""
    gap: Number = UNKNOWN
    """Accuracy less that of all other rows."""
    p_value: float | None = None
    """Of the gap, corrected for the number of slices scored."""

    @property
    def scored(self) -> bool:
        """Whether it has rows and documents enough."""
        return self.accuracy.value is not None

    @property
    def weak(self) -> bool:
        """Whether it is worse than the rest, after correction."""
        return self.p_value is not None and self.p_value < LEVEL and (self.gap.value or 0) < 0


def _grade(limits: Sequence[int], names: Sequence[str], value: int) -> str:
    place = sum(value > limit for limit in limits)
    return f"{place + 1}. {names[place]}"


def _length(row: Row) -> str:
    names = ("up to 10 words", "11 to 20", "21 to 35", "36 to 60", "over 60")
    return _grade((10, 20, 35, 60), names, len(row.text.split()))


def _position(row: Row) -> str:
    names = ("first 3 sentences", "sentences 4 to 10", "sentences 11 to 25", "after the 25th")
    return _grade((2, 9, 24), names, row.sent_id)


KEYS: dict[str, Callable[[Row], str]] = {
    "issuer": lambda row: row.issuer,
    "kind": lambda row: row.kind,
    "year": lambda row: row.date[:4],
    "length": _length,
    "position": _position,
    "sample": lambda row: row.sample,
}
"""How rows are sliced; an empty name means that the row does not say."""


def slices(table: Table, resampler: Resampler, min_rows: int = MIN_ROWS) -> list[Slice]:
    """All slices, in the order of `KEYS` and by name; those large enough are scored."""
    found = []
    for by, key in KEYS.items():
        names = np.array([key(row) or "not given" for row in table.rows])
        values = sorted(set(names))
        if values == ["not given"]:
            continue
        for value in values:
            found.append(_slice(table, resampler, by, str(value), names == value, min_rows))
    return _corrected(found)


def _slice(
    table: Table, resampler: Resampler, by: str, name: str, inside: npt.NDArray[np.bool_], min_rows: int
) -> Slice:
    n = int(inside.sum())
    documents = len({doc for doc, here in zip(table.documents, inside, strict=True) if here})
    plain = Slice(by, name, n, documents)
    if n < min_rows or documents < MIN_DOCUMENTS:
        return plain
    counts = np.stack(
        [
            document_tables(table.truth, table.found, table.documents, weights.astype(float))
            for weights in (inside, ~inside)
        ],
        axis=1,
    )  # (documents, 2, 5, 5)
    present = counts[:, 0].sum(axis=(0, 2))[: len(STANCES)] > 0
    accuracy = resampler.estimate(counts, lambda t: _accuracy(t[:, 0])[:, None])[0]
    macro = UNKNOWN
    if present.any():
        macro = resampler.estimate(
            counts, lambda t: f1_of(t[:, 0])[:, : len(STANCES)][:, present].mean(axis=1, keepdims=True)
        )[0]
    scored = replace(plain, accuracy=accuracy, macro=macro, stances=int(present.sum()))
    if n == len(table.rows):
        return scored
    gap = resampler.estimate(counts, _gap)[0]
    spread = float(np.nanstd(_gap(resampler.drawn(counts))))
    if gap.value is None or spread == 0:
        return replace(scored, gap=gap)
    return replace(scored, gap=gap, p_value=erfc(abs(gap.value) / spread / sqrt(2)))


def _accuracy(tables: Floats) -> Floats:
    """(n, 5, 5) -> (n,); NaN where a draw holds no row."""
    total = tables.sum(axis=(1, 2))
    shares = ratio(np.trace(tables, axis1=1, axis2=2), total)
    return np.where(total > 0, shares, np.nan)


def _gap(tables: Floats) -> Floats:
    return (_accuracy(tables[:, 0]) - _accuracy(tables[:, 1]))[:, None]


def _corrected(found: Sequence[Slice]) -> list[Slice]:
    """The slices with Holm's correction of the normal p-values of their gaps."""
    from statsmodels.stats.multitest import multipletests

    tested = [i for i, s in enumerate(found) if s.p_value is not None]
    result = list(found)
    if tested:
        adjusted = multipletests([found[i].p_value for i in tested], method="holm")[1]
        for i, p in zip(tested, adjusted, strict=True):
            result[i] = replace(found[i], p_value=float(p))
    return result


def weakest(found: Sequence[Slice], most: int = 10) -> list[Slice]:
    """The scored slices with the largest gap to the rest, worst first."""
    behind = [s for s in found if s.gap.value is not None and s.gap.value < 0]
    return sorted(behind, key=lambda s: s.gap.value or 0)[:most]
