"""Akoma Ntoso, the XML of the United Nations' documents and of several parliaments -> running text.

>>> from communique.model.akn import text_of_akn
>>> text_of_akn(b"<doc><mainBody><num>1.</num><p>Calls   upon both sides;</p></mainBody></doc>")
'1. Calls upon both sides;'
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxml import etree

from communique.model.errors import InputError

_BLOCKS = tuple(
    f"{{*}}{n}"
    for n in (
        *("num", "p", "block", "heading", "subheading", "crossHeading", "td", "th", "docTitle"),
        *(
            "listIntroduction",
            "listWrapUp",
            "li",
            "tocItem",
            "caption",
            "from",
            "scene",
            "narrative",
            "summary",
        ),
    )
)


def text_of_akn(xml: bytes, name: str = "document") -> str:
    """The running text: a blank line after each paragraph; see `read_akn`."""
    return read_akn(xml, name)[0]


def read_akn(xml: bytes, name: str = "document") -> tuple[str, dict[str, Any], str]:
    """One document's text, its metadata (`date`, `uri`, where given) and the encoding it was in.

    Metadata, the cover page and footnotes are left out of the text; a paragraph's number stands before
    its text, and text in no paragraph is one of its own. Markup that does not nest (some presidential
    statements of 2000-2009) is mended as browsers do. Entities are not resolved and nothing is fetched.

    Raises:
        InputError: the bytes hold no XML at all.
    """
    parser = etree.XMLParser(
        recover=True,
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        raise InputError(f"{name}: not XML ({error.msg})") from None
    if root is None:
        raise InputError(f"{name}: not XML (no element could be read)")
    metadata = _metadata(root)
    etree.strip_elements(root, "{*}meta", "{*}coverPage", "{*}authorialNote", with_tail=False)
    encoding = str(root.getroottree().docinfo.encoding or "UTF-8")
    return "\n\n".join(_paragraphs(root)), metadata, encoding


def _paragraphs(root: Any) -> list[str]:  # noqa: ANN401  lxml is untyped
    """One string a block, its number before it; none where the document has no block at all."""
    leaves = list(root.iter(*_BLOCKS))
    holders = {above for leaf in leaves for above in leaf.iterancestors()}
    blocks: list[str] = []
    number = ""
    for is_number, text in _runs(root, holders, set(leaves)) if leaves else ():
        words = " ".join(text.split())
        if is_number:
            number = f"{number} {words}".strip()
        elif words:
            blocks.append(f"{number} {words}".strip())
            number = ""
    return [*blocks, number] if number else blocks


def _runs(element: Any, holders: set[Any], blocks: set[Any]) -> Iterator[tuple[bool, str]]:  # noqa: ANN401
    """Texts in order, each with whether it is a number: those of blocks, and what stands loose between."""
    if element not in holders:
        yield etree.QName(element).localname == "num", "".join(element.itertext())
        return
    loose = [element.text or ""]
    for child in element:
        if child in holders or child in blocks:
            yield False, "".join(loose)
            yield from _runs(child, holders, blocks)
            loose = []
        else:
            loose += child.itertext() if isinstance(child.tag, str) else [child.text]  # an entity
        loose.append(child.tail or "")
    yield False, "".join(loose)


def _metadata(root: Any) -> dict[str, Any]:  # noqa: ANN401
    """What the Work (not its later editions) says of itself."""
    found: dict[str, Any] = {}
    # Adopted, else published: a date that nobody filled in is given as the first day of the year 1.
    for element in root.iterfind(".//{*}FRBRWork/{*}FRBRdate"):
        date = element.get("date", "")
        if element.get("name") != "markup" and date and not date.startswith("0001-"):
            found["date"] = date
            break
    uri = root.find(".//{*}FRBRWork/{*}FRBRuri")
    if uri is not None and uri.get("value"):
        found["uri"] = uri.get("value")
    return found
