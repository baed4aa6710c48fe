"""One epoch of `communique train` against one with the defaults of `run_classification`.

    make bench-train
    python bench/train_speed.py --rows 512 --rounds 3 --encoder all-MiniLM-L6-v2
    python bench/train_speed.py --rows 0 --rounds 1 --score       # everything, and macro-F1 on dev

Ours: batches of similar length under a token budget, bf16 where the processor computes in it. The other: the
Trainer's own loop as the text-classification example of transformers sets it up: batches of 8 (`--batch`
for another), every sentence padded to the maximum length, fp32, one rate for all weights. Same encoder,
sentences, neighbours, tokens and maximum length. The rounds are interleaved; the ratio of the medians is
what counts. Without the texts of real statements, the project's own are used.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from communique.model.engine import available_cores, batches
from communique.model.labels import LABELS, label_index
from communique.model.tokens import SentenceTokenizer
from communique.train.batches import Collator, EncodedRows, TrainRow
from communique.train.config import TrainConfig
from communique.train.corpus import load_annotations
from communique.train.fit import model_config, use_bf16
from communique.train.models import build_model, encoder_folder
from communique.train.plover import last_state_trainer
from communique.train.recipe import labelled_rows, training_rows

PAD_TO = 128
"""Tokens that every sentence is padded to by the other loop: `max_seq_length` of the example."""


def padded(row: dict, length: int, pad_id: int) -> dict:
    """A row as the example feeds it: cut or padded to `length`, a class number as label."""
    ids = row["ids"][:length]
    fill = length - len(ids)
    first = min(row["first_context"], len(ids))
    return {
        "input_ids": [*ids, *[pad_id] * fill],
        "attention_mask": [1] * len(ids) + [0] * fill,
        "token_type_ids": [0] * first + [1] * (len(ids) - first) + [0] * fill,
        "labels": int(np.argmax(row["target"])),
    }


class Contest:
    """Both ways over the same rows."""

    def __init__(self, config: TrainConfig, rows: list[TrainRow], dev: list[TrainRow], batch: int) -> None:
        self.config = config
        self.batch = batch
        self.model_type = build_model(config).config.model_type
        feed = model_config(config, "bench", self.model_type)
        fast = AutoTokenizer.from_pretrained(encoder_folder(config.encoder))
        tokenizer = SentenceTokenizer(fast.backend_tokenizer, feed)
        self.data = EncodedRows(rows, tokenizer)
        self.dev = EncodedRows(dev, tokenizer) if dev else None
        self.gold = np.array([label_index(row.label) for row in dev])
        self.collator = Collator(tokenizer.pad_id, feed.token_types)
        names = ("input_ids", "attention_mask", "labels", *(("token_type_ids",) if feed.token_types else ()))
        self.plain = [
            {name: value for name, value in padded(row, PAD_TO, tokenizer.pad_id).items() if name in names}
            for row in (self.data[i] for i in range(len(self.data)))
        ]

    def ours(self) -> tuple[float, torch.nn.Module]:
        """Seconds of the training loop, and the model."""
        set_seed(self.config.seed)
        model = build_model(self.config)
        with tempfile.TemporaryDirectory() as scratch:
            trainer = last_state_trainer(self.config, model, self.data, self.collator, Path(scratch))
            return timed(trainer), model

    def defaults(self) -> tuple[float, torch.nn.Module]:
        """The same with the example's defaults."""
        set_seed(self.config.seed)
        model = build_model(self.config)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch,
                num_train_epochs=self.config.epochs,
                per_device_train_batch_size=self.batch,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=torch.cuda.is_available(),
            )
            return timed(Trainer(model=model, args=arguments, train_dataset=self.plain)), model

    def macro_f1(self, model: torch.nn.Module) -> float:
        """Of the four stances, on dev, the most probable label counting."""
        from sklearn.metrics import f1_score

        found = np.empty(len(self.dev), dtype=np.int64)
        model.eval()
        bf16 = use_bf16(self.config)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            for batch in batches(self.dev.lengths, 4096):
                tensors = self.collator([self.dev[i] for i in batch])
                tensors.pop("labels"), tensors.pop("weight")
                tensors = {name: t.to(next(model.parameters()).device) for name, t in tensors.items()}
                found[batch] = model(**tensors).logits.argmax(dim=-1).cpu().numpy()
        four = list(range(len(LABELS) - 1))
        return float(f1_score(self.gold, found, labels=four, average="macro", zero_division=0.0))


def timed(trainer: Trainer) -> float:
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=256, help="sentences an epoch; 0 for all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=8, help="sentences a batch of the other loop")
    parser.add_argument("--encoder", default="bge-small-en-v1.5")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--score", action="store_true", help="also macro-F1 on dev after training")
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(given.threads or available_cores())
    config = TrainConfig(encoder=given.encoder, epochs=given.epochs, keep="last")
    annotations = load_annotations()
    rows = training_rows(annotations, config)
    if given.rows:
        order = np.random.default_rng(0).permutation(len(rows))[: given.rows]
        rows = [rows[i] for i in order]
    dev = labelled_rows(annotations.split("dev")) if given.score else []
    if given.score and not dev:
        parser.error("--score needs the texts of real statements: set COMMUNIQUE_SHARED")
    contest = Contest(config, rows, dev, given.batch)
    seconds: dict[str, list[float]] = {"communique": [], "run_classification defaults": []}
    scores: dict[str, list[float]] = {name: [] for name in seconds}
    for _ in range(given.rounds):
        for name, way in zip(seconds, (contest.ours, contest.defaults), strict=True):
            spent, model = way()
            seconds[name].append(spent)
            if dev:
                scores[name].append(contest.macro_f1(model))
    report(contest, seconds, scores)


def report(contest: Contest, seconds: dict[str, list[float]], scores: dict[str, list[float]]) -> None:
    lengths = contest.data.lengths
    table = Table(
        title=f"{contest.config.epochs:g} epochs over {len(lengths):,} sentences, {contest.config.encoder}",
        caption=f"median length {statistics.median(lengths):g} tokens; bf16: {use_bf16(contest.config)}; "
        f"threads: {torch.get_num_threads()}",
    )
    for heading in ("", "seconds, median", "of rounds", "macro-F1 on dev"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in seconds.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        score = f"{statistics.mean(scores[name]):.3f}" if scores[name] else "not asked for"
        table.add_row(name, f"{statistics.median(values):.1f}", each, score)
    ours, others = (statistics.median(values) for values in seconds.values())
    table.add_row("ratio", f"{others / ours:.2f}", "", "")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
