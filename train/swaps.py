"""The swap test: who the parties are must not decide the label.

    communique benchmark swap --split test

In every held-out sentence that names a country or uses its adjective, the names are replaced by others, the
same for the same party throughout the sentence and its neighbours: once by real names, once by invented
ones. A label that changes is a flip. The interval resamples documents. Names of people, cities and
organisations stay as they are, so a swapped sentence may be odd; it is no less a demand for that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from communique.eval.metrics import Floats
from communique.eval.resample import Number, Resampler
from communique.model.classifier import StanceClassifier
from communique.model.errors import InputError
from communique.model.tokens import SentenceInput
from communique.train.corpus import Sentence

REAL = {
    "Afghanistan": "Afghan", "Albania": "Albanian", "Algeria": "Algerian", "Argentina": "Argentine",
    "Armenia": "Armenian", "Australia": "Australian", "Austria": "Austrian", "Azerbaijan": "Azerbaijani",
    "Bangladesh": "Bangladeshi", "Belarus": "Belarusian", "Belgium": "Belgian", "Brazil": "Brazilian",
    "Britain": "British", "Bulgaria": "Bulgarian", "Cambodia": "Cambodian", "Canada": "Canadian",
    "China": "Chinese", "Colombia": "Colombian", "Cuba": "Cuban", "Denmark": "Danish", "Egypt": "Egyptian",
    "Eritrea": "Eritrean", "Estonia": "Estonian", "Ethiopia": "Ethiopian", "Finland": "Finnish",
    "France": "French", "Germany": "German", "Greece": "Greek", "Hungary": "Hungarian", "India": "Indian",
    "Indonesia": "Indonesian", "Iran": "Iranian", "Iraq": "Iraqi", "Ireland": "Irish", "Israel": "Israeli",
    "Italy": "Italian", "Japan": "Japanese", "Kazakhstan": "Kazakh", "Kenya": "Kenyan", "Kuwait": "Kuwaiti",
    "Latvia": "Latvian", "Lebanon": "Lebanese", "Libya": "Libyan", "Lithuania": "Lithuanian",
    "Malaysia": "Malaysian", "Mexico": "Mexican", "Moldova": "Moldovan", "Mongolia": "Mongolian",
    "Morocco": "Moroccan", "Myanmar": "Burmese", "Nepal": "Nepali", "Nigeria": "Nigerian",
    "North Korea": "North Korean", "Norway": "Norwegian", "Pakistan": "Pakistani", "Poland": "Polish",
    "Portugal": "Portuguese", "Qatar": "Qatari", "Romania": "Romanian", "Russia": "Russian",
    "Rwanda": "Rwandan", "Saudi Arabia": "Saudi", "Serbia": "Serbian", "Singapore": "Singaporean",
    "Somalia": "Somali", "South Africa": "South African", "South Korea": "South Korean",
    "South Sudan": "South Sudanese", "Spain": "Spanish",
    "Sri Lanka": "Sri Lankan", "Sudan": "Sudanese", "Sweden": "Swedish", "Switzerland": "Swiss",
    "Syria": "Syrian", "Taiwan": "Taiwanese", "Thailand": "Thai", "Tunisia": "Tunisian", "Turkey": "Turkish",
    "Ukraine": "Ukrainian", "Uzbekistan": "Uzbek", "Venezuela": "Venezuelan", "Vietnam": "Vietnamese",
    "Yemen": "Yemeni", "Zimbabwe": "Zimbabwean",
}  # fmt: skip
"""Country -> adjective. Left out: names that are people or states of a union too (Chad, Jordan, Georgia)."""
INVENTED = {
    "Aldoria": "Aldorian", "Arvenia": "Arvenian", "Belmark": "Belmarki", "Bravonia": "Bravonian",
    "Calderia": "Calderian", "Corvania": "Corvanian", "Drusland": "Druslander", "Elvaria": "Elvarian",
    "Fendoria": "Fendorian", "Galdovia": "Galdovian", "Ilmaria": "Ilmarian", "Jorvania": "Jorvanian",
    "Karvenia": "Karvenian", "Kestria": "Kestrian", "Lodovia": "Lodovian", "Meskovia": "Meskovian",
    "Nordalia": "Nordalian", "Ostravania": "Ostravanian", "Ravenmark": "Ravenmarki", "Rosdavia": "Rosdavian",
    "Selvania": "Selvanian", "Tarsonia": "Tarsonian", "Ulmaria": "Ulmarian", "Valdoria": "Valdorian",
    "Westoria": "Westorian", "Zorania": "Zoranian",
}  # fmt: skip
KINDS = {"real": REAL, "invented": INVENTED}
_LONG = {
    "United States of America": "United States",
    "United States": "United States",
    "United Kingdom": "Britain",
    "Russian Federation": "Russia",
}
_PARTY_OF = {
    **{name: (name, False) for name in REAL},
    **{adjective: (name, True) for name, adjective in REAL.items()},
    **{f"{the}{form}": (party, False) for form, party in _LONG.items() for the in ("the ", "The ", "")},
    "Great Britain": ("Britain", False),
    "American": ("United States", True),
}
"""Form in a text -> party, and whether the form is the adjective. Abbreviations (US, DPRK) stay."""
_FORMS = "|".join(sorted(map(re.escape, _PARTY_OF), key=len, reverse=True))
# With an article before it, for "an Iranian ship" -> "a Kenyan ship"; with the genitive of a plural name.
# Parts of other names stay: South China Sea, Indian Ocean, Northern Ireland, Latin American, Papua New …
_NAME = re.compile(
    r"(?P<article>\b[Aa]n? )?\b(?<!North )(?<!South )(?<!Northern )(?<!Latin )(?<!New )"
    rf"(?P<form>{_FORMS})\b(?! (?:Sea|Ocean|Peninsula)\b)(?P<bare>['’](?!s))?"
)


@dataclass(frozen=True)
class Swapped:
    """Flips of one kind of replacement."""

    kind: str
    sentences: int
    flips: int
    rate: Number
    """Share of sentences whose label changed, with the interval over documents."""


@dataclass(frozen=True)
class SwapResult:
    """What the swap test found."""

    model: str
    split_sentences: int
    documents: int
    kinds: tuple[Swapped, ...]
    """Real, invented, and both together."""
    moves: dict[str, int]
    """`from -> to`, and how often."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; no texts."""
        kinds = [vars(kind) | {"rate": kind.rate.to_json()} for kind in self.kinds]
        return {**vars(self), "kinds": kinds}

    def text(self) -> str:
        """The same as lines."""
        lines = [
            f"{self.model}: party names replaced in {self.kinds[0].sentences} of {self.split_sentences} "
            f"sentences ({self.documents} documents); brackets: 95 % document bootstrap"
        ]
        for kind in self.kinds:
            rate = kind.rate
            span = "" if rate.low is None else f" [{rate.low:.2%}, {rate.high:.2%}]"
            lines.append(f"{kind.kind:>9}: {kind.flips} of {kind.sentences} flip, {rate.value:.2%}{span}")
        lines += [f"{count:>9}  {move}" for move, count in self.moves.items()]
        return "\n".join(lines) + "\n"


def parties(text: str) -> list[str]:
    """The parties a text names, each once, in order."""
    return list(dict.fromkeys(_party(match)[0] for match in _NAME.finditer(text)))


def _party(match: re.Match[str]) -> tuple[str, bool]:
    return _PARTY_OF[match["form"]]


def replacements(found: Sequence[str], kind: str, seed: str) -> dict[str, str]:
    """Another name of the kind for each party: the same for the same seed, none twice, none of the found.

    Where more parties are named than there are other names, the last of them get none, and stay.
    """
    rng = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:12], 16))
    names = [name for name in KINDS[kind] if name not in found]
    return dict(zip(found, (names[i] for i in rng.permutation(len(names))), strict=False))


def swap(text: str, names: Mapping[str, str], adjectives: Mapping[str, str]) -> str:
    """The text with each party's name and adjective replaced; parties without a replacement stay.

    Args:
        names: party -> its new name.
        adjectives: new name -> its adjective.
    """

    def other(match: re.Match[str]) -> str:
        party, is_adjective = _party(match)
        if party not in names:
            return match[0]
        name = names[party]
        word = adjectives[name] if is_adjective else name
        article = match["article"] or ""
        if article:
            article = article[0] + ("n " if word[0] in "AEIOU" else " ")
        tail = match["bare"] or ""
        if tail and match["form"].endswith("States"):  # "the United States' view" -> "Kenya's view"
            tail += "s"
        return article + word + tail

    return _NAME.sub(other, text)


def swap_test(classifier: StanceClassifier, sentences: Sequence[Sentence], *, seed: int = 0) -> SwapResult:
    """Label sentences as they are and with other parties, neighbours included, and count what changes.

    Raises:
        InputError: no sentence with its text names a party.
    """
    known = [s for s in sentences if s.text is not None]
    named = [s for s in known if parties(s.text or "")]
    if not named:
        raise InputError("no sentence with its text names a country: set COMMUNIQUE_SHARED")
    before = classifier.label_sentences([SentenceInput(s.text or "", s.before, s.after) for s in named])
    flips: dict[str, list[bool]] = {}
    moves: dict[str, int] = {}
    for kind in KINDS:
        after = classifier.label_sentences([_swapped_input(s, kind, seed) for s in named])
        flips[kind] = [a.label != b.label for a, b in zip(before, after, strict=True)]
        for a, b in zip(before, after, strict=True):
            if a.label != b.label:
                moves[f"{a.label} -> {b.label}"] = moves.get(f"{a.label} -> {b.label}", 0) + 1
    documents = [s.row.doc_id for s in named]
    kinds = [_count(kind, found, documents) for kind, found in flips.items()]
    together = _count("both", [f for found in flips.values() for f in found], documents * len(flips))
    ordered = dict(sorted(moves.items(), key=lambda item: (-item[1], item[0])))
    return SwapResult(classifier.version, len(known), len(set(documents)), (*kinds, together), ordered)


def _swapped_input(s: Sentence, kind: str, seed: int) -> SentenceInput:
    texts = (s.text or "", s.before, s.after)
    found = parties("\n".join(texts))
    names = replacements(found, kind, f"{seed} {s.row.doc_id} {s.row.sent_id} {kind}")
    return SentenceInput(*(swap(text, names, KINDS[kind]) for text in texts))


def _count(kind: str, flips: Sequence[bool], documents: Sequence[str]) -> Swapped:
    ids, place = np.unique(np.asarray(documents), return_inverse=True)
    counts: Floats = np.zeros((len(ids), 2))  # flips, sentences
    counts[:, 0] = np.bincount(place, weights=np.asarray(flips, dtype=float))
    counts[:, 1] = np.bincount(place)
    rate = Resampler(len(ids)).estimate(counts, lambda totals: totals[:, :1] / totals[:, 1:])[0]
    return Swapped(kind, len(flips), int(sum(flips)), rate)
