"""The report's views: small pure functions from an evaluation table to numbers, None where not estimable.

    table = read_table(Path("test.jsonl"))
    views.system_scores("model", table, table.found, resampler)

What each view shows, and how, is in `eval/report_page.py` and `eval/templates/report.html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from communique.eval.agreement import compare_passes
from communique.eval.metrics import BINS, MIN_DOCUMENTS, Floats, Ints
from communique.eval.resample import UNKNOWN, Number, Resampler, document_tables, scores_of
from communique.eval.table import Row, Table
from communique.model.labels import LABELS, STANCES

MIN_WEIGHTED = 30
"""Random rows below which no estimate for the random sample is given."""
MIN_LABEL_ROWS, MIN_LABEL_DOCUMENTS = 10, 5
"""Random rows of a label, and documents that hold them, below which its weighted F1 is not given: with six
rows, one sentence more or less moves it by ten points, and the bootstrap cannot show what it never drew."""
NAMES = tuple(map(str, LABELS))


# --- scores ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SystemScores:
    """The scores of one system on the table."""

    name: str
    macro4: Number
    macro5: Number
    accuracy: Number
    precision: dict[str, Number]
    recall: dict[str, Number]
    f1: dict[str, Number]
    weighted4: Number
    """Macro-F1 of the four stances on the random rows, weighted by 1 / inclusion probability."""
    weighted5: Number
    weighted_accuracy: Number
    weighted_f1: dict[str, Number]


@dataclass(frozen=True)
class RandomRows:
    """The rows that were drawn at random with known probability."""

    rows: int
    by_label: dict[str, tuple[int, int]]
    """Label -> its rows, and the documents that they are of."""

    @property
    def enough(self) -> bool:
        """Whether anything is estimated from them."""
        return self.rows >= MIN_WEIGHTED

    @property
    def labels(self) -> list[str]:
        """Labels whose F1 is estimated from them."""
        floor = MIN_LABEL_ROWS, MIN_LABEL_DOCUMENTS
        carried = [name for name, (n, m) in self.by_label.items() if n >= floor[0] and m >= floor[1]]
        return carried if self.enough else []


def random_rows(table: Table) -> RandomRows:
    """The rows with a weight, counted."""
    drawn = [row for row in table.rows if row.weight is not None]
    of = {name: [row.doc_id for row in drawn if row.gold == name] for name in NAMES}
    return RandomRows(len(drawn), {name: (len(docs), len(set(docs))) for name, docs in of.items()})


def counts_of(table: Table, found: Ints, *, weighted: bool = False) -> Floats:
    """Confusion tables of the documents, (documents, 5, 5); weighted: of the random rows, by their weight."""
    weights = np.array([row.weight or 0.0 for row in table.rows]) if weighted else None
    return document_tables(table.truth, found, table.documents, weights)


def system_scores(
    name: str,
    counts: Floats,
    weighted: Floats,
    support: Ints,
    drawn: RandomRows,
    resampler: Resampler,
) -> SystemScores:
    """Scores with intervals from confusion tables of documents.

    Args:
        name: of the system.
        counts: (documents, 5, 5) of all rows.
        weighted: the same of the random rows, weighted.
        support: gold rows of each label, (5,): a score of a label without rows is not estimable, and with
            it no mean that includes the label.
        drawn: the random rows: a weighted score of a label that has too few is not estimable either.
        resampler: of the table's documents.
    """
    each = {key: _scores(counts, key, resampler) for key in ("precision", "recall", "f1")}
    there = support > 0
    for key, numbers in each.items():
        predicted = counts.sum(axis=(0, 1)) > 0
        known = there & predicted if key == "precision" else there
        each[key] = [n if ok else UNKNOWN for n, ok in zip(numbers, known, strict=True)]
    four, five = bool(there[: len(STANCES)].all()), bool(there.all())
    carried = {name: name in drawn.labels for name in NAMES}
    w_f1 = zip(NAMES, _scores(weighted, "f1", resampler), strict=True)
    return SystemScores(
        name,
        _scores(counts, "macro4", resampler)[0] if four else UNKNOWN,
        _scores(counts, "macro5", resampler)[0] if five else UNKNOWN,
        _scores(counts, "accuracy", resampler)[0],
        **{key: dict(zip(NAMES, numbers, strict=True)) for key, numbers in each.items()},
        weighted4=_scores(weighted, "macro4", resampler)[0]
        if all(carried[name] for name in map(str, STANCES))
        else UNKNOWN,
        weighted5=_scores(weighted, "macro5", resampler)[0] if all(carried.values()) else UNKNOWN,
        weighted_accuracy=_scores(weighted, "accuracy", resampler)[0] if drawn.enough else UNKNOWN,
        weighted_f1={label: n if carried[label] else UNKNOWN for label, n in w_f1},
    )


def _scores(counts: Floats, key: str, resampler: Resampler) -> list[Number]:
    return resampler.estimate(counts, lambda tables: scores_of(tables)[key])


def ceiling(table: Table, resamples: int, seed: int) -> dict[str, Number] | None:
    """F1 of annotator A read as an answer, against B, by label and "macro4", "macro5"; None without both."""
    rows = [row for row in table.rows if row.label_a and row.label_b]
    documents = len({row.doc_id for row in rows})
    if documents < 2:
        return None
    report = compare_passes(
        [str(row.label_a) for row in rows],
        [str(row.label_b) for row in rows],
        [row.gold for row in rows],
        [row.doc_id for row in rows],
        resamples=resamples,
        seed=seed,
    )
    found = {name: Number(**e.to_json()) for name, e in report.ceiling["a_b"].items()}
    return found if documents >= MIN_DOCUMENTS else {name: Number(n.value) for name, n in found.items()}


# --- confusion ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConfusedPair:
    """A gold label, what it was taken for, how often, and the surest examples."""

    gold: str
    found: str
    count: int
    share: float
    """Of the gold label's rows."""
    examples: list[Row]


def confused_pairs(table: Table, most: int = 6, examples: int = 3) -> list[ConfusedPair]:
    """The most frequent confusions, largest first."""
    counts = counts_of(table, table.found).sum(axis=0)
    cells = [(int(counts[i, j]), i, j) for i in range(len(LABELS)) for j in range(len(LABELS)) if i != j]
    wrong = errors(table)
    pairs = []
    for count, i, j in sorted(cells, key=lambda cell: (-cell[0], cell[1:]))[:most]:
        if count:
            rows = [e.row for e in wrong if (e.row.gold, e.found) == (NAMES[i], NAMES[j])][:examples]
            pairs.append(ConfusedPair(NAMES[i], NAMES[j], count, count / counts[i].sum(), rows))
    return pairs


# --- calibration -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Sentences of like confidence: how sure, and how often right."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Kept:
    """What is left when only the sentences at least this sure are kept."""

    confidence: float
    coverage: float
    risk: float
    """Share of wrong labels among the kept."""


def reliability(table: Table, bins: int = BINS) -> list[Bin]:
    """The bins, of equal count, that the expected calibration error is the mean gap of."""
    confidence = table.probabilities.max(axis=1)
    right = table.probabilities.argmax(axis=1) == table.truth
    order = np.argsort(confidence, kind="stable")
    return [
        Bin(len(part), float(confidence[part].mean()), float(right[part].mean()))
        for part in np.array_split(order, min(bins, len(order)))
    ]


def brier(table: Table) -> float:
    """Mean squared distance of the five probabilities from the truth, in [0, 2] (Brier 1950)."""
    truth = np.eye(len(LABELS))[table.truth]
    return float(((table.probabilities - truth) ** 2).sum(axis=1).mean())


def kept_at(table: Table, confidence: float) -> Kept | None:
    """Coverage and risk where the label chosen has at least this share; None if nowhere."""
    keep = table.shares.max(axis=1) >= confidence
    if not keep.any():
        return None
    wrong = table.shares.argmax(axis=1)[keep] != table.truth[keep]
    return Kept(confidence, float(keep.mean()), float(wrong.mean()))


def risk_coverage(table: Table, points: int = 200) -> list[Kept]:
    """The risk-coverage curve (El-Yaniv and Wiener 2010), surest first; ties enter together."""
    confidence = table.probabilities.max(axis=1)
    wrong = table.probabilities.argmax(axis=1) != table.truth
    order = np.argsort(-confidence, kind="stable")
    risks = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))  # where a group of ties ends
    if len(last) > points:
        last = last[np.unique(np.linspace(0, len(last) - 1, points).astype(int))]
    return [Kept(float(confidence[order][i]), (i + 1) / len(order), float(risks[i])) for i in last]


# --- errors ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """A sentence with a wrong label, after abstention."""

    row: Row
    found: str
    confidence: float
    """Probability of the label that came first."""
    p_gold: float
    abstained: bool
    """Whether `none` was given because no stance was probable enough."""


def errors(table: Table) -> list[Wrong]:
    """All wrong sentences, the surest first; abstentions last."""
    wrong = []
    for i in np.flatnonzero(table.found != table.truth):
        p = table.probabilities[i]
        found, best = int(table.found[i]), int(table.shares[i].argmax())
        wrong.append(
            Wrong(
                table.rows[i], NAMES[found], float(p[best]), float(p[table.truth[i]]), abstained=found != best
            )
        )
    return sorted(wrong, key=lambda e: (e.abstained, -e.confidence, e.row.key))


def sampled(rows: Sequence[Row]) -> dict[str, int]:
    """Rows of each kind of sample."""
    names = [row.sample or "not given" for row in rows]
    return {name: names.count(name) for name in sorted(set(names))}
