"""INCEpTION's side of the exchange: UIMA CAS XMI by dkpro-cassis, one file a document.

    communique data export ../team.zip --to inception

In INCEpTION, import `TypeSystem.xml` as a layer and the `.xmi` files as documents (UIMA CAS XMI 1.0). Each
annotated sentence is a span of the layer `Stance`, whose features hold the label, both passes and the
reason; export the documents in the same format and zip them with the type system to come back.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from communique.model.sentences import segment
from communique.train.corpus import Sentence, neighbours
from communique.train.files import DataError

if TYPE_CHECKING:
    from cassis import Cas, TypeSystem

Parts = tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]
"""Of an imported sentence: its place, the record beside it, the tool's labels, what was shown."""

STANCE, DOCUMENT = "webanno.custom.Stance", "webanno.custom.StanceDocument"
TYPES = "TypeSystem.xml"
_PASS_FEATURES = ("label", "also", "sure", "note")
_FEATURES = (
    "label",
    "also",
    "why",
    *(f"{side}_{name}" for side in "ab" for name in _PASS_FEATURES),
    "communique",
)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that the same rows give the same bytes


def to_zip(sentences: Sequence[Sentence], texts: Mapping[str, str]) -> bytes:
    """Sentences as a zip of one XMI a document, and the type system.

    Raises:
        DataError: a document's text is missing, or holds characters that XML cannot.
    """
    types = _type_system()
    files = {TYPES: types.to_xml().encode()}
    ordered = sorted(sentences, key=lambda s: s.row.key)
    for number, (doc_id, group) in enumerate(groupby(ordered, key=lambda s: s.row.doc_id), 1):
        if doc_id not in texts:
            raise DataError(f"{doc_id}: INCEpTION shows whole documents and this one's text is not at hand")
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", doc_id)[-80:]
        files[f"{number:04d}-{name}.xmi"] = _cas(types, list(group), texts[doc_id]).to_xmi().encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _type_system() -> TypeSystem:
    from cassis import TypeSystem

    types = TypeSystem()
    for name, features in ((STANCE, _FEATURES), (DOCUMENT, ("communique",))):
        kind = types.create_type(name, "uima.tcas.Annotation")
        for feature in features:
            types.create_feature(kind, feature, "uima.cas.String")
    return types


def _cas(types: TypeSystem, sentences: Sequence[Sentence], text: str) -> Cas:
    from cassis import Cas

    cas = Cas(types)
    doc = asdict(sentences[0].doc)
    cas.sofa_string = _xml_safe(text, sentences[0].row.doc_id)
    cas.sofa_mime = "text/plain"
    cas.add(types.get_type(DOCUMENT)(begin=0, end=len(text), communique=json.dumps(doc)))
    for s in sentences:
        place = f"{s.row.doc_id}#{s.row.sent_id}"
        features = {name: value and _xml_safe(value, place) for name, value in _features(s).items()}
        cas.add(types.get_type(STANCE)(begin=s.row.start, end=s.row.end, **features))
    return cas


def _features(s: Sentence) -> dict[str, str | None]:
    row = s.row
    features: dict[str, str | None] = {"label": row.label, "also": row.also, "why": row.why}
    for side, given in (("a", row.a), ("b", row.b)):
        if given:
            sure = str(given.sure)
            features |= {f"{side}_label": given.label, f"{side}_also": given.also}
            features |= {f"{side}_sure": sure, f"{side}_note": given.note}
    return {**features, "communique": json.dumps(row.to_json())}


def _xml_safe(text: str, place: str) -> str:
    bad = _NOT_XML.search(text)
    if bad:
        raise DataError(
            f"{place}: U+{ord(bad.group()):04X} cannot stand in XML: use labelstudio, doccano or prodigy"
        )
    return text


def from_zip(path: Path) -> Iterator[Parts]:
    """The annotated sentences of a zip as `to_zip` writes it, whatever was changed inside INCEpTION.

    Raises:
        DataError: not such a zip; the message names the member.
    """
    from cassis import load_typesystem

    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except zipfile.BadZipFile:
        raise DataError(f"{path} is not a zip of XMI files") from None
    with archive:
        if TYPES not in archive.namelist():
            raise DataError(f"{path} has no {TYPES}: zip it together with the documents")
        types = load_typesystem(io.BytesIO(archive.read(TYPES)))
        for name in sorted(archive.namelist()):
            if name.endswith(".xmi"):
                yield from _document_parts(archive.read(name), types, f"{path.name}: {name}")


def _document_parts(xmi: bytes, types: TypeSystem, place: str) -> Iterator[Parts]:
    from cassis import load_cas_from_xmi

    cas = load_cas_from_xmi(io.BytesIO(xmi), typesystem=types)
    text, documents = cas.sofa_string, cas.select(DOCUMENT)
    if not text or len(documents) != 1:
        raise DataError(f"{place}: has no text or no {DOCUMENT}: import what was exported from here")
    doc = json.loads(documents[0].communique)
    spans = segment(text)
    for span in cas.select(STANCE):
        where = f"{place}: span {span.begin}-{span.end}"
        if not span.communique:
            raise DataError(
                f"{where}: a span that was not exported from here: new sentences are added as rows"
            )
        before, after = neighbours(text, spans, span.begin, span.end)
        shown = {"text": text[span.begin : span.end], "before": before, "after": after}
        yield where, {"row": json.loads(span.communique), "doc": doc}, _labels(span, where), shown


def _labels(span: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - cassis makes its classes as it runs
    fields: dict[str, Any] = {
        "label": span.label,
        "also": span.also or None,
        "why": span.why or "",
        "b": None,
    }
    for side in "ab":
        label, also, sure, note = (getattr(span, f"{side}_{name}") for name in _PASS_FEATURES)
        if label:
            if sure not in ("1", "2", "3"):
                raise DataError(f"{where}: {side}_sure is {sure!r}, expected 1, 2 or 3")
            fields[side] = {"label": label, "also": also or None, "sure": int(sure), "note": note or ""}
    return fields
