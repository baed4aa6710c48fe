"""The Croissant description of the annotations: what files there are, what their fields mean.

python -m communique.train.croissant data/annotations     # writes croissant.json there
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from communique.train.files import write_bytes
from communique.train.rows import DOCUMENTS, OWN, OWN_DOCUMENTS, REAL, SPLITS

NAME = "croissant.json"
_ROW = {
    "doc_id": "the document",
    "sent_id": "number of the sentence in the document",
    "start": "offset of its first character",
    "end": "offset behind its last character",
    "sha256": "of the sentence in UTF-8",
    "head": "its first five words",
    "label": "position, demand, concession, agreement or none",
    "also": "the second act, where there is one",
    "passes": "how many annotators read it",
    "decided": "agreed, adjudicated or single",
    "why": "the third reader's reason",
    "sample": "random, cue, model or written: how it came to be chosen",
}
_DOCUMENT = {
    "doc_id": "the document",
    "issuer": "code of who issued it",
    "issuer_name": "its name",
    "kind": "readout, joint_statement, …",
    "date": "YYYY, YYYY-MM or YYYY-MM-DD",
}
_TEXT = {"title": "title", "text": "the whole invented statement"}
_NUMBERS = {"sent_id", "start", "end", "passes"}


def describe(folder: Path) -> dict[str, Any]:
    """The description as JSON-LD, with the SHA-256 of each file as it stands.

    Raises:
        ValueError: mlcroissant finds the description wanting.
    """
    import mlcroissant as mlc

    def record_set(file: str, fields: dict[str, str]) -> Any:  # noqa: ANN401  mlcroissant is untyped
        name = file.removesuffix(".jsonl")
        made = [
            mlc.Field(
                id=f"{name}/{field}",
                name=field,
                description=meaning,
                data_types=mlc.DataType.INTEGER if field in _NUMBERS else mlc.DataType.TEXT,
                source=mlc.Source(file_object=file, extract=mlc.Extract(column=field)),
            )
            for field, meaning in fields.items()
        ]
        return mlc.RecordSet(id=name, name=name, fields=made)

    metadata = mlc.Metadata(
        name="communique-annotations",
        description="Sentences of official statements labelled position, demand, concession, agreement or "
        "none: real statements standoff, the project's own invented statements with their text.",
        license=["https://creativecommons.org/licenses/by/4.0/"],
        url="https://creativecommons.org/licenses/by/4.0/",
        version="0.1.0",
        cite_as="communique annotations, version 0.1.0",
        distribution=[
            mlc.FileObject(
                id=file,
                name=file,
                content_url=file,
                encoding_formats=["application/jsonlines" if file.endswith(".jsonl") else "application/json"],
                sha256=hashlib.sha256((folder / file).read_bytes()).hexdigest(),
            )
            for file in (REAL, DOCUMENTS, OWN, OWN_DOCUMENTS, SPLITS)
        ],
        record_sets=[
            record_set(REAL, _ROW),
            record_set(OWN, _ROW),
            record_set(DOCUMENTS, _DOCUMENT),
            record_set(OWN_DOCUMENTS, _DOCUMENT | _TEXT),
        ],
    )
    if metadata.issues.errors:
        raise ValueError(metadata.issues.report())
    described: dict[str, Any] = metadata.to_json()
    return described


if __name__ == "__main__":
    target = Path(sys.argv[1])
    content = json.dumps(describe(target), indent=1, ensure_ascii=False, default=str) + "\n"
    write_bytes(target / NAME, content.encode())
