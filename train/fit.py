"""Fine-tune an encoder on labelled sentences with the Hugging Face Trainer.

    metrics = fit(TrainConfig(encoder="all-MiniLM-L6-v2"), train_rows, dev_rows, Path("runs/trial"))

The folder then holds the model in the form that `AutoModelForSequenceClassification` and `pipeline`
load, `train.json` (the config) and `metrics.json`.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

from communique.model.artifact import ModelConfig
from communique.model.engine import available_cores, batches
from communique.model.labels import LABELS, LABELS_VERSION, STANCES, label_index
from communique.model.tokens import SentenceInput, SentenceTokenizer
from communique.train.config import TrainConfig
from communique.train.encoders import ENCODERS, fetch_encoder
from communique.train.export import has_token_types


@dataclass(frozen=True)
class TrainRow:
    """A sentence to learn from: a label, or a teacher's probabilities."""

    text: str
    before: str = ""
    after: str = ""
    label: str = ""
    soft: tuple[float, ...] = ()
    """Probabilities for `LABELS`; empty where `label` is given."""
    weight: float = 1.0
    source: str = ""


class EncodedRows(Dataset[dict[str, Any]]):
    """Rows as token ids and target distributions."""

    def __init__(
        self, rows: Sequence[TrainRow], tokenizer: SentenceTokenizer, smoothing: float = 0.0
    ) -> None:
        encoded = tokenizer.encode([SentenceInput(r.text, r.before, r.after) for r in rows])
        self.ids = [e.ids for e in encoded]
        self.first_context = [e.first_context for e in encoded]
        self.targets = np.stack([_target(row, smoothing) for row in rows]).astype(np.float32)
        self.weights = np.array([row.weight for row in rows], dtype=np.float32)
        self.lengths = [len(ids) for ids in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "ids": self.ids[index],
            "first_context": self.first_context[index],
            "target": self.targets[index],
            "weight": self.weights[index],
        }


def _target(row: TrainRow, smoothing: float) -> npt.NDArray[np.float64]:
    """Distribution over the labels that the row teaches, shape (5,)."""
    if row.soft:
        return np.asarray(row.soft)
    target = np.full(len(LABELS), smoothing / len(LABELS))
    target[label_index(row.label)] += 1 - smoothing
    return target


@dataclass(frozen=True)
class Collator:
    """Pads encoded rows to the longest of the batch: int64 (batch, tokens)."""

    pad_id: int
    token_types: bool

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack rows; targets become `labels` (batch, 5), weights `weight` (batch,)."""
        longest = max(len(row["ids"]) for row in rows)
        ids = torch.full((len(rows), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            n = len(row["ids"])
            ids[i, :n] = torch.tensor(row["ids"])
            mask[i, :n] = 1
            types[i, row["first_context"] : n] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.token_types:
            batch["token_type_ids"] = types
        batch["labels"] = torch.from_numpy(np.stack([row["target"] for row in rows]))
        batch["weight"] = torch.from_numpy(np.array([row["weight"] for row in rows]))
        return batch


class TokenBatches:
    """Batches of similar length under a token budget, shuffled anew each epoch from the seed."""

    def __init__(self, lengths: Sequence[int], budget: int, seed: int) -> None:
        self._lengths = lengths
        self._budget = budget
        self._seed = seed
        self._epoch = 0
        # Lengths are jittered before sorting, so the number of batches varies a little by epoch; the
        # scheduler wants one number, so every epoch is planned from the same jitter and only reordered.
        self.batch_size = None
        self.drop_last = False
        self._batches = self._plan()

    def _plan(self) -> list[list[int]]:
        jitter = random.Random(self._seed)
        noisy = [length * jitter.uniform(0.85, 1.15) for length in self._lengths]
        order = sorted(range(len(noisy)), key=lambda i: noisy[i], reverse=True)
        planned: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for index in order:
            longest = max(longest, self._lengths[index])
            if batch and (len(batch) + 1) * longest > self._budget:
                planned.append(batch)
                batch, longest = [], self._lengths[index]
            batch.append(index)
        return [*planned, batch] if batch else planned

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self._batches)))
        random.Random(self._seed * 1_000_003 + self._epoch).shuffle(order)
        self._epoch += 1
        return (self._batches[i] for i in order)


class StanceTrainer(Trainer):
    """The Trainer with token-budget batches, row weights, soft targets and layer-wise rates."""

    def __init__(self, *, config: TrainConfig, rows: EncodedRows, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(train_dataset=rows, **settings)
        self._config = config
        self._rows = rows
        self._class_weights = _class_weights(rows, config)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches under the token budget."""
        data = self._rows
        sampler = TokenBatches(data.lengths, self._config.batch_tokens, self._config.seed)
        loader: DataLoader[Any] = DataLoader(data, batch_sampler=sampler, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401  one tensor or a pair, as the parent class has it
        """Cross-entropy against target distributions, weighted by row; focal where asked for."""
        targets, weights = inputs.pop("labels"), inputs.pop("weight")
        logits = model(**inputs).logits.float()
        log_p = torch.log_softmax(logits, dim=-1)  # (batch, labels)
        terms = -targets * log_p
        if self._config.loss == "focal":  # Lin et al. 2017
            terms = terms * (1 - log_p.exp()) ** self._config.focal_gamma
        if self._class_weights is not None:
            terms = terms * self._class_weights.to(terms.device)
        loss = (terms.sum(dim=-1) * weights).sum() / weights.sum()
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Logits and target labels of one batch."""
        targets = inputs["labels"].argmax(dim=-1)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, out = self.compute_loss(model, self._prepare_inputs(dict(inputs)), return_outputs=True)
        return loss.detach(), out["logits"].detach(), targets

    def create_optimizer(self, model: Any = None) -> Any:  # noqa: ANN401
        """AdamW; the head at its own rate, lower layers at a decaying one (Howard and Ruder 2018)."""
        if self.optimizer is None:
            groups = parameter_groups(self.model, self._config)  # type: ignore[arg-type]
            self.optimizer = torch.optim.AdamW(groups, lr=self._config.learning_rate, eps=1e-6)
        return self.optimizer


def _class_weights(data: EncodedRows, config: TrainConfig) -> torch.Tensor | None:
    """Square root of the inverse label frequency, mean 1; None unless the loss is `weighted`."""
    if config.loss != "weighted":
        return None
    share = (data.targets * data.weights[:, None]).sum(axis=0)
    weights = (share.sum() / np.maximum(share, 1e-9)) ** 0.5
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def parameter_groups(model: PreTrainedModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Optimiser groups: one a layer and a decay setting, with `lr` and `weight_decay`."""
    depth = model.config.num_hidden_layers
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        decay = 0.0 if parameter.ndim < 2 else config.weight_decay
        if name.startswith(("classifier", "score")):
            rate = config.head_learning_rate
        else:
            rate = config.learning_rate * config.layer_decay ** (depth - _layer(name, depth))
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def _layer(name: str, depth: int) -> int:
    """0 for embeddings, 1..depth for the encoder's layers, depth for what lies above them."""
    parts = name.split(".")
    if "embeddings" in parts:
        return 0
    for part, following in itertools.pairwise(parts):
        if part in ("layer", "layers") and following.isdigit():
            return int(following) + 1
    return depth


def encoder_folder(name: str) -> str:
    """A pinned encoder's folder (downloaded if need be), or the name as given for the hub or a folder."""
    if Path(name).is_dir():
        return name
    return str(fetch_encoder(name)) if name in ENCODERS else name


def build_model(config: TrainConfig) -> PreTrainedModel:
    """The encoder with a fresh five-label head."""
    source = encoder_folder(config.encoder)
    names = dict(enumerate(map(str, LABELS)))
    settings = AutoConfig.from_pretrained(
        source,
        num_labels=len(LABELS),
        id2label=names,
        label2id={name: i for i, name in names.items()},
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        problem_type="single_label_classification",
    )
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(source, config=settings)
    return model


def model_config(config: TrainConfig, name: str, model_type: str) -> ModelConfig:
    """How the trained model is to be fed, uncalibrated."""
    return ModelConfig(
        name=name,
        encoder=config.encoder,
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
        cpuinfo = Path("/proc/cpuinfo")
        return cpuinfo.is_file() and "avx512_bf16" in cpuinfo.read_text()
    return config.precision == "bf16"


def four_label_macro_f1(gold: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """Macro-F1 of the four stances; `none` rows count as errors where a stance is given to them."""
    from sklearn.metrics import f1_score

    stances = list(range(len(STANCES)))
    return float(f1_score(gold, predicted, labels=stances, average="macro", zero_division=0.0))


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    from sklearn.metrics import f1_score

    gold = np.asarray(prediction.label_ids)
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    each = f1_score(gold, predicted, labels=list(range(len(LABELS))), average=None, zero_division=0.0)
    scores = {f"f1_{label}": float(f1) for label, f1 in zip(LABELS, each, strict=True)}
    return {"macro_f1": float(np.mean(each[:4])), "macro_f1_five": float(np.mean(each)), **scores}


def fit(
    config: TrainConfig, rows: Sequence[TrainRow], dev: Sequence[TrainRow], out: Path, *, resume: bool = False
) -> dict[str, Any]:
    """Train a model and keep the best (or last) state by macro-F1 of the four labels on dev.

    Args:
        config: the run.
        rows: sentences to learn from.
        dev: sentences to choose the state on; never a test split.
        out: folder for the model, `train.json`, `metrics.json`.
        resume: go on from the last checkpoint in `out`.

    Returns:
        The metrics on dev.
    """
    set_seed(config.seed)
    torch.set_num_threads(config.threads or available_cores())
    out.mkdir(parents=True, exist_ok=True)
    config.save(out / "train.json")
    model = build_model(config)
    fast = AutoTokenizer.from_pretrained(encoder_folder(config.encoder))
    feed = model_config(config, "train", model.config.model_type)
    tokenizer = SentenceTokenizer(fast.backend_tokenizer, feed)
    train_data = EncodedRows(rows, tokenizer, config.label_smoothing)
    dev_data = EncodedRows(dev, tokenizer)
    collator = Collator(tokenizer.pad_id, feed.token_types)
    steps = math.ceil(len(TokenBatches(train_data.lengths, config.batch_tokens, config.seed)) * config.epochs)
    every = config.eval_steps or max(1, math.ceil(steps / math.ceil(config.epochs)))
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
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
        bf16=use_bf16(config),
        fp16=config.precision == "fp16",
        torch_compile=config.compile,
        remove_unused_columns=False,
        logging_steps=max(1, every // 4),
        report_to=[],
        seed=config.seed,
        data_seed=config.seed,
        disable_tqdm=None,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = StanceTrainer(
        model=model,
        args=arguments,
        rows=train_data,
        eval_dataset=dev_data,
        data_collator=collator,
        compute_metrics=_metrics,
        callbacks=[EarlyStoppingCallback(config.patience)] if config.patience else [],
        config=config,
    )
    trainer.train(resume_from_checkpoint=resume or None)
    metrics = trainer.evaluate()
    trainer.save_model(str(out))
    fast.save_pretrained(str(out))
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return dict(metrics)


def predict_logits(
    folder: Path, config: TrainConfig, rows: Sequence[TrainRow], *, batch_tokens: int = 4096
) -> npt.NDArray[np.float32]:
    """Logits of a trained model in its torch form, shape (rows, 5), in order."""
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
    return out
