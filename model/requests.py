"""What a request to label holds, checked, and the records it is answered with.

    {"text": "…"}                                     one statement
    {"documents": [{"id": "a", "text": "…", …}]}      several, each with metadata that is carried through
    {"sentences": ["…", {"text": "…", "before": "…"}]} sentences that are cut already

Exactly one record a sentence, in order, with the fields of `Prediction.record`. A carried field whose
name the record has already is kept as `input_NAME`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import models_json_schema

from communique.model.artifact import ModelConfig
from communique.model.batching import Scores
from communique.model.classifier import DIGITS, Prediction, decide, in_context, set_aside
from communique.model.errors import InputError
from communique.model.extraction import KINDS
from communique.model.labels import LABELS
from communique.model.sentences import segment
from communique.model.tokens import SentenceInput

_STATEMENT = "Ardenia urges Belmar to free the crew. Both sides agreed to meet again."
_PLACE = ("doc_id", "sent_id", "start", "end", "text")
_ADDED = ("label", *(f"p_{label}" for label in LABELS), "truncated", "model_version")
MOST_CHARACTERS = 20_000
"""Of a sentence or neighbour, kept for the model: 40 a token of one that reads 512, so that prose is cut by
the model's own limit long before, and no sentence costs more to encode."""
PIECE_BYTES = 1_000_000
"""Carried bytes that are written at a time, see `pieces`."""


class TooLargeError(InputError):
    """A request whose answer would take more than the service gives one."""


class Document(BaseModel):
    """A statement; any further field (issuer, date …) is carried into its records."""

    model_config = ConfigDict(extra="allow", strict=True)
    id: str = Field(description="Name of the statement, `doc_id` in the records.")
    text: str = Field(description="The statement as published; offsets in the records index it.")


class Sentence(BaseModel):
    """A sentence; any further field is carried into its record."""

    model_config = ConfigDict(extra="allow", strict=True)
    text: str = Field(description="The sentence.")
    before: str = Field(default="", description="The sentence before it, where known.")
    after: str = Field(default="", description="The sentence after it, where known.")


class LabelRequest(BaseModel):
    """Exactly one of `text`, `documents` and `sentences`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"text": _STATEMENT},
                {"documents": [{"id": "call-1", "text": _STATEMENT, "issuer": "Ardenia"}]},
                {"sentences": ["Ardenia urges Belmar to free the crew."]},
            ],
            "oneOf": [{"required": [name]} for name in ("text", "documents", "sentences")],
        },
    )
    text: str = Field(default="", description="One statement; its records have the doc_id `text`.")
    documents: list[Document] = Field(default=[], description="Several statements, labelled in order.")
    sentences: list[str | Sentence] = Field(default=[], description="Sentences already cut: a record each.")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share (probability by the model's label weights) below which a stance becomes none; "
        "the model's own if null.",
    )
    abstain: bool = Field(default=True, description="False forces one of the four stances on every sentence.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_fields_set & {"text", "documents", "sentences"}
        if len(given) != 1:
            found = ", ".join(sorted(given)) or "none"
            raise ValueError(f"give exactly one of text, documents, sentences (found {found})")
        return self


class Record(BaseModel):
    """A labelled sentence. Fields carried from the request follow these."""

    model_config = ConfigDict(extra="allow")
    doc_id: str | None = Field(default=None, description="The document's id; absent for `sentences`.")
    sent_id: int | None = Field(default=None, description="Number of the sentence in its document, from 0.")
    start: int | None = Field(default=None, description="Offset of its first character (code points).")
    end: int | None = Field(default=None, description="Offset behind its last character.")
    text: str = Field(description="The sentence.")
    label: str = Field(description="position, demand, concession, agreement or none.")
    p_position: float = Field(description="Calibrated probability of position, in [0, 1].")
    p_demand: float = Field(description="Of demand.")
    p_concession: float = Field(description="Of concession.")
    p_agreement: float = Field(description="Of agreement.")
    p_none: float = Field(description="Of none.")
    truncated: bool = Field(description="Whether the sentence was longer than the model reads.")
    model_version: str = Field(description="Which model gave the label.")


class LabelResponse(BaseModel):
    """One record a sentence, in order."""

    model_version: str = Field(description="As in every record.")
    records: list[Record] = Field(description="One a sentence, in order.")


class TextResponse(BaseModel):
    """The text of a file."""

    text: str = Field(description="One paragraph a block, as `text` of a request to label.")


class ErrorResponse(BaseModel):
    """What is wrong, where, and what to do, in one line."""

    error: str = Field(description="One line.")


def _ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


# The body is read by hand, for its limits, so that FastAPI has to be told what it is.
SCHEMAS: dict[str, Any] = models_json_schema(
    [(m, "validation") for m in (LabelRequest, LabelResponse, TextResponse, ErrorResponse)],
    ref_template="#/components/schemas/{model}",
)[1]["$defs"]
BODY = {"requestBody": {"required": True, "content": {"application/json": _ref("LabelRequest")}}}
_REFUSALS = {
    400: "The connection was closed before the body was whole.",
    401: "A bearer token is needed.",
    408: "The body took too long.",
    413: "Too many bytes or sentences, or too much metadata for that many.",
    415: "Not application/json.",
    422: "Not such a request; the error says where.",
    429: "Busy; Retry-After says for how long.",
    503: "Over the time limit.",
}
_ERROR = {"application/json": _ref("ErrorResponse")}
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _ERROR} for status, text in _REFUSALS.items()
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One record a sentence; with `Accept: application/x-ndjson`, lines as they come.",
        "content": {"application/json": _ref("LabelResponse"), "application/x-ndjson": _ref("Record")},
    },
    **REFUSED,
}
FILE = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in KINDS},
    }
}
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The text.", "content": {"application/json": _ref("TextResponse")}},
    **REFUSED,
    415: {"description": "Neither a .docx nor a .pdf.", "content": _ERROR},
    422: {"description": "Not readable, a scan, encrypted, or over a limit.", "content": _ERROR},
}


@dataclass(frozen=True)
class Work:
    """A request made ready: a model input and the fields of its record for every sentence."""

    inputs: list[SentenceInput]
    """What the model is given; no string longer than `MOST_CHARACTERS`."""
    carried: list[tuple[dict[str, Any], dict[str, Any]]]
    """For each sentence, the fields before and behind those that the model adds."""
    sizes: list[int]
    """For each sentence, the bytes that it carries and its document's other sentences carry too."""
    threshold: float | None
    abstain: bool


def prepare(body: bytes, *, most_sentences: int, most_carried: int) -> Work:
    """Parse, check and segment a request's body; what is too much is refused before it is built.

    Args:
        body: JSON.
        most_sentences: of the request; documents are counted too, those without a sentence included.
        most_carried: bytes of the ids and metadata of documents, each counted once a sentence.

    Raises:
        TooLargeError: over one of these.
        InputError: not JSON, or not a `LabelRequest`; one line with the place.
    """
    try:
        given = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InputError(f"body: not JSON ({error})") from None
    for name in ("sentences", "documents") if isinstance(given, dict) else ():
        if isinstance(given.get(name), list):
            _bounded(len(given[name]), name, most_sentences)
    try:
        request = LabelRequest.model_validate(given)
    except ValidationError as error:
        raise InputError(_one_line(error)) from None
    work = Work([], [], [], request.threshold, request.abstain)
    if "text" in request.model_fields_set:
        request.documents = [Document(id="text", text=request.text)]
    for document in request.documents:
        most_carried -= _add_document(work, document, most_sentences, most_carried)
    for item in request.sentences:
        sentence = Sentence(text=item) if isinstance(item, str) else item
        work.inputs.append(_clipped(SentenceInput(sentence.text, sentence.before, sentence.after)))
        work.carried.append((set_aside(sentence.model_dump(exclude_unset=True), _ADDED), {}))
        work.sizes.append(0)
    return work


def _add_document(work: Work, document: Document, most_sentences: int, room: int) -> int:
    """Add a document's sentences; bytes that id and metadata take in their records, at most `room`."""
    metadata = set_aside(document.__pydantic_extra__ or {}, (*_PLACE, *_ADDED))
    spans = segment(document.text)
    _bounded(len(work.inputs) + len(spans), "sentences", most_sentences)
    size = len(pydantic_core.to_json([document.id, metadata], inf_nan_mode="null"))
    if size * len(spans) > room:
        raise TooLargeError(
            f"id and metadata of {size:,} bytes in each of {len(spans):,} records: send less of them"
        )
    texts = [document.text[s.start : s.end] for s in spans]
    work.inputs.extend(map(_clipped, in_context(texts)))
    for number, (s, text) in enumerate(zip(spans, texts, strict=True)):
        place = (document.id, number, s.start, s.end, text)
        work.carried.append((dict(zip(_PLACE, place, strict=True)), metadata))
        work.sizes.append(size)
    return size * len(spans)


def _bounded(count: int, name: str, most: int) -> None:
    if count > most:
        raise TooLargeError(f"{count:,} {name} in one request: send at most {most:,}")


def _clipped(given: SentenceInput) -> SentenceInput:
    """The same without what no model reads: the end of a text, the start of what comes before it."""
    most = MOST_CHARACTERS
    return SentenceInput(given.text[:most], given.before[-most:], given.after[:most])


def pieces(work: Work, size: int) -> Iterator[slice]:
    """Slices of a request's sentences, so that a long one takes turns with others.

    Each has at most `size` sentences, and carries at most `PIECE_BYTES` unless one sentence does alone.
    """
    start = carried = 0
    for end, more in enumerate(work.sizes):
        if end - start == size or (end > start and carried + more > PIECE_BYTES):
            yield slice(start, end)
            start, carried = end, 0
        carried += more
    if start < len(work.sizes):
        yield slice(start, len(work.sizes))


def records(
    work: Work, piece: slice, scores: Scores, *, config: ModelConfig, version: str
) -> Iterator[dict[str, Any]]:
    """The records of a piece, from its scores."""
    inputs: Sequence[SentenceInput] = work.inputs[piece]
    cut = config.threshold if work.threshold is None else work.threshold
    labels = decide(scores[0], threshold=cut, abstain=work.abstain, label_weights=config.label_weights)
    rows = zip(inputs, labels, scores[0], scores[1], work.carried[piece], strict=True)
    for sentence, label, row, truncated, (before, behind) in rows:
        shares = tuple(round(float(p), DIGITS) for p in row)
        cut_short = truncated or len(sentence.text) < len(before["text"])
        found = Prediction(sentence.text, 0, len(sentence.text), label, shares, cut_short)
        yield {**before, **found.fields(version), **behind}


def _one_line(error: ValidationError) -> str:
    """The first and deepest complaint, with its place: `body.documents[2].text: …`."""
    complaints = error.errors(include_url=False, include_context=False)
    worst = max(complaints, key=lambda c: len(c["loc"]))
    place = "body"
    for part in worst["loc"]:
        if part not in ("str", "Sentence"):  # branches of a union, not fields
            # A key is the sender's: it may hold a line break.
            name = str(part)[:40]
            place += (
                f"[{part}]" if isinstance(part, int) else f".{name if name.isprintable() else repr(name)}"
            )
    found = "" if isinstance(worst["input"], dict | list) else f", found {str(worst['input'])[:40]!r}"
    told = worst["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{place}: {told[:1].lower()}{told[1:]}{found if worst['type'] != 'missing' else ''}"
