"""The texts that the archive benchmarks run on: the Security Council's, a sample that is always the same."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path

from communique.model.akn import text_of_akn
from communique.model.classifier import in_context
from communique.model.sentences import segment
from communique.model.tokens import SentenceInput

ROOT = Path(__file__).parent.parent
ZIP = "public/un-security-council-en.zip"


def council_zip() -> Path | None:
    """The zip of Akoma Ntoso documents, where it is at hand."""
    path = Path(os.environ.get("COMMUNIQUE_SHARED") or ROOT.parent / "shared") / ZIP
    return path if path.is_file() else None


def sample(path: Path, documents: int | None) -> list[str]:
    """Names of so many documents of the zip (all if None), the same ones each time, in order."""
    with zipfile.ZipFile(path) as box:
        names = sorted(n for n in box.namelist() if n.endswith(".xml"))
    return names if documents is None else sorted(random.Random(6).sample(names, documents))


def texts(path: Path, documents: int | None) -> list[str]:
    """Running text of a sample."""
    with zipfile.ZipFile(path) as box:
        return [text_of_akn(box.read(name), name) for name in sample(path, documents)]


def cut(text: str) -> list[SentenceInput]:
    """A text's sentences with their neighbours."""
    return in_context([text[s.start : s.end] for s in segment(text)])


def some_sentences(documents: int) -> tuple[str, list[SentenceInput]]:
    """What they are, and sentences of a sample; of the project's own statements without the zip."""
    path = council_zip()
    if path is not None:
        return f"{documents} Security Council texts", [s for t in texts(path, documents) for s in cut(t)]
    lines = (ROOT / "data" / "annotations" / "own_documents.jsonl").read_text(encoding="utf-8").strip()
    found = [s for line in lines.split("\n") for s in cut(json.loads(line)["text"])]
    return "the project's own statements", found


def dev_sentences() -> tuple[str, list[SentenceInput], list[str]]:
    """What they are, the annotated sentences of the dev split, and their labels.

    Raises:
        SystemExit: the statement texts are not at hand.
    """
    from communique.train.corpus import load_annotations
    from communique.train.recipe import held_out

    found = held_out(load_annotations(), "dev")
    if not found:
        raise SystemExit("the dev split needs the statement texts: set COMMUNIQUE_SHARED")
    inputs = [SentenceInput(str(s.text), s.before, s.after) for s in found]
    return "the dev split", inputs, [s.row.label for s in found]
