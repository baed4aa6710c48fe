"""Text of a .docx or .pdf statement, read in a process of its own that may not grow or run on.

    text = await extract(data, "application/pdf")        # raises `InputError` with one line
    python -m communique.model.extraction pdf < statement.pdf

A file from anybody can be built to fill memory or to run for hours (a zip bomb, a page tree without end):
the child has limits on memory and processor time, so that what it meets ends the child and not the service.
Layout is kept as far as sentences need it: one paragraph a block, words broken at a line's end joined.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

from communique.model.errors import InputError

KINDS = {
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
}
"""Content types that are read, and what the reader calls them."""
MAX_FILE_BYTES = 10_000_000
MAX_PAGES = 200
MAX_CHARACTERS = 1_000_000
SECONDS = 20.0
"""Time for one file; a statement takes one."""
_MAX_UNPACKED = 100_000_000
"""Bytes of a .docx with its parts unpacked."""
_MEMORY = 1_500_000_000
"""Bytes of address space of the child."""
_SHORT = 0.75
"""A line below this share of the page's longest that ends a sentence ends a paragraph."""
_FURNITURE = re.compile(
    r"\s*(?:[-–—]\s*)?(?:page\s+)?\d{1,4}(?:\s*(?:/|of)\s*\d{1,4})?(?:\s*[-–—])?\s*", re.I
)
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "LANG", "LC_ALL")
"""What the child sees of the environment: never the token, nor anybody's password."""
_REFUSED = 3
"""Exit code of the child for a file that it refuses with a line of its own."""


async def extract(data: bytes, kind: str) -> str:
    """Text of a file.

    Args:
        data: the file's bytes.
        kind: "pdf" or "docx".

    Raises:
        InputError: not such a file, encrypted, without text, or over a limit.
    """
    command = ("-P", "-m", "communique.model.extraction", kind)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=-1,
        stdout=-1,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, _ = await child.communicate(data)
    except TimeoutError:
        raise InputError(f"{kind}: reading took over {SECONDS:g} s: send the text instead") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == _REFUSED:
        raise InputError(out.decode())
    if child.returncode != 0:
        raise InputError(f"{kind}: cannot be read, or is built to be too large: send the text instead")
    return out.decode()


def read(data: bytes, kind: str) -> str:
    """Text of a file, in this process; see `extract`."""
    found = "\n\n".join(_pdf(data) if kind == "pdf" else _docx(data))
    text = found.encode("utf-8", "replace").decode().replace("\x00", "")  # fonts map to halves of pairs
    if not text.strip():
        raise InputError(f"{kind}: holds no text (a scan?): run a text recognition over it first")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{kind}: over {MAX_CHARACTERS:,} characters: send it in parts")
    return text


def _docx(data: bytes) -> Iterable[str]:
    """Paragraphs in order, those of tables and content controls too, as if all changes were accepted."""
    import docx
    from docx.opc.exceptions import PackageNotFoundError

    try:
        unpacked = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
        if unpacked > _MAX_UNPACKED:
            raise InputError(f"docx: {unpacked // 1_000_000:,} MB unpacked: send the text instead")
        body = docx.Document(io.BytesIO(data)).element.body
    except (zipfile.BadZipFile, PackageNotFoundError, KeyError, ValueError):
        raise InputError("docx: is not a Word document (.docx): save it as one, or as text") from None
    # Deleted words are another element (delText); moved ones stand in both places, text boxes twice.
    runs = "w:r[not(ancestor::w:moveFrom)]"
    for paragraph in body.xpath(f".//w:p[not(ancestor::{_FALLBACK})]"):
        pieces = paragraph.xpath(f"./{runs}/* | ./*[not(self::w:p)]//{runs}[count(ancestor::w:p) = 1]/*")
        words = "".join(_WORDS.get(p.tag.rpartition("}")[2], _nothing)(p) for p in pieces).strip()
        if words:
            yield words


_FALLBACK = "*[local-name() = 'Fallback']"
_WORDS: dict[str, Callable[[Any], str]] = {
    "t": lambda piece: piece.text or "",
    "tab": lambda piece: " ",
    "br": lambda piece: "\n",
    "cr": lambda piece: "\n",
    "noBreakHyphen": lambda piece: "\u2011",
}
"""What an element of a run adds to its paragraph."""


def _nothing(piece: object) -> str:
    """What every other element adds."""
    return ""


def _pdf(data: bytes) -> Iterable[str]:
    """Paragraphs in order, put together from the lines of all pages."""
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("pdf: asks for a password: save it without one")
        if len(reader.pages) > MAX_PAGES:
            raise InputError(f"pdf: {len(reader.pages):,} pages: send at most {MAX_PAGES} at once")
        pages = [page.extract_text().splitlines() for page in reader.pages]
    except (PyPdfError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise InputError("pdf: cannot be read: save it again, or as text") from None
    return paragraphs(pages)


def paragraphs(pages: Iterable[list[str]]) -> list[str]:
    """Lines of pages -> paragraphs: page numbers dropped, lines joined, broken words mended.

    A blank line ends a paragraph, and so does a line that is short and ends a sentence, or is followed by
    one that is no continuation (a heading); a page's end does not.
    """
    done: list[str] = []
    text, closed = "", True
    for page in pages:
        lines = [line.strip() for line in page]
        lines = [
            line for i, line in enumerate(lines) if not (_at_edge(i, lines) and _FURNITURE.fullmatch(line))
        ]
        width = max(map(len, lines), default=0)
        for number, line in enumerate(lines):
            if not line:
                closed = closed or number < len(lines) - 1
                continue
            if text and not closed:
                broken = text.endswith("-") and not text.endswith(" -") and line[:1].islower()
                text = text[:-1] + line if broken else f"{text} {line}"
            else:
                done += [text] if text else []
                text = line
            short = len(line) < _SHORT * width
            after = next((after for after in lines[number + 1 :] if after), "")
            closed = short and (line.endswith((".", "!", "?", ":", ";", "”", '"')) or after[:1].isupper())
    return [*done, text] if text else done


def _at_edge(number: int, lines: list[str]) -> bool:
    """Whether nothing but blank lines stands above or below a line of a page."""
    return not any(lines[:number]) or not any(lines[number + 1 :])


def _child(kind: str) -> int:
    """Read standard input and write its text, within the limits."""
    data = sys.stdin.buffer.read()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS)))
    except (ImportError, ValueError):  # no such limits on this system: the clock remains
        pass
    try:
        out, code = read(data, kind), 0
    except InputError as error:
        out, code = str(error), _REFUSED
    sys.stdout.buffer.write(out.encode())
    return code


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1]))
