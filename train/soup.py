"""One model from several trainings: the mean of their weights, kept where dev says it is better.

    communique train --seed 1 --out runs/one
    communique train --seed 2 --out runs/two
    communique train --out runs/soup soup runs/one runs/two

Trainings that start from the same weights mostly end in one basin, and the mean of their ends labels unseen
sentences better than any of them, at the cost of one model. The greedy soup of Wortsman et al. 2022, "Model
soups": from the best on dev downwards, each is added if the mean of those kept does not get worse by it.
Checkpoints of one training (`RUN/checkpoints/checkpoint-N`) may be mixed as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from communique.eval.metrics import f1_of
from communique.model.errors import InputError
from communique.model.labels import LABELS, STANCES, label_index
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.fit import predict_logits

WEIGHTS = "model.safetensors"
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Tried:
    """A mean of weights and what dev says of it."""

    parts: tuple[str, ...]
    macro_f1: float
    kept: bool


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
    homes = [_home(run) for run in runs]
    for name in _BESIDE:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(homes[0] / name, out / name)

    def score(parts: Sequence[Path], kept: bool) -> Tried:
        _write_mean(parts, out / WEIGHTS)
        logits = predict_logits(out, config, dev)
        tried = Tried(tuple(map(str, parts)), _macro_f1(logits, dev), kept)
        on_try(tried)
        return tried

    alone = [score([run], kept=False) for run in runs]
    order = sorted(zip(runs, alone, strict=True), key=lambda pair: -pair[1].macro_f1)
    kept, best, tried = [order[0][0]], order[0][1].macro_f1, list(alone)
    for run, _ in order[1:]:
        mixed = score([*kept, run], kept=True)
        tried.append(mixed)
        if mixed.macro_f1 >= best:
            kept, best = [*kept, run], mixed.macro_f1
    _write_mean(kept, out / WEIGHTS)
    config.save(out / "train.json")
    found = {"eval_macro_f1": best, "soup": [str(run) for run in kept]}
    (out / "metrics.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return tried


def _home(run: Path) -> Path:
    """Where a training's tokenizer is: in its folder, or above its checkpoints."""
    if not (run / WEIGHTS).is_file():
        raise InputError(f"{run}: no {WEIGHTS}: name a folder that `communique train` wrote, or a checkpoint")
    for folder in (run, run.parent.parent):
        if (folder / "tokenizer.json").is_file():
            return folder
    if (run.parent.parent / "first" / "tokenizer.json").is_file():
        return run.parent.parent / "first"
    raise InputError(f"{run}: no tokenizer.json in it or above its checkpoints")


def _write_mean(parts: Sequence[Path], path: Path) -> None:
    mean = {name: tensor.double() for name, tensor in load_file(parts[0] / WEIGHTS).items()}
    for part in parts[1:]:
        for name, tensor in load_file(part / WEIGHTS).items():
            if name not in mean or mean[name].shape != tensor.shape:
                raise InputError(f"{part}: {name} has no equal in {parts[0]}: mix trainings of one encoder")
            mean[name] += tensor.double()
    ready = {name: (tensor / len(parts)).float().contiguous() for name, tensor in mean.items()}
    save_file(ready, path, metadata={"format": "pt"})


def _macro_f1(logits: np.ndarray, dev: Sequence[TrainRow]) -> float:
    table = np.zeros((1, len(LABELS), len(LABELS)))
    np.add.at(table[0], ([label_index(row.label) for row in dev], logits.argmax(axis=1)), 1)
    return float(f1_of(table)[0, : len(STANCES)].mean())
