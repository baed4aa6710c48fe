"""A file's content -> documents, one at a time: text, HTML, Markdown, Akoma Ntoso, and rows of a table.

    for item in read_documents(blob, Columns(text="body", id="speech")):   # Document, or Rejected
        ...

A bad document is one `Rejected` with its place and reason, and reading goes on behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

from communique.archive.encodings import detect
from communique.archive.readers import MAX_STATEMENT_BYTES, to_text
from communique.archive.sources import READ_ERRORS, Blob, Rejected, why
from communique.archive.tables import TABLES, Columns, Document, Item, fitting
from communique.model.akn import read_akn
from communique.model.errors import InputError

TEXTS = (".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml")


def read_documents(blob: Blob, columns: Columns) -> Iterator[Item]:
    """Documents of one file; see the module."""
    table = TABLES.get(blob.suffix)
    try:
        if table is not None:
            yield from table(blob, columns)
        elif columns.sentences:
            yield Rejected(
                blob.name, "", f"--sentences reads rows ({', '.join(TABLES)}), not {blob.suffix!r}"
            )
        elif blob.suffix in (*TEXTS, ".xml"):
            yield _whole(blob)
        else:
            known = ", ".join((*TEXTS, ".xml", *TABLES))
            yield Rejected(
                blob.name, "", f"unknown type {blob.suffix!r}: reads {known}, in .zip .tar .gz .zst"
            )
    except InputError as error:
        yield Rejected(blob.name, "", str(error).removeprefix(f"{blob.name}: "))
    except READ_ERRORS as error:
        yield Rejected(blob.name, "", f"damaged: {why(error)}")


def _whole(blob: Blob) -> Document:
    data = blob.stream.read(MAX_STATEMENT_BYTES + 1)
    if len(data) > MAX_STATEMENT_BYTES:
        raise InputError(f"over {MAX_STATEMENT_BYTES // 1_000_000} MB, too long for one statement")
    if not data.strip():
        raise InputError("is empty")
    if blob.suffix == ".xml":
        text, metadata, encoding = read_akn(data, blob.name)
        if not text.strip():
            raise InputError("no paragraph found: expected Akoma Ntoso")
        return Document(None, fitting(text), blob.name, "", encoding.lower(), metadata)
    name = detect(data)
    if name is None:
        raise InputError("is a binary file, or in no encoding that is known: convert it to UTF-8")
    try:
        decoded = data.decode(name).encode("utf-8")
    except UnicodeError as error:
        raise InputError(f"not {name} ({why(error)}): convert it to UTF-8") from None
    text = to_text(decoded, name=blob.name, suffix=blob.suffix)
    return Document(None, text, blob.name, "", name)
