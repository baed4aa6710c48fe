"""Every knob of a training run in one frozen dataclass; saved beside the weights as `train.json`.

    communique train --encoder bge-small-en-v1.5 --epochs 4 --seed 7 --out runs/trial

Flags of `communique train` are these fields. Impossible values fail at once with the value shown, and
unknown keys of a saved config are errors.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from communique.model.errors import InputError
from communique.train.files import read_object

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Loss = Literal["plain", "weighted", "focal"]
Tracker = Literal["none", "tensorboard", "trackio", "mlflow"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run, complete: the same config on the same data gives the same metrics."""

    encoder: str = "bge-small-en-v1.5"
    """A pinned encoder, a model of the hub, or a folder."""
    epochs: float = 3.0
    learning_rate: float = 7e-5
    """Of the encoder's top layer."""
    head_learning_rate: float = 1e-3
    frozen_layers: int = 0
    """The lowest layers, which keep what pretraining gave them, as do the embeddings below; 0 trains all."""
    layer_decay: float = 0.95
    """Each lower layer learns at this share of the rate of the one above it, in (0, 1]."""
    weight_decay: float = 0.01
    warmup: float = 0.06
    """Share of steps over which the rate rises, in [0, 1)."""
    batch_tokens: int = 1024
    """Tokens a batch and process, padding included."""
    loss: Loss = "plain"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    dropout: float = 0.1
    attention_dropout: float = 0.0
    """Of attention weights; drawing what to drop takes a tenth of a step on a processor."""
    max_tokens: int = 128
    before_tokens: int = 32
    after_tokens: int = 0
    own_weight: float = 1.0
    """Weight of the project's own statements; 0 leaves them out."""
    single_weight: float = 1.0
    """Weight of rows that one annotator labelled; 0 leaves them out."""
    second_act: float = 0.0
    """Share of the target that the second act of a sentence gets where annotators saw one."""
    swap_names: float = 0.0
    """Share of the annotated sentences that name a country in which the names are replaced by others."""
    public_weight: float = 1.0
    """Weight of public data; 0 leaves it out. Other weights tell most where `first_epochs` is 0."""
    first_epochs: float = 2.0
    """Epochs on public data alone before the annotated statements; 0 mixes them in from the start."""
    public_cap: int = 500
    """Most public rows a label and data set."""
    permissive_only: bool = False
    """Leave out public data without a permissive licence."""
    soft_labels: str = ""
    """File of a teacher's probabilities for unlabelled sentences (distillation)."""
    soft_weight: float = 1.0
    """Weight of a teacher's rows; 0 leaves them out."""
    soft_share: float = 0.5
    """Share of an annotated sentence's target that a teacher's probabilities get, in [0, 1]."""
    soft_temperature: float = 1.0
    weight_bits: int = 8
    """Bits of the shipped weights: 8 are rounded to after training, 4 are trained for."""
    grid_from: float = 0.0
    """Share of the last stage's steps before 4-bit weights are trained as rounded; frozen ones always are."""
    precision: Precision = "auto"
    compile: bool = False
    """torch.compile, with lengths in buckets; pays on a GPU."""
    tracker: Tracker = "none"
    """Where the course of training is reported to, besides the terminal."""
    eval_steps: int = 0
    """Steps between two looks at the dev split; 0 means once an epoch."""
    patience: int = 0
    """Looks without gain on dev after which training stops; 0 means never."""
    keep: Literal["best", "last"] = "best"
    threads: int = 0
    """Threads; 0 means as many as the process has cores."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must lie in [{low}, {high}], not {value}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(map(str, allowed))}, not {getattr(self, name)!r}"
                )
        if self.weight_bits == 4 and self.grid_from > 0 and (self.keep != "last" or self.patience):
            raise InputError(
                f"grid_from {self.grid_from}: keep must be last and patience 0, "
                "or a state from before weights were rounded could be the one that ships"
            )

    @property
    def reads_context(self) -> bool:
        """Whether neighbouring sentences are part of the input."""
        return self.before_tokens > 0 or self.after_tokens > 0

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved config.

        Raises:
            InputError: it cannot be read, has unknown keys or impossible values.
        """
        raw = read_object(path)
        unknown = sorted(set(raw) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f"{path}: unknown settings {', '.join(unknown)}: remove them")
        try:
            return cls(**raw)
        except TypeError as error:  # "3" for 3
            raise InputError(f"{path}: a setting is of the wrong kind ({error}): mend it") from None


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("epochs", 0.01, 1000),
    ("learning_rate", 1e-8, 1),
    ("head_learning_rate", 1e-8, 1),
    ("frozen_layers", 0, 1000),
    ("layer_decay", 0.1, 1),
    ("weight_decay", 0, 1),
    ("warmup", 0, 0.9),
    ("batch_tokens", 64, 1_000_000),
    ("focal_gamma", 0, 10),
    ("label_smoothing", 0, 0.5),
    ("dropout", 0, 0.9),
    ("attention_dropout", 0, 0.9),
    ("max_tokens", 8, 510),
    ("before_tokens", 0, 256),
    ("after_tokens", 0, 256),
    ("own_weight", 0, 100),
    ("single_weight", 0, 100),
    ("second_act", 0, 0.5),
    ("swap_names", 0, 1),
    ("public_weight", 0, 100),
    ("first_epochs", 0, 1000),
    ("public_cap", 0, 1_000_000),
    ("soft_weight", 0, 100),
    ("soft_share", 0, 1),
    ("soft_temperature", 0.1, 20),
    ("grid_from", 0, 1),
    ("eval_steps", 0, 1_000_000),
    ("patience", 0, 1000),
    ("threads", 0, 1024),
    ("seed", 0, 2**32 - 1),
)
_CHOICES: dict[str, tuple[str | int, ...]] = {
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "loss": ("plain", "weighted", "focal"),
    "weight_bits": (4, 8),
    "keep": ("best", "last"),
    "tracker": ("none", "tensorboard", "trackio", "mlflow"),
}
