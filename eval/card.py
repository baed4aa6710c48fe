"""A report's scores in the card of the model that it is of.

    communique eval card reports/test/report.json model/weights

The scores stand between two marks, which are put at the end of the card where it has none; a second run
replaces what stands between them. Where the report is of a split of the annotations, the model index in the
card's header takes its name and value, and `metrics` in `config.json` its scores; a report of a file says
nothing of a split, and leaves both. The manifest is written anew, since it holds the card's hash; the model's
version, which hashes only what decides labels, stays.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from communique.eval.figures import shown
from communique.eval.resample import Number
from communique.eval.views import NAMES
from communique.model.artifact import load_artifact, write_manifest
from communique.model.errors import InputError
from communique.model.jsonl import write_text
from communique.model.labels import EVEN

BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
_INDEX = re.compile(
    r"(name: communique annotations, split: )\w+(\}\s+metrics:\s+- \{type: f1, "
    r"name: macro-F1 of the four stances, value: )[0-9.]+"
)


def section(report: Mapping[str, Any]) -> str:
    """The marked section: scores with intervals beside the baselines and the ceiling, and the verdict."""
    head, (model, *others) = report["head"], report["systems"]
    of = f" of the {head['split']} split" if head["split"] else ""
    lines = [
        BEGIN,
        "## Evaluation",
        f"{head['rows']:,} sentences of {head['documents']:,} documents{of}; 95 % intervals resample "
        f"documents. Written by `communique eval card` from a report of {head['when']} (gold labels "
        f"`{head['gold_sha256'][:12]}`).",
        "",
        "| label | precision | recall | F1 [95 %] | n |",
        "|---|---|---|---|---|",
    ]
    for name, n in zip(NAMES, report["support"], strict=True):
        cells = [shown(Number(**model[metric][name])) for metric in ("precision", "recall", "f1")]
        lines.append(f"| {name} | {' | '.join(cells)} | {n:,} |")
    lines += ["", "| system | macro-F1, four stances | macro-F1, all five | accuracy |", "|---|---|---|---|"]
    for system in (model, *others):
        cells = [shown(Number(**system[metric])) for metric in ("macro4", "macro5", "accuracy")]
        lines.append(f"| {system['name']} | {' | '.join(cells)} |")
    if report["ceiling_f1"]:
        cells = [shown(Number(**report["ceiling_f1"][metric])) for metric in ("macro4", "macro5")]
        lines.append(f"| annotator A against B | {' | '.join(cells)} | |")
    calibration = report["calibration"]
    lines += [
        "",
        f"{_weighted(report)} Expected calibration error {calibration['ece']:.3f}, Brier score "
        f"{calibration['brier']:.3f}.",
        "",
        *(f"- {sentence}" for sentence in report["verdict"]),
        END,
    ]
    return "\n".join(lines)


def _weighted(report: Mapping[str, Any]) -> str:
    """Scores weighted back to the random sample, and what cannot be given for want of rows."""
    model = report["systems"][0]
    scores = [shown(Number(**model[key])) for key in ("weighted_accuracy", "weighted4")]
    said = f"Weighted back to the random sample, accuracy is {scores[0]}, macro-F1 of the stances {scores[1]}"
    few = [
        f"{name}: {found['sentences']} sentences of {found['documents']} documents"
        for name, found in report["random_by_label"].items()
        if not found["enough"]
    ]
    return f"{said}; too few random sentences of {', '.join(few)}." if few else f"{said}."


def split_metrics(report: Mapping[str, Any]) -> dict[str, Any]:
    """The model's scores as `Scores.to_json` of `eval/metrics.py` writes them, for `ModelConfig.metrics`."""
    model, head = report["systems"][0], report["head"]
    plain = {key: {n: x["value"] for n, x in model[key].items()} for key in ("precision", "recall")}
    return {
        "macro_f1": model["macro4"],
        "macro_f1_five": model["macro5"],
        "accuracy": model["accuracy"],
        "f1": model["f1"],
        **plain,
        "support": dict(zip(NAMES, report["support"], strict=True)),
        "ece": report["calibration"]["ece"],
        "brier": report["calibration"]["brier"],
        "confusion": report["confusion"],
        "sentences": head["rows"],
        "documents": head["documents"],
    }


def fill(report: Mapping[str, Any], folder: Path) -> Path:
    """Write a report's scores into a model's card and configuration.

    Args:
        report: the content of `report.json`.
        folder: the model's.

    Raises:
        InputError: the report is of another model, or lacks what the card needs.
        ArtifactError: the folder is no model.
    """
    artifact = load_artifact(folder)
    try:
        named, split, words = report["head"]["model"], report["head"]["split"], section(report)
        metrics = artifact.config.metrics | ({split: split_metrics(report)} if split else {})
        value = report["systems"][0]["macro4"]["value"]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"the report lacks {error}: write it with `communique eval` again") from None
    if named != artifact.version:
        raise InputError(f"the report is of {named}, the folder holds {artifact.version}: evaluate that one")
    if split and report["head"]["threshold"] != artifact.config.threshold:
        raise InputError(
            f"the report is scored at a threshold of {report['head']['threshold']}, the model ships with "
            f"{artifact.config.threshold}: evaluate it without --threshold"
        )
    if split and tuple(report["head"].get("label_weights", EVEN)) != artifact.config.label_weights:
        raise InputError("the report is scored with other label weights than the model's: evaluate it again")
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8")
    if BEGIN in card and END in card:
        before, rest = card.split(BEGIN, 1)
        card = before + words + rest.split(END, 1)[1]
    else:
        card = card.rstrip() + "\n\n" + words + "\n"
    if split and value is not None:
        card = _INDEX.sub(lambda m: f"{m[1]}{split}{m[2]}{value:.4f}", card)
    write_text(path, card)
    write_manifest(folder, dataclasses.replace(artifact.config, metrics=metrics))
    return path
