"""Behaviour: written pairs of sentences that a model must tell apart, or must treat alike.

    communique eval behaviour
    communique eval behaviour --model my-model/ --json behaviour.json

The pairs (`eval/data/behaviour_pairs.jsonl`) are the project's own, in families: swap of parties, negation,
reported speech, typos, … A pair passes when both labels are right. For a pair of the relation "same" the
two labels must also be the same, and how often they are, right or wrong, is its consistency; for "differ",
how often the two labels do differ. Families are small: each rate has its Wilson interval (Wilson 1927).
After Ribeiro et al. 2020 (CheckList) and Gardner et al. 2020 (contrast sets).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from communique.eval.resample import Number
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError
from communique.model.labels import LABELS

if TYPE_CHECKING:
    from rich.console import Group

PAIRS = Path(__file__).parent / "data" / "behaviour_pairs.jsonl"
RELATIONS = ("same", "differ")
SCHEMA = "communique-behaviour-1"
"""Marks a written result, so that the report takes no other file for one."""


@dataclass(frozen=True)
class Pair:
    """Two sentences with their labels."""

    id: str
    family: str
    relation: str  # "same" or "differ"
    texts: tuple[str, str]
    labels: tuple[str, str]
    why: str


@dataclass(frozen=True)
class Outcome:
    """What a model made of a pair."""

    pair: Pair
    found: tuple[str, str]
    probabilities: tuple[float, float]
    """Of the two labels found."""

    @property
    def passed(self) -> bool:
        """Whether both labels are right."""
        return self.found == self.pair.labels

    @property
    def consistent(self) -> bool:
        """Whether the two labels relate as they should (the same, or different), right or wrong."""
        return (self.found[0] == self.found[1]) == (self.pair.relation == "same")


@dataclass(frozen=True)
class Family:
    """Pass rate and consistency of the pairs of one family and relation."""

    name: str
    relation: str
    pairs: int
    passed: int
    consistent: int
    pass_rate: Number
    consistency: Number


def read_pairs(path: Path = PAIRS) -> list[Pair]:
    """The written pairs.

    Raises:
        InputError: the file or a pair cannot be used; the message has file and row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): name a JSONL file of pairs") from None
    pairs = [_pair(line, f"{path.name}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise InputError(f"{path.name}: id {pair.id!r} stands twice: give each pair its own")
        seen.add(pair.id)
    if not pairs:
        raise InputError(f"{path}: holds no pairs: give one JSON object a line")
    return pairs


def _pair(line: str, place: str) -> Pair:
    try:
        record = json.loads(line)
        a, b = record["a"], record["b"]
        pair = Pair(
            record["id"],
            record["family"],
            record["relation"],
            (a["text"], b["text"]),
            (a["label"], b["label"]),
            record.get("why", ""),
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg} at column {error.colno})") from None
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{place}: {error}: a pair has id, family, relation, and a and b with text and label"
        ) from None
    if pair.relation not in RELATIONS:
        raise InputError(f"{place}: relation is {pair.relation!r}: use same or differ")
    for label in pair.labels:
        if label not in map(str, LABELS):
            raise InputError(f"{place}: label is {label!r}: use one of {', '.join(LABELS)}")
    if (pair.labels[0] == pair.labels[1]) != (pair.relation == "same"):
        raise InputError(f"{place}: labels {pair.labels} in a pair that says {pair.relation!r}: mend one")
    return pair


def run_pairs(classifier: StanceClassifier, pairs: Sequence[Pair]) -> list[Outcome]:
    """Label both sentences of every pair, each alone, with the model's own abstention."""
    found = classifier.label_sentences([text for pair in pairs for text in pair.texts])
    return [
        Outcome(pair, (str(a.label), str(b.label)), (a.probability, b.probability))
        for pair, a, b in zip(pairs, found[::2], found[1::2], strict=True)
    ]


def families(outcomes: Sequence[Outcome]) -> list[Family]:
    """Rates of each family, in the order of the file; a family with both relations has two entries."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.pair.family, outcome.pair.relation), []).append(outcome)
    return [_family(*key, group) for key, group in groups.items()]


def _family(name: str, relation: str, group: Sequence[Outcome]) -> Family:
    passed, consistent = sum(o.passed for o in group), sum(o.consistent for o in group)
    rates = wilson(passed, len(group)), wilson(consistent, len(group))
    return Family(name, relation, len(group), passed, consistent, *rates)


def wilson(hits: int, n: int) -> Number:
    """A share with its 95 % Wilson interval; not estimable for n = 0."""
    from statsmodels.stats.proportion import proportion_confint

    if n == 0:
        return Number(None)
    low, high = proportion_confint(hits, n, alpha=0.05, method="wilson")
    return Number(hits / n, float(low), float(high))


def to_json(outcomes: Sequence[Outcome], model: str) -> dict[str, Any]:
    """Rates of all and of each family, and the pairs that failed."""
    whole = _family("all", "both", outcomes)

    def plain(family: Family) -> dict[str, Any]:
        numbers = {name: getattr(family, name).to_json() for name in ("pass_rate", "consistency")}
        return {**vars(family), **numbers}

    return {
        "schema": SCHEMA,
        "model": model,
        "all": plain(whole),
        "families": [plain(family) for family in families(outcomes)],
        "failures": [
            {
                "id": o.pair.id,
                "family": o.pair.family,
                "relation": o.pair.relation,
                "texts": list(o.pair.texts),
                "labels": list(o.pair.labels),
                "found": list(o.found),
                "probabilities": list(o.probabilities),
                "why": o.pair.why,
            }
            for o in outcomes
            if not o.passed
        ],
    }


def behaviour_tables(outcomes: Sequence[Outcome], model: str, limit: int = 20) -> Group:
    """The rates, and the first failures, for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rates = Table(
        title=f"Behaviour of {model}: {len(outcomes)} pairs", caption="brackets: 95 % Wilson interval"
    )
    rates.add_column("family (the labels must)")
    for heading in ("passed", "pass rate", "consistent"):
        rates.add_column(heading, justify="right", no_wrap=True)
    for family in families(outcomes):
        rates.add_row(*_cells(family))
    rates.add_section()
    rates.add_row(*_cells(_family("all", "both", outcomes)), style="bold")
    failed = [o for o in outcomes if not o.passed]
    lines = Table(title=f"Failures: {len(failed)}, {min(limit, len(failed))} shown", show_header=False)
    lines.add_column("pair")
    lines.add_column("found (right)")
    lines.add_column("sentence", ratio=1)
    for o in failed[:limit]:
        for text, found, right in zip(o.pair.texts, o.found, o.pair.labels, strict=True):
            verdict = Text(found) if found == right else Text(f"{found} ({right})", style="red")
            lines.add_row(o.pair.id, verdict, Text(text))
        lines.add_section()
    return Group(rates, lines) if failed and limit else Group(rates)


def _cells(family: Family) -> list[str]:
    def cell(n: Number) -> str:
        return "not estimable" if n.value is None else f"{n.value:.2f} \\[{n.low:.2f}, {n.high:.2f}]"

    name = family.name if family.name == "all" else f"{family.name} ({family.relation})"
    passed = f"{family.passed} of {family.pairs}"
    return [name, passed, cell(family.pass_rate), cell(family.consistency)]
