"""Conformal sets: for each sentence the labels that cannot be ruled out, calibrated on rows kept apart.

    for level in conformal(dev, test, resampler):
        print(level.nominal, level.coverage["demand"], level.size)

Class-conditional (Mondrian) sets: a label stays in the set unless its probability is lower than that of
nearly all calibration rows that have the label, so that the coverage is promised for each label and not
only on average (Vovk, Gammerman and Shafer 2005; Boström 2024, `crepes`). The promise needs calibration
and test rows to be exchangeable; the empirical coverage beside it shows how far that holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from communique.eval.metrics import Floats
from communique.eval.resample import UNKNOWN, Number, Resampler, ratio
from communique.eval.table import Table
from communique.eval.views import NAMES
from communique.model.errors import InputError
from communique.model.labels import LABELS

LEVELS = (0.8, 0.9, 0.95)


@dataclass(frozen=True)
class ConformalLevel:
    """Sets of one nominal coverage."""

    nominal: float
    coverage: dict[str, Number]
    """Share of the label's sentences whose set holds it; interval from resampled documents."""
    overall: Number
    size: float
    """Labels in a set, on average."""
    single: float
    """Share of sets with one label."""
    empty: float
    """Share of sets with none: the sentence is like no calibration row."""


def conformal(calibration: Table, table: Table, resampler: Resampler) -> list[ConformalLevel]:
    """Sets at each of `LEVELS`, and how often they hold the truth.

    Args:
        calibration: rows of other documents than the table's, with the same model's probabilities.
        table: rows to make sets for.
        resampler: of the table's documents.

    Raises:
        InputError: documents stand in both tables.
    """
    shared = sorted(set(calibration.documents) & set(table.documents))
    if shared:
        raise InputError(
            f"{len(shared)} documents are in the calibration table and in {table.name}, first {shared[0]!r}: "
            "calibrate on other documents"
        )
    p_values = _p_values(calibration, table)
    known = np.bincount(calibration.truth, minlength=len(LABELS)) > 0
    return [_level(table, p_values >= 1 - level, known, level, resampler) for level in LEVELS]


def _p_values(calibration: Table, table: Table) -> Floats:
    """(rows, 5): how a label's score compares with the calibration rows that have the label."""
    from crepes import ConformalClassifier
    from crepes.extras import hinge

    scores = hinge(calibration.probabilities)[np.arange(len(calibration.rows)), calibration.truth]
    fitted = ConformalClassifier().fit(scores, bins=calibration.truth)
    alphas = hinge(table.probabilities)
    columns = np.ones(alphas.shape)  # a label without calibration rows is never ruled out
    for label in np.unique(calibration.truth):
        bins = np.full(len(alphas), label)
        columns[:, label] = fitted.predict_p(alphas, bins=bins, smoothing=False)[:, label]
    return columns


def _level(
    table: Table,
    sets: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    known: np.ndarray[tuple[int], np.dtype[np.bool_]],
    nominal: float,
    resampler: Resampler,
) -> ConformalLevel:
    names, found = np.unique(np.asarray(table.documents), return_inverse=True)
    place = found.astype(np.int64)
    zero, one = np.zeros_like(place), np.ones_like(place)
    counts = np.zeros((len(names), 2, len(LABELS)))  # rows of a label, and those whose set holds it
    inside = sets[np.arange(len(sets)), table.truth]
    np.add.at(counts, (place, zero, table.truth), 1)
    np.add.at(counts, (place, one, table.truth), inside)

    def covered(totals: Floats) -> Floats:  # (n, 2, 5) -> (n, 6)
        both = np.concatenate([totals, totals.sum(axis=2, keepdims=True)], axis=2)
        return np.where(both[:, 0] > 0, ratio(both[:, 1], both[:, 0]), np.nan)

    each = resampler.estimate(counts, covered)
    sizes = sets.sum(axis=1)
    return ConformalLevel(
        nominal,
        {name: n if ok else UNKNOWN for name, n, ok in zip(NAMES, each, known, strict=False)},
        each[-1],
        float(sizes.mean()),
        float((sizes == 1).mean()),
        float((sizes == 0).mean()),
    )
