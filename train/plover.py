"""Zero-Shot PLOVER's own ground: trained on its training file alone, scored on its test file.

    communique benchmark plover --encoder all-mpnet-base-v2 --epochs 5 --learning-rate 3e-5 --out runs/plover

The 15 event roots are the classes; actors are not marked in the sentence. A predicted root is mapped to a
stance as the gold root is (REQUEST demand, YIELD concession, AGREE agreement, ACCUSE/REJECT/SUPPORT/
THREATEN position, the rest none). Nothing is chosen on the test file: the state after the last epoch is
scored, once. The sentences have no documents, so the intervals resample sentences.

The figures to beat, `TO_BEAT`, are those of the data set's own zero-shot classifier (roberta-large-mnli that
is asked about each root's codebook entry; Hu et al. 2024, "Leveraging Codebook Knowledge with NLI and ChatGPT
for Zero-Shot Political Relation Classification") on the same file, as this project was given them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    TrainingArguments,
    set_seed,
)

from communique.eval.metrics import Floats, Ints, f1_of
from communique.eval.resample import Number, Resampler
from communique.model.classifier import softmax
from communique.model.engine import available_cores, batches
from communique.model.jsonl import write_text
from communique.model.labels import LABELS, STANCES, label_index
from communique.model.tokens import SentenceTokenizer
from communique.train.batches import Collator, EncodedRows, TokenBatches, TrainRow
from communique.train.config import TrainConfig
from communique.train.fit import model_config, use_bf16
from communique.train.models import build_model, encoder_folder
from communique.train.public import PublicRow
from communique.train.public_sources import PLOVER_ROOTS
from communique.train.trainer import StanceTrainer

ROOTS = tuple(PLOVER_ROOTS)
"""The 15 classes, in alphabetical order."""
TO_BEAT = {"macro_f1_stances": 0.864, "macro_f1_roots": 0.821}
"""Mean F1 of the four stances and of the 15 roots, on the test file."""


@dataclass(frozen=True)
class PloverScores:
    """One system on the test file."""

    macro_f1_stances: Number
    """Mean F1 of the four stances."""
    macro_f1_roots: Number
    """Mean F1 of the 15 roots."""
    f1_stances: dict[str, Number]
    f1_roots: dict[str, Number]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        each = {
            name: {key: n.to_json() for key, n in getattr(self, name).items()}
            for name in ("f1_stances", "f1_roots")
        }
        means = {name: getattr(self, name).to_json() for name in TO_BEAT}
        return {**means, **each}


def plover_config(**changes: Any) -> TrainConfig:  # noqa: ANN401  fields of the config
    """The recipe: sentences alone, the last state kept, one rate for the whole encoder."""
    recipe: dict[str, Any] = {
        "epochs": 8,
        "learning_rate": 5e-5,
        "layer_decay": 1.0,
        "batch_tokens": 640,
        "before_tokens": 0,
        "keep": "last",
    }
    return TrainConfig(**(recipe | changes))


def score(gold: Sequence[str], found: Sequence[str]) -> PloverScores:
    """Scores of predicted roots against gold roots, with intervals that resample sentences.

    Raises:
        KeyError: a root that is none of the 15.
    """
    places = {root: n for n, root in enumerate(ROOTS)}
    truth, said = (np.array([places[root] for root in roots]) for roots in (gold, found))
    stance = np.array([label_index(str(PLOVER_ROOTS[root])) for root in ROOTS])
    resampler = Resampler(len(truth))
    roots = resampler.estimate(_one_each(truth, said, len(ROOTS)), _f1_and_mean(len(ROOTS)))
    stances = resampler.estimate(
        _one_each(stance[truth], stance[said], len(LABELS)), _f1_and_mean(len(STANCES))
    )
    return PloverScores(
        stances[-1],
        roots[-1],
        dict(zip(map(str, LABELS), stances, strict=False)),
        dict(zip(ROOTS, roots, strict=False)),
    )


def _one_each(truth: Ints, found: Ints, classes: int) -> Floats:
    """A confusion table for each sentence, (sentences, classes, classes)."""
    tables = np.zeros((len(truth), classes, classes))
    tables[np.arange(len(truth)), truth, found] = 1
    return tables


def _f1_and_mean(counted: int) -> Any:  # noqa: ANN401  a function, as `Resampler.estimate` wants it
    def statistic(tables: Floats) -> Floats:
        f1 = f1_of(tables)
        return np.concatenate([f1, f1[:, :counted].mean(axis=1, keepdims=True)], axis=1)

    return statistic


def train_and_predict(
    config: TrainConfig, train: Sequence[PublicRow], test: Sequence[PublicRow]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Fine-tune on `train` and give the test rows' logits, (rows, 15); test labels are never looked at."""
    set_seed(config.seed)
    torch.set_num_threads(config.threads or available_cores())
    model = build_model(config, ROOTS)
    feed = model_config(config, "plover", model.config.model_type)
    tokenizer = SentenceTokenizer(
        AutoTokenizer.from_pretrained(encoder_folder(config.encoder)).backend_tokenizer, feed
    )
    collator = Collator(tokenizer.pad_id, feed.token_types)
    eye = np.eye(len(ROOTS))
    data = EncodedRows(
        [TrainRow(r.text, soft=tuple(eye[ROOTS.index(r.source_label)])) for r in train],
        tokenizer,
    )
    with tempfile.TemporaryDirectory() as scratch:
        last_state_trainer(config, model, data, collator, Path(scratch)).train()
    blank = EncodedRows([TrainRow(r.text, soft=tuple(eye[0])) for r in test], tokenizer)
    return _logits(model, blank, collator, bf16=use_bf16(config))


def last_state_trainer(
    config: TrainConfig, model: PreTrainedModel, data: EncodedRows, collator: Collator, folder: Path
) -> StanceTrainer:
    """A Trainer for any number of classes that looks at no held-out row and saves nothing.

    Args:
        config: the run.
        model: with as many outputs as the rows' targets have.
        data: rows to learn from; `TrainRow.soft` carries the target.
        collator: pads them.
        folder: where the Trainer may write its state.
    """
    plan = TokenBatches(data.lengths, config.batch_tokens, config.seed)
    steps = max(1, round(len(plan) * config.epochs))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        learning_rate=config.learning_rate,
        warmup_steps=round(steps * config.warmup),
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        eval_strategy="no",
        save_strategy="no",
        bf16=use_bf16(config),
        fp16=config.precision == "fp16",
        remove_unused_columns=False,
        logging_steps=max(1, steps // 20),
        report_to=[],
        seed=config.seed,
        data_seed=config.seed,
        disable_tqdm=None,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    return StanceTrainer(
        model=model, args=arguments, rows=data, batches=plan, data_collator=collator, config=config
    )


def _logits(
    model: PreTrainedModel, data: EncodedRows, collator: Collator, *, bf16: bool
) -> np.ndarray[Any, np.dtype[np.float32]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.train(False)
    out = np.empty((len(data), len(ROOTS)), dtype=np.float32)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for batch in batches(data.lengths, 4096):
            tensors = collator([data[i] for i in batch])
            tensors.pop("labels"), tensors.pop("weight")
            logits = model(**{k: v.to(device) for k, v in tensors.items()}).logits
            out[batch] = logits.float().cpu().numpy()
    return out


def run(
    config: TrainConfig, rows: tuple[Sequence[PublicRow], Sequence[PublicRow]], out: Path, seeds: int = 1
) -> dict[str, PloverScores]:
    """Every seed's scores and, of several seeds, those of their summed probabilities.

    A seed whose `seed-N.json` lies in `out`, written with the same config, is not trained again.

    Args:
        config: the run; its seed is the first.
        rows: training and test rows (`public.plv_benchmark`).
        out: folder for `seed-N.json` (predicted roots and scores, no texts) and `plover.json`.
        seeds: how many.
    """
    train, test = rows
    gold = [row.source_label for row in test]
    found: dict[str, PloverScores] = {}
    total = np.zeros((len(test), len(ROOTS)))
    for seed in range(config.seed, config.seed + seeds):
        probabilities = _seed_probabilities(config, seed, rows, out / f"seed-{seed}.json")
        total += probabilities
        found[f"seed {seed}"] = score(gold, [ROOTS[i] for i in probabilities.argmax(axis=1)])
    if seeds > 1:
        found[f"{seeds} seeds together"] = score(gold, [ROOTS[i] for i in total.argmax(axis=1)])
    content = {
        "name": "plover",
        "encoder": config.encoder,
        "train_rows": len(train),
        "test_rows": len(test),
        "to_beat": TO_BEAT,
        "config": vars(config),
        "systems": {name: scores.to_json() for name, scores in found.items()},
    }
    write_text(out / "plover.json", json.dumps(content, indent=1) + "\n")
    return found


def _seed_probabilities(
    config: TrainConfig, seed: int, rows: tuple[Sequence[PublicRow], Sequence[PublicRow]], cache: Path
) -> Floats:
    own = replace(config, seed=seed)
    if cache.is_file():
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept["config"] == vars(own) and len(kept["probabilities"]) == len(rows[1]):
            return np.array(kept["probabilities"])
    probabilities = softmax(train_and_predict(own, *rows), 1.0).round(5)
    content = {"config": vars(own), "roots": ROOTS, "probabilities": probabilities.tolist()}
    write_text(cache, json.dumps(content) + "\n")
    return probabilities


def table(
    found: dict[str, PloverScores],
    config: TrainConfig,
    rows: tuple[Sequence[PublicRow], Sequence[PublicRow]],
) -> Table:
    """The scores for the terminal, beside the figures to beat."""
    sizes = f"{len(rows[0]):,} sentences learnt from, {len(rows[1]):,} scored"
    shown = Table(
        title=f"Zero-Shot PLOVER: {config.encoder}, {sizes}",
        caption="brackets: 95 % interval, sentences resampled",
    )
    shown.add_column("")
    for heading in ("mean F1 of the four stances", "macro-F1 of the 15 roots"):
        shown.add_column(heading, justify="right")
    for name, scores in found.items():
        shown.add_row(name, *(_cell(getattr(scores, key)) for key in TO_BEAT))
    if len(found) > 2:  # seeds, and all of them together
        single = list(found.values())[:-1]
        each = [[getattr(scores, key).value or 0.0 for scores in single] for key in TO_BEAT]
        shown.add_row(
            "mean of the seeds (sd)", *(f"{np.mean(v):.3f} ({np.std(v, ddof=1):.3f})" for v in each)
        )
    shown.add_section()
    shown.add_row("to beat", *(f"{value:.3f}" for value in TO_BEAT.values()))
    shown.add_section()
    last = list(found.values())[-1]
    for label, number in last.f1_stances.items():
        shown.add_row(f"F1 {label}", _cell(number), "")
    for root, number in last.f1_roots.items():
        shown.add_row(f"F1 {root}", "", _cell(number))
    return shown


def _cell(n: Number) -> str:
    return f"{n.value:.3f} \\[{n.low:.3f}, {n.high:.3f}]"
