"""Training sentences whose parties got other names, so that no name decides a label.

    communique train --swap-names 0.5 --out runs/my

Counterfactual augmentation (Kaushik, Hovy and Lipton 2020, "Learning the difference that makes a
difference with counterfactually-augmented data"): the sentence stays what it does, whoever does it. Rows
are replaced, not added, so training takes as long as before. Half of the new names are real, half made up
anew for each sentence from syllables: the swap test's invented names are none of them on purpose.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

from communique.train.batches import TrainRow
from communique.train.swaps import INVENTED, REAL, parties, swap

_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "au", "ei")
_ENDS = (
    ("ia", "ian"),
    ("land", "lander"),
    ("an", "ani"),
    ("mark", "marki"),
    ("ova", "ovan"),
    ("ar", "arese"),
)


def swapped(rows: Sequence[TrainRow], share: float, seed: int) -> list[TrainRow]:
    """The same rows, in order; of those that name a country, this share with other names.

    Args:
        rows: sentences with their neighbours, whose names change alike.
        share: in [0, 1].
        seed: of the draw: the same rows and seed give the same names.
    """
    rng = random.Random(f"names {seed}")
    return [_swapped(row, rng) if rng.random() < share else row for row in rows]


def _swapped(row: TrainRow, rng: random.Random) -> TrainRow:
    texts = (row.text, row.before, row.after)
    found = parties("\n".join(texts))
    if not found:
        return row
    others = rng.sample(sorted(set(REAL) - set(found)), len(found)) if len(found) < len(REAL) // 2 else []
    adjectives: Mapping[str, str] = REAL
    if rng.random() < 0.5 or not others:
        made = _made_up(len(found), rng)
        others, adjectives = list(made), made
    names = dict(zip(found, others, strict=True))
    text, before, after = (swap(part, names, adjectives) for part in texts)
    return dataclasses.replace(row, text=text, before=before, after=after)


def _made_up(count: int, rng: random.Random) -> dict[str, str]:
    """So many countries that are none, each with its adjective."""
    made: dict[str, str] = {}
    while len(made) < count:
        stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2))))
        stem += rng.choice(_ONSETS)
        name, adjective = (f"{stem}{end}".capitalize() for end in rng.choice(_ENDS))
        if name not in REAL and name not in INVENTED:
            made[name] = adjective
    return made
