"""Text or sentences in, predictions out: calibrated probabilities, and `none` where in doubt.

>>> from communique.model.classifier import StanceClassifier
>>> classifier = StanceClassifier.load()
>>> [p.label.value for p in classifier.label("We call on the parties to reopen the crossing.")]
['demand']
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from communique.model.artifact import Artifact, load_artifact
from communique.model.backends import choose
from communique.model.labels import EVEN, LABELS, STANCES, Stance
from communique.model.sentences import segment
from communique.model.tokens import SentenceInput, SentenceTokenizer

DIGITS = 4
"""Decimals of a reported probability; finer ones depend on the processor."""


@dataclass(frozen=True)
class Prediction:
    """A labelled sentence."""

    text: str
    start: int
    """Offset of the first character in the statement; 0 for a sentence given alone."""
    end: int
    """Offset behind the last character."""
    label: Stance
    probabilities: tuple[float, ...]
    """One for each of `LABELS`, in [0, 1], summing to 1 up to rounding."""
    truncated: bool
    """Whether the sentence was longer than the model reads."""

    @property
    def probability(self) -> float:
        """Probability of the label given."""
        return self.probabilities[LABELS.index(self.label)]

    @property
    def runner_up(self) -> Stance:
        """The most probable label besides the one given."""
        others = [label for label in LABELS if label != self.label]
        return max(others, key=lambda label: self.probabilities[LABELS.index(label)])

    def fields(self, model_version: str) -> dict[str, Any]:
        """What the model adds to a record: label, five probabilities, truncated, version."""
        named = {f"p_{label}": p for label, p in zip(LABELS, self.probabilities, strict=True)}
        return {
            "label": str(self.label),
            **named,
            "truncated": self.truncated,
            "model_version": model_version,
        }

    def record(
        self, doc_id: str, sent_id: int, model_version: str, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The project's record: the same fields in Python, JSON, CSV, Parquet and over HTTP.

        `metadata` (issuer, date, …) is carried through behind the record's own fields.
        """
        place = {
            "doc_id": doc_id,
            "sent_id": sent_id,
            "start": self.start,
            "end": self.end,
            "text": self.text,
        }
        return {**place, **self.fields(model_version), **(metadata or {})}


class StanceClassifier:
    """A loaded model. Safe to share between threads."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int | None = None,
        token_budget: int | None = None,
        backend: str = "onnxruntime",
    ) -> None:
        config = artifact.config
        self.artifact = artifact
        self._tokenizer = SentenceTokenizer.from_file(artifact.path("tokenizer.json"), config)
        self._engine = choose(backend)(
            artifact.path("model.onnx"),
            pad_id=self._tokenizer.pad_id,
            token_types=config.token_types,
            threads=threads,
            token_budget=token_budget,
        )

    @classmethod
    def load(
        cls, model: str | Path | None = None, *, threads: int | None = None, backend: str = "onnxruntime"
    ) -> Self:
        """Load a model folder, or the model that ships with the package.

        Args:
            model: a folder written by `communique train`.
            threads: threads for the forward pass; as many as the process has cores if not given.
            backend: one of `backends.BACKENDS`; the default gives the same digits on every machine.

        Raises:
            ArtifactError: the folder is not a whole, unaltered model of a known format.
        """
        artifact = load_artifact(None if model is None else Path(model))
        return cls(artifact, threads=threads, backend=backend)

    @property
    def engine(self) -> str:
        """What runs the forward pass, e.g. `onnxruntime-fp32`."""
        return self._engine.name

    @property
    def version(self) -> str:
        """The model's version, as in every record."""
        return self.artifact.version

    def label(self, text: str, *, threshold: float | None = None, abstain: bool = True) -> list[Prediction]:
        """Label every sentence of a statement, in order.

        Args:
            text: the statement as published; offsets in the result index it.
            threshold: share (see `decide`) below which a stance becomes `none`; the model's own if not given.
            abstain: False forces one of the four stances on every sentence.
        """
        spans = segment(text)
        inputs = in_context([text[s.start : s.end] for s in spans])
        found = self.label_sentences(inputs, threshold=threshold, abstain=abstain)
        return [
            Prediction(p.text, s.start, s.end, p.label, p.probabilities, p.truncated)
            for p, s in zip(found, spans, strict=True)
        ]

    def label_sentences(
        self,
        sentences: Sequence[str | SentenceInput],
        *,
        threshold: float | None = None,
        abstain: bool = True,
    ) -> list[Prediction]:
        """Label sentences that are cut already: one prediction each, in order.

        Strings are labelled without neighbours; `SentenceInput` carries them.
        """
        inputs = [SentenceInput(s) if isinstance(s, str) else s for s in sentences]
        probabilities, truncated = self.probabilities(inputs)
        cut = self.artifact.config.threshold if threshold is None else threshold
        weights = self.artifact.config.label_weights
        labels = decide(probabilities, threshold=cut, abstain=abstain, label_weights=weights)
        return [
            Prediction(s.text, 0, len(s.text), label, tuple(round(float(p), DIGITS) for p in row), was_cut)
            for s, label, row, was_cut in zip(inputs, labels, probabilities, truncated, strict=True)
        ]

    def probabilities(self, inputs: Sequence[SentenceInput]) -> tuple[npt.NDArray[np.float64], list[bool]]:
        """Calibrated probabilities (sentences, 5) and, for each sentence, whether it was cut."""
        encoded = self._tokenizer.encode(inputs)
        logits = self._engine.logits(encoded)
        return softmax(logits, self.artifact.config.temperature), [e.truncated for e in encoded]

    def records(
        self,
        text: str,
        *,
        doc_id: str,
        metadata: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        abstain: bool = True,
    ) -> list[dict[str, Any]]:
        """One record a sentence of a statement, see `Prediction.record`."""
        predictions = self.label(text, threshold=threshold, abstain=abstain)
        return [p.record(doc_id, number, self.version, metadata) for number, p in enumerate(predictions)]


def in_context(sentences: Sequence[str]) -> list[SentenceInput]:
    """A document's sentences, each with the one before and the one after."""
    padded = ["", *sentences, ""]
    return [SentenceInput(padded[i], padded[i - 1], padded[i + 1]) for i in range(1, len(padded) - 1)]


def set_aside(fields: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """A row's own fields, to be carried beside those in `taken`: one of these becomes `input_NAME`.

    It is prefixed until no other field of the row has the name, so that nothing is written over.
    """
    carried: dict[str, Any] = {}
    for own, value in fields.items():
        name = own
        while name in taken or (name != own and name in fields):
            name = f"input_{name}"
        carried[name] = value
    return carried


def softmax(logits: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float64]:
    """Rows of logits -> rows of probabilities, after division by the temperature (Guo et al. 2017)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    powers = np.exp(scaled)
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def decide(
    probabilities: npt.NDArray[np.float64],
    *,
    threshold: float,
    abstain: bool = True,
    label_weights: Sequence[float] = EVEN,
) -> list[Stance]:
    """Probabilities (sentences, 5) -> labels.

    The most probable of the five, each times its weight; a stance whose share of the sum then lies below the
    threshold becomes `none`. Without abstention, the most probable of the four stances, so weighted.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], not {threshold}")
    found = shares(probabilities, label_weights)
    if not abstain:
        return [STANCES[i] for i in found[:, : len(STANCES)].argmax(axis=1)]
    best = found.argmax(axis=1)
    sure = found[np.arange(len(best)), best] >= threshold
    return [LABELS[i] if ok else Stance.NONE for i, ok in zip(best, sure, strict=True)]


def shares(probabilities: npt.NDArray[np.float64], label_weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """What a label is chosen from: probabilities (sentences, 5) times their weights, each row's sum 1."""
    if tuple(label_weights) == EVEN:
        return probabilities  # exactly as they are: a sum of 1 may be off by a bit
    product = probabilities * np.asarray(label_weights)
    found: npt.NDArray[np.float64] = product / np.maximum(product.sum(axis=1, keepdims=True), 1e-300)
    return found
