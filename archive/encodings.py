"""Which encoding bytes are in: a mark, UTF-8 where it fits, else the most probable of a few.

>>> from communique.archive.encodings import detect
>>> detect("The café reopened, said the Minister.".encode("cp1252"))
'cp1252'
"""

from __future__ import annotations

import codecs
import re

_LEGACY = ["cp1252", "cp1251", "cp1253", "gb18030", "shift_jis", "euc_kr", "big5"]
"""cp1252 stands for Latin-1 too; its neighbours (cp1250 …) cannot be told from it in English prose."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_\-]{2,20})", re.IGNORECASE)
_NO_DECLARATION = re.compile(r"undefined|idna|punycode|.*-escape|utf-(7|16|32).*")
"""Codecs of text by their names that no page is in: not made for pages, or impossible where the declaration
itself was read as ASCII (UTF-16, UTF-32)."""
_FEW = 0.2
"""Below this share of bytes outside ASCII, text is Western prose with accents and quotation marks."""


def detect(data: bytes, *, whole: bool = True) -> str | None:
    """Name of a codec that decodes `data`; None if it looks like no text in any of those known.

    Args:
        data: the bytes, or the first of them.
        whole: False if `data` may end inside a character.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    if b"\x00" in data:
        return None
    if _decodes(data, "utf-8", whole):
        return "utf-8"
    declared = _DECLARED.search(data[:4096])
    if declared and (name := _known(declared.group(1).decode("ascii"))) and _decodes(data, name, whole):
        return name
    outside = sum(byte > 127 for byte in data[:100_000])
    if outside < _FEW * min(len(data), 100_000) and _decodes(data, "cp1252", whole):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:100_000], cp_isolation=_LEGACY).best()
    return best.encoding if best and _decodes(data, best.encoding, whole) else None


def _known(name: str) -> str | None:
    """Python's name of a declared encoding; None for an unknown one and for what is none (rot13, hex)."""
    try:
        found = codecs.lookup(name)
    except LookupError:
        return None
    no_text = not found._is_text_encoding or _NO_DECLARATION.fullmatch(found.name)
    return None if no_text else found.name


def _decodes(data: bytes, encoding: str, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except (UnicodeError, LookupError):
        return False
    return True
