"""The same training several times: seeds, folds, issuers left out, the latest years held out.

    communique train --seeds 5 --out runs/seeds
    communique train --folds --out runs/folds
    communique train --hold-out issuers --out runs/issuers

Every run is the recipe up to the trained model (public data first, then annotations), scored on what was
held out from it without calibration or abstention: the most probable label counts. `summary.json` has mean
and standard deviation, `results.json` one entry a run. Where what is held out differs from run to run,
the last state is kept: choosing one by the held-out score would flatter it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from communique.eval.metrics import Scores, evaluate
from communique.model.classifier import softmax
from communique.model.errors import InputError
from communique.train.config import TrainConfig
from communique.train.corpus import Annotations, Sentence
from communique.train.files import DataError, write_bytes
from communique.train.fit import predict_logits, processes, two_stages
from communique.train.recipe import labelled_rows, public_rows, soft_rows, weighted_rows

HoldOut = Literal["issuers", "years"]
LATEST_SHARE = 0.1
"""The latest whole years that hold at least this share of the sentences are held out."""


@dataclass(frozen=True)
class Part:
    """One run of several: what is learnt from and what is held out."""

    name: str
    """`random`, `leave-issuer-out` or `latest-years`."""
    held_out: str
    seed: int
    train: Sequence[Sentence]
    held: Sequence[Sentence]
    choose: bool = False
    """Whether the state may be chosen on what is held out (the dev split)."""


def seeds(annotations: Annotations, config: TrainConfig, count: int) -> list[Part]:
    """Train and dev as they are, under `count` seeds from the config's on."""
    train, dev = annotations.split("train"), annotations.split("dev")
    return [Part("random", f"dev, seed {n}", n, train, dev, True) for n in _counted(config, count)]


def folds(annotations: Annotations, config: TrainConfig, count: int = 1) -> list[Part]:
    """Each grouped fold of `splits.json` held out, under `count` seeds."""
    numbers = sorted(set(annotations.splits.get("fold", {}).values()))
    if not numbers:
        raise DataError("splits.json has no folds: write them with `communique data splits`")
    named = [(f"fold {n}", annotations.fold(n)) for n in numbers]
    return _parts("random", named, config, count)


def issuers(annotations: Annotations, config: TrainConfig, count: int = 1) -> list[Part]:
    """Each listed issuer held out, with what shares a document with them nearly word for word."""
    listed = annotations.splits.get("leave_issuer_out", [])
    if not listed:
        raise DataError("splits.json lists no issuers to leave out: write it with `communique data splits`")
    named = [(issuer, annotations.leave_issuer_out(issuer)) for issuer in listed]
    return _parts("leave-issuer-out", named, config, count)


def latest_years(annotations: Annotations, config: TrainConfig, count: int = 1) -> list[Part]:
    """Train and dev before a year, held out from it on; near-duplicates of held-out texts in neither."""
    pool = [*annotations.split("train"), *annotations.split("dev")]
    real = [s for s in pool if not s.row.synthetic]
    years = Counter(s.doc.date[:4] for s in real if s.doc.date and s.row.passes == 2)
    if len(years) < 2:
        raise DataError("the statements are of one year or undated: no years can be held out")
    latest: list[str] = []
    for year in sorted(years, reverse=True)[:-1]:
        latest.append(year)
        if sum(years[y] for y in latest) >= LATEST_SHARE * sum(years.values()):
            break
    late = {s.row.doc_id for s in real if s.doc.date and s.doc.date[:4] in latest}
    linked = [set(group) for group in annotations.splits.get("near_duplicates", [])]
    twins = set().union(*(group for group in linked if group & late))
    train = [s for s in pool if s.row.doc_id not in late | twins]
    held = [s for s in real if s.row.doc_id in late and s.row.passes == 2]
    name = latest[0] if len(latest) == 1 else f"{latest[-1]}-{latest[0]}"
    return _parts("latest-years", [(name, (train, held))], config, count)


def _parts(
    name: str,
    named: Sequence[tuple[str, tuple[list[Sentence], list[Sentence]]]],
    config: TrainConfig,
    count: int,
) -> list[Part]:
    found = []
    for held_out, (train, held) in named:
        for seed in _counted(config, count):
            label = held_out if count == 1 else f"{held_out}, seed {seed}"
            found.append(Part(name, label, seed, train, held))
    return found


def _counted(config: TrainConfig, count: int) -> range:
    return range(config.seed, config.seed + count)


def repeat(
    config: TrainConfig,
    annotations: Annotations,
    parts: Sequence[Part],
    out: Path,
    *,
    public_folder: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train and score every part, each in its own folder of `out`.

    Args:
        public_folder: public data sets as published; without it the first stage is left out.
        resume: parts that have a result are not trained again, and the one that was stopped goes on.

    Returns:
        What `summary.json` holds: mean, standard deviation and range of macro-F1, for each name.

    Raises:
        InputError: nothing with text is held out.
    """
    group = processes()
    public = []
    if public_folder is not None and config.public_weight > 0:
        # Held out here or in another part, or the test split: no public row resembles any of them.
        real = [s.text for s in annotations.sentences if s.text is not None and not s.row.synthetic]
        public = public_rows(public_folder, config, real)
    soft = soft_rows(config) if config.soft_labels else []
    results: list[dict[str, Any]] = []
    for number, part in enumerate(parts, 1):
        folder = out / f"{number:02d}"
        held = [s for s in part.held if s.text is not None]
        if not held:
            raise InputError(
                f"{part.name} {part.held_out}: no held-out sentence has its text: set COMMUNIQUE_SHARED"
            )
        done = folder / "result.json"
        group.wait_for_everyone()
        if not (resume and done.is_file()):
            own = dataclasses.replace(config, seed=part.seed)
            if not part.choose:
                own = dataclasses.replace(own, keep="last", patience=0)
            began = time.perf_counter()
            rows = [*weighted_rows(part.train, own), *soft]
            seen = two_stages(own, rows, public, labelled_rows(held), folder, resume=resume)
            if group.is_main_process:
                entry = _entry(part, score(folder, own, held), len(seen), time.perf_counter() - began)
                write_bytes(done, (json.dumps(entry) + "\n").encode())
        group.wait_for_everyone()
        results.append(json.loads(done.read_text(encoding="utf-8")))
    summary = summarise(results)
    if group.is_main_process:
        for name, content in (("results.json", results), ("summary.json", summary)):
            write_bytes(out / name, (json.dumps(content, indent=2) + "\n").encode())
    return summary


def score(folder: Path, config: TrainConfig, held: Sequence[Sentence]) -> Scores:
    """Scores of the torch model in `folder`, uncalibrated, with intervals over documents."""
    logits = predict_logits(folder, config, labelled_rows(held))
    gold, docs = [s.row.label for s in held], [s.row.doc_id for s in held]
    return evaluate(gold, softmax(logits, 1.0), docs, threshold=0.0)


def _entry(part: Part, scores: Scores, rows: int, seconds: float) -> dict[str, Any]:
    f1 = scores.macro_f1
    return {
        "name": part.name,
        "held_out": part.held_out,
        "train_rows": rows,
        "macro_f1": f1.value,
        "low": f1.low,
        "high": f1.high,
        "n": scores.sentences,
        "seconds": round(seconds, 1),
    }


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, sample standard deviation (None of one run), least and most macro-F1, for each name."""
    found = {}
    for name in dict.fromkeys(entry["name"] for entry in results):
        scores = [entry["macro_f1"] for entry in results if entry["name"] == name]
        found[name] = {
            "runs": len(scores),
            "mean": statistics.fmean(scores),
            "sd": statistics.stdev(scores) if len(scores) > 1 else None,
            "low": min(scores),
            "high": max(scores),
        }
    return found


def table(results: Sequence[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Results and their summary as aligned lines."""
    width = max(len(entry["held_out"]) for entry in results)
    lines = [f"{'held out':{width}}  macro-F1  [95 % interval]   sentences  rows learnt from"]
    lines += [
        f"{e['held_out']:{width}}  {e['macro_f1']:.3f}     [{e['low']:.3f}, {e['high']:.3f}]"
        f"{e['n']:>12}{e['train_rows']:>18}"
        for e in results
    ]
    for name, found in summary.items():
        spread = "" if found["sd"] is None else f", sd {found['sd']:.3f}"
        lines.append(f"{name}: mean {found['mean']:.3f}{spread} over {found['runs']} runs")
    return "\n".join(lines)
