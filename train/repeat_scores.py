"""Scores of several runs that each held something out: run by run, and of all their predictions together.

    held = Held("leave-issuer-out", "Belmar", "Belmar", sentences, probabilities)
    entry_of(held, train_rows=5000, seconds=60.0)

Scored without calibration or abstention: the most probable label counts. Macro-F1 is a mean over the four
stances, and F1 of a stance that nobody took is 0 whatever the model does. So where what is held out lacks a
stance, the run's score is null (not estimable) and the mean passes it over; the predictions of all such runs
are put together and scored once (Forman and Scholz 2010, "Apples-to-apples in cross-validation studies").
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from communique.eval.metrics import Estimate, Floats, evaluate
from communique.model.labels import STANCES
from communique.train.corpus import Sentence
from communique.train.table import gold_fields, probability_fields

TOGETHER = "all together"
"""What is held out in the entry that scores the predictions of all runs of a name."""


@dataclass(frozen=True)
class Held:
    """What one run says of the sentences that were held out from it."""

    name: str
    """`random`, `leave-issuer-out` or `latest-years`."""
    held_out: str
    fold: str
    """What was held out, whatever the seed."""
    sentences: Sequence[Sentence]
    """Each has its text."""
    probabilities: Floats
    """Shape (sentences, 5), uncalibrated."""


def entry_of(held: Held, train_rows: int, seconds: float) -> dict[str, Any]:
    """One entry of `results.json`; macro_f1, low, high are None where the held-out lack a stance."""
    return _entry(held.name, held.held_out, [held], train_rows, seconds)


def together(every: Sequence[Held], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry for each name whose runs hold out different documents: their predictions, scored once.

    `n` counts sentences, also where several seeds label each; `train_rows` is the mean of the runs,
    `seconds` their sum.
    """
    found = []
    for name in dict.fromkeys(held.name for held in every):
        mine = [held for held in every if held.name == name]
        if len({frozenset(s.row.doc_id for s in held.sentences) for held in mine}) > 1:
            entries = [entry for entry in results if entry["name"] == name]
            rows = round(statistics.fmean(entry["train_rows"] for entry in entries))
            seconds = round(sum(entry["seconds"] for entry in entries), 1)
            found.append(_entry(name, TOGETHER, mine, rows, seconds))
    return found


def _entry(
    name: str, held_out: str, parts: Sequence[Held], train_rows: int, seconds: float
) -> dict[str, Any]:
    sentences = [s for part in parts for s in part.sentences]
    gold = [s.row.label for s in sentences]
    macro: dict[str, float | None] = {"macro_f1": None, "low": None, "high": None}
    if set(map(str, STANCES)) <= set(gold):
        probabilities = np.concatenate([part.probabilities for part in parts])
        documents = [s.row.doc_id for s in sentences]
        f1 = evaluate(gold, probabilities, documents, threshold=0.0).macro_f1
        macro = {"macro_f1": f1.value, "low": f1.low, "high": f1.high}
    return {
        "name": name,
        "held_out": held_out,
        "train_rows": train_rows,
        **macro,
        "n": len({s.row.key for s in sentences}),
        "seconds": seconds,
    }


def prediction_rows(every: Sequence[Held]) -> Iterator[dict[str, Any]]:
    """Each held-out sentence once, with probabilities of the runs that did not learn from it (their mean)."""
    found: dict[tuple[str, int, int], list[tuple[Held, int]]] = {}
    for held in every:
        for place, s in enumerate(held.sentences):
            found.setdefault(s.row.key, []).append((held, place))
    for runs in found.values():
        held, place = runs[0]
        mean = np.mean([run.probabilities[at] for run, at in runs], axis=0)
        yield {**gold_fields(held.sentences[place]), "fold": held.fold, **probability_fields(mean)}


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each name: mean, sample standard deviation, least and most macro-F1, and the pooled score.

    `runs` counts all runs, `estimable` those that have a score; the numbers are over these, None of none
    (`sd`: of fewer than two). `pooled` is macro_f1, low, high and n of all predictions together, None where
    every run holds out the same.
    """
    found = {}
    for name in dict.fromkeys(entry["name"] for entry in results):
        mine = [entry for entry in results if entry["name"] == name]
        alone = [entry for entry in mine if entry["held_out"] != TOGETHER]
        pooled = next((entry for entry in mine if entry["held_out"] == TOGETHER), None)
        scores = [entry["macro_f1"] for entry in alone if entry["macro_f1"] is not None]
        found[name] = {
            "runs": len(alone),
            "estimable": len(scores),
            "mean": statistics.fmean(scores) if scores else None,
            "sd": statistics.stdev(scores) if len(scores) > 1 else None,
            "low": min(scores, default=None),
            "high": max(scores, default=None),
            "pooled": pooled and {key: pooled[key] for key in ("macro_f1", "low", "high", "n")},
        }
    return found


def table(results: Sequence[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Results and their summary as aligned lines."""
    width = max(len(entry["held_out"]) for entry in results)
    lines = [f"{'held out':{width}}  macro-F1  [95 % interval]   sentences  rows learnt from"]
    lines += [f"{e['held_out']:{width}}  {_shown(e):24}{e['n']:>12}{e['train_rows']:>18}" for e in results]
    for name, found in summary.items():
        mean = "not estimable" if found["mean"] is None else f"{found['mean']:.3f}"
        spread = "" if found["sd"] is None else f", sd {found['sd']:.3f}"
        line = f"{name}: mean {mean}{spread} over {found['estimable']} of {found['runs']} runs"
        if found["estimable"] < found["runs"]:
            line += " (in the others a stance is absent)"
        if found["pooled"]:
            line += f"; {TOGETHER} {_shown(found['pooled'])}"
        lines.append(line)
    return "\n".join(lines)


def _shown(entry: dict[str, Any]) -> str:
    if entry["macro_f1"] is None:
        return "not estimable"
    return str(Estimate(entry["macro_f1"], entry["low"], entry["high"]))
