"""The same training several times: seeds, folds, issuers left out, the latest years held out.

    communique train --seeds 5 --out runs/seeds
    communique train --folds --out ../folds
    communique train --hold-out issuers --out runs/issuers      # issuers-at-once for one training

Every run is the recipe up to the trained model (public data first, then annotations). Where what is held out
differs from run to run, the last state is kept: choosing one by the held-out score would flatter it. Scores
are those of `communique.train.repeat_scores`: `results.json` has one entry a run and one of all together,
`summary.json` mean and standard deviation, `predictions.jsonl` what each sentence got from a model that had
not seen it: what `communique data queue` reads.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from communique.model.classifier import softmax
from communique.model.errors import InputError
from communique.train.config import TrainConfig
from communique.train.corpus import Annotations, Sentence
from communique.train.exchange import refuse_inside
from communique.train.files import DataError, write_bytes
from communique.train.fit import predict_logits, processes, two_stages
from communique.train.recipe import labelled_rows, public_rows, weighted_rows
from communique.train.repeat_scores import Held, entry_of, prediction_rows, summarise, together
from communique.train.soft import taught

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
    fold: str
    """What is held out, whatever the seed."""
    choose: bool = False
    """Whether the state may be chosen on what is held out (the dev split)."""


def seeds(annotations: Annotations, config: TrainConfig, count: int) -> list[Part]:
    """Train and dev as they are, under `count` seeds from the config's on."""
    train, dev = annotations.split("train"), annotations.split("dev")
    return [Part("random", f"dev, seed {n}", n, train, dev, "dev", True) for n in _counted(config, count)]


def folds(annotations: Annotations, config: TrainConfig, count: int = 1) -> list[Part]:
    """Each grouped fold of `splits.json` held out, under `count` seeds."""
    numbers = sorted(set(annotations.splits.get("fold", {}).values()))
    if not numbers:
        raise DataError("splits.json has no folds: write them with `communique data splits`")
    named = [(f"fold {n}", annotations.fold(n)) for n in numbers]
    return _parts("random", named, config, count)


def issuers(annotations: Annotations, config: TrainConfig, count: int = 1) -> list[Part]:
    """Each listed issuer held out, with what shares a document with them nearly word for word."""
    named = [(issuer, annotations.leave_issuer_out(issuer)) for issuer in _listed(annotations)]
    return _parts("leave-issuer-out", named, config, count)


def issuers_at_once(annotations: Annotations, config: TrainConfig, count: int = 1) -> list[Part]:
    """All listed issuers held out of one training: quicker than one by one, and harder: more is missing."""
    listed = _listed(annotations)
    named = [(f"{len(listed)} issuers at once", annotations.leave_issuer_out(*listed))]
    return _parts("leave-issuer-out", named, config, count)


def _listed(annotations: Annotations) -> list[str]:
    listed: list[str] = annotations.splits.get("leave_issuer_out", [])
    if not listed:
        raise DataError("splits.json lists no issuers to leave out: write it with `communique data splits`")
    return listed


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
            found.append(Part(name, label, seed, train, held, held_out))
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
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and score every part, each in its own folder of `out`.

    Args:
        public_folder: public data sets as published; without it the first stage is left out.
        resume: parts that have a result are not trained again, and the one that was stopped goes on.
        say: told in a line what was left out.

    Returns:
        What `summary.json` holds, see `communique.train.repeat_scores.summarise`.

    Raises:
        InputError: nothing with text is held out, or a teacher's labels would carry what is held out.
    """
    if config.soft_labels and not all(part.choose for part in parts):
        raise InputError(
            "--soft-labels with --folds or --hold-out: the teacher learnt the labels that are held out; "
            "leave it out, or repeat with --seeds"
        )
    group = processes()
    public = []
    if public_folder is not None and config.public_weight > 0:
        # Held out here or in another part, or the test split: no public row resembles any of them.
        real = [s.text for s in annotations.sentences if s.text is not None and not s.row.synthetic]
        public = public_rows(public_folder, config, real, say)
    teacher = taught(config)
    if group.is_main_process and not resume:  # an earlier run's, which a resumed one would take for its own
        for path in (*out.glob("*/result.json"), out / "predictions.jsonl"):
            path.unlink(missing_ok=True)
    results: list[dict[str, Any]] = []
    every: list[Held] = []
    for number, part in enumerate(parts, 1):
        folder = out / f"{number:02d}"
        sentences = [s for s in part.held if s.text is not None]
        if not sentences:
            raise InputError(
                f"{part.name} {part.held_out}: no held-out sentence has its text: set COMMUNIQUE_SHARED"
            )
        done, kept = folder / "result.json", folder / "logits.npy"
        group.wait_for_everyone()
        if not (resume and done.is_file() and kept.is_file() and len(np.load(kept)) == len(sentences)):
            own = dataclasses.replace(config, seed=part.seed)
            if not part.choose:
                own = dataclasses.replace(own, keep="last", patience=0)
            began = time.perf_counter()
            rows = [*weighted_rows(part.train, own, teacher), *teacher.rows]
            seen = two_stages(own, rows, public, labelled_rows(sentences), folder, resume=resume)
            if group.is_main_process:
                np.save(kept, predict_logits(folder, own, labelled_rows(sentences)))
                took = {"train_rows": len(seen), "seconds": round(time.perf_counter() - began, 1)}
                write_bytes(done, (json.dumps(took) + "\n").encode())
        group.wait_for_everyone()
        took = json.loads(done.read_text(encoding="utf-8"))
        probabilities = softmax(np.load(kept), 1.0)
        every.append(Held(part.name, part.held_out, part.fold, sentences, probabilities))
        results.append(entry_of(every[-1], took["train_rows"], took["seconds"]))
    results += together(every, results)
    summary = summarise(results)
    if group.is_main_process:
        for name, content in (("results.json", results), ("summary.json", summary)):
            write_bytes(out / name, (json.dumps(content, indent=2) + "\n").encode())
        _write_predictions(out / "predictions.jsonl", every, say)
    return summary


def _write_predictions(path: Path, every: Sequence[Held], say: Callable[[str], None]) -> None:
    try:
        refuse_inside(path)
    except DataError as error:
        say(f"left out: {error}; move the folder and go on with --resume")
        return
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in prediction_rows(every)]
    write_bytes(path, "".join(lines).encode())
