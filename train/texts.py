"""The texts that the annotations point into: where they lie, and how they are read.

texts = load_texts(["unsczip:2020/S_RES_2508.xml"], Path("../shared"))
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from communique.model.akn import text_of_akn
from communique.train.files import read_jsonl

STATEMENTS = Path("corpus") / "statements.jsonl"
COUNCIL = Path("public") / "un-security-council-en.zip"
COUNCIL_PREFIX = "unsczip:"
"""A document id that begins so names a member of the Security Council zip."""


def shared_folder(named: Path | None = None) -> Path:
    """The folder of the texts: as named, else COMMUNIQUE_SHARED, else `shared` beside the repository."""
    if named is not None:
        return named
    variable = os.environ.get("COMMUNIQUE_SHARED")
    return Path(variable) if variable else Path(__file__).resolve().parent.parent.parent / "shared"


def load_texts(doc_ids: Iterable[str], shared: Path | None = None) -> dict[str, str]:
    """Texts of real statements by document id; ids that are not found are left out.

    Raises:
        DataError: `statements.jsonl` cannot be read.
    """
    folder = shared_folder(shared)
    wanted = set(doc_ids)
    texts: dict[str, str] = {}
    if (folder / STATEMENTS).is_file():
        records = (record for _, record in read_jsonl(folder / STATEMENTS))
        texts = {r["doc_id"]: r["text"] for r in records if r.get("doc_id") in wanted and "text" in r}
    council = {
        doc_id.removeprefix(COUNCIL_PREFIX): doc_id for doc_id in wanted if doc_id.startswith(COUNCIL_PREFIX)
    }
    if council and (folder / COUNCIL).is_file():
        with zipfile.ZipFile(folder / COUNCIL) as archive:
            for member in sorted(council.keys() & set(archive.namelist())):
                texts[council[member]] = text_of_akn(archive.read(member))
    return texts


def missing_texts(folder: Path) -> str:
    """The files that the folder of the texts should hold and does not, in words."""
    missing = [str(part) for part in (STATEMENTS, COUNCIL) if not (folder / part).is_file()]
    return ", ".join(missing) or "the documents themselves"
