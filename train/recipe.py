"""From annotations to the model that ships: rows, fit, calibration, export, gate, card.

    communique train --out runs/student            # or, in Python, run(config, annotations, out)

Everything that is chosen here (the state that is kept, temperature, label weights, abstention threshold,
whether small weights are good enough) is chosen on the dev split. The test split is read once, to fill the
card.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from communique.eval.metrics import Scores, evaluate
from communique.model.artifact import Artifact, document_digest, load_artifact, write_manifest
from communique.model.classifier import StanceClassifier, decide, softmax
from communique.model.engine import Engine
from communique.model.labels import LABELS, label_index
from communique.model.tokens import SentenceInput, SentenceTokenizer
from communique.train.augment import swapped
from communique.train.calibrate import Rule, fit_temperature, fit_threshold, fit_weights, macro_f1
from communique.train.card import card
from communique.train.config import TrainConfig
from communique.train.corpus import Annotations, Sentence, default_folder
from communique.train.export import Gate, quantise_weights, to_onnx
from communique.train.fit import TrainRow, model_config, predict_logits, processes, two_stages
from communique.train.manifest import Meter, write_run_manifest
from communique.train.public import drop_near_duplicates, near_texts, read_public
from communique.train.resume import is_begun
from communique.train.soft import Taught, taught

Logits = npt.NDArray[np.float32]


def training_rows(annotations: Annotations, config: TrainConfig) -> list[TrainRow]:
    """Rows of the train split, the project's own statements, and a teacher's labels."""
    teacher = taught(config)
    return [*weighted_rows(annotations.split("train"), config, teacher), *teacher.rows]


def weighted_rows(
    sentences: Sequence[Sentence], config: TrainConfig, teacher: Taught | None = None
) -> list[TrainRow]:
    """Annotated sentences as rows, weighted by who wrote them and how many annotators labelled them.

    Args:
        sentences: those without a text are left out.
        config: `own_weight`, `single_weight`, `second_act`, `soft_share`, `swap_names`, `seed`.
        teacher: what a teacher says of them, for a share of their targets.
    """
    rows: list[TrainRow] = []
    for s in sentences:
        weight = config.own_weight if s.row.synthetic else 1.0
        weight *= config.single_weight if s.row.passes == 1 else 1.0
        if s.text is not None and weight > 0:
            source = "own" if s.row.synthetic else "real"
            soft = _two_acts(s.row.label, s.row.also, config.second_act)
            row = TrainRow(s.text, s.before, s.after, s.row.label, soft, weight, source, s.row.doc_id)
            rows.append(teacher.share(row, config.soft_share) if teacher else row)
    return swapped(rows, config.swap_names, config.seed) if config.swap_names else rows


def _two_acts(label: str, also: str | None, share: float) -> tuple[float, ...]:
    """The target of a sentence that does two things; empty where its label alone is taught."""
    if also is None or share == 0:
        return ()
    return tuple((name == label) * (1 - share) + (name == also) * share for name in map(str, LABELS))


def public_rows(
    folder: Path,
    config: TrainConfig,
    against: Sequence[str],
    say: Callable[[str], None] = lambda line: None,
) -> list[TrainRow]:
    """Labelled public rows, capped for each data set and label, without published test splits.

    Args:
        folder: holds the data sets as published.
        config: `public_weight`, `public_cap`, `permissive_only`, `seed`.
        against: texts that no row may resemble (every annotated sentence of dev and test); nor may it
            resemble a row of a published test split.
        say: told in a line how many rows there are, and how many were left out for which reason.
    """
    licence = "permissive" if config.permissive_only else None
    every = read_public(folder, licence=licence)
    labelled = [row for row in every if row.label is not None and row.split != "test"]
    tests = [row for row in every if row.split == "test"]
    ours = near_texts(labelled, against)
    theirs = near_texts(labelled, [row.text for row in tests]) - ours
    free = [row for place, row in enumerate(labelled) if place not in ours | theirs]
    kept, _ = drop_near_duplicates(free)
    repeated = len(free) - len(kept)
    random.Random(config.seed).shuffle(kept)
    kept.sort(key=lambda row: row.how != "read")  # rows that were read come first under the cap
    taken: Counter[tuple[str, str | None]] = Counter()
    rows = []
    for row in kept:
        taken[row.dataset, row.label] += 1
        if taken[row.dataset, row.label] <= config.public_cap:
            rows.append(
                TrainRow(row.text, label=str(row.label), weight=config.public_weight, source="public")
            )
    say(
        f"{len(rows):,} public rows; left out: {sum(row.label is not None for row in tests):,} of published "
        f"test splits, {len(theirs):,} near-duplicates of these, {len(ours):,} of held-out sentences, "
        f"{repeated:,} of other rows, {len(kept) - len(rows):,} over the cap"
    )
    return rows


def public_apart(
    annotations: Annotations,
    config: TrainConfig,
    folder: Path | None,
    say: Callable[[str], None] = lambda line: None,
) -> list[TrainRow]:
    """Public rows that resemble no sentence of dev or test; none without a folder or a weight."""
    if folder is None or config.public_weight == 0:
        return []
    held = [*held_out(annotations, "dev"), *held_out(annotations, "test")]
    return public_rows(folder, config, [row.text for row in labelled_rows(held)], say)


def with_dev(annotations: Annotations) -> Annotations:
    """The same where dev has its texts; else with a fifth of the project's own documents as `own-dev`."""
    if annotations.splits.get("own_dev") or any(s.text is not None for s in annotations.split("dev")):
        return annotations
    own = sorted({s.row.doc_id for s in annotations.sentences if s.row.synthetic})
    return dataclasses.replace(annotations, splits={**annotations.splits, "own_dev": own[::5]})


def held_out(annotations: Annotations, split: str) -> list[Sentence]:
    """Sentences of dev or test that have their text; without any in dev, those of `own-dev`."""
    found = [s for s in annotations.split(split) if s.text is not None]
    return annotations.split("own-dev") if split == "dev" and not found else found


def labelled_rows(sentences: Sequence[Sentence]) -> list[TrainRow]:
    """Sentences of dev or test as rows; those without text are left out."""
    return [TrainRow(s.text, s.before, s.after, s.row.label) for s in sentences if s.text is not None]


def run(
    config: TrainConfig,
    annotations: Annotations,
    out: Path,
    *,
    name: str = "communique",
    public_folder: Path | None = None,
    quantised: bool = True,
    resume: bool = False,
    annotations_folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Train, export, calibrate, check and describe a model; the artefact lies in `out/artifact`.

    Under `torchrun` every process calls it and the first alone writes.

    Args:
        annotations_folder: where the annotations were read from, for the manifest.
        resume: go on with a run that was interrupted (see `communique.train.resume`).
        public_folder: public data sets as published; without it the first stage is left out.
        say: told in a line which public rows were left out.
    """
    meter, resumed = Meter.start(), resume and is_begun(out)
    annotations = with_dev(annotations)
    dev = labelled_rows(held_out(annotations, "dev"))
    public = public_apart(annotations, config, public_folder, say)
    seen = two_stages(config, training_rows(annotations, config), public, dev, out, resume=resume)
    group = processes()
    if group.is_main_process:
        ship(config, annotations, out, name=name, rows=seen, quantised=quantised)
        write_run_manifest(
            out,
            config,
            seen,
            meter,
            annotations=annotations_folder or default_folder(),
            public=public_folder if public else None,
            resumed=resumed,
        )
    group.wait_for_everyone()
    return load_artifact(out / "artifact")


def ship(
    config: TrainConfig,
    annotations: Annotations,
    out: Path,
    *,
    name: str,
    rows: Sequence[TrainRow],
    quantised: bool = True,
) -> Artifact:
    """Turn a trained torch model in `out` into the folder that labels text.

    Raises:
        GateError: the weights as stored cost more than the gate allows on the dev split.
    """
    dev, test = held_out(annotations, "dev"), held_out(annotations, "test")
    dev_rows = labelled_rows(dev)
    folder = out / "artifact"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # Without the indentation that `transformers` gives it: a wheel holds 50 MB.
    record = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    compact = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    to_onnx(out, out / "fp32.onnx")
    gold = np.array([label_index(row.label) for row in dev_rows])
    model_type = json.loads((out / "config.json").read_text(encoding="utf-8"))["model_type"]
    feed = model_config(config, name, model_type)
    fp32 = predict_logits(out, dataclasses.replace(config, precision="fp32"), dev_rows)
    if quantised:
        quantise_weights(out / "fp32.onnx", folder / "model.onnx", config.weight_bits)
    else:
        shutil.copy(out / "fp32.onnx", folder / "model.onnx")
    shipped = _onnx_logits(folder / "model.onnx", folder / "tokenizer.json", feed, dev_rows)
    temperature = fit_temperature(shipped, gold)
    weights = fit_weights(softmax(shipped, temperature), gold)
    rule = Rule(fit_threshold(softmax(shipped, temperature), gold, weights), weights)
    gate = compare(fp32, shipped, gold, temperature, rule)
    gate.check()
    feed = dataclasses.replace(feed, temperature=temperature, **rule._asdict(), trained_on=_trained_on(rows))
    scores = {"dev": _score(shipped, dev, temperature, rule)}
    if test:
        logits = _onnx_logits(folder / "model.onnx", folder / "tokenizer.json", feed, labelled_rows(test))
        scores["test"] = _score(logits, test, temperature, rule)
    metrics: dict[str, Any] = {split: s.to_json() for split, s in scores.items()}
    metrics["quantisation"] = dataclasses.asdict(gate)
    feed = dataclasses.replace(feed, metrics=metrics)
    (folder / "README.md").write_text(card(feed, config, rows, scores, gate), encoding="utf-8")
    artifact = write_manifest(folder, feed)
    StanceClassifier(artifact)  # a folder that cannot be loaded is no artefact
    return artifact


def _trained_on(rows: Sequence[TrainRow]) -> tuple[str, ...]:
    return tuple(sorted({document_digest(row.doc_id) for row in rows if row.source == "real"}))


def _score(logits: Logits, sentences: Sequence[Sentence], temperature: float, rule: Rule) -> Scores:
    known = [s for s in sentences if s.text is not None]
    return evaluate(
        [s.row.label for s in known],
        softmax(logits, temperature),
        [s.row.doc_id for s in known],
        **rule._asdict(),
    )


def _onnx_logits(model: Path, tokenizer: Path, feed: Any, rows: Sequence[TrainRow]) -> Logits:  # noqa: ANN401
    encoder = SentenceTokenizer.from_file(tokenizer, feed)
    engine = Engine(model, pad_id=encoder.pad_id, token_types=feed.token_types)
    return engine.logits(encoder.encode([SentenceInput(r.text, r.before, r.after) for r in rows]))


def compare(
    fp32: Logits, shipped: Logits, gold: npt.NDArray[np.int64], temperature: float, rule: Rule
) -> Gate:
    """What the shipped form loses against fp32 on the same sentences."""
    before, after = softmax(fp32, temperature), softmax(shipped, temperature)
    flips = [
        a != b for a, b in zip(decide(before, **rule._asdict()), decide(after, **rule._asdict()), strict=True)
    ]
    loss = macro_f1(gold, before, rule) - macro_f1(gold, after, rule)
    return Gate(f1_loss=loss, flips=float(np.mean(flips)))
