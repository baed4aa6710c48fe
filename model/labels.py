"""The four stances and `none`: their order, their meaning, and the version of both.

>>> from communique.model.labels import LABELS
>>> [label.value for label in LABELS]
['position', 'demand', 'concession', 'agreement', 'none']
"""

from __future__ import annotations

from enum import StrEnum

LABELS_VERSION = "1"
"""Raised when a label is added, dropped, reordered or redefined; saved with every model."""


class Stance(StrEnum):
    """What a sentence of an official statement does."""

    POSITION = "position"
    DEMAND = "demand"
    CONCESSION = "concession"
    AGREEMENT = "agreement"
    NONE = "none"


LABELS: tuple[Stance, ...] = tuple(Stance)
"""All five, in the order of a model's logits."""

STANCES: tuple[Stance, ...] = LABELS[:4]
"""The four that take a stance: the task. `none` is the abstention."""

EVEN = (1.0,) * len(LABELS)
"""Weights by which every label counts alike."""

DEFINITIONS: dict[Stance, str] = {
    Stance.POSITION: "states a view, principle, policy, intention, support, criticism or refusal",
    Stance.DEMAND: "seeks to make another party act, stop or refrain",
    Stance.CONCESSION: "shows one party giving way to what another sought or feared",
    Stance.AGREEMENT: "records something shared or mutual between two or more parties",
    Stance.NONE: "takes no stance: procedure, background, courtesy, heading, question",
}
"""One line a label; the codebook in `data/annotations/codebook.md` has the boundary rules."""


def label_index(label: str) -> int:
    """Position of a label in `LABELS`.

    Raises:
        ValueError: the label is not one of the five; the message names them.
    """
    try:
        return LABELS.index(Stance(label))
    except ValueError:
        names = ", ".join(LABELS)
        raise ValueError(f"unknown label {label!r}: use one of {names}") from None
