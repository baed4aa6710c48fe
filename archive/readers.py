"""Statements from files: plain text, HTML and Markdown; and rows that are sentences already.

communique label readout.txt page.html notes.md
communique label --sentences rows.jsonl
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from communique.model.errors import InputError

MAX_STATEMENT_BYTES = 10_000_000
"""A longer file is no statement but an archive of them, or not text at all."""
_LONGEST_LINE = 1_000_000
"""Characters; the longest single-line statement seen is under 40,000."""
_DEEPEST = 100
"""Objects and lists inside one another that a row may carry: a writer must get through them again."""
_HTML = frozenset((".html", ".htm", ".xhtml"))
_MARKDOWN = frozenset((".md", ".markdown"))
_NO_PROSE = (
    "nav, aside, footer, form, script, style, noscript, template, [role=navigation], [aria-hidden=true]"
)
_LOOKS_LIKE_HTML = re.compile(r"\s*(?:<!doctype html|<html|<head|<body|<article|<div|<p[ >])", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """A statement's text, as sentences will index it, and the name it goes by."""

    doc_id: str
    text: str


def read_statement(path: Path) -> Statement:
    """Read one file.

    HTML is reduced to its main text and Markdown to its prose; offsets index the text so obtained.

    Raises:
        InputError: no such file, empty, binary, not UTF-8 (with the byte), or too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATEMENT_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the files in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return Statement(path.name, to_text(data, name=str(path), suffix=path.suffix.lower()))


def read_stream(stream: BinaryIO, doc_id: str = "stdin") -> Statement:
    """Read a statement from an open binary stream; HTML is recognised by its first tag."""
    return Statement(doc_id, to_text(stream.read(MAX_STATEMENT_BYTES + 1), name=doc_id, suffix=""))


def to_text(data: bytes, *, name: str, suffix: str) -> str:
    """Bytes of a text, HTML or Markdown file -> the statement's text.

    Args:
        data: the file's bytes.
        name: what to call it in an error.
        suffix: ".html", ".md" …; anything else is plain text, or HTML if it begins with a tag.
    """
    if len(data) > MAX_STATEMENT_BYTES:
        raise InputError(
            f"{name}: over {MAX_STATEMENT_BYTES // 1_000_000} MB, too long for one statement: "
            "split it into documents"
        )
    text = decode(data, name)
    if suffix in _HTML or (suffix not in _MARKDOWN and _LOOKS_LIKE_HTML.match(text)):
        text = html_text(text, name)
    elif suffix in _MARKDOWN:
        text = markdown_text(text)
    if not text.strip():
        raise InputError(f"{name}: holds no text")
    longest = max(len(line) for line in text.splitlines())
    if longest > _LONGEST_LINE:
        raise InputError(
            f"{name}: one line of {longest:,} characters is no statement: split it into documents"
        )
    return text


def decode(data: bytes, name: str) -> str:
    """UTF-8 (or UTF-16 with its mark) -> text.

    Raises:
        InputError: empty, binary, or bytes that are not UTF-8, with the offset of the first.
    """
    if not data.strip():
        raise InputError(f"{name}: is empty")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\x00" in data:
        raise InputError(
            f"{name}: is a binary file (NUL at byte {data.index(0)}), expected text, HTML or Markdown"
        )
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: not {encoding.removesuffix('-sig').upper()} at byte {error.start} "
            f"(0x{data[error.start]:02x}): convert it, e.g. iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def html_text(html: str, name: str) -> str:
    """Main text of a page, without menus and footers: one block a paragraph, heading or list item."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    body = HTMLTree.parse(html).body
    text = ""
    if body is not None:
        for part in body.query_selector_all(_NO_PROSE):
            part.decompose()
        main = body.query_selector("article") or body.query_selector("main, [role=main]")
        # A teaser in an <article> beside the real text would otherwise win.
        whole = main if main is not None and len(main.text or "") > len(body.text or "") / 2 else body
        text = extract_plain_text(
            whole.html, main_content=False, list_bullets=False, alt_texts=False, links=False
        )
    if not text.strip():
        raise InputError(f"{name}: no text found in this HTML")
    return "\n\n".join(line.strip() for line in text.splitlines() if line.strip())


def markdown_text(markdown: str) -> str:
    """Prose of a Markdown file: one paragraph, heading or list item a block, marks dropped."""
    from markdown_it import MarkdownIt

    blocks = []
    for token in MarkdownIt().parse(markdown):
        if token.type == "inline":
            parts = (_inline_text(child.type, child.content) for child in token.children or [])
            blocks.append("".join(parts).strip())
        elif token.type in ("fence", "code_block"):
            blocks.append(token.content.strip())
    return "\n\n".join(block for block in blocks if block)


def _inline_text(kind: str, content: str) -> str:
    if kind in ("softbreak", "hardbreak"):
        return "\n"
    return content if kind in ("text", "code_inline", "text_special") else ""


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a JSON Lines file as (line number from 1, row), each with a string field `text`.

    `before` and `after` are strings, or absent or null where there is no neighbour.

    Raises:
        InputError: with file and line, for what is not such a row.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _row(line, f"{path}:{number}")


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 at byte {error.start} of the line: convert the file") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place}: not JSON ({error.msg} at column {error.colno}): one object a line"
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets without end
        raise InputError(f"{place}: not JSON that can be read (too deep, or too long a number)") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected a JSON object with a field 'text', found {type(row).__name__}")
    if "text" not in row:
        raise InputError(f"{place}: no field 'text'; fields are {', '.join(map(repr, row)) or 'none'}")
    for field in ("text", "before", "after"):
        absent = field not in row or (row[field] is None and field != "text")
        if not absent and not isinstance(row[field], str):
            raise InputError(f"{place}: field {field!r} must be a string, found {type(row[field]).__name__}")
    if not row["text"].strip():
        raise InputError(f"{place}: field 'text' is blank")
    if _depth(row) > _DEEPEST:
        raise InputError(f"{place}: fields nested over {_DEEPEST} deep: take them out")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{place}: holds half a surrogate pair (\\ud800 … \\udfff alone), no character: remove it"
        ) from None
    return row


def _depth(row: dict[str, Any]) -> int:
    """How many objects and lists a row holds inside one another, itself counted."""
    depth = 0
    level: list[Any] = [row]
    while level:
        depth += 1
        inner = [part for held in level for part in (held.values() if isinstance(held, dict) else held)]
        level = [part for part in inner if isinstance(part, dict | list)]
    return depth
