"""Hyperparameter search with Optuna; every trial is kept.

    communique train --out runs/search search --trials 30
    communique train --encoder all-MiniLM-L6-v2 --epochs 2 --out runs/search search --trials 30

Flags that are given before `search` hold for every trial; what is left of the space below is searched.
Trials are scored by macro-F1 of the four stances on dev. The study lies in `trials.sqlite` (any Optuna
tool reads it; the same command goes on with it), and `trials.jsonl` has one line a trial as it ends, failed
and pruned ones too. `best.json` is a config: `communique train --config runs/search/best.json`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from communique.model.errors import InputError
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.corpus import Annotations
from communique.train.fit import processes, two_stages
from communique.train.recipe import labelled_rows, public_apart, training_rows

TRIALS, STUDY, BEST = "trials.jsonl", "trials.sqlite", "best.json"


def space(trial: optuna.Trial, fixed: frozenset[str]) -> dict[str, Any]:
    """A trial's settings; those that are fixed are not asked for."""
    ask: dict[str, Callable[[str], Any]] = {
        "learning_rate": lambda name: trial.suggest_float(name, 1e-5, 3e-4, log=True),
        "head_learning_rate": lambda name: trial.suggest_float(name, 1e-4, 5e-3, log=True),
        "layer_decay": lambda name: trial.suggest_float(name, 0.8, 1.0),
        "weight_decay": lambda name: trial.suggest_float(name, 0.0, 0.1),
        "warmup": lambda name: trial.suggest_float(name, 0.0, 0.2),
        "batch_tokens": lambda name: trial.suggest_categorical(name, [512, 1024, 2048]),
        "loss": lambda name: trial.suggest_categorical(name, ["plain", "weighted", "focal"]),
        "label_smoothing": lambda name: trial.suggest_float(name, 0.0, 0.1),
        "dropout": lambda name: trial.suggest_float(name, 0.0, 0.2),
        "own_weight": lambda name: trial.suggest_float(name, 0.1, 1.0),
    }
    return {name: suggest(name) for name, suggest in ask.items() if name not in fixed}


class _Report(TrainerCallback):
    """Tells Optuna each score on dev, and stops a trial that falls behind the others."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.pruned = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,  # noqa: ANN401  metrics, model, optimiser and so on
    ) -> TrainerControl:
        """Called by the training loop after each look at dev."""
        if state.global_step < state.max_steps and not self.pruned:
            self.trial.report(given["metrics"]["eval_macro_f1"], state.global_step)
            self.pruned = control.should_training_stop = self.trial.should_prune()
        return control


def search(
    config: TrainConfig,
    annotations: Annotations,
    out: Path,
    *,
    trials: int,
    fixed: frozenset[str] = frozenset(),
    public_folder: Path | None = None,
) -> TrainConfig:
    """Run `trials` more trials of the study in `out`; weights are not kept.

    Args:
        fixed: settings of `config` that hold for every trial.
        public_folder: public data sets as published; without it the first stage is left out.

    Returns:
        The best config so far.

    Raises:
        InputError: no trial ended, or several processes search at once.
    """
    if processes().num_processes > 1:
        raise InputError("search runs in one process: start it without torchrun, several times if need be")
    out.mkdir(parents=True, exist_ok=True)
    dev = labelled_rows(annotations.split("dev"))
    public = public_apart(annotations, config, public_folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="communique",
        storage=f"sqlite:///{out / STUDY}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    # Seeded by how far the study is, or a search that goes on would ask for its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))

    def objective(trial: optuna.Trial) -> float:
        own = dataclasses.replace(config, **space(trial, fixed))
        trial.set_user_attr("config", dataclasses.asdict(own))
        return _try(trial, own, training_rows(annotations, own), public, dev, out / f"trial-{trial.number}")

    study.optimize(
        objective, n_trials=trials, callbacks=[lambda _, t: _keep(out / TRIALS, t)], catch=(RuntimeError,)
    )
    ended = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if not ended:
        raise InputError(f"none of {len(study.trials)} trials ended: see {out / TRIALS}")
    best = TrainConfig(**study.best_trial.user_attrs["config"])
    best.save(out / BEST)
    return best


def _try(
    trial: optuna.Trial,
    config: TrainConfig,
    rows: Sequence[TrainRow],
    public: Sequence[TrainRow],
    dev: Sequence[TrainRow],
    folder: Path,
) -> float:
    """Macro-F1 of the four stances on dev after a trial's training."""
    report = _Report(trial)
    try:
        two_stages(config, rows, public, dev, folder, callbacks=[report])
        if report.pruned:
            raise optuna.TrialPruned
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return float(metrics["eval_macro_f1"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(path: Path, trial: optuna.trial.FrozenTrial) -> None:
    record = {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "macro_f1": trial.value,
        "settings": trial.params,
        "on_the_way": {str(step): value for step, value in trial.intermediate_values.items()},
        "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
        "error": trial.system_attrs.get("fail_reason"),
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
