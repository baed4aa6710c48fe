"""Shares by group as a chart, a CSV, a JSON file and a table for the terminal.

    communique eval shares labelled/records --gold gold.jsonl --by issuer,year --out shares/

`shares.csv` is long: one share a row with its interval and the count it stands for; an empty cell is "not
estimable".
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from communique.eval.figures import BLUE, GREY, ORANGE, Series, share_chart
from communique.eval.predictions import Gold, Predictions
from communique.eval.prevalence import METHODS, GroupShares
from communique.eval.resample import Number
from communique.eval.views import NAMES
from communique.model.jsonl import write_text
from communique.model.labels import STANCES

if TYPE_CHECKING:
    from rich.table import Table as Printed

SCHEMA = "communique-shares-1"
SHOWN = 40
"""Groups drawn at most, those with most sentences."""
_LOOKS = {
    "design": ("design-based", BLUE, "circle"),
    "acc": ("adjusted (ACC)", ORANGE, "square"),
    "emq": ("adjusted (EMQ)", ORANGE, "diamond"),
    "naive": ("naive count", GREY, "cross"),
}


def notes(gold: Gold) -> list[str]:
    """What must be known before any share is believed."""
    import numpy as np

    found = []
    random = int((~np.isnan(gold.weight)).sum())
    if gold.outside:
        found.append(f"{gold.outside} gold rows are no sentences of the records and were left out")
    if not random:
        found.append(
            "no gold row has a weight (1 / its chance of being drawn): nothing can be said from design; if "
            "all rows were drawn with the same chance, say --simple-random"
        )
        found.append("the adjusted shares take the gold rows as they are, which holds if none was sought out")
    elif random < len(gold.row):
        found.append(
            f"{len(gold.row) - random} gold rows without a weight were not drawn at random: left out"
        )
    return found


def to_json(
    groups: Sequence[GroupShares], predictions: Predictions, head: Mapping[str, Any], said: Sequence[str]
) -> str:
    """All numbers; null where not estimable."""
    content = {
        "schema": SCHEMA,
        "head": {**head, "by": list(predictions.by), "model": predictions.model},
        "notes": list(said),
        "groups": [
            {
                "group": dict(zip(predictions.by, g.group, strict=True)) if i else {},
                "sentences": g.sentences,
                "documents": g.documents,
                "gold_rows": g.gold_rows,
                "gold_documents": g.gold_documents,
                "gold_labels": g.gold_labels,
                "shares": {
                    m: {label: n.to_json() for label, n in labels.items()} for m, labels in g.shares.items()
                },
                "warnings": list(g.warnings),
            }
            for i, g in enumerate(groups)
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def to_csv(groups: Sequence[GroupShares], by: Sequence[str]) -> str:
    """One share a row, with the number of sentences that it comes to."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = ("share", "low", "high", "count", "count_low", "count_high")
    writer.writerow([*(by or ("group",)), "label", "method", *numbers, "sentences", "gold_rows", "warnings"])
    for i, g in enumerate(groups):
        cells = g.group if i else ("all",) * max(len(by), 1)
        for method in METHODS:
            for label in NAMES:
                n = g.shares[method][label]
                share = ["" if v is None else f"{v:.6g}" for v in (n.value, n.low, n.high)]
                count = ["" if v is None else f"{v * g.sentences:.1f}" for v in (n.value, n.low, n.high)]
                row = [*cells, label, method, *share, *count, g.sentences, g.gold_rows]
                writer.writerow([*row, "; ".join(g.warnings)])
    return out.getvalue()


def to_svg(groups: Sequence[GroupShares]) -> str:
    """The four stances' shares, one panel each, groups down and methods as shapes."""
    largest = {g.name for g in sorted(groups, key=lambda g: -g.sentences)[:SHOWN]}
    shown = [g for g in groups if g.name in largest]
    panels = {
        str(stance): [
            Series(name, colour, shape, [g.shares[method][str(stance)] for g in shown])
            for method, (name, colour, shape) in _LOOKS.items()
        ]
        for stance in STANCES
    }
    return share_chart(
        "Share of each stance by group, 95 % intervals", [g.name for g in shown], panels
    ).replace('font-family="inherit"', 'font-family="sans-serif"')  # it stands alone


def write(
    folder: Path,
    groups: Sequence[GroupShares],
    predictions: Predictions,
    head: Mapping[str, Any],
    said: Sequence[str],
) -> list[Path]:
    """Write the chart and its numbers into a folder; each file whole or not at all."""
    contents = {
        "shares.svg": to_svg(groups) + "\n",
        "shares.csv": to_csv(groups, predictions.by),
        "shares.json": to_json(groups, predictions, head, said),
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def printed(groups: Sequence[GroupShares], limit: int) -> Printed:
    """The first groups by every method, for the terminal."""
    from rich.table import Table

    table = Table(title="share of each stance, per cent [95 %]", caption="all methods: shares.csv")
    for name in ("group", "sentences", "gold", "method", *map(str, STANCES)):
        table.add_column(name, justify="left" if name in ("group", "method") else "right")
    for g in groups[:limit]:
        for method in METHODS:
            cells = [_cell(g.shares[method][str(stance)]) for stance in STANCES]
            first = (g.name, f"{g.sentences:,}", f"{g.gold_rows:,}") if method == METHODS[0] else ("", "", "")
            table.add_row(*first, method, *cells)
        table.add_section()
    return table


def _cell(n: Number) -> str:
    if n.value is None:
        return "not estimable"
    if n.low is None or n.high is None:
        return f"{n.value * 100:.1f}"
    return f"{n.value * 100:.1f} \\[{n.low * 100:.1f}, {n.high * 100:.1f}]"
