"""Texts that nearly repeat one another, found exactly and without comparing every pair.

>>> from communique.train.public_duplicates import near_duplicates
>>> near_duplicates(["Arvenia lifted its ban on fish.", "Arvenia lifted its ban on fish today."])
{1}
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import ceil

NEAR_DUPLICATE = 0.5
"""Least share of word triples that near-duplicates have in common (Jaccard). At 0.5 a sentence whose
party names were swapped for others is still found; sentences that share a template alone are not."""
_WORDS = 3


def near_duplicates(
    texts: Sequence[str],
    against: Iterable[str] = (),
    threshold: float = NEAR_DUPLICATE,
    *,
    among: bool = True,
) -> set[int]:
    """Places of the texts that nearly repeat an earlier kept text, or any of `against`.

    Two texts are near-duplicates where the Jaccard similarity of their sets of word triples reaches the
    threshold. Candidates come from prefix filtering, which misses none: with each set sorted rarest
    triple first, two sets that similar share one of their first n - ceil(threshold n) + 1 triples
    (Chaudhuri, Ganti and Kaushik 2006, "A primitive operator for similarity joins"; Bayardo et al. 2007).

    Args:
        texts: in order of preference; of two near-duplicates the later goes.
        against: texts that are not in question themselves.
        threshold: in (0, 1].
        among: compare the texts with one another too; else with `against` alone.

    Raises:
        ValueError: the threshold is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not in (0, 1]: 0.5 finds sentences with swapped names")
    fixed = [_triples(text) for text in dict.fromkeys(against)]
    sets = fixed + [_triples(text) for text in texts]
    rarity = Counter(triple for triples in sets for triple in triples)
    index: defaultdict[str, list[int]] = defaultdict(list)
    gone: set[int] = set()
    for number, triples in enumerate(sets):
        ordered = sorted(triples, key=lambda triple: (rarity[triple], triple))
        prefix = ordered[: len(ordered) - ceil(threshold * len(ordered)) + 1]
        if number >= len(fixed):
            candidates = {other for triple in prefix for other in index[triple]}
            if any(_jaccard(triples, sets[other]) >= threshold for other in candidates):
                gone.add(number - len(fixed))
                continue
            if not among:
                continue
        for triple in prefix:
            index[triple].append(number)
    return gone


def _triples(text: str) -> frozenset[str]:
    """The word triples of a text, in lower case; a shorter text is one piece."""
    words = re.findall(r"\w+", text.lower())
    last = max(1, len(words) - _WORDS + 1)
    return frozenset(" ".join(words[start : start + _WORDS]) for start in range(last))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
