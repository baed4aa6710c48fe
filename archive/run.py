"""Label an archive on one machine: read, cut, label and write side by side, shard after shard.

    from communique.archive.run import Options, run_archive
    outcome = run_archive(["speeches/"], Path("labels"), Options())
    outcome.summary["labels"]       # {"position": 10232, …}

Killed at any moment, the same call goes on with the first shard that is not in the journal and ends
with the same bytes as a run that was never killed. A finished run does nothing.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from communique.archive.labelling import Labelled, Labeller, ShardLabels, archive_engine
from communique.archive.plan import Plan
from communique.archive.prepare import Preparer, Shard, ahead
from communique.archive.seen import Seen
from communique.archive.shards import (
    FORMATS,
    RECORDS,
    SUMMARY,
    Journal,
    fit_metadata,
    metadata_columns,
    read_labels,
    write_shard,
    write_whole,
)
from communique.archive.sources import TemporarySpaceError, find_roots
from communique.archive.tables import Columns
from communique.model.artifact import Artifact, load_artifact
from communique.model.classifier import Prediction
from communique.model.errors import InputError
from communique.model.labels import LABELS, Stance
from communique.model.sentences import SEGMENTER_VERSION

ENGINES = ("local", "ray")
_COUNTS = ("documents", "sentences", "truncated", "rejected", "duplicates", "repeated")


@dataclass(frozen=True)
class Options:
    """What decides the table; a run is gone on with only if all of it is the same."""

    format: str = "parquet"
    sentences: bool = False
    text_field: str = "text"
    id_field: str | None = None
    shard_documents: int = 1_000
    shard_sentences: int = 4_096
    """A shard ends with the document that reaches either bound; rows that are sentences count as such."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format {self.format!r} is unknown: use one of {', '.join(FORMATS)}")
        if min(self.shard_documents, self.shard_sentences) < 1:
            raise InputError("a shard must hold at least one document and one sentence")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    finished: bool
    """False if it was asked to stop before the end."""
    worked: bool
    """False if there was nothing left to do."""
    summary: dict[str, Any]


class Watch:
    """Told how a run goes on; does nothing with it."""

    def begin(self, total_bytes: int, resumed: bool) -> None:
        """Labelling begins; `total_bytes` of input files, read already or not."""

    def advance(self, done_bytes: float, documents: int, sentences: float, skipped: bool) -> None:
        """So much is done; `skipped` if an earlier run did the last of it."""


def run_archive(
    inputs: Sequence[str],
    out: Path,
    options: Options,
    *,
    model: Path | None = None,
    threads: int | None = None,
    backend: str = "auto",
    engine: str = "local",
    restart: bool = False,
    stop: threading.Event | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Label all documents of the inputs into the folder `out`.

    Args:
        inputs: folders, files and globs.
        out: a new folder, or that of the run to go on with.
        options: what decides the table.
        model: a model folder; the one that ships if not given.
        threads: forward passes side by side; one a core if not given. Does not change the table.
        backend: library of the forward pass, see `communique.model.backends`.
        engine: "local", or "ray" for the workers of a Ray cluster. Does not change the table.
        restart: delete an earlier run's results in `out` and begin again.
        stop: set it, and the run ends after the shard it is at.
        watch: told how it goes on.

    Raises:
        InputError: no such input, another run's folder, a changed model, input or option, a full disk.
        ArtifactError: the model cannot be used.
    """
    if options.format == "parquet":
        _need_pyarrow()
    if engine not in ENGINES:
        raise InputError(f"--engine {engine!r} is unknown: use one of {', '.join(ENGINES)}")
    if engine == "ray":
        _need_ray()
    kind = archive_engine(backend).name
    roots = find_roots(inputs, out=out)
    artifact = load_artifact(model)
    decisive = {
        **dataclasses.asdict(options),
        "model_version": artifact.version,
        "segmenter_version": SEGMENTER_VERSION,
        "engine": kind,
    }
    with Plan(out, decisive, roots, restart=restart) as plan:
        journal = Journal(out)
        if journal.done:
            return Outcome(True, False, _summary(journal, artifact.version, options, kind))
        (watch := watch or Watch()).begin(plan.total_bytes, plan.resumed)
        try:
            with Seen(out) as seen, _labeller(artifact, threads, backend, engine) as labeller:
                preparer = Preparer(
                    roots,
                    Columns(options.text_field, options.id_field, options.sentences),
                    seen,
                    labeller.encode,
                    shard_documents=options.shard_documents,
                    shard_sentences=options.shard_sentences,
                    journal=tuple(journal.entries),
                    remembered=labeller.remembered,
                )
                run = _Run(out, options, journal, labeller, watch, stop or threading.Event())
                finished = run.label_all(preparer)
        except (sqlite3.Error, TemporarySpaceError) as error:
            raise InputError(
                f"{out}: no room for working files ({error}); every shard in the journal is safe: "
                "make room and run the same command again"
            ) from None
        summary = _summary(journal, artifact.version, options, kind)
        if finished:
            text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
            write_whole(out / SUMMARY, lambda file: file.write(text.encode()))
            journal.append({"shard": None, "done": True}, {})
        return Outcome(finished, True, summary)


def _labeller(artifact: Artifact, threads: int | None, backend: str, engine: str) -> Labeller:
    if engine == "local":
        return Labeller(artifact, threads=threads, backend=backend)
    from communique.archive.ray import RayLabeller

    return RayLabeller(artifact, workers=threads, backend=backend)


class _Run:
    """The middle and the end of the line: labelling here, writing in a thread of its own."""

    def __init__(
        self,
        out: Path,
        options: Options,
        journal: Journal,
        labeller: Labeller,
        watch: Watch,
        stop: threading.Event,
    ) -> None:
        self._out = out
        self._options = options
        self._journal = journal
        self._labeller = labeller
        self._watch = watch
        self._stop = stop
        self._columns = journal.columns
        self._begun = time.monotonic()
        self._documents = 0
        self._sentences = 0
        self._consumed = 0

    def label_all(self, preparer: Preparer) -> bool:
        """Label and write every shard that the journal does not have; whether that was all."""
        writing: Future[None] | None = None
        with (
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
            closing(ahead(preparer.shards())) as shards,
        ):
            for shard, labelled in self._labeller.stream(shards, self._restore, self._advance):
                if labelled is not None:
                    self._count(shard, len(shard.inputs), skipped=False)
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(self._write, shard, labelled)
                if self._stop.is_set():
                    break
            if writing is not None:
                writing.result()
        return not self._stop.is_set()

    def _restore(self, shard: Shard, done: dict[str, Any]) -> list[Labelled]:
        """What an earlier run wrote, where it is to be remembered."""
        self._count(shard, int(done["sentences"]), skipped=True)
        return read_labels(self._out / RECORDS / done["shard"]) if shard.encoded else []

    def _advance(self, shard: Shard, share: float) -> None:
        consumed = self._consumed + share * (shard.consumed - self._consumed)
        sentences = self._sentences + share * len(shard.inputs)
        self._watch.advance(consumed, self._documents, sentences, False)

    def _count(self, shard: Shard, sentences: int, *, skipped: bool) -> None:
        self._documents += len(shard.documents)
        self._sentences += sentences
        self._consumed = shard.consumed
        self._watch.advance(self._consumed, self._documents, self._sentences, skipped)

    def _write(self, shard: Shard, labelled: ShardLabels) -> None:
        entry: dict[str, Any] = {"shard": None, "bytes": None}
        if shard.inputs:
            path = self._out / RECORDS / f"part-{shard.number:05d}.{self._options.format}"
            if self._columns is None:
                self._columns = metadata_columns(document.metadata for _, document in shard.documents)
                entry["columns"] = self._columns
            records = _records(shard, labelled.labels, self._labeller.version, self._columns)
            write_shard(path, records, self._columns)
            entry |= {"shard": path.name, "bytes": path.stat().st_size}
        now = time.monotonic()
        entry |= {
            "items": shard.items,
            "digest": shard.digest(),
            "documents": len(shard.documents),
            "sentences": len(shard.inputs),
            "different": labelled.different,
            "repeated": len(shard.inputs) - labelled.read,
            "truncated": sum(e.truncated for e in shard.encoded),
            "rejected": len(shard.notes["rejected"]),
            "duplicates": sum(note["kind"] == "text" for note in shard.notes["duplicates"]),
            "labels": Counter(label for label, _ in labelled.labels),
            "encodings": shard.encodings,
            "seconds": round(now - self._begun, 3),
        }
        self._begun = now
        self._journal.append(entry, shard.notes)


def _records(
    shard: Shard, labels: Sequence[Labelled], version: str, columns: dict[str, str]
) -> list[dict[str, Any]]:
    """One record a sentence, in the order of the documents."""
    records = []
    at = 0
    documents = zip(shard.documents, shard.firsts, shard.spans, strict=True)
    for (doc_id, document), first, spans in documents:
        carried = {"file": document.file, **fit_metadata(document.metadata, columns)}
        for number, span in enumerate(spans, start=first):
            label, probabilities = labels[at]
            text = document.text[span.start : span.end]
            truncated = shard.encoded[at].truncated
            found = Prediction(text, span.start, span.end, Stance(label), probabilities, truncated)
            records.append(found.record(doc_id, number, version, carried))
            at += 1
    return records


def _summary(journal: Journal, version: str, options: Options, kind: str) -> dict[str, Any]:
    """Totals of the journal."""
    shards = [entry for entry in journal.entries if "items" in entry]
    totals = {name: sum(int(entry[name]) for entry in shards) for name in _COUNTS}
    labels: Counter[str] = Counter()
    encodings: Counter[str] = Counter()
    for entry in shards:
        labels.update(entry["labels"])
        encodings.update(entry["encodings"])
    seconds = round(sum(float(entry["seconds"]) for entry in shards), 3)
    return {
        **totals,
        "labels": {str(label): labels[label] for label in LABELS},
        "encodings": dict(sorted(encodings.items())),
        "shards": sum(entry["shard"] is not None for entry in shards),
        "seconds": seconds,
        "sentences_per_second": round(totals["sentences"] / seconds, 1) if seconds else None,
        "model_version": version,
        "engine": kind,
        "format": options.format,
    }


def _need_ray() -> None:
    """Refuse early where Ray is not installed."""
    if find_spec("ray") is None:
        raise InputError("--engine ray needs Ray: pip install 'communique[ray]'")


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "Parquet needs PyArrow: pip install 'communique[archive]', or use --format jsonl"
        ) from None
