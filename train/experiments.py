"""Trainings that differ in one thing, scored on the dev split: the learning curve and the ablation table.

    communique benchmark curve --encoder all-MiniLM-L6-v2 --epochs 3 --out runs/curve
    communique benchmark ablation --teacher all-mpnet-base-v2 --out runs/ablation

The last state is kept and the most probable label counts: nothing is chosen on dev, so every row of a table
is as honest as the others. The recipe that ships may choose its state on dev and abstain, and then scores a
little higher there. One row a training, with the interval of the document bootstrap; a difference smaller
than what two seeds differ by says nothing (`communique train --seeds`). The test split is not read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from communique.eval.metrics import Estimate, Scores, evaluate
from communique.model.classifier import softmax
from communique.model.engine import Engine
from communique.model.errors import InputError
from communique.model.jsonl import write_text
from communique.model.labels import LABELS
from communique.model.tokens import SentenceInput, SentenceTokenizer
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.corpus import Annotations, Sentence
from communique.train.fit import fit, model_config, predict_logits
from communique.train.recipe import labelled_rows, training_rows, weighted_rows

LEAST_PASSES = 2400
"""Sentences that a training on few of them passes over at the least, by more epochs: 50 rows for 3 epochs
would be ten steps, and the curve would show the lack of steps."""
_NEVER = 1_000_000


@dataclass(frozen=True)
class Part:
    """One training."""

    name: str  # "curve" or "ablation"
    variant: str
    config: TrainConfig
    rows: Sequence[TrainRow]
    held: Sequence[Sentence]
    public: Sequence[TrainRow] = ()
    """Learnt from first, for `config.first_epochs`."""
    int8: bool = False
    """Whether the exported model with int8 weights is scored in place of the torch form."""


def curve(
    annotations: Annotations, config: TrainConfig, sizes: Sequence[int | None], seeds: int = 1
) -> list[Part]:
    """Samples of real train sentences, so many a label (None: all), each with so many seeds.

    Raises:
        InputError: no dev sentence or no train sentence has its text.
    """
    held = _held(annotations)
    train = [s for s in annotations.split("train", own=False) if s.text is not None]
    if not train:
        raise InputError("no train sentence has its text: set COMMUNIQUE_SHARED")
    parts = []
    for size in sizes:
        for seed in range(config.seed, config.seed + seeds):
            rows = weighted_rows(train if size is None else _sample(train, size, seed), config)
            epochs = max(config.epochs, LEAST_PASSES / len(rows))
            own = _last(dataclasses.replace(config, seed=seed, epochs=epochs))
            parts.append(Part("curve", f"{size or 'all'} per label, seed {seed}", own, rows, held))
    return parts


def _sample(sentences: Sequence[Sentence], per_label: int, seed: int) -> list[Sentence]:
    """So many of each label or all there are; a larger sample of one seed holds the smaller."""
    order = np.random.default_rng(seed).permutation(len(sentences)).tolist()
    kept: list[Sentence] = []
    for label in LABELS:
        kept += [sentences[i] for i in order if sentences[i].row.label == label][:per_label]
    return kept


def ablation(
    annotations: Annotations,
    config: TrainConfig,
    *,
    public: Sequence[TrainRow] = (),
    teacher: str | None = None,
    soft_labels: Path | None = None,
) -> list[Part]:
    """The recipe, and the recipe with one part left out, put in or changed.

    Args:
        annotations: train is learnt from, dev is scored.
        config: the recipe.
        public: rows of the first stage.
        teacher: an encoder to use in place of the student's.
        soft_labels: a teacher's probabilities, added to the rows.

    Raises:
        InputError: no dev sentence has its text.
    """
    held, base = _held(annotations), _last(config)

    def part(variant: str, changes: dict[str, Any] | None = None, **more: Any) -> Part:  # noqa: ANN401
        own = dataclasses.replace(base, **(changes or {}))
        first = () if own.public_weight == 0 else public
        return Part("ablation", variant, own, training_rows(annotations, own), held, first, **more)

    parts = [
        part("recipe"),
        part("without-public-data", {"public_weight": 0.0}),
        part("without-own-statements", {"own_weight": 0.0}),
        part("without-single-pass", {"single_weight": 0.0}),
        part("without-context", {"before_tokens": 0, "after_tokens": 0}),
        part("with-twice-the-context", {"before_tokens": 2 * config.before_tokens}),
        part("with-second-acts", {"second_act": 0.2}),
        part("with-swapped-names", {"swap_names": 0.5}),
        part("with-int8-weights", int8=True),
    ]
    if teacher is not None:
        parts.append(part("teacher", {"encoder": teacher}))
    if soft_labels is not None:
        parts.append(part("with-distillation", {"soft_labels": str(soft_labels)}))
    return parts


def _held(annotations: Annotations) -> list[Sentence]:
    held = [s for s in annotations.split("dev") if s.text is not None]
    if not held:
        raise InputError("no dev sentence has its text: set COMMUNIQUE_SHARED")
    return held


def _last(config: TrainConfig) -> TrainConfig:
    """The same, with the last state kept and no look at dev before the end."""
    return dataclasses.replace(config, keep="last", patience=0, eval_steps=_NEVER)


def run(
    parts: Sequence[Part], out: Path, name: str, on_start: Callable[[str], None] = lambda what: None
) -> list[dict[str, Any]]:
    """Train and score what has no result in `out` yet; all results as a JSON list in `NAME.json`.

    Of each: name, variant, held_out, encoder, seed, train_rows, macro_f1 with low and high, macro_f1_five,
    f1 of the labels, n, seconds. Weights are removed once nothing needs them.
    """
    results = []
    for part in parts:
        key = _key(part)
        done = out / "results" / f"{part.variant.replace(' ', '-').replace(',', '')}-{key[:12]}.json"
        if not done.is_file():
            on_start(f"{part.name}: {part.variant}, {len(part.rows)} rows")
            write_text(done, json.dumps(_measure(part, out / "work")) + "\n")
        results.append(json.loads(done.read_text(encoding="utf-8")))
        write_text(out / f"{name}.json", json.dumps(results, indent=1) + "\n")
    shutil.rmtree(out / "work", ignore_errors=True)
    return results


def _measure(part: Part, work: Path) -> dict[str, Any]:
    start = time.perf_counter()
    folder = _trained(part, work)
    seconds = time.perf_counter() - start
    rows = labelled_rows(part.held)
    logits = _int8_logits(folder, part.config, rows) if part.int8 else _torch_logits(folder, part, rows)
    scores: Scores = evaluate(
        [s.row.label for s in part.held],
        softmax(logits, 1.0),
        [s.row.doc_id for s in part.held],
        threshold=0.0,
    )
    return {
        "name": part.name,
        "variant": part.variant,
        "held_out": f"dev, {part.variant}",
        "encoder": Path(part.config.encoder).name,
        "seed": part.config.seed,
        "train_rows": len(part.rows) + len(part.public),
        "annotated_rows": sum(row.source == "real" for row in part.rows),
        "macro_f1": scores.macro_f1.value,
        "low": scores.macro_f1.low,
        "high": scores.macro_f1.high,
        "macro_f1_five": scores.macro_f1_five.value,
        "f1": {label: f1.value for label, f1 in scores.f1.items()},
        "n": scores.sentences,
        "seconds": round(seconds, 1),
    }


def _trained(part: Part, work: Path) -> Path:
    """Folder of the trained model; variants that share a stage train it once."""
    config, rows, dev = part.config, part.rows, labelled_rows(part.held[:1])
    if part.public and config.first_epochs > 0:
        first = dataclasses.replace(config, epochs=config.first_epochs, own_weight=1.0, soft_labels="")
        config = dataclasses.replace(config, encoder=str(_stage(first, part.public, dev, work)))
    return _stage(config, rows, dev, work)


def _stage(config: TrainConfig, rows: Sequence[TrainRow], dev: Sequence[TrainRow], work: Path) -> Path:
    folder = work / _digest(config, rows)[:16]
    # A stage that was stopped is begun anew; `metrics.json` is written last.
    if not (folder / "metrics.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        fit(config, rows, dev, folder)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


def _torch_logits(folder: Path, part: Part, rows: Sequence[TrainRow]) -> Any:  # noqa: ANN401
    return predict_logits(folder, part.config, rows)


def _int8_logits(folder: Path, config: TrainConfig, rows: Sequence[TrainRow]) -> Any:  # noqa: ANN401
    """Logits of the exported model with int8 weights, as it is shipped."""
    from communique.train.export import quantise_weights, to_onnx

    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    feed = model_config(config, "ablation", model_type)
    to_onnx(folder, folder / "fp32.onnx")
    quantise_weights(folder / "fp32.onnx", folder / "int8.onnx")
    tokenizer = SentenceTokenizer.from_file(folder / "tokenizer.json", feed)
    engine = Engine(folder / "int8.onnx", pad_id=tokenizer.pad_id, token_types=feed.token_types)
    return engine.logits(tokenizer.encode([SentenceInput(r.text, r.before, r.after) for r in rows]))


def _key(part: Part) -> str:
    held = [f"{s.row.doc_id}\t{s.row.sent_id}\t{s.row.label}" for s in part.held]
    parts = [_digest(part.config, part.rows), _digest(part.config, part.public), str(part.int8), *held]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(config: TrainConfig, rows: Sequence[TrainRow]) -> str:
    """Of what decides a training: settings (threads aside) and rows."""
    settings = {k: v for k, v in sorted(vars(config).items()) if k != "threads"}
    lines = [json.dumps(settings), *(json.dumps(dataclasses.astuple(row)) for row in rows)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The results as a table."""
    lines = [
        f"{results[0]['name'].capitalize()}: macro-F1 of the four on dev ({results[0]['n']} sentences); "
        "brackets: 95 % document bootstrap."
        if results
        else "No results.",
        "",
        f"| variant | encoder | rows | macro-F1 | {' | '.join(LABELS)} | s |",
        "|---" * (len(LABELS) + 5) + "|",
    ]
    for r in results:
        each = " | ".join(f"{r['f1'][str(label)]:.3f}" for label in LABELS)
        score = str(Estimate(r["macro_f1"], r["low"], r["high"]))
        head = f"| {r['variant']} | {r['encoder']} | {r['train_rows']:,}"
        lines.append(f"{head} | {score} | {each} | {r['seconds']:,.0f} |")
    return "\n".join(lines) + "\n"
