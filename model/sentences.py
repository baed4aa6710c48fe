"""Cut a statement into sentences whose offsets index the original text exactly.

    >>> from communique.model.sentences import segment
    >>> text = "The U.S. Secretary met H.E. Dr. Ito. Both sides agreed on Art. 5 para. 2."
    >>> [text[span.start:span.end] for span in segment(text)]
    ['The U.S. Secretary met H.E. Dr. Ito.', 'Both sides agreed on Art. 5 para. 2.']

Two steps. The layout decides first: blank lines, bullets, numbered items and headings end a
sentence, a hard line wrap does not. Inside a block the sentencex segmenter (rules from Wikimedia,
compiled) proposes boundaries, and a small layer overrules it at the places where official prose
breaks general rules: abbreviations of office, "China-U.S.", clock times, articles and paragraphs,
quotations that end inside a sentence. `tests/data/segmentation.jsonl` holds the boundaries that the
layer was measured on; `make bench-sentences` prints the comparison with other segmenters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import sentencex

from communique.model import abbreviations

SEGMENTER_VERSION = "1"
"""Raised whenever a boundary can move; saved with annotations, which point at offsets."""


class Span(NamedTuple):
    """A sentence's place: `text[start:end]`, in characters, end exclusive, never blank."""

    start: int
    end: int


Segmenter = Callable[[str], Iterator[int]]
"""Block of text -> offsets at which a new sentence may start."""


def segment(text: str, base: Segmenter | None = None) -> list[Span]:
    """Sentences of `text`, in order, without overlap; every other character is white space.

    Args:
        text: a statement as published, any length.
        base: proposes boundaries inside a block; the shipped segmenter if not given.
    """
    propose = base or _sentencex
    spans: list[Span] = []
    for start, end in _blocks(text):
        block = text[start:end].replace("\n", " ").replace("\r", " ")
        spans.extend(Span(start + a, start + b) for a, b in _split(block, propose))
    return spans


# --- layout ------------------------------------------------------------------------------------

_LINE = re.compile(r"[^\r\n\x0b\x0c\x85\u2028\u2029]+")
_BULLETS = "•●▪◦‣·∙*–—\\-\u2212"
_ITEM = re.compile(
    rf"\s*(?:[{_BULLETS}]\s+|\(?(?:\d{{1,3}}|[a-z]{{1,2}}|[ivxlc]{{1,6}}|[A-Z]|[IVXLC]{{1,6}})[.)]\s+"
    r"|(?:\d{1,2}\.){1,3}\d{0,2}\s+\S|(?:Article|ARTICLE|Annex|ANNEX|Section|SECTION|Chapter|CHAPTER)\s+[\dIVXLC]+\b"
    r"|(?:Q|A|QUESTION|ANSWER|Question|Answer)\s*:|[A-Z][A-Z.’'\- ]{2,40}:\s)"
)
_PREAMBLE = re.compile(r"[A-Z][a-z]+(?:ing|ed)$")
_WORD = re.compile(r"\S+")
_WRAP_WIDTH = range(45, 101)
"""Widths, in characters, at which typed and mailed text is wrapped."""


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of text that no sentence crosses: a line, or lines that a hard wrap broke."""
    run: list[tuple[int, int]] = []
    for match in _LINE.finditer(text):
        if text[match.start() : match.end()].isspace():
            continue
        line = (match.start(), match.end())
        if run and _blank_between(text, run[-1][1], line[0]):
            yield from _join_wrapped(text, run)
            run = []
        run.append(line)
    if run:
        yield from _join_wrapped(text, run)


def _blank_between(text: str, end: int, start: int) -> bool:
    gap = text[end:start].replace("\r\n", "\n")
    return sum(gap.count(mark) for mark in "\n\r\x0b\x0c\x85\u2028\u2029") > 1 or "\u2029" in gap


def _join_wrapped(text: str, lines: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join a paragraph's lines where the break was made by a margin, not by the writer."""
    if len(lines) == 1:
        yield lines[0]
        return
    width = max(len(text[a:b].rstrip()) for a, b in lines)
    # One line that goes on in lower case shows that the whole paragraph was wrapped.
    flowed = any(text[a:b].lstrip()[:1].islower() and not _ITEM.match(text[a:b]) for a, b in lines[1:])
    above = start, end = lines[0]
    for a, b in lines[1:]:
        if _wrapped(text[above[0] : above[1]].rstrip(), text[a:b], width, flowed):
            end = b
        else:
            yield start, end
            start, end = a, b
        above = (a, b)
    yield start, end


def _wrapped(above: str, line: str, width: int, flowed: bool) -> bool:
    """Whether `line` goes on with the sentence of the line above it.

    It does when it starts in lower case, when the line above ends in the middle of a sentence of a
    wrapped paragraph, or when its first word would not have fitted on the line above (the test that
    mail readers use for flowed text).
    """
    if _ITEM.match(line):
        return False
    first = _WORD.search(line)
    word = first.group() if first else ""
    if word[:1].islower():
        return True
    if above.endswith((":", ";")) or (above.endswith(",") and _PREAMBLE.match(word)):
        return False
    if flowed and above[-1:] not in '.!?"”’)' and not above.isupper():
        return True
    return width in _WRAP_WIDTH and len(above) + 1 + len(word) > width and not above.isupper()


# --- inside a block ------------------------------------------------------------------------------


_INITIAL_GAP = re.compile(r"((?<!\w)[A-Z]\s*)[^\S\x00-\x7f](?=\.)")


def _sentencex(block: str) -> Iterator[int]:
    """Boundaries that sentencex proposes for English; its pieces join up to the block.

    A no-break or other wide space between an initial and its period ends sentencex 1.0.32 in a panic,
    which no `except Exception` holds: there, and only there, it is shown a plain space.
    """
    at = 0
    shown = _INITIAL_GAP.sub(r"\1 ", block)
    for piece in sentencex.segment("en", shown):
        at += len(piece)
        yield at


_OPENERS = "\"'“‘«([¡¿*_"
_CLOSERS = "\"'”’»)\\]*_"
_BRACKET_NOTE = r"\[\d{1,3}(?:[,–-]\s?\d{1,3})*\]"
_NOTE = rf"(?:(?:{_BRACKET_NOTE})+|[¹²³⁰-⁹]+)"
_STOPS = ".!?…。"
# Each pass is linear: what a quantifier has taken it keeps (`*+`), and a run of stops is tried from its
# first only. Nothing given back could match, as no class holds what the one behind it begins with.
_CANDIDATE = re.compile(
    rf"(?<![{_STOPS}])(?:(?:\.\s\.\s\.)|[{_STOPS}]++)"
    rf"[{_CLOSERS}]*+{_NOTE}?[{_CLOSERS}]*+(?=\s|$)"  # a stop, then space
    rf"|[;:.](?=\s++(?:[•●▪]|[-–]\s?[A-Z]))"  # a list run together on one line
    rf"|(?<=[a-z][a-z0-9)%])[.!?][{_CLOSERS}]*+{_NOTE}?"
    rf"(?=[{_OPENERS}]*+[A-Z][a-z]++(?:\s|,))"  # a lost space
)
_LOUD_SPEAKER = re.compile(r"\s*[A-Z][A-Z’'\- ]{2,30}$")
_SPACE = re.compile(r"\s*")
_LONGEST_MARK = 20
_LOOK = 200
"""Characters read on either side of a stop; no word that decides is nearly as long."""
_NOTE_END = re.compile(rf"(?:{_BRACKET_NOTE}|[¹²³⁰-⁹])$")
_LIST_STOPS = frozenset(";:.")
_INLINE_BULLET = re.compile(r"\s++(?:[•●▪]|[-–]\s?[A-Z])")
_LEFT_TOKEN = re.compile(r"[^\s(\[“‘\"«]*$")
_NEXT_TOKEN = re.compile(rf"\s*([{_OPENERS}]*)([^\s]{{0,{_LOOK}}})")

_ACRONYM = re.compile(r"(?:.*[-–/])?(?:[A-Z]\.){1,5}[A-Z]?$")
_ROMAN = re.compile(r"[IVXLC]{1,6}$")
_MARKER = re.compile(
    rf"[{_BULLETS}\s]*\(?(?:\d{{1,3}}(?:\.\d{{1,2}}){{0,3}}|[a-z]|[ivxlc]{{1,6}}|[A-Z]|[IVXLC]{{1,6}}|Q|A)[.)]$"
)


def _split(block: str, propose: Segmenter) -> Iterator[tuple[int, int]]:
    """Sentences of one block as (start, end), white space trimmed."""
    last = len(block.rstrip())
    proposed: set[int] | None = None  # asked for only where our rules are silent
    start = 0
    for match in _CANDIDATE.finditer(block, 0, last):
        at = match.end()
        if at >= last:
            break
        verdict = _verdict(block, start, match.start(), at)
        if verdict is None:
            proposed = set(propose(block)) if proposed is None else proposed
            verdict = not proposed.isdisjoint(range(at, _SPACE.match(block, at).end() + 1))  # type: ignore[union-attr]
        if verdict:
            yield from _trim(block, start, at)
            start = at
    yield from _trim(block, start, len(block))


def _trim(block: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = block[start:end]
    stripped = piece.strip()
    if stripped:
        left = start + piece.index(stripped[0])
        yield left, left + len(stripped)


def _verdict(block: str, start: int, stop: int, after: int) -> bool | None:
    """Whether a sentence ends at the stop `block[stop:after]`; None where the rules are silent.

    Args:
        block: the text of one block.
        start: where the running sentence began.
        stop: where the run of stops begins.
        after: the offset just behind stops, closing quotes and note marks.
    """
    following = _NEXT_TOKEN.match(block, after)
    opener, word = (following.group(1), following.group(2)) if following else ("", "")
    head = word[:1]
    if head.islower() and not word[1:2].isupper() and block[after : after + 1].isspace():
        return _lower_case_start(block, stop, after, word)
    if stop - start < _LONGEST_MARK and _MARKER.match(block[start : stop + 1].strip()):
        return False  # a list mark is not a sentence
    marks = block[stop:after].rstrip("[]¹²³⁰⁴⁵⁶⁷⁸⁹0123456789")
    if marks in _LIST_STOPS and _INLINE_BULLET.match(block, after):
        return True
    if "…" in marks or ".." in marks or ". ." in marks:
        return head.isupper()
    if not marks.startswith("."):
        return _after_exclamation(marks, word)
    if marks == "." and block[after - 1] not in _OPENERS + "." and _NOTE_END.search(block, stop, after):
        return head.isupper() or None
    if marks != ".":
        closes = any(c in _CLOSERS for c in marks[1:])
        return None if not closes else not _is_abbreviation_inside(block, stop, word)
    return _after_period(_left(block, start, stop), opener, word, block[max(start, stop - _LOOK) : stop])


def _left(block: str, start: int, stop: int) -> str:
    match = _LEFT_TOKEN.search(block, max(start, stop - 40), stop)
    return match.group() if match else ""


def _lower_case_start(block: str, stop: int, after: int, word: str) -> bool:
    """A lower-case word begins a sentence only as a list item: "(a) …", "b) …", "ii. …"."""
    return bool(re.match(r"(?:[a-z]|[ivx]{1,4})\)$", word)) and block[stop] in ".:;" and after < len(block)


def _after_exclamation(marks: str, word: str) -> bool | None:
    if word[:1] in "—–-,;:":
        return False
    return True if word[:1].isupper() or word[:1].isdigit() else None


def _is_abbreviation_inside(block: str, stop: int, word: str) -> bool:
    """`(the U.S.) Navy`, `"… U.S." policy`: the closing mark belongs to a phrase, not a sentence."""
    left = _left(block, 0, stop)
    if word[:1] in "—–-,;:":
        return True
    known = left.lower() in abbreviations.COMPANY or bool(_ACRONYM.match(left + "."))
    return known and word not in abbreviations.STARTERS


def _after_period(left: str, opener: str, word: str, sentence: str) -> bool | None:
    """Verdict on a plain full stop behind the token `left`, before `word`.

    `sentence` is the running sentence up to the stop, of a long one the last `_LOOK` characters.
    """
    left = left.rpartition("/")[2]  # "A/91/L.5/Add. 1"
    bare = left.lower()
    plain = word.rstrip(".,;:!?)\"'”’")
    if not word:
        return True
    if _LOUD_SPEAKER.match(sentence) and not plain.isupper():
        return False  # "THE CHAIRMAN. The Committee will …"
    if word[0] in ",;:—–" or word == "-":
        return False
    if left in abbreviations.TITLES or left in abbreviations.LOUD_TITLES or bare in abbreviations.NEVER_LAST:
        return False
    if len(left) == 1 and left.isupper() and left != "I":
        before = sentence[: -len(left)].split()
        return bool(before) and before[-1].lower() in abbreviations.LETTERED and len(plain) > 1
    if bare in abbreviations.NUMBERED:
        numbered = word[0].isdigit() or word[0] == "(" or opener == "(" or bool(_ROMAN.match(plain))
        return not numbered if sentence.strip() != left or numbered else True
    if bare in abbreviations.MONTHS:
        return not word[0].isdigit() if left[:1].isupper() else None
    if bare in abbreviations.LATIN:
        return word in abbreviations.STARTERS
    if bare in abbreviations.CLOCK:
        return not (plain in abbreviations.AFTER_CLOCK or opener == "(")
    if bare in ("b.c", "a.d"):
        return True
    if bare in abbreviations.COMPANY:
        return plain in abbreviations.STARTERS or bare == "etc"
    if _ACRONYM.match(left + "."):
        return plain in abbreviations.STARTERS
    return True if word[0].isupper() or opener else None
