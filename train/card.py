"""The model card: what a shipped model is, what it was made from, how good it is and where it is not.

Written by `communique train`; every number comes from the run that wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from communique.eval.metrics import Scores
from communique.model.artifact import ModelConfig
from communique.model.labels import DEFINITIONS, LABELS
from communique.train.config import TrainConfig
from communique.train.export import Gate
from communique.train.fit import TrainRow
from communique.train.models import trained_before

_SOURCES = {
    "real": "annotated sentences of real statements",
    "own": "annotated sentences of the project's own statements (invented)",
    "public": "mapped rows of public data sets",
    "soft": "unlabelled sentences with a teacher's probabilities",
}


def card(
    feed: ModelConfig, config: TrainConfig, rows: Sequence[TrainRow], scores: Mapping[str, Scores], gate: Gate
) -> str:
    """The card as Markdown with a Hugging Face header."""
    parts = [
        _header(scores),
        _what(feed, config),
        _data(feed, rows, config),
        _scores(scores),
        _limits(feed, config, gate),
    ]
    return "\n\n".join(parts) + "\n"


def _header(scores: Mapping[str, Scores]) -> str:
    best = scores.get("test") or scores["dev"]
    split = "test" if "test" in scores else "dev"
    return f"""---
language: en
license: apache-2.0
library_name: onnxruntime
pipeline_tag: text-classification
tags: [foreign-policy, stance, official-statements]
model-index:
- name: communique
  results:
  - task: {{type: text-classification}}
    dataset: {{type: communique-annotations, name: communique annotations, split: {split}}}
    metrics:
    - {{type: f1, name: macro-F1 of the four stances, value: {best.macro_f1.value:.4f}}}
---
# communique: the stance of sentences in official statements"""


def _what(feed: ModelConfig, config: TrainConfig) -> str:
    frozen = f", its lowest layers ({config.frozen_layers}) not trained" if config.frozen_layers else ""
    labels = "\n".join(f"- `{label}`: {DEFINITIONS[label]}" for label in LABELS)
    context = (
        f"It also reads up to {feed.before_tokens} tokens of the sentence before and {feed.after_tokens} of the one after."
        if feed.reads_context
        else "It reads the sentence alone, without its neighbours."
    )
    return f"""## What it is
A transformer ({feed.encoder}{frozen}), fine-tuned to label each sentence of an official statement in English:

{labels}

It reads up to {feed.max_tokens} tokens of a sentence; longer ones are cut and flagged. {context} Probabilities are
divided by a temperature ({feed.temperature}).{_weights(feed)} A stance whose share of the sum is
then below {feed.threshold} becomes `none`. All this was
chosen on the dev split."""


def _weights(feed: ModelConfig) -> str:
    weights = zip(feed.labels, feed.label_weights, strict=True)
    heavy = [f"the probability of `{label}` is multiplied by {w:g}" for label, w in weights if w != 1]
    if not heavy:
        return ""
    return (
        f" The label given is the most probable one after {' and '.join(heavy)}, which is rare and would\n"
        "else be missed more often than given wrongly; probabilities in the records are as they were."
    )


def _data(feed: ModelConfig, rows: Sequence[TrainRow], config: TrainConfig) -> str:
    counts = Counter(row.source or "real" for row in rows)
    lines = "\n".join(f"- {n:,} {_SOURCES[source]}" for source, n in counts.most_common())
    labels = Counter(row.label for row in rows if row.label)
    each = ", ".join(f"{labels[str(label)]:,} {label}" for label in LABELS)
    if trained_before(config.encoder):
        lines += "\n- before that, in a training of its own, the teacher that it was made from (see `LOG.md`)"
    return f"""## What it was trained on
{lines}

Labels: {each}. Annotators were passes of a large language model that followed the codebook, adjudicated by a
third; no person has checked every label. `data/annotations/README.md` says how, and how well the passes agree."""


def _scores(scores: Mapping[str, Scores]) -> str:
    blocks = []
    origin = (
        "Real statements"
        if "test" in scores
        else "The project's own statements (their texts alone were there)"
    )
    for split, s in scores.items():
        rows = "\n".join(
            f"| {label} | {s.precision[label]:.3f} | {s.recall[label]:.3f} | {s.f1[label]} | {s.support[label]} |"
            for label in map(str, LABELS)
        )
        blocks.append(
            f"""### {split}: {s.sentences:,} sentences of {s.documents} documents
| label | precision | recall | F1 [95 %] | n |
|---|---|---|---|---|
{rows}

macro-F1 of the four stances **{s.macro_f1}**, of all five {s.macro_f1_five}; accuracy {s.accuracy}; expected calibration
error {s.ece:.3f}; Brier score {s.brier:.3f}."""
        )
    return f"## How good it is\n{origin}, split by document; intervals resample documents.\n\n" + "\n\n".join(
        blocks
    )


def _limits(feed: ModelConfig, config: TrainConfig, gate: Gate) -> str:
    stored = "int8" if config.weight_bits == 8 else "4 bits, for which they were trained,"
    return f"""## Limits
English only. Trained mostly on statements of governments that publish in English; Chinese, Indian, Japanese, ASEAN
and Latin American issuers are thin. Rare acts were sought out, so label shares in the data are not those of an archive.
A label is what a sentence does, not whether it is sincere. Do not use it to decide anything about a person.

Weights are stored as {stored} and computed in fp32. Against the fp32 form on dev: macro-F1 {-gate.f1_loss:+.4f},
{gate.flips:.2%} of labels changed. Maximum sentence: {feed.max_tokens} tokens."""
