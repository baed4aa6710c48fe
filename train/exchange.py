"""Annotations to and from the tools that teams annotate with, without loss.

    communique data export ../for-the-team.json --to labelstudio
    communique data import ../for-the-team.json --from labelstudio

| tool | file | where the labels are, for the tool to show and change |
|---|---|---|
| labelstudio | JSON tasks, and `<name>.config.xml` for the project | an annotation a pass: A, B and final |
| doccano | JSONL, text classification | `label`: the label, then `also:<label>` |
| prodigy | JSONL, `choice` with multiple answers | `accept`: the label, then `also:<label>` |
| inception | zip of UIMA CAS XMI, one a document, and `TypeSystem.xml` | a span with features |

What a tool has no place for travels beside, so that a row comes back as it went. Where somebody changed
a label in the tool, the change wins: the row is then adjudicated (one of a single pass stays single), and
says in which tool. Exports hold
the sentences, which belong to others: they go to a path outside the repository.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from communique.model.labels import LABELS, STANCES
from communique.train import labelstudio, uima
from communique.train.corpus import Sentence
from communique.train.files import DataError, read_jsonl, write_bytes
from communique.train.rows import Document, Row, row_from, sentence_sha256

TOOLS = ("labelstudio", "doccano", "prodigy", "inception")
ALSO = "also:"
_OPTIONS = [*map(str, LABELS), *(f"{ALSO}{label}" for label in STANCES)]


def export(
    sentences: Sequence[Sentence], to: str, path: Path, texts: Mapping[str, str] | None = None
) -> None:
    """Write sentences for a tool, whole or not at all.

    Args:
        sentences: joined ones; each needs its text.
        to: one of `TOOLS`.
        path: outside the repository.
        texts: the documents' texts by id; `inception` shows whole documents and needs them.

    Raises:
        DataError: unknown tool, a sentence without text, a path inside the repository, or characters that
            the format cannot hold.
    """
    _known(to)
    refuse_inside(path)
    bare = [s.row for s in sentences if s.text is None]
    if bare:
        place = f"{bare[0].doc_id}#{bare[0].sent_id}"
        raise DataError(f"{len(bare)} sentences have no text, first {place}: name the folder of the texts")
    if to == "inception":
        write_bytes(path, uima.to_zip(sentences, texts or {}))
    elif to == "labelstudio":
        tasks = [_to_labelstudio(s) for s in sentences]
        write_bytes(path, json.dumps(tasks, ensure_ascii=False, indent=1).encode())
        write_bytes(path.with_suffix(".config.xml"), labelstudio.CONFIG.encode())
    else:
        lines = (json.dumps(_LINES[to](s), ensure_ascii=False) + "\n" for s in sentences)
        write_bytes(path, "".join(lines).encode())


def import_(path: Path, tool: str) -> list[Sentence]:
    """Sentences from a tool's file, as they were exported but for what was changed in the tool.

    Raises:
        DataError: unknown tool, or a task that is not one of ours or not sound; the message has its place.
    """
    _known(tool)
    if tool == "inception":
        found = uima.from_zip(path)
    elif tool == "labelstudio":
        found = _from_labelstudio(path)
    else:
        found = (_from_line(record, place, tool) for place, record in read_jsonl(path))
    return [_sentence(*parts, tool) for parts in found]


def _known(tool: str) -> None:
    if tool not in TOOLS:
        raise DataError(f"unknown tool {tool!r}: use one of {', '.join(TOOLS)}")


def refuse_inside(path: Path) -> None:
    """Raise DataError where a file with others' texts would lie in the repository."""
    for parent in path.resolve().parents:
        if (parent / "data" / "annotations").is_dir() or parent.parts[-2:] == ("data", "annotations"):
            raise DataError(
                f"{path} lies in the repository; exports hold others' texts: name a path outside it"
            )


# --- out -----------------------------------------------------------------------------------------


def _shown(s: Sentence) -> dict[str, Any]:
    """What an annotator reads."""
    doc = s.doc
    context = {"issuer": doc.issuer_name, "kind": doc.kind, "date": doc.date, "title": doc.title}
    return {"text": s.text, "before": s.before, "after": s.after, **context}


def _record(s: Sentence) -> dict[str, Any]:
    """All there is to know of a sentence, but its text and neighbours."""
    return {"row": s.row.to_json(), "doc": asdict(s.doc)}


def _names(row: Row) -> list[str]:
    return [row.label, *([f"{ALSO}{row.also}"] if row.also else [])]


def _to_labelstudio(s: Sentence) -> dict[str, Any]:
    return {"data": {**_shown(s), "communique": _record(s)}, "annotations": labelstudio.annotations_of(s.row)}


def _to_doccano(s: Sentence) -> dict[str, Any]:
    return {**_shown(s), "label": _names(s.row), "communique": json.dumps(_record(s), ensure_ascii=False)}


def _to_prodigy(s: Sentence) -> dict[str, Any]:
    shown = _shown(s)
    meta = {name: shown.pop(name) for name in ("issuer", "kind", "date", "title")}
    options = [{"id": name, "text": name} for name in _OPTIONS]
    answer = {"accept": _names(s.row), "answer": "accept", "config": {"choice_style": "multiple"}}
    return {**shown, "options": options, **answer, "meta": meta, "communique": _record(s)}


_LINES: dict[str, Callable[[Sentence], dict[str, Any]]] = {"doccano": _to_doccano, "prodigy": _to_prodigy}


# --- back ----------------------------------------------------------------------------------------


def _from_labelstudio(path: Path) -> Iterator[uima.Parts]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}): export it from Label Studio as JSON") from None
    if not isinstance(tasks, list):
        raise DataError(f"{path} is not a list of tasks: export it from Label Studio as JSON")
    for number, task in enumerate(tasks, 1):
        place = f"{path.name}: task {number}"
        data = task.get("data") if isinstance(task, dict) else None
        record = _ours(data, place)
        yield place, record, labelstudio.labels_of(task.get("annotations", []), place), data or {}


def _from_line(task: dict[str, Any], place: str, tool: str) -> uima.Parts:
    record = _ours(task, place)
    if task.get("answer", "accept") != "accept":
        raise DataError(
            f"{place}: the answer is {task['answer']!r}: label the sentence, or take the line out"
        )
    names = task.get("label" if tool == "doccano" else "accept")
    names = [name[0] if isinstance(name, list) else name for name in names] if isinstance(names, list) else []
    main = [name for name in names if name in set(LABELS)]
    also = [name.removeprefix(ALSO) for name in names if name in _OPTIONS and name.startswith(ALSO)]
    if len(main) != 1 or len(also) > 1 or len(main) + len(also) != len(names):
        raise DataError(
            f"{place}: labels are {names}: expected one of {', '.join(LABELS)}, then at most one also:…"
        )
    return place, record, {"label": main[0], "also": also[0] if also else None}, task


def _ours(data: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
    """The record that an export put beside the task."""
    record = data.get("communique") if isinstance(data, Mapping) else None
    if isinstance(record, str):
        record = json.loads(record)
    if not isinstance(record, dict) or not {"row", "doc"} <= record.keys():
        raise DataError(
            f"{place}: not one of our tasks (no `communique` field): import what was exported from here"
        )
    return record


def _sentence(
    place: str, record: Mapping[str, Any], labels: Mapping[str, Any], shown: Mapping[str, Any], tool: str
) -> Sentence:
    fields = _settled({**record["row"], **labels}, record["row"], tool)
    row = row_from(fields, place, own=bool(fields.get("synthetic")))
    text = shown.get("text")
    if not isinstance(text, str) or sentence_sha256(text) != row.sha256:
        raise DataError(
            f"{place}: the sentence's text was changed in {tool}: its offsets hold for the original only"
        )
    try:
        doc = Document(**record["doc"])
    except TypeError as error:
        raise DataError(f"{place}: the document's fields are not ours ({error})") from None
    return Sentence(row, doc, text, str(shown.get("before", "")), str(shown.get("after", "")))


def _settled(fields: dict[str, Any], before: Mapping[str, Any], tool: str) -> dict[str, Any]:
    """Make passes and decision follow labels that were changed in a tool; sound rows stay as they are."""
    a, b = fields["a"], fields["b"]
    if b is None:
        if all(fields[name] == before.get(name) for name in ("label", "also")):
            return fields
        a = {**a, "label": fields["label"], "also": fields["also"]}  # the one pass is the label
        return {**fields, "a": a, "why": fields["why"] or f"changed in {tool}"}
    changed = {a["label"], b["label"]} != {fields["label"]}
    decided = "agreed" if fields["passes"] == 1 else fields["decided"]
    if changed and decided == "agreed":
        return {**fields, "passes": 2, "decided": "adjudicated", "why": fields["why"] or f"changed in {tool}"}
    return {**fields, "passes": 2, "decided": decided}
