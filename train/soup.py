"""One model from several trainings: the mean of their weights, kept where dev says it is better.

    communique train --seed 1 --out runs/one
    communique train --seed 2 --out runs/two
    communique train --out runs/soup soup runs/one runs/two

Trainings that start from the same weights mostly end in one basin, and the mean of their ends labels unseen
sentences better than any of them, at the cost of one model. The greedy soup of Wortsman et al. 2022, "Model
soups": from the best on dev downwards, each is added if the mean of those kept does not get worse by it.
Checkpoints of one training (`RUN/checkpoints/checkpoint-N`) may be mixed as well. How a sentence is read is
taken from the trainings, which must agree on it: the mean is scored and shipped as they were trained.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from communique.model.classifier import softmax
from communique.model.errors import InputError
from communique.model.labels import label_index
from communique.train.batches import TrainRow
from communique.train.calibrate import Rule, macro_f1
from communique.train.config import TrainConfig
from communique.train.fit import predict_logits
from communique.train.manifest import MANIFEST, WEIGHTS

_READING = ("encoder", "max_tokens", "before_tokens", "after_tokens")
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Tried:
    """A mean of weights and what dev says of it."""

    parts: tuple[str, ...]
    macro_f1: float
    kept: bool
    """Whether the greedy way went on with this mean; False of a training alone."""


def settings_of(runs: Sequence[Path]) -> TrainConfig:
    """The first training's settings, where all read sentences alike.

    Raises:
        InputError: a training has no settings, or reads with another encoder or of another length.
    """
    found = [TrainConfig.load(_home(run, "train.json") / "train.json") for run in runs]
    if not found:
        raise InputError("a soup takes two trainings or more")
    for run, other in zip(runs[1:], found[1:], strict=True):
        pairs = [(name, getattr(found[0], name), getattr(other, name)) for name in _READING]
        # An encoder is known by its name, wherever its folder lies.
        differ = [f"{name} {a} and {b}" for name, a, b in pairs if Path(str(a)).name != Path(str(b)).name]
        if differ:
            raise InputError(
                f"{run} reads otherwise than {runs[0]} ({', '.join(differ)}): mix those that agree"
            )
    return found[0]


def _home(run: Path, name: str) -> Path:
    """Where a file of a training is: in it, in the one that a checkpoint is of, or in its first stage."""
    for folder in (run, run.parent.parent, run.parent.parent / "first"):
        if (folder / name).is_file():
            return folder
    raise InputError(f"{run}: no {name} in it or above its checkpoints: name what `communique train` wrote")


def soup(
    runs: Sequence[Path],
    config: TrainConfig,
    dev: Sequence[TrainRow],
    out: Path,
    on_try: Callable[[Tried], None] = lambda tried: None,
) -> list[Tried]:
    """Write the greedy mean of some trainings to `out`, in the form in which `fit` leaves a model.

    Args:
        runs: folders with `model.safetensors`: trainings, or checkpoints inside one.
        config: how the models read a sentence; saved beside the weights.
        dev: sentences to choose on; never a test split.
        out: folder for weights, tokenizer, `train.json`, `metrics.json`.
        on_try: told of each mean that was scored.

    Raises:
        InputError: fewer than two folders, no dev, no weights in a folder, or weights of other shapes.
    """
    if len(runs) < 2:
        raise InputError("a soup takes two trainings or more")
    if not dev:
        raise InputError("there is no sentence of dev that has its text: set COMMUNIQUE_SHARED")
    for run in runs:
        if not (run / WEIGHTS).is_file():
            raise InputError(
                f"{run}: no {WEIGHTS}: name a folder that `communique train` wrote, or a checkpoint"
            )
    homes = [_home(run, "tokenizer.json") for run in runs]
    _check_alike(runs)
    out.mkdir(parents=True, exist_ok=True)
    for name in _BESIDE:
        shutil.copy(homes[0] / name, out / name)
    (out / MANIFEST).unlink(missing_ok=True)  # of an earlier run, whose weights go now
    gold = np.array([label_index(row.label) for row in dev])
    tried: list[Tried] = []

    def score(parts: Sequence[Path], to_beat: float = math.inf) -> Tried:
        _write_mean(parts, out / WEIGHTS)
        found = macro_f1(gold, softmax(predict_logits(out, config, dev), 1.0), Rule())
        tried.append(Tried(tuple(map(str, parts)), found, kept=found >= to_beat))
        on_try(tried[-1])
        return tried[-1]

    alone = [score([run]) for run in runs]
    order = sorted(zip(runs, alone, strict=True), key=lambda pair: -pair[1].macro_f1)
    kept, best = [order[0][0]], order[0][1].macro_f1
    for run, _ in order[1:]:
        mixed = score([*kept, run], best)
        if mixed.kept:
            kept, best = [*kept, run], mixed.macro_f1
    _write_mean(kept, out / WEIGHTS)
    config.save(out / "train.json")
    found = {"eval_macro_f1": best, "soup": [str(run) for run in kept]}
    (out / "metrics.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return tried


def _check_alike(runs: Sequence[Path]) -> None:
    shapes = []
    for run in runs:
        with safe_open(run / WEIGHTS, "pt") as tensors:
            shapes.append({name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()})  # noqa: SIM118
    for run, found in zip(runs, shapes, strict=True):
        odd = [name for name in shapes[0] | found if shapes[0].get(name) != found.get(name)]
        if odd:
            raise InputError(f"{run}: {odd[0]} has no equal in {runs[0]}: mix trainings of one encoder")


def _write_mean(parts: Sequence[Path], path: Path) -> None:
    mean = {name: tensor.double() for name, tensor in load_file(parts[0] / WEIGHTS).items()}
    for part in parts[1:]:
        for name, tensor in load_file(part / WEIGHTS).items():
            mean[name] += tensor.double()
    ready = {name: (tensor / len(parts)).float().contiguous() for name, tensor in mean.items()}
    save_file(ready, path, metadata={"format": "pt"})
