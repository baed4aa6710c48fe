"""Models on gold rows: a table of each, and what can be said of the first beside it.

    tables, extra = predicted([Path("my-model")], rows, "test", digests, None, gold_rows)

A model is a folder, or a JSONL table of predictions, which must then be of the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from communique.eval.behaviour import read_pairs, run_pairs, to_json
from communique.eval.predict import Heard, learnt_from, predict, unchecked
from communique.eval.table import SPLITS, Row, Table, on_gold, read_table
from communique.model.artifact import sha256_file
from communique.model.classifier import StanceClassifier

Gold = Callable[[str], tuple[tuple[Row, ...], dict[str, str]]]
"""Gold rows of a split or a file, and their hash by name."""


def predicted(
    models: Sequence[Path | None],
    rows: tuple[Row, ...],
    data: str,
    digests: dict[str, str],
    calibrate: str | None,
    gold: Gold,
    *,
    threshold: float | None = None,
    threads: int | None = None,
) -> tuple[list[Table], dict[str, Any]]:
    """A table for each model; of the first also its behaviour, speed and calibration rows.

    Args:
        models: folders or tables; None is the model that ships.
        rows: to be labelled.
        data: what they are.
        digests: of what was read; what is read here is added.
        calibrate: split or file for conformal sets of the first model.
        gold: reads it.
        threshold: abstention threshold; each model's own if not given.
        threads: of the forward pass.

    Returns:
        The tables, and arguments of `build` with `heard`, what is to be said of the models.

    Raises:
        InputError: a table is not of the rows, or the calibration rows cannot be used.
        ArtifactError: a folder is no model.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tables: list[Table] = []
    extra: dict[str, Any] = {}
    heard = Heard()
    digest = next(iter(digests.values()))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for path in models:
            if path is not None and path.suffix == ".jsonl":
                tables.append(on_gold(read_table(path, threshold), rows, data))
                digests[str(path)] = tables[-1].sha256
                heard += unchecked(tables[-1].name, data)
                if calibrate and len(tables) == 1:
                    found, words, more = _calibration(calibrate, tables[0].name, threshold)
                    digests |= more
                    extra["calibration"] = found
                    heard += words
                continue
            classifier = StanceClassifier.load(path, threads=threads)
            digests[f"{classifier.version}: model.onnx"] = sha256_file(classifier.artifact.path("model.onnx"))
            learnt = classifier.artifact.config.trained_on
            heard += learnt_from([row.doc_id for row in rows], learnt, classifier.version, data)
            bar = progress.add_task(f"labelling {data}", total=len(rows))
            table, speed = predict(
                rows, digest, classifier, threshold=threshold, tick=partial(progress.advance, bar)
            )
            if not tables:
                extra["speed"] = speed
                extra["behaviour"] = to_json(run_pairs(classifier, read_pairs()), classifier.version)
                if calibrate:
                    others, more = gold(calibrate)
                    digests |= more
                    bar = progress.add_task(f"labelling {calibrate}", total=len(others))
                    extra["calibration"] = predict(
                        others, "", classifier, tick=partial(progress.advance, bar)
                    )[0]
            tables.append(table)
    return tables, {**extra, "heard": heard}


def _calibration(
    name: str, model: str, threshold: float | None
) -> tuple[Table | None, Heard, dict[str, str]]:
    """Calibration rows of a model that is only a table: a file with its probabilities, or none and a note."""
    if name in SPLITS:
        note = (
            f"no conformal sets: {model} is a table of predictions and cannot label split {name}: name a "
            "JSONL file of other documents with its probabilities as --calibrate."
        )
        return None, Heard(notes=(note,)), {}
    table = read_table(Path(name), threshold)
    return table, Heard(), {name: table.sha256}
