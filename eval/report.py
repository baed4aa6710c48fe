"""The evaluation report: every view of a table of predictions, computed once.

    communique eval my-model/ --data test --out report/              # a model on a split
    communique eval report test.jsonl --train train.jsonl --out report/
    communique eval report mine.jsonl theirs.jsonl --out report/     # two models on the same sentences

`build` computes every view once; `report_page.write` prints them. A number that the rows cannot carry is None
and reads "not estimable".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from communique.eval import baselines, generalise, slices, views
from communique.eval.compare import Comparison, compare, difference
from communique.eval.conformal import ConformalLevel, conformal
from communique.eval.label_issues import Doubts, doubts
from communique.eval.metrics import RESAMPLES, Floats, Ints, calibration_error
from communique.eval.resample import Number, Resampler
from communique.eval.table import Row, Table, align
from communique.eval.views import NAMES
from communique.model.errors import InputError
from communique.model.labels import LABELS


@dataclass(frozen=True)
class Settings:
    """How the report is made; all of it is printed in its head."""

    resamples: int = RESAMPLES
    seed: int = 0
    min_rows: int = slices.MIN_ROWS
    errors: int = 50
    """Wrong sentences listed at most."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < (1 if name in ("resamples", "min_rows") else 0):
                raise InputError(f"{name} is {value}: give a positive number")


@dataclass(frozen=True)
class Head:
    """What was evaluated, by which command, when."""

    command: str
    when: str
    files: Mapping[str, str]
    """File -> SHA-256."""
    versions: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    """What keeps the numbers from being believed, such as documents that a model has learnt from."""
    notes: tuple[str, ...] = ()
    """What could not be checked or was left out."""
    split: str = ""
    """Of the annotations, where the sentences are one; empty where they come from a file."""


@dataclass(frozen=True, eq=False)
class Report:
    """All views of one table, ready to print."""

    head: Head
    settings: Settings
    table: Table
    support: Ints
    counts: Ints
    """Confusion, (5, 5), rows the truth."""
    systems: list[views.SystemScores]
    """The model first, then the other models, then the baselines."""
    gaps: dict[str, Number]
    """Macro-F1 of the four stances: the model less each baseline, paired."""
    baselines: tuple[str, ...]
    shares_from: str
    ceiling: dict[str, Number] | None
    random: views.RandomRows
    confused: list[views.ConfusedPair]
    bins: list[views.Bin]
    ece: float
    brier: float
    curve: list[views.Kept]
    threshold: views.Kept | None
    coverage: list[views.Kept]
    slices: list[slices.Slice]
    comparisons: list[Comparison]
    wrong: list[views.Wrong]
    doubts: Doubts | None
    """Labels worth a second look; None where no out-of-fold table was given."""
    behaviour: Mapping[str, Any] | None
    conformal: list[ConformalLevel] | None
    calibration_rows: int
    decay: Number
    """Change of accuracy a year."""
    results: list[generalise.Result]
    speed: float | None
    """Sentences per second of the model on the machine that made the report."""


def build(
    tables: Sequence[Table],
    head: Head,
    *,
    train: Sequence[Row] = (),
    behaviour: Mapping[str, Any] | None = None,
    calibration: Table | None = None,
    results: Sequence[generalise.Result] = (),
    folds: Table | None = None,
    speed: float | None = None,
    settings: Settings | None = None,
) -> Report:
    """Compute every view.

    Args:
        tables: of the model, and of others to compare it with on the same sentences.
        head: what the head says.
        train: labelled rows for the learned baseline; their documents must not be in the table.
        behaviour: what `communique eval behaviour --json` wrote.
        calibration: dev rows with the first table's model's probabilities, for conformal sets.
        results: trainings with something held out, for generalisation and the learning curve.
        folds: annotated rows with out-of-fold probabilities, for labels worth a second look.
        speed: sentences per second of the first model.
        settings: resamples, seed, limits.

    Raises:
        InputError: tables of different sentences, or training rows from the table's documents.
    """
    settings = settings or Settings()
    table, others = tables[0], [align(tables[0], other) for other in tables[1:]]
    _apart(table, train)
    resampler = Resampler(len(set(table.documents)), resamples=settings.resamples, seed=settings.seed)
    support = np.bincount(table.truth, minlength=len(LABELS))
    counts = views.counts_of(table, table.found)
    drawn = views.random_rows(table)
    answers = {t.name: t.found for t in [table, *others]}
    if len(answers) <= len(others):
        raise InputError(f"two tables are of a model {table.name!r}: give each its own `model` field")
    rivals = _baselines(table, train, settings.seed)
    if answers.keys() & rivals.keys():
        raise InputError(
            f"a model has the name of a baseline ({', '.join(rivals)}): change its `model` field"
        )
    tested = {**{n: _both(table, found) for n, found in answers.items()}, **rivals}
    systems = [
        views.system_scores(name, plain, weighted, support, drawn, resampler)
        for name, (plain, weighted) in tested.items()
    ]
    return Report(
        head=head,
        settings=settings,
        table=table,
        support=support,
        counts=counts.sum(axis=0).astype(int),
        systems=systems,
        gaps={n: difference(counts, rivals[n][0], support, resampler)[0] for n in rivals},
        baselines=tuple(rivals),
        shares_from="the training table" if train else "this table",
        ceiling=views.ceiling(table, settings.resamples, settings.seed),
        random=drawn,
        confused=views.confused_pairs(table),
        bins=views.reliability(table),
        ece=calibration_error(table.truth, table.probabilities),
        brier=views.brier(table),
        curve=views.risk_coverage(table),
        threshold=views.kept_at(table, table.threshold) if table.threshold > 0 else None,
        coverage=_coverage(views.risk_coverage(table, points=len(table.rows))),
        slices=slices.slices(table, resampler, settings.min_rows),
        comparisons=[compare(table, other, resampler) for other in others],
        wrong=views.errors(table),
        doubts=doubts(folds) if folds else None,
        behaviour=behaviour,
        conformal=conformal(calibration, table, resampler) if calibration else None,
        calibration_rows=len(calibration.rows) if calibration else 0,
        decay=generalise.decay(table, resampler),
        results=list(results),
        speed=speed,
    )


def _apart(table: Table, train: Sequence[Row]) -> None:
    shared = sorted({row.doc_id for row in train} & set(table.documents))
    if shared:
        raise InputError(
            f"{len(shared)} documents are in the training table and in {table.name}, first {shared[0]!r}: "
            "take them out of one"
        )


def _both(table: Table, found: Ints) -> tuple[Floats, Floats]:
    return views.counts_of(table, found), views.counts_of(table, found, weighted=True)


def _baselines(table: Table, train: Sequence[Row], seed: int) -> dict[str, tuple[Floats, Floats]]:
    """Confusion tables of documents, as they are and weighted, of each baseline."""
    known = np.array([NAMES.index(row.gold) for row in train]) if train else table.truth
    shares = baselines.label_shares(known)
    plain, weighted = _both(table, table.truth)
    found = {
        "chance": (baselines.chance_tables(plain, shares), baselines.chance_tables(weighted, shares)),
        "most frequent": _both(table, baselines.majority_labels(len(table.rows), shares)),
        "keyword rules": _both(table, baselines.keyword_labels(table.rows)),
    }
    if train:
        try:
            found["TF-IDF + logistic"] = _both(table, baselines.tfidf_labels(train, table.rows, seed))
        except ValueError as error:
            raise InputError(f"the training table: {error}") from None
    return found


def _coverage(curve: Sequence[views.Kept]) -> list[views.Kept]:
    """The least that can be kept of at least 50, 60, … 100 %."""
    return [next(k for k in curve if k.coverage >= share - 1e-9) for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
