"""The verdict: three sentences that follow from the report's numbers and from nothing else.

for sentence in verdict(report):
    print(sentence)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from communique.eval.figures import shown
from communique.eval.views import NAMES
from communique.model.labels import STANCES

if TYPE_CHECKING:
    from communique.eval.report import Report


def verdict(report: Report) -> list[str]:
    """How good, against what, and where it fails: one sentence each."""
    return [_how_good(report), _against_what(report), _where_not(report)]


def _how_good(report: Report) -> str:
    model, rows = report.systems[0], len(report.table.rows)
    place = f"On {rows:,} sentences of {len(set(report.table.documents)):,} documents, {model.name}"
    absent = [name for name, n in zip(NAMES, report.support, strict=True) if n == 0]
    if model.macro4.value is None:
        return (
            f"{place} has an accuracy of {shown(model.accuracy)}; macro-F1 is not estimable, since no "
            f"sentence is labelled {' or '.join(absent)}."
        )
    return (
        f"{place} reaches a macro-F1 of {shown(model.macro4)} over the four stances and of "
        f"{shown(model.macro5)} over all five labels."
    )


def _against_what(report: Report) -> str:
    scored = [s for s in report.systems if s.name in report.baselines and s.macro4.value is not None]
    if not scored:
        return "How it stands beside the baselines is not estimable from this table."
    best = max(scored, key=lambda s: s.macro4.value or 0)
    gap = report.gaps[best.name]
    words = f"The strongest baseline, {best.name}, reaches {shown(best.macro4)}"
    if gap.low is None or gap.high is None or gap.value is None:
        return f"{words}; too few documents to say whether the difference is real."
    if gap.low > 0:
        means = "the model is better"
    elif gap.high < 0:
        means = "the model is worse"
    else:
        means = "the table cannot tell them apart"
    said = f"{words}, a difference of {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]: {means}"
    top = report.ceiling["macro4"] if report.ceiling else None
    if top is None or top.value is None:
        return f"{said}."
    return f"{said}, where one annotator read against the other reaches {shown(top)}."


def _where_not(report: Report) -> str:
    model = report.systems[0]
    known = {n: model.f1[n].value for n in map(str, STANCES) if model.f1[n].value is not None}
    parts = []
    if known:
        worst = min(known, key=lambda name: known[name] or 0)
        n = int(report.support[NAMES.index(worst)])
        parts.append(f"its weakest stance is {worst} (F1 {shown(model.f1[worst])}, {n:,} sentences)")
    if report.confused:
        pair = report.confused[0]
        parts.append(
            f"it takes {pair.gold} for {pair.found} most often ({pair.count:,} times, {pair.share:.0%})"
        )
    else:
        parts.append("it makes no mistake in this table")
    parts.append(f"its probabilities are off by {report.ece:.3f} on average")
    sentence = ", ".join(parts[:-1]) + ", and " + parts[-1] + "."
    return sentence[0].upper() + sentence[1:]
