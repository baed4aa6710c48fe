"""Security Council texts as silver rows: the act that leads a clause decides its label.

>>> from communique.train.public_council import lead_of
>>> lead_of("Urges all parties to open the road;")
('urges', <Stance.DEMAND: 'demand'>)

A resolution's clauses and a presidential statement's sentences open with the act that they perform.
That makes a label cheap and a model lazy: fed too many of them it learns the opening verb and nothing
else. So a clause that repeats an earlier one but for its numbers is dropped, each lead gives at most
`LEAD_CAP` rows, and those are chosen by the hash of their text, which spreads them over the years.
A clause that goes on to a second act of another kind is no sure example of its lead and is passed over.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from communique.model.akn import text_of_akn
from communique.model.labels import Stance

LEAD_CAP = 60
"""Most unread clauses that one leading act may give."""
MIN_WORDS, MAX_WORDS = 5, 80


class Clause(NamedTuple):
    """One clause: where it stands, its words, the act it opens with and that act's label (None: unknown)."""

    row_id: str  # archive member and number of the paragraph in it
    text: str
    lead: str
    label: Stance | None


_ENDED = "decides that the measures shall no longer apply"
_LEADS: dict[str, Stance] = {
    **dict.fromkeys(
        (
            "decides that all states shall", "decides that all member states shall", "demands", "demanding",
            "urges", "urging", "calls on", "calls upon", "calls for", "calling on", "calling upon",
            "requests", "insists", "appeals", "encourages", "encouraging", "invites", "directs",
            "reaffirms its call", "reiterates its call", "reiterates its demand",
        ),
        Stance.DEMAND,
    ),
    **dict.fromkeys(
        (
            "condemns", "condemning", "strongly condemns", "strongly condemning", "deplores", "deploring",
            "welcomes", "welcoming", "commends", "commending", "expresses its", "expressing its",
            "supports", "supporting", "reaffirms", "reaffirming", "regrets", "endorses", "rejects",
            "gravely concerned", "deeply concerned", "pays tribute", "paying tribute", "convinced",
        ),
        Stance.POSITION,
    ),
    **dict.fromkeys(
        (
            "recalls", "recalling", "takes note", "taking note", "acting under", "having considered",
            "having examined", "bearing in mind", "noting the letter", "noting the report",
            "noting the decision", "decides to remain",
        ),
        Stance.NONE,
    ),
    **dict.fromkeys(
        ("decides to lift", "decides to suspend", "decides to terminate", _ENDED), Stance.CONCESSION
    ),
}  # fmt: skip
_LEAD = re.compile("(" + "|".join(sorted(_LEADS, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_IS_ENDED = re.compile(
    r"decides that the (?:measures|provisions|prohibitions?|restrictions?)\b[^;]*?"
    r"\bshall (?:no longer (?:apply|have)|cease to (?:apply|be in force|have effect))",
    re.IGNORECASE,
)
_ENDS_MEASURES = re.compile(
    r"decides to \w+\b[^,;]{0,80}?\b(?:measures?|prohibitions?|obligations|sanctions|embargo|bans?)\b|"
    + _IS_ENDED.pattern,
    re.IGNORECASE,
)  # ending a mission's mandate is a decision of one's own, not a measure taken off somebody
_ASKS = (
    r"urg(?:es|ing)|demand|call(?:s|ing)? (?:on|upon|for)|request|encourag|appeal|invit|insist|must|should"
)
_VIEWS = (
    r"express|stress|reaffirm|emphasi|underlin|welcom|condemn|unacceptable|concern|only solution"
    r"|authori|decides"
)
_SECOND_ACT = {
    Stance.POSITION: re.compile(rf"\b(?:{_ASKS})", re.IGNORECASE),
    Stance.NONE: re.compile(rf"\b(?:{_ASKS}|{_VIEWS})", re.IGNORECASE),
}
_OPENING = re.compile(
    r"^[\s“”\"'‘’]*(?:\d+\s*\.\s*)?[\s“”\"'‘’]*(?:The Security Council\s+)?(?:(?:also|further)\s+)?",
    re.IGNORECASE,
)


def lead_of(clause: str) -> tuple[str, Stance] | None:
    """The act that a clause opens with, in lower case, and its label; None where that is not sure."""
    found = _LEAD.match(clause)
    lead = _ENDED if _IS_ENDED.match(clause) else found[1].lower() if found else ""
    if not lead or clause.endswith(":"):
        return None
    label = _LEADS[lead]
    if label is Stance.CONCESSION and not _ENDS_MEASURES.match(clause):
        return None
    second = _SECOND_ACT.get(label)
    return None if second and second.search(clause, len(lead)) else (lead, label)


def council_clauses(archive: Path, read: Collection[str] = ()) -> Iterator[Clause]:
    """The clauses that have been read, and up to `LEAD_CAP` others for each leading act.

    Args:
        archive: zip of documents in Akoma Ntoso.
        read: `text_key` of the clauses that have been read; these are given whatever they open with.
    """
    pool: dict[str, list[Clause]] = {}
    moulds: set[str] = set()
    taken: set[str] = set()
    for row_id, text in _all_clauses(archive):
        lead = lead_of(text)
        key = text_key(text)
        mould = re.sub(r"\W*\d[\d\W]*", " 0 ", text).lower()
        if key in read and key not in taken:
            taken.add(key)
            yield Clause(row_id, text, *(lead or (" ".join(text.split()[:2]).lower(), None)))
        elif lead is not None and mould not in moulds:
            pool.setdefault(lead[0], []).append(Clause(row_id, text, *lead))
        moulds.add(mould)
    for name in sorted(pool):
        yield from sorted(pool[name], key=lambda clause: text_key(clause.text))[:LEAD_CAP]


def text_key(text: str) -> str:
    """The first twelve hexadecimal digits of a text's SHA-256: how a decision names its row."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _all_clauses(archive: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(archive) as members:
        for name in sorted(n for n in members.namelist() if n.endswith(".xml")):
            for number, block in enumerate(text_of_akn(members.read(name)).split("\n\n")):
                text = _OPENING.sub("", block).strip()
                if len(text.split()) > MAX_WORDS:
                    text = text.partition(";")[0] + ";"
                text = text.strip(" ”\"'’")
                if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
                    yield f"{name}:{number}", text[0].upper() + text[1:]
