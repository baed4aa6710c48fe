"""What could be picked instead, on the same sentences as the model: one table with intervals.

    communique benchmark baselines --split dev --out runs/baselines
    communique benchmark baselines --split dev --out runs/baselines --setfit 8 --setfit 32 --frozen --public

A system's answers are kept in the folder (numbers, no texts) and are not computed twice, unless the data or
a setting changed. Baselines read the sentence alone and learn from the train split alone; nothing is tuned
on the split they are scored on. SetFit is the package of Tunstall et al. 2022.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from communique.eval import baselines as simple
from communique.eval.metrics import Floats, Ints, Scores, evaluate
from communique.eval.table import Row
from communique.model.artifact import load_artifact, sha256_file
from communique.model.classifier import StanceClassifier, softmax
from communique.model.jsonl import write_text
from communique.model.labels import EVEN, LABELS, label_index
from communique.model.tokens import SentenceInput
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.corpus import Sentence
from communique.train.fit import fit, predict_logits
from communique.train.manifest import WEIGHTS
from communique.train.sentence_models import frozen_probabilities, setfit_probabilities


@dataclass(frozen=True)
class Answers:
    """What a system says of the held-out sentences."""

    probabilities: Floats  # (sentences, 5); one 1 a row where the system gives a label and no more
    graded: bool = True
    """Whether the probabilities are more than a label."""
    threshold: float = 0.0
    label_weights: tuple[float, ...] = EVEN


@dataclass(frozen=True)
class System:
    """A row of the table: how its answers are had, and what they hang on besides the data."""

    name: str
    answer: Callable[[], Answers]
    settings: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Result:
    """A system's scores; `seconds` is what training and answering took when it was run."""

    name: str
    scores: Scores
    ece: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        scores = self.scores.to_json() | {"ece": self.ece}
        return {"name": self.name, "seconds": self.seconds, **scores}


def rows_of(sentences: Sequence[Sentence]) -> list[Row]:
    """Annotated sentences with a text, as the evaluation reads them."""
    return [
        Row(f"{s.row.doc_id}#{s.row.sent_id}", s.row.doc_id, s.row.sent_id, s.text, s.row.label)
        for s in sentences
        if s.text is not None
    ]


def simple_systems(train: Sequence[Row], held: Sequence[Row]) -> list[System]:
    """Majority, keyword rules, TF-IDF with logistic regression: seconds, all of them."""
    gold = np.array([label_index(row.gold) for row in train])
    return [
        System("majority", lambda: _labels(simple.majority_labels(len(held), simple.label_shares(gold)))),
        System("keyword rules", lambda: _labels(simple.keyword_labels(held))),
        System("TF-IDF + logistic regression", lambda: _labels(simple.tfidf_labels(train, held))),
    ]


def frozen_system(train: Sequence[Row], held: Sequence[Row], encoder: str) -> System:
    """Sentence vectors of an encoder that is not trained, with logistic regression."""
    name = f"frozen {Path(encoder).name} + logistic regression"
    return System(name, lambda: Answers(frozen_probabilities(encoder, train, held)), (encoder,))


def setfit_system(
    train: Sequence[Row], held: Sequence[Row], encoder: str, per_label: int | None, seed: int
) -> System:
    """SetFit on so many sentences a label, drawn at random; None takes all."""
    few = list(train) if per_label is None else sample(train, per_label, seed)
    name = f"SetFit {Path(encoder).name}, {per_label or 'all'} per label"
    return System(
        name,
        lambda: Answers(setfit_probabilities(encoder, few, held, seed=seed)),
        (encoder, per_label, seed),
    )


def public_systems(
    public: Sequence[TrainRow],
    held: Sequence[Sentence],
    config: TrainConfig,
    out: Path,
    trained: Path | None = None,
) -> list[System]:
    """TF-IDF, and the encoder's first stage, from public data alone.

    Args:
        public: rows of `recipe.public_rows`, without what resembles the held-out sentences.
        held: the sentences to answer.
        config: of the encoder; `first_epochs` are run and the last state is kept.
        out: where the first stage is trained.
        trained: a first stage that is there already (`first/` of a training run); its config is used.
    """
    rows, known = rows_of(held), _inputs(held)
    learnt = [Row(f"public:{n}", "public", n, r.text, r.label) for n, r in enumerate(public)]
    stage = TrainConfig.load(trained / "train.json") if trained else _first_stage(config)
    data = _digest([json.dumps(astuple(row)) for row in public])
    weights = sha256_file(trained / WEIGHTS) if trained else None

    def first() -> Answers:
        folder = trained
        if folder is None:
            folder = out / "public-first"
            fit(stage, public, known[:1], folder)
        return Answers(softmax(predict_logits(folder, stage, known), 1.0))

    return [
        System("public data only: TF-IDF", lambda: _labels(simple.tfidf_labels(learnt, rows)), (data,)),
        System(
            f"public data only: {Path(stage.encoder).name} fine-tuned",
            first,
            (weights or data, sorted(vars(stage).items())),
        ),
    ]


def _first_stage(config: TrainConfig) -> TrainConfig:
    # One look at the end: nothing is chosen, so there is nothing to look at before.
    return replace(config, epochs=config.first_epochs, keep="last", eval_steps=1_000_000)


def model_system(folder: Path | None, held: Sequence[Sentence], threads: int | None = None) -> System:
    """A saved model with its own context, calibration and abstention; None is the one that ships."""
    artifact = load_artifact(folder)
    inputs = [SentenceInput(r.text, r.before, r.after) for r in _inputs(held)]

    def answer() -> Answers:
        found, _ = StanceClassifier(artifact, threads=threads).probabilities(inputs)
        return Answers(found, **artifact.config.rule)

    return System(artifact.version, answer)


def _inputs(sentences: Sequence[Sentence]) -> list[TrainRow]:
    return [TrainRow(s.text, s.before, s.after, s.row.label) for s in sentences if s.text is not None]


def _labels(found: Ints) -> Answers:
    return Answers(np.eye(len(LABELS))[found], graded=False)


def sample(rows: Sequence[Row], per_label: int, seed: int) -> list[Row]:
    """So many rows of each label, or all there are, drawn at random and in the rows' order."""
    rng = np.random.default_rng(seed)
    gold = np.array([label_index(row.gold) for row in rows])
    kept: list[int] = []
    for label in range(len(LABELS)):
        places = np.flatnonzero(gold == label)
        kept += rng.permutation(places)[:per_label].tolist()
    return [rows[i] for i in sorted(kept)]


def run_systems(
    systems: Sequence[System],
    train: Sequence[Row],
    held: Sequence[Row],
    out: Path,
    on_start: Callable[[str], None] = lambda name: None,
) -> list[Result]:
    """Scores of every system on the held-out rows, answers read from `out` where they are there.

    Raises:
        ValueError: there are no held-out rows.
    """
    gold, documents = [row.gold for row in held], [row.doc_id for row in held]
    data = _digest([*_facts(train), *_facts(held)])
    results = []
    for system in systems:
        on_start(system.name)
        answers, seconds = _cached(system, out / "systems", data)
        scores = evaluate(
            gold,
            answers.probabilities,
            documents,
            threshold=answers.threshold,
            label_weights=answers.label_weights,
        )
        ece = scores.ece if answers.graded else None
        results.append(Result(system.name, scores, ece, seconds))
    return results


def _cached(system: System, folder: Path, data: str) -> tuple[Answers, float]:
    key = _digest([system.name, json.dumps(system.settings, default=str), data])
    path = folder / f"{_slug(system.name)}-{key[:12]}.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        weights = tuple(kept.get("label_weights", EVEN))
        answers = Answers(np.array(kept["probabilities"]), kept["graded"], kept["threshold"], weights)
        return answers, kept["seconds"]
    start = time.perf_counter()
    answers = system.answer()
    answers = replace(answers, probabilities=answers.probabilities.round(6))
    seconds = round(time.perf_counter() - start, 1)
    content = {
        "system": system.name,
        "seconds": seconds,
        "graded": answers.graded,
        "threshold": answers.threshold,
        "label_weights": answers.label_weights,
        "probabilities": answers.probabilities.tolist(),
    }
    write_text(path, json.dumps(content) + "\n")
    return answers, seconds


def _facts(rows: Sequence[Row]) -> list[str]:
    return [f"{row.doc_id}\t{row.sent_id}\t{row.gold}\t{row.text}" for row in rows]


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def markdown(results: Sequence[Result], split: str) -> str:
    """The table: macro-F1 of the four with its interval, F1 of each label, ECE, seconds."""
    lines = [
        f"Macro-F1 on the {split} split ({results[0].scores.sentences} sentences of "
        f"{results[0].scores.documents} documents); brackets: 95 % document bootstrap.",
        "",
        f"| system | macro-F1 of the four | {' | '.join(LABELS)} | of the five | ECE | s |",
        "|---" * (len(LABELS) + 5) + "|",
    ]
    for result in results:
        s = result.scores
        each = " | ".join(f"{s.f1[str(label)].value:.3f}" for label in LABELS)
        ece = "—" if result.ece is None else f"{result.ece:.3f}"
        five = f"{s.macro_f1_five.value:.3f}"
        lines.append(f"| {result.name} | {s.macro_f1} | {each} | {five} | {ece} | {result.seconds:,.0f} |")
    return "\n".join(lines) + "\n"
