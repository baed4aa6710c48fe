"""How far two annotators agree, and how well a model can be asked to do: the ceiling.

    communique data agree             # prints the tables for data/annotations
    communique data agree --json agreement.json

Per label (against the rest) and overall: raw agreement, Cohen's kappa (Cohen 1960), Krippendorff's alpha
for nominal data (Krippendorff 2011) and Gwet's AC1 (Gwet 2008). Three, because they fail differently:
kappa and alpha fall when one label is rare however well it is agreed on, AC1 hardly does. Each comes with
an interval from resampling documents, since the sentences of one statement are not independent. Every
number is a function of the table of label pairs, so a resample is a weighted sum of documents' tables.

The ceiling is the F1 of one pass read as if it were a model's answer: against the other pass, where
nobody has seen the other's labels (the honest lower value), and against the adjudicated label, in which
it had a say (an upper value).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from communique.model.labels import LABELS, STANCES, label_index

Table = NDArray[np.float64]
"""Counts of label pairs, (..., labels, labels): rows are the first pass, columns the second."""

COEFFICIENTS = ("raw", "kappa", "alpha", "ac1")
COMPARISONS = ("a_b", "a_final", "b_final", "passes_final")
"""Whose F1 against whose; the last is the mean of the two passes against the adjudicated label."""
_BATCH = 100


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN where it is not defined (a label that nobody gave)."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Value, low and high; null for what is not defined."""
        return {
            name: None if np.isnan(number) else round(float(number), 6) for name, number in vars(self).items()
        }


@dataclass(frozen=True)
class Agreement:
    """Two passes over the same sentences, compared."""

    sentences: int
    documents: int
    resamples: int
    level: float  # of the intervals, 0.95 for 95 %
    table: NDArray[np.int64]  # (5, 5): pass A down, pass B across
    overall: dict[str, Estimate]  # by coefficient
    labels: dict[str, dict[str, Estimate]]  # by label, then coefficient
    ceiling: dict[str, dict[str, Estimate]]  # by comparison: each label's F1, "macro4", "macro5"

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""

        def plain(group: dict[str, Estimate]) -> dict[str, Any]:
            return {name: estimate.to_json() for name, estimate in group.items()}

        return {
            "sentences": self.sentences,
            "documents": self.documents,
            "resamples": self.resamples,
            "level": self.level,
            "label_order": [str(label) for label in LABELS],
            "confusion_a_rows_b_columns": self.table.tolist(),
            "overall": plain(self.overall),
            "labels": {label: plain(group) for label, group in self.labels.items()},
            "ceiling_f1": {name: plain(group) for name, group in self.ceiling.items()},
        }


# --- coefficients of a table -----------------------------------------------------------------------


def pair_table(
    first: NDArray[np.int64], second: NDArray[np.int64], labels: int = len(LABELS)
) -> NDArray[np.int64]:
    """Counts of label pairs, (labels, labels), from two arrays of label numbers, (sentences,)."""
    return np.bincount(first * labels + second, minlength=labels * labels).reshape(labels, labels)


def one_against_rest(table: Table) -> Table:
    """(..., q, q) -> (..., q, 2, 2): for each label, this label and everything else."""
    both = np.diagonal(table, axis1=-2, axis2=-1)
    first, second = table.sum(-1) - both, table.sum(-2) - both
    neither = table.sum((-2, -1))[..., None] - both - first - second
    return np.stack([np.stack([both, first], -1), np.stack([second, neither], -1)], -2)


def coefficients(table: Table) -> dict[str, NDArray[np.float64]]:
    """Raw agreement, kappa, alpha and AC1 of tables of two passes, (..., q, q) -> (...) each.

    With po the share of pairs on the diagonal, each of the three is (po - pe) / (1 - pe):
    kappa has pe = sum of products of the two passes' shares (Cohen 1960); AC1 has
    pe = sum of m (1 - m) / (q - 1), m the mean of the two shares (Gwet 2008, eq. 3); alpha has the chance
    of the pooled 2n labels drawn without replacement (Krippendorff 2011, nominal, nothing missing).
    NaN where chance alone would agree always, as when both passes gave one and the same label throughout.
    """
    table = np.asarray(table, dtype=float)
    total = table.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        po = np.trace(table, axis1=-2, axis2=-1) / total
        first, second = table.sum(-1) / total[..., None], table.sum(-2) / total[..., None]
        mean = (first + second) / 2
        pooled = table.sum(-1) + table.sum(-2)
        drawn = (pooled * (pooled - 1)).sum(-1) / (2 * total * (2 * total - 1))
        chance = {
            "kappa": (first * second).sum(-1),
            "alpha": drawn,
            "ac1": (mean * (1 - mean)).sum(-1) / (table.shape[-1] - 1),
        }
        found = {name: np.where(pe >= 1 - 1e-12, np.nan, (po - pe) / (1 - pe)) for name, pe in chance.items()}
    return {"raw": po, **found}


def f1_scores(table: Table) -> NDArray[np.float64]:
    """F1 of each label, (..., q, q) -> (..., q); NaN where neither side gave the label."""
    table = np.asarray(table, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores: NDArray[np.float64] = (
            2 * np.diagonal(table, axis1=-2, axis2=-1) / (table.sum(-1) + table.sum(-2))
        )
    return scores


def package_coefficients(
    first: NDArray[np.int64], second: NDArray[np.int64], labels: int
) -> dict[str, float]:
    """Kappa by scikit-learn and alpha by `krippendorff`, for the values that are printed.

    Resamples use `coefficients`, a thousand tables at once; a test holds the two to each other. AC1 has no
    package that can be installed beside a current NumPy; a test holds it to hand-worked cases.
    """
    import krippendorff
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(first, second)) < 2:
        return {"kappa": float("nan"), "alpha": float("nan")}
    domain = list(range(labels))
    alpha = krippendorff.alpha(np.stack([first, second]), value_domain=domain, level_of_measurement="nominal")
    return {"kappa": float(cohen_kappa_score(first, second, labels=domain)), "alpha": float(alpha)}


# --- the comparison ----------------------------------------------------------------------------------


def compare_passes(
    first: Sequence[str],
    second: Sequence[str],
    final: Sequence[str],
    documents: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    tick: Callable[[int], None] | None = None,
) -> Agreement:
    """Agreement of two passes, and the ceiling, with intervals from resampled documents.

    Args:
        first: pass A's labels, one a sentence.
        second: pass B's.
        final: the adjudicated labels.
        documents: the document of each sentence; whole documents are drawn, with replacement.
        resamples: how many; percentile intervals need about a thousand.
        seed: of the draws.
        level: share of resamples inside the interval, 0.95 for 95 %.
        tick: told how many resamples were just done, for a progress bar.

    Raises:
        ValueError: no sentences, lengths that differ, an unknown label, or numbers out of range.
    """
    if not len(first) == len(second) == len(final) == len(documents) or not len(first):
        sizes = [len(first), len(second), len(final), len(documents)]
        raise ValueError(
            f"labels of A, B, final and documents have {sizes} entries: give one each per sentence"
        )
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples is {resamples} and level {level}: expected 1 or more, and a share")
    a, b, c = (np.array([label_index(label) for label in labels]) for labels in (first, second, final))
    tables = _document_tables([(a, b), (a, c), (b, c)], documents)
    value = _statistics(tables.sum(0)) | _by_packages(a, b)
    drawn = _resample(tables, resamples, seed, tick)
    estimates = {name: _estimate(value[name], drawn[name], level) for name in value}
    coefficient = {name: estimates[name] for name in COEFFICIENTS}
    return Agreement(
        sentences=len(a),
        documents=len(tables),
        resamples=resamples,
        level=level,
        table=pair_table(a, b),
        overall={name: _first(coefficient[name], len(LABELS)) for name in COEFFICIENTS},
        labels={
            str(lab): {n: _first(coefficient[n], i) for n in COEFFICIENTS} for i, lab in enumerate(LABELS)
        },
        ceiling={name: _ceiling(estimates[name]) for name in COMPARISONS},
    )


def _document_tables(
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], documents: Sequence[str]
) -> Table:
    """(documents, pairs, 5, 5): each document's tables."""
    names, number = np.unique(np.asarray(documents, dtype=str), return_inverse=True)
    q = len(LABELS)
    tables = np.zeros((len(names), len(pairs), q, q))
    for i, (first, second) in enumerate(pairs):
        cell = (number * q + first) * q + second
        tables[:, i] = np.bincount(cell, minlength=len(names) * q * q).reshape(len(names), q, q)
    return tables


def _statistics(tables: Table) -> dict[str, NDArray[np.float64]]:
    """Tables (..., 3, 5, 5) -> coefficients (..., labels + overall) and F1s (..., labels + 2 means)."""
    passes = tables[..., 0, :, :]
    alone, overall = coefficients(one_against_rest(passes)), coefficients(passes)
    found = {name: np.concatenate([alone[name], overall[name][..., None]], -1) for name in COEFFICIENTS}
    f1 = f1_scores(tables)
    macros = [_mean(f1[..., : len(STANCES)]), _mean(f1)]
    scores = np.concatenate([f1, np.stack(macros, -1)], -1)
    found |= {name: scores[..., i, :] for i, name in enumerate(COMPARISONS[:3])}
    return found | {COMPARISONS[3]: (scores[..., 1, :] + scores[..., 2, :]) / 2}


def _mean(f1: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the labels that somebody gave; NaN if nobody gave any."""
    given = ~np.isnan(f1)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(given, f1, 0).sum(-1) / given.sum(-1)
    return mean


def _by_packages(a: NDArray[np.int64], b: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    each = [package_coefficients((a == i).astype(int), (b == i).astype(int), 2) for i in range(len(LABELS))]
    each.append(package_coefficients(a, b, len(LABELS)))
    return {name: np.array([one[name] for one in each]) for name in ("kappa", "alpha")}


def _resample(
    tables: Table, resamples: int, seed: int, tick: Callable[[int], None] | None
) -> dict[str, NDArray[np.float64]]:
    """Statistics of each resample, first axis."""
    rng = np.random.default_rng(seed)
    n = len(tables)
    flat = tables.reshape(n, -1)
    parts = []
    for done in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - done)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=size)  # (resamples, documents)
        parts.append(_statistics((weights @ flat).reshape(size, *tables.shape[1:])))
        if tick:
            tick(size)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _estimate(value: NDArray[np.float64], drawn: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """(k,) values and (resamples, k) draws -> (k, 3): value, low, high; undefined draws are passed over."""
    found = np.full((len(value), 3), np.nan)
    for i, number in enumerate(value):
        column = drawn[:, i][~np.isnan(drawn[:, i])]
        if not np.isnan(number) and len(column):
            found[i] = number, *np.quantile(column, [(1 - level) / 2, (1 + level) / 2])
    return found


def _first(estimates: NDArray[np.float64], i: int) -> Estimate:
    return Estimate(*(float(number) for number in estimates[i]))


def _ceiling(estimates: NDArray[np.float64]) -> dict[str, Estimate]:
    names = [*map(str, LABELS), "macro4", "macro5"]
    return {name: _first(estimates, i) for i, name in enumerate(names)}
