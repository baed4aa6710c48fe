"""The agreement of two passes as tables for the terminal.

communique data agree
"""

from __future__ import annotations

import math

from rich.console import Group
from rich.table import Table

from communique.eval.agreement import COEFFICIENTS, COMPARISONS, Agreement, Estimate
from communique.model.labels import LABELS

_HEADINGS = {
    "raw": "raw agreement",
    "kappa": "Cohen's κ",
    "alpha": "Krippendorff's α",
    "ac1": "Gwet's AC1",
    "a_b": "A against B",
    "a_final": "A against final",
    "b_final": "B against final",
    "passes_final": "mean of A, B against final",
}


def agreement_tables(report: Agreement) -> Group:
    """Coefficients, the confusion of the passes, and the ceiling, one under the other."""
    return Group(_coefficients(report), _confusion(report), _ceiling(report))


def _coefficients(report: Agreement) -> Table:
    title = f"Agreement of two passes: {report.sentences:,} sentences, {report.documents:,} documents"
    caption = f"brackets: {report.level:.0%} interval from {report.resamples:,} resamples of documents"
    table = Table(title=title, caption=caption)
    table.add_column("label")
    for name in COEFFICIENTS:
        table.add_column(_HEADINGS[name], justify="right")
    for label, group in report.labels.items():
        table.add_row(f"{label} or not", *(_cell(group[name]) for name in COEFFICIENTS))
    table.add_section()
    table.add_row("all five", *(_cell(report.overall[name]) for name in COEFFICIENTS), style="bold")
    return table


def _confusion(report: Agreement) -> Table:
    table = Table(title="Confusion of the passes", caption="rows: pass A, columns: pass B")
    table.add_column("A \\ B")
    for label in LABELS:
        table.add_column(label, justify="right")
    table.add_column("all", justify="right")
    for label, counts in zip(LABELS, report.table.tolist(), strict=True):
        table.add_row(label, *(f"{count:,}" for count in counts), f"{sum(counts):,}")
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in report.table.sum(0).tolist()), f"{report.sentences:,}")
    return table


def _ceiling(report: Agreement) -> Table:
    caption = "A against B: neither saw the other. Against final: each had a say in it, an upper value."
    table = Table(title="The ceiling: F1 of a pass read as an answer", caption=caption)
    table.add_column("label")
    for name in COMPARISONS:
        table.add_column(_HEADINGS[name], justify="right")
    for label in LABELS:
        table.add_row(label, *(_cell(report.ceiling[name][label]) for name in COMPARISONS))
    table.add_section()
    for name, heading in (("macro4", "mean of four stances"), ("macro5", "mean of all five")):
        table.add_row(heading, *(_cell(report.ceiling[which][name]) for which in COMPARISONS), style="bold")
    return table


def _cell(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]".replace("[", "\\[")
