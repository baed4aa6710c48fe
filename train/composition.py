"""What the annotations are made of: counts by label, kind, decade, sample, issuer and split.

communique data check                        # prints the table under its findings
communique data check --json counts.json     # the same, and label x kind x issuer x split
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from communique.model.labels import LABELS
from communique.train.corpus import Sentence

SPLIT_NAMES = ("train", "dev", "test")
COLUMNS = (*SPLIT_NAMES, "unplaced", "real", "own")
"""`unplaced`: real, in no split; `real`: the four before it together; `own`: the project's own statements."""

_SECTIONS: dict[str, Callable[[Sentence], str]] = {
    "label": lambda s: s.row.label,
    "kind": lambda s: s.doc.kind,
    "decade": lambda s: f"{s.doc.date[:3]}0s",
    "sample": lambda s: s.row.sample,
    "passes": lambda s: f"{s.row.passes} ({s.row.decided})",
    "source": lambda s: f"{s.doc.source}{', trade text' if s.doc.trade else ''}",
}


@dataclass(frozen=True)
class Composition:
    """Counts of sentences, documents and issuers."""

    sections: dict[str, dict[str, Counter[str]]]  # section -> value -> column -> sentences
    documents: Counter[str]  # by column
    issuers: Counter[str]
    sentences: Counter[str]
    crossed: Counter[tuple[str, str, str, str]]  # (label, kind, issuer, column) -> sentences

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        names = ("label", "kind", "issuer", "split")
        return {
            "sentences": dict(self.sentences),
            "documents": dict(self.documents),
            "issuers": dict(self.issuers),
            **{
                name: {value: dict(count) for value, count in part.items()}
                for name, part in self.sections.items()
            },
            "label_kind_issuer_split": [
                {**dict(zip(names, key, strict=True)), "sentences": count}
                for key, count in sorted(self.crossed.items())
            ],
        }


def column_of(sentence: Sentence, splits: Mapping[str, Any]) -> str:
    """The split a sentence stands in, "own", or "unplaced"."""
    if sentence.row.synthetic:
        return "own"
    placed = splits.get("split", {}).get(sentence.row.doc_id)
    return placed if placed in SPLIT_NAMES else "unplaced"


def compose(sentences: Sequence[Sentence], splits: Mapping[str, Any]) -> Composition:
    """Count sentences by everything that the card has to tell."""
    sections: dict[str, dict[str, Counter[str]]] = {name: {} for name in _SECTIONS}
    seen: dict[str, set[tuple[str, str]]] = {"doc": set(), "issuer": set()}
    total: Counter[str] = Counter()
    crossed: Counter[tuple[str, str, str, str]] = Counter()
    for s in sentences:
        column = column_of(s, splits)
        columns = (column,) if column == "own" else (column, "real")
        total.update(columns)
        crossed[s.row.label, s.doc.kind, s.doc.issuer, column] += 1
        seen["doc"] |= {(s.row.doc_id, name) for name in columns}
        seen["issuer"] |= {(s.doc.issuer, name) for name in columns}
        for name, value in _SECTIONS.items():
            sections[name].setdefault(value(s), Counter()).update(columns)
    documents, issuers = (Counter(column for _, column in seen[name]) for name in ("doc", "issuer"))
    return Composition(sections, documents, issuers, total, crossed)


def composition_table(composition: Composition) -> Table:
    """One table: a section a trait, a column a split; real and own statements apart."""
    columns = [name for name in COLUMNS if name != "unplaced" or composition.sentences["unplaced"]]
    table = Table(
        title="Annotated sentences", caption="train, dev, test are of real statements; own ones only train"
    )
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    heads = (
        ("sentences", composition.sentences),
        ("documents", composition.documents),
        ("issuers", composition.issuers),
    )
    for head, counts in heads:
        table.add_row(head, *(_number(counts[name]) for name in columns), style="bold")
    for section, values in composition.sections.items():
        table.add_section()
        table.add_row(f"by {section}", style="dim")
        order = LABELS if section == "label" else sorted(values)
        for value in order:
            counts = values.get(value, Counter())
            table.add_row(
                f"  {value}", *(_share(counts[name], composition.sentences[name]) for name in columns)
            )
    return table


def _number(count: int) -> str:
    return f"{count:,}" if count else "–"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:>4.0%})" if count else "–"
