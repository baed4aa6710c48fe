"""The encoder with a head: where it comes from, and what of it learns.

model = build_model(TrainConfig(encoder="all-mpnet-base-v2", frozen_layers=6))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from communique.model.engine import filled
from communique.model.errors import InputError
from communique.model.labels import LABELS
from communique.train.config import TrainConfig
from communique.train.encoders import ENCODERS, fetch_encoder


def encoder_folder(name: str) -> str:
    """A pinned encoder's folder (downloaded if need be), or the name as given for the hub or a folder."""
    if Path(name).is_dir():
        return name
    return str(fetch_encoder(name)) if name in ENCODERS else name


def first_encoder(name: str) -> str:
    """The encoder that a chain of trainings began with, where `name` is the folder of one."""
    saved = Path(name) / "train.json"
    return first_encoder(TrainConfig.load(saved).encoder) if saved.is_file() else name


def trained_before(name: str) -> bool:
    """Whether `name` is the folder of a training, or was made from that of one."""
    folder = Path(name)
    if not (folder / "train.json").is_file():
        return False
    return (folder / "metrics.json").is_file() or trained_before(
        TrainConfig.load(folder / "train.json").encoder
    )


def build_model(config: TrainConfig, labels: Sequence[str] = tuple(map(str, LABELS))) -> PreTrainedModel:
    """The encoder with a head for these labels, fresh unless `config.encoder` is a trained model's folder."""
    source = encoder_folder(config.encoder)
    names = dict(enumerate(labels))
    settings = AutoConfig.from_pretrained(
        source,
        num_labels=len(names),
        id2label=names,
        label2id={name: i for i, name in names.items()},
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        problem_type="single_label_classification",
    )
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        source, config=settings, attn_implementation=attention()
    )
    needed, there = positions(config), places(model)
    if needed > there:
        raise InputError(
            f"{config.encoder} reads {there} tokens, but max_tokens, before_tokens and after_tokens come to "
            f"{needed} with what stands between them: take fewer, or another encoder"
        )
    freeze(model, config.frozen_layers)
    return model


def positions(config: TrainConfig) -> int:
    """Most tokens a sentence: with a start, an end after it and each neighbour, and as engines fill it up."""
    neighbours = [n for n in (config.before_tokens, config.after_tokens) if n]
    return filled(config.max_tokens + sum(neighbours) + len(neighbours) + 2)


def places(model: PreTrainedModel) -> int:
    """Tokens that the encoder has positions for; where it numbers them otherwise, what its settings say."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if table is None:
        return int(getattr(model.config, "max_position_embeddings", 1_000_000))
    return int(table.num_embeddings) - (0 if table.padding_idx is None else int(table.padding_idx) + 1)


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Let the lowest layers and what lies below them be as they are, for a fraction of a step's time.

    Lee, Tang and Lin 2019, "What would Elsa do?": a half of BERT's layers hardly needs fine-tuning. What is
    frozen has no dropout either.

    Raises:
        InputError: the encoder has not so many layers, or none that can be told apart.
    """
    if layers == 0:
        return
    base, depth = model.base_model, model.config.num_hidden_layers
    stacks = [m for m in base.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth]
    if layers > depth or not stacks:
        found = f"{depth} layers" if stacks else "no layers that can be told apart"
        raise InputError(f"frozen_layers is {layers}, but the encoder has {found}")
    pooler = getattr(base, "pooler", None)
    free = [*stacks[0][layers:], *([pooler] if pooler is not None else [])]
    base.requires_grad_(False)
    for part in free:
        part.requires_grad_(True)
    learning = {module for part in free for module in part.modules()}
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout) and module not in learning:
            module.p = 0.0


def attention() -> str | None:
    """Which attention to train with: plain on a processor, the encoder's own choice on a GPU.

    The fused kernel for processors is slow backwards: an epoch of bge-small took a fifth longer with it.
    """
    return None if torch.cuda.is_available() else "eager"
