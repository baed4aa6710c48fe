"""Stopping a run so that it goes on exactly where it was, and refusing to go on with another one.

    communique train --out runs/my              # Ctrl-C: the step is finished and saved
    communique train --out runs/my --resume     # the same settings and data, or it says what differs

A run that was interrupted and resumed ends with the same weights, bit for bit on a processor, as one
that was not: a checkpoint holds weights, optimiser, schedule and the state of every random generator,
and the order of batches depends on the seed and the epoch alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from communique.model.errors import InputError
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.files import read_object, write_bytes

CHECKPOINTS = "checkpoints"
BEGUN = "begun.json"
"""In the checkpoints' folder: the settings, data and processes that the run was begun with."""
_HARMLESS = {"threads", "tracker"}
"""Settings that may differ on resuming."""

_ROWS = {
    "rows_sha256": "the training rows",
    "dev_sha256": "the dev rows",
    "first_sha256": "the rows of the first stage",
}


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; the message says whether and how it can go on."""


class StopAtStep(TrainerCallback):
    """At Ctrl-C, finishes the step, saves a checkpoint and stops; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401  model, optimiser and so on
    ) -> TrainerControl:
        """Called by the training loop after each step."""
        if args.world_size > 1:  # a signal reaches processes at different steps: all stop at the same one
            asked = torch.tensor(int(self.asked), device=args.device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self.asked = bool(asked.item())
        if self.asked:
            control.should_save = control.should_training_stop = True
        return control

    def ask(self, *_: object) -> None:
        """The signal handler."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C asks for a stop while the block runs (only a main thread can listen)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self.ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def fingerprint(
    config: TrainConfig,
    rows: Sequence[TrainRow],
    dev: Sequence[TrainRow],
    processes: int,
    first: Sequence[TrainRow] = (),
) -> dict[str, Any]:
    """What a run was begun with, as plain JSON.

    Args:
        config: of the run.
        rows: learnt from.
        dev: the state is chosen on.
        processes: that train together.
        first: learnt from in the stage before, where there was one.
    """
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in _HARMLESS}
    parts = {"rows": rows, "dev": dev, "first": first}
    digests = {f"{name}_sha256": _digest(part) for name, part in parts.items()}
    return {"settings": settings, **digests, "processes": processes}


def _digest(rows: Sequence[TrainRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dataclasses.astuple(row)).encode())
    return digest.hexdigest()


def begin(out: Path, begun: dict[str, Any]) -> None:
    """Clear what an earlier run left in `out` and note what this one begins with."""
    clear(out)
    write_bytes(out / CHECKPOINTS / BEGUN, (json.dumps(begun, indent=2) + "\n").encode())


def clear(out: Path) -> None:
    """Remove what a run in `out` could be gone on with, or taken for ended by."""
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    (out / "metrics.json").unlink(missing_ok=True)


def is_begun(out: Path) -> bool:
    """Whether a run in `out` can be gone on with."""
    return (out / CHECKPOINTS / BEGUN).is_file()


def check_same(out: Path, begun: dict[str, Any]) -> None:
    """Refuse to go on with other settings, data or number of processes.

    Raises:
        InputError: what differs.
    """
    then = read_object(out / CHECKPOINTS / BEGUN)
    # Settings that came later were what their defaults are.
    was, now = {**dataclasses.asdict(TrainConfig()), **then["settings"]}, begun["settings"]
    was = {k: v for k, v in was.items() if k not in _HARMLESS}
    changed = [f"{k} {was.get(k)!r} -> {now.get(k)!r}" for k in sorted(was | now) if was.get(k) != now.get(k)]
    for name, what in _ROWS.items():
        if then.get(name, begun[name]) != begun[name]:  # runs begun before these were noted lack some
            changed.append(what)
    if then["processes"] != begun["processes"]:
        changed.append(f"processes {then['processes']} -> {begun['processes']}")
    if changed:
        raise InputError(
            f"{out} was begun otherwise ({'; '.join(changed)}): resume it as it was, "
            "or begin anew without --resume"
        )


def last_checkpoint(out: Path) -> str | None:
    """The folder of the latest checkpoint of a run, if it has come to one."""
    folder = out / CHECKPOINTS
    found: str | None = get_last_checkpoint(str(folder)) if folder.is_dir() else None  # type: ignore[no-untyped-call]
    return found
