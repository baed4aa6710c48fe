"""Fine-tune an encoder on labelled sentences with the Hugging Face Trainer.

    metrics = fit(TrainConfig(encoder="all-MiniLM-L6-v2"), train_rows, dev_rows, Path("runs/trial"))

The folder then holds the model in the form that `AutoModelForSequenceClassification` and `pipeline`
load, `train.json` (the config) and `metrics.json`. The same call under `torchrun` or
`accelerate launch` trains in several processes, of which the first alone writes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from torch.utils.data import Subset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from communique.model.artifact import ModelConfig
from communique.model.engine import available_cores, batches, processor_flags, slow_bf16
from communique.model.errors import InputError
from communique.model.labels import LABELS, LABELS_VERSION
from communique.model.tokens import SentenceTokenizer
from communique.train import resume as resuming
from communique.train.batches import BUCKET, Collator, EncodedRows, TokenBatches, TrainRow
from communique.train.config import TrainConfig
from communique.train.export import has_token_types
from communique.train.grid import RoundFrom, put_on_grid, settle
from communique.train.models import build_model, encoder_folder, first_encoder
from communique.train.trainer import StanceTrainer, dev_metrics

__all__ = ["TrainRow", "fit", "model_config", "predict_logits", "processes", "two_stages"]


def model_config(config: TrainConfig, name: str, model_type: str) -> ModelConfig:
    """How the trained model is to be fed, uncalibrated."""
    return ModelConfig(
        name=name,
        encoder=first_encoder(config.encoder),
        labels=tuple(map(str, LABELS)),
        labels_version=LABELS_VERSION,
        max_tokens=config.max_tokens,
        before_tokens=config.before_tokens,
        after_tokens=config.after_tokens,
        temperature=1.0,
        threshold=0.0,
        token_types=has_token_types(model_type),
    )


def use_bf16(config: TrainConfig) -> bool:
    """bf16 where asked for, or on its own where the processor or GPU computes in it."""
    if config.precision == "auto":
        if torch.cuda.is_available():
            return bool(torch.cuda.is_bf16_supported())
        # oneDNN emulates bf16 without avx512_bf16, slower than fp32: ask the processor.
        return "avx512_bf16" in processor_flags() and not slow_bf16()
    return config.precision == "bf16"


def processes() -> PartialState:
    """This process among those that train together: one, unless `torchrun` or the like started more."""
    return PartialState(cpu=not torch.cuda.is_available())


def fit(
    config: TrainConfig,
    rows: Sequence[TrainRow],
    dev: Sequence[TrainRow],
    out: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    first: Sequence[TrainRow] = (),
) -> dict[str, Any]:
    """Train a model and keep the best (or last) state by macro-F1 of the four labels on dev.

    Args:
        config: the run.
        rows: sentences to learn from.
        dev: sentences to choose the state on; never a test split.
        out: folder for the model, `train.json`, `metrics.json`.
        resume: go on from the last checkpoint in `out`, or begin where there is none; a run that had
            ended is left as it is.
        callbacks: of the Trainer, besides its own.
        first: rows that the encoder learnt from in the stage before: a resumed run must have the same.

    Returns:
        The metrics on dev.

    Raises:
        InputError: no rows or no dev; a tracker that is not installed; resumed with other settings or
            data than it was begun with.
        Interrupted: Ctrl-C; the step was finished and saved.
    """
    check_tracker(config.tracker)
    for name, given in (("to learn from", rows), ("of dev", dev)):
        if not given:
            raise InputError(f"there is no sentence {name} that has its text: set COMMUNIQUE_SHARED")
    group = processes()
    begun = resuming.fingerprint(config, rows, dev, group.num_processes, first)
    going_on = resume and resuming.is_begun(out)
    if going_on:
        resuming.check_same(out, begun)
        if (out / "metrics.json").is_file():
            return dict(json.loads((out / "metrics.json").read_text(encoding="utf-8")))
    group.wait_for_everyone()
    if group.is_main_process and not going_on:
        resuming.begin(out, begun)
    group.wait_for_everyone()
    set_seed(config.seed)
    torch.set_num_threads(config.threads or max(1, available_cores() // group.num_processes))
    model = build_model(config)
    on_grid = [RoundFrom(put_on_grid(model), config.grid_from)] if config.weight_bits == 4 else []
    fast = AutoTokenizer.from_pretrained(encoder_folder(config.encoder))
    feed = model_config(config, "train", model.config.model_type)
    tokenizer = SentenceTokenizer(fast.backend_tokenizer, feed)
    train_data = EncodedRows(rows, tokenizer, config.label_smoothing)
    bucket = BUCKET if config.compile else 1
    plan = TokenBatches(
        train_data.lengths,
        config.batch_tokens,
        config.seed,
        bucket=bucket,
        process=group.process_index,
        processes=group.num_processes,
    )
    if config.compile:  # one graph for each bucket and each way of running it, none for sizes at large
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch._dynamo.config.recompile_limit = 128
    stop = resuming.StopAtStep()
    early = [EarlyStoppingCallback(config.patience)] if config.patience else []
    trainer = StanceTrainer(
        model=model,
        args=_arguments(config, out, math.ceil(len(plan) * config.epochs)),
        rows=train_data,
        batches=plan,
        eval_dataset=by_length(EncodedRows(dev, tokenizer)),
        data_collator=Collator(tokenizer.pad_id, feed.token_types, bucket),
        compute_metrics=dev_metrics,
        callbacks=[*early, *on_grid, stop, *callbacks],
        config=config,
    )
    with stop.listening():
        trainer.train(resume_from_checkpoint=resuming.last_checkpoint(out) if going_on else None)
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        raise resuming.Interrupted(
            f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}, "
            "which is saved: the same command with --resume goes on from there"
        )
    metrics = trainer.evaluate()
    settle(model)
    trainer.save_model(str(out))
    if group.is_main_process:
        fast.save_pretrained(str(out))
        config.save(out / "train.json")
        (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    group.wait_for_everyone()
    return dict(metrics)


def by_length(rows: EncodedRows) -> Subset[dict[str, Any]]:
    """Rows in order of their tokens, so that batches hold little padding."""
    return Subset(rows, sorted(range(len(rows)), key=rows.lengths.__getitem__))


def _arguments(config: TrainConfig, out: Path, steps: int) -> TrainingArguments:
    every = config.eval_steps or max(1, math.ceil(steps / math.ceil(config.epochs)))
    return TrainingArguments(
        output_dir=str(out / resuming.CHECKPOINTS),
        max_steps=steps,
        learning_rate=config.learning_rate,
        warmup_steps=round(steps * config.warmup),
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        per_device_eval_batch_size=32,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=config.keep == "best",
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,  # how long early stopping has waited
        bf16=use_bf16(config),
        fp16=config.precision == "fp16",
        torch_compile=config.compile,
        remove_unused_columns=False,
        logging_steps=max(1, every // 4),
        report_to=[] if config.tracker == "none" else [config.tracker],
        run_name=out.name,
        seed=config.seed,
        data_seed=config.seed,
        disable_tqdm=None,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )


def check_tracker(name: str) -> None:
    """Raise where an experiment tracker is asked for that is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise InputError(f"tracker {name} is not installed: pip install {name}")


def two_stages(
    config: TrainConfig,
    rows: Sequence[TrainRow],
    public: Sequence[TrainRow],
    dev: Sequence[TrainRow],
    out: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[TrainRow]:
    """Fit on public rows, then on annotated ones (or on both at once, where `first_epochs` is 0).

    Args:
        resume: go on in the stage that was interrupted.
        callbacks: of the Trainer in the last stage.

    Returns:
        All the rows that were learnt from.
    """
    if not resume and processes().is_main_process:
        # The second stage's too: stopped in the first, this run would go on with an earlier one's second.
        shutil.rmtree(out / "first", ignore_errors=True)
        resuming.clear(out)
    if not public or config.first_epochs == 0:
        fit(config, [*rows, *public], dev, out, resume=resume, callbacks=callbacks)
    else:
        # Weights that are trained go on their grid in the last stage alone.
        first = dataclasses.replace(
            config, epochs=config.first_epochs, keep="last", patience=0, grid_from=1.0
        )
        fit(first, public, dev, out / "first", resume=resume)
        start = dataclasses.replace(config, encoder=str(out / "first"))
        fit(start, rows, dev, out, resume=resume, callbacks=callbacks, first=public)
    if processes().is_main_process:
        config.save(out / "train.json")
    return [*rows, *public]


def predict_logits(
    folder: Path,
    config: TrainConfig,
    rows: Sequence[TrainRow],
    *,
    batch_tokens: int = 4096,
    tick: Callable[[int], None] = lambda n: None,
) -> npt.NDArray[np.float32]:
    """Logits of a trained model in its torch form, shape (rows, 5), in order.

    `tick` is told the size of each batch that was read.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    fast = AutoTokenizer.from_pretrained(folder)
    feed = model_config(config, "predict", model.config.model_type)
    tokenizer = SentenceTokenizer(fast.backend_tokenizer, feed)
    blank = [TrainRow(r.text, r.before, r.after, label=str(LABELS[-1])) for r in rows]
    data = EncodedRows(blank, tokenizer)
    collator = Collator(tokenizer.pad_id, feed.token_types)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    out = np.empty((len(rows), len(LABELS)), dtype=np.float32)
    torch.set_num_threads(config.threads or available_cores())
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16(config)):
        for batch in batches(data.lengths, batch_tokens):
            tensors = collator([data[i] for i in batch])
            tensors.pop("labels"), tensors.pop("weight")
            logits = model(**{k: v.to(device) for k, v in tensors.items()}).logits
            out[batch] = logits.float().cpu().numpy()
            tick(len(batch))
    return out
