"""Rows whose label is the likely mistake, not the model's: candidates for annotating again.

    for i in label_issues(table):
        print(table.rows[i].gold, table.rows[i].text)

Confident learning (Northcutt, Jiang and Chuang 2021; `cleanlab`): a row is a candidate where a model that
never saw it is surer of another label than it usually is of that label. The probabilities must be
out-of-fold, or of rows that were held out: a model agrees with the labels it was trained on.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from communique.eval.table import Row, Table
from communique.model.errors import InputError
from communique.model.jsonl import read_jsonl
from communique.model.labels import LABELS


@dataclass(frozen=True)
class Candidate:
    """A row whose label may be the mistake."""

    row: Row
    p_gold: float
    """Probability of the label that it has."""
    likely: str
    """The most probable label."""
    p_likely: float


@dataclass(frozen=True)
class Doubts:
    """The candidates of a table, the likeliest mistake first."""

    rows: int
    """Of the table."""
    candidates: list[Candidate]


def doubts(table: Table) -> Doubts:
    """The candidates with what the model says of them; the probabilities must be out-of-fold."""
    found = []
    for i in label_issues(table):
        p = table.probabilities[i]
        best = int(p.argmax())
        found.append(Candidate(table.rows[i], float(p[table.truth[i]]), str(LABELS[best]), float(p[best])))
    return Doubts(len(table.rows), found)


def label_issues(table: Table) -> list[int]:
    """Places of the candidates in the table, the likeliest mistake first."""
    from cleanlab.filter import find_label_issues

    if len(set(table.truth.tolist())) < 2:
        return []  # one label cannot be taken for another
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all label issues")  # a label that has no row
        ranked = find_label_issues(
            table.truth, table.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    return [int(i) for i in ranked]


def require_folds(path: Path) -> None:
    """See that every row of a table says which fold its probabilities were made without.

    Raises:
        InputError: a row has no `fold`.
    """
    for place, record in read_jsonl(path):
        if record.get("fold") is None:
            raise InputError(
                f"{place}: no fold: probabilities of a model that was trained on the row hide its mistakes; "
                "give out-of-fold ones, or say --held-out if the model saw none of the rows"
            )
