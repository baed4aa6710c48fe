"""A labelled statement as a person reads it on a terminal: colour, mark, probability, sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from communique.model.classifier import Prediction
from communique.model.labels import LABELS, Stance

STYLES: dict[Stance, tuple[str, str]] = {
    Stance.POSITION: ("◆", "bold blue"),
    Stance.DEMAND: ("▲", "bold red"),
    Stance.CONCESSION: ("▼", "bold green"),
    Stance.AGREEMENT: ("●", "bold magenta"),
    Stance.NONE: ("·", "dim"),
}
"""A mark and a style for each label: never colour alone."""


def show(console: Console, title: str, predictions: Sequence[Prediction]) -> None:
    """Print a statement sentence by sentence, then its summary line."""
    console.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(ratio=1)
    for p in predictions:
        mark, style = STYLES[p.label]
        body = Text(" ".join(p.text.split()), style="dim" if p.label is Stance.NONE else "")
        if p.truncated:
            body.append(" [longer than the model reads]", style="yellow")
        table.add_row(Text(f"{mark} {p.label}", style=style), Text(f"{p.probability:.2f}", style="dim"), body)
    console.print(table)
    console.print(summary(predictions))


def summary(predictions: Iterable[Prediction]) -> Text:
    """How many sentences, and how many of each label, in one line."""
    counts = Counter(p.label for p in predictions)
    line = Text(f"{counts.total()} sentence{'' if counts.total() == 1 else 's'}: ")
    for number, label in enumerate(LABELS):
        line.append(", " if number else "")
        line.append(f"{counts[label]} {label}", style=STYLES[label][1])
    return line
