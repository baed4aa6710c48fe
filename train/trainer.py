"""The Hugging Face Trainer with token-budget batches, row weights, soft targets, layer-wise rates.

trainer = StanceTrainer(config=config, rows=EncodedRows(...), model=model, args=arguments, ...)
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, Trainer

from communique.model.labels import LABELS
from communique.train.batches import EncodedRows, TokenBatches
from communique.train.config import TrainConfig


class StanceTrainer(Trainer):
    """The Trainer with token-budget batches, row weights, soft targets and layer-wise rates."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        rows: EncodedRows,
        batches: TokenBatches,
        **settings: Any,  # noqa: ANN401  the Trainer's own
    ) -> None:
        super().__init__(train_dataset=rows, **settings)
        self._batches = batches
        self._config = config
        self._rows = rows
        self._class_weights = _class_weights(rows, config)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches under the token budget, this process's share of them."""
        collator = self.data_collator
        if self._config.compile:  # whole batches too: a compiled model meets one shape a bucket
            collator = dataclasses.replace(collator, budget=self._config.batch_tokens)  # type: ignore[type-var]
        loader: DataLoader[Any] = DataLoader(self._rows, batch_sampler=self._batches, collate_fn=collator)
        # `accelerator.prepare` would shard the batches again, behind a wrapper that the training loop
        # does not reach with `set_epoch` after a resume: the sampler shards, accelerate only moves.
        return prepare_data_loader(  # type: ignore[no-any-return]
            loader, device=self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401  one tensor or a pair, as the parent class has it
        """Cross-entropy against target distributions, weighted by row; focal where asked for.

        The sum over the batch is divided by its number of rows, not by their weights: divided by these, a
        weight that all rows of a batch share (public data in a stage of its own) would cancel out. What
        fills a batch up weighs 0 and is no row. AdamW takes steps of about one size whatever the scale of
        all gradients, so what a weight decides most is how rows that differ in it share a batch.
        """
        targets, weights = inputs.pop("labels"), inputs.pop("weight")
        logits = model(**inputs).logits.float()
        log_p = torch.log_softmax(logits, dim=-1)  # (batch, labels)
        terms = -targets * log_p
        if self._config.loss == "focal":  # Lin et al. 2017
            terms = terms * (1 - log_p.exp()) ** self._config.focal_gamma
        if self._class_weights is not None:
            terms = terms * self._class_weights.to(terms.device)
        rows = (weights > 0).sum().clamp(min=1)
        loss = (terms.sum(dim=-1) * weights).sum() / rows
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
            self.optimizer = torch.optim.AdamW(groups, lr=self._config.learning_rate, eps=1e-6, fused=True)
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
        if not parameter.requires_grad:
            continue
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


def dev_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """F1 of each label on dev, their mean over the four stances (`macro_f1`) and over all five."""
    from sklearn.metrics import f1_score

    gold = np.asarray(prediction.label_ids)
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    each = f1_score(gold, predicted, labels=list(range(len(LABELS))), average=None, zero_division=0.0)
    scores = {f"f1_{label}": float(f1) for label, f1 in zip(LABELS, each, strict=True)}
    return {"macro_f1": float(np.mean(each[:4])), "macro_f1_five": float(np.mean(each)), **scores}
