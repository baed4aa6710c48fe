"""Two reports side by side: what changed from one to the other, paired by document where they can be.

    communique eval compare reports/old/report.json reports/new/report.json

Reports of the same sentences with the same gold labels are compared on the same resamples of documents,
and by McNemar's test; others only beside each other, since their difference says nothing of the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from communique.eval.compare import difference, mcnemar_p
from communique.eval.figures import shown
from communique.eval.metrics import Floats
from communique.eval.resample import UNKNOWN, Number, Resampler
from communique.eval.views import NAMES
from communique.model.errors import InputError
from communique.model.labels import LABELS

if TYPE_CHECKING:
    from rich.table import Table as Printed

MEANS = ("macro4", "macro5", "accuracy")


@dataclass(frozen=True)
class Line:
    """One score in both reports, and the second less the first."""

    name: str
    first: Number
    second: Number
    gap: Number


@dataclass(frozen=True)
class ReportComparison:
    """What two reports say, and what can be said of their difference."""

    first: str
    second: str
    paired: bool
    """Whether they are of the same sentences with the same gold labels."""
    lines: list[Line]
    mended: int
    """Sentences that only the second has right."""
    broken: int
    """Sentences that only the first has right."""
    p_value: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where not estimable."""
        lines = [
            {"score": x.name, **{k: getattr(x, k).to_json() for k in ("first", "second", "gap")}}
            for x in self.lines
        ]
        named = {k: getattr(self, k) for k in ("first", "second", "paired", "mended", "broken")}
        return {**named, "mcnemar_p": self.p_value, "lines": lines}


def compare_reports(
    first: Mapping[str, Any], second: Mapping[str, Any], *, resamples: int = 1000, seed: int = 0
) -> ReportComparison:
    """Compare the first system of two `report.json`.

    Raises:
        InputError: a report lacks what is compared.
    """
    try:
        paired = first["head"]["gold_sha256"] == second["head"]["gold_sha256"]
        names = [report["head"]["model"] for report in (first, second)]
        scores = [_scores(report["systems"][0]) for report in (first, second)]
        gaps = _gaps(first["tables"], second["tables"], resamples, seed) if paired else {}
        wrong = [{(w["doc_id"], w["sent_id"]) for w in report["wrong"]} for report in (first, second)]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"a report lacks {error}: write both with `communique eval` again") from None
    mended, broken = len(wrong[0] - wrong[1]), len(wrong[1] - wrong[0])
    lines = [Line(name, scores[0][name], scores[1][name], gaps.get(name, UNKNOWN)) for name in scores[0]]
    p_value = mcnemar_p(broken, mended) if paired else None
    return ReportComparison(
        names[0], names[1], paired, lines, mended if paired else 0, broken if paired else 0, p_value
    )


def _scores(system: Mapping[str, Any]) -> dict[str, Number]:
    means = {name: Number(**system[name]) for name in MEANS}
    return {**means, **{f"F1 {name}": Number(**system["f1"][name]) for name in NAMES}}


def _gaps(
    first: Mapping[str, Any], second: Mapping[str, Any], resamples: int, seed: int
) -> dict[str, Number]:
    """Second less first of each score, on the same resamples of documents."""
    from communique.eval.resample import scores_of

    counts = [
        np.array([tables[doc] for doc in sorted(tables)], dtype=float).reshape(-1, len(LABELS), len(LABELS))
        for tables in (first, second)
    ]
    support = counts[0].sum(axis=(0, 2)).astype(np.int64)
    resampler = Resampler(len(counts[0]), resamples=resamples, seed=seed)
    means = difference(counts[1], counts[0], support, resampler)

    def f1(tables: Floats) -> Floats:
        gap: Floats = scores_of(tables[:, 1])["f1"] - scores_of(tables[:, 0])["f1"]
        return gap

    each = resampler.estimate(np.stack(counts, axis=1), f1)
    labels = {
        f"F1 {name}": n if support[i] else UNKNOWN
        for i, (name, n) in enumerate(zip(NAMES, each, strict=True))
    }
    return {**dict(zip(MEANS, means, strict=True)), **labels}


def printed(found: ReportComparison) -> Printed:
    """The comparison for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    if found.paired:
        p = "not estimable" if found.p_value is None else f"{found.p_value:.3g}"
        below = f"{found.mended} sentences mended, {found.broken} broken; McNemar p {p}"
    else:
        below = "not the same sentences and labels: the difference says nothing of the models"
    table = Table(title=f"{found.first} -> {found.second}", caption=below)
    table.add_column("score")
    for name in (found.first, found.second, "second less first"):
        table.add_column(name, justify="right")
    for x in found.lines:
        table.add_row(x.name, *(escape(shown(n)) for n in (x.first, x.second, x.gap)))
    return table
