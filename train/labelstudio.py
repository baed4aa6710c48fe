"""Label Studio's side of the exchange: one annotation a pass, and the project's labelling form.

    communique data export ../team.json --to labelstudio    # also writes ../team.config.xml

Paste the form into the project's labelling interface. Each annotation says whose it is in the control
`pass`: A and B for the two passes, final for the decision, whose note is the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from communique.model.labels import DEFINITIONS, LABELS, STANCES
from communique.train.files import DataError
from communique.train.rows import Pass, Row

_FINAL = "final"


def _config() -> str:
    choices = "\n".join(f'    <Choice value="{label}" hint="{DEFINITIONS[label]}"/>' for label in LABELS)
    second = "\n".join(f'    <Choice value="{label}"/>' for label in STANCES)
    return f"""<View>
  <Header value="$issuer, $date: $title"/>
  <Text name="before" value="$before"/>
  <Text name="text" value="$text"/>
  <Text name="after" value="$after"/>
  <Choices name="pass" toName="text" choice="single" required="true">
    <Choice value="A"/>
    <Choice value="B"/>
    <Choice value="final"/>
  </Choices>
  <Choices name="label" toName="text" choice="single" required="true">
{choices}
  </Choices>
  <Choices name="also" toName="text" choice="single">
{second}
  </Choices>
  <Rating name="sure" toName="text" maxRating="3"/>
  <TextArea name="note" toName="text" placeholder="why, if torn or deciding"/>
</View>
"""


CONFIG = _config()
"""The labelling form of a Label Studio project that shows and changes these tasks."""


def annotations_of(row: Row) -> list[dict[str, Any]]:
    """A row's passes and decision as a task's annotations."""
    found = [_annotation("A", row.a)]
    if row.b:
        found.append(_annotation("B", row.b))
    final = _results(_FINAL, row.label, row.also, row.why)
    return [*found, {"result": final, "ground_truth": True}]


def _annotation(name: str, given: Pass) -> dict[str, Any]:
    rating = _result("sure", "rating", {"rating": given.sure})
    return {"result": [*_results(name, given.label, given.also, given.note), rating], "ground_truth": False}


def _results(name: str, label: str, also: str | None, note: str) -> list[dict[str, Any]]:
    found = [
        _result("pass", "choices", {"choices": [name]}),
        _result("label", "choices", {"choices": [label]}),
    ]
    if also:
        found.append(_result("also", "choices", {"choices": [also]}))
    if note:
        found.append(_result("note", "textarea", {"text": [note]}))
    return found


def _result(name: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_name": name, "to_name": "text", "type": kind, "value": dict(value)}


def labels_of(annotations: Sequence[Mapping[str, Any]], place: str) -> dict[str, Any]:
    """The fields of a row that a task's annotations hold; of two for one pass, the later counts.

    Raises:
        DataError: an annotation names no pass or no label, or a pass does not say how sure it is.
    """
    fields: dict[str, Any] = {}
    for number, annotation in enumerate(annotations, 1):
        if annotation.get("was_cancelled"):
            continue
        given = _given(annotation.get("result", []))
        if given.get("pass") not in ("A", "B", _FINAL) or "label" not in given:
            raise DataError(
                f"{place}, annotation {number}: choose a pass (A, B or final) and a label in Label Studio"
            )
        act = {"label": given["label"], "also": given.get("also")}
        if given["pass"] == _FINAL:
            fields |= {**act, "why": given.get("note", "")}
            continue
        if "sure" not in given:
            raise DataError(
                f"{place}, annotation {number}: rate how sure pass {given['pass']} is, 1 to 3 stars"
            )
        fields[given["pass"].lower()] = {**act, "sure": given["sure"], "note": given.get("note", "")}
    return fields


def _given(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each control's value."""
    found: dict[str, Any] = {}
    for result in results:
        value = result.get("value", {})
        if value.get("choices"):
            found[result["from_name"]] = value["choices"][0]
        elif value.get("text"):
            text = value["text"]
            found[result["from_name"]] = text if isinstance(text, str) else "\n".join(text)
        elif "rating" in value:
            found[result["from_name"]] = value["rating"]
    return found
