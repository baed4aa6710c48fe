"""`communique archive`: label an archive, safely, from the command line.

communique archive speeches/ un.zip 'rows/*.jsonl.gz' --out labels
communique archive sentences.csv --sentences --text-field sentence --out labels --format csv
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from communique.archive.progress import Bar
    from communique.archive.run import Outcome

INTERRUPTED = 130
_GO_ON = "every shard in the journal is safe: run the same command again to go on"
_NOTED = {
    "rejected": "documents or rows rejected: see {out}/rejected.jsonl",
    "duplicates": "duplicates, each labelled once: see {out}/duplicates.jsonl",
    "truncated": "sentences longer than the model reads (truncated)",
}


def run(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Folders, files, globs, .zip, .tar.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder, or that of a run to go on with.")],
    format: Annotated[str, typer.Option(help="parquet, jsonl or csv.")] = "parquet",
    sentences: Annotated[
        bool, typer.Option("--sentences", help="Rows are sentences (with before, after), not documents.")
    ] = False,
    text_field: Annotated[str, typer.Option(help="Column of a table that holds the text.")] = "text",
    id_field: Annotated[
        str | None, typer.Option(help="Column that holds the id; doc_id or id if not given.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder; the model that ships if not given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; one a core if not given.")] = None,
    backend: Annotated[
        str, typer.Option(help="auto, onnxruntime, openvino or torch: what runs the forward pass.")
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: a Ray cluster's workers (RAY_ADDRESS, else this machine)."),
    ] = "local",
    shard_documents: Annotated[int, typer.Option(min=1, help="Most documents in one output file.")] = 1_000,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete an earlier run's results in --out first.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
) -> None:
    """Label every sentence of an archive: millions of them, nothing lost.

    Reads .txt .md .html .jsonl .csv .parquet and Akoma Ntoso .xml, also inside .zip and .tar and under
    .gz and .zst. Stopped or killed, the same command goes on where it was. The table is in OUT/records;
    what could not be read is in OUT/rejected.jsonl.
    """
    from importlib.util import find_spec

    from rich.console import Console

    from communique.model.errors import InputError

    for needed in ("lxml", "charset_normalizer"):
        if find_spec(needed) is None:
            raise InputError(f"{needed} is missing: pip install 'communique[archive]'")
    from communique.archive.progress import Bar
    from communique.archive.run import Options, run_archive

    options = Options(format, sentences, text_field, id_field, shard_documents)
    notes = Console(stderr=True)
    stop = threading.Event()
    try:
        with Bar(notes, hidden=quiet) as bar, _interrupts(stop, bar):
            outcome = run_archive(
                inputs,
                out,
                options,
                model=model,
                threads=threads,
                backend=backend,
                engine=engine,
                restart=restart,
                stop=stop,
                watch=bar,
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"communique: interrupted; {_GO_ON}\n")
        raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        notes.print(report(outcome, out), soft_wrap=True, highlight=False, markup=False)
    if not outcome.finished:
        sys.stderr.write(f"communique: stopped after {outcome.summary['shards']} shards; {_GO_ON}\n")
        raise typer.Exit(INTERRUPTED)
    if outcome.summary["rejected"] and not outcome.summary["documents"]:
        first = json.loads((out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()[0])
        place = ":".join(filter(None, (first["file"], first["place"])))
        raise InputError(f"nothing could be read; first {place}: {first['reason']}")


def report(outcome: Outcome, out: Path) -> str:
    """What a run did, in a few lines."""
    s = outcome.summary
    lines = (
        [] if outcome.worked else [f"{out}: finished before, with the same input and model; nothing to do"]
    )
    labels = ", ".join(f"{n:,} {label}" for label, n in s["labels"].items())
    lines.append(f"{s['documents']:,} documents, {s['sentences']:,} sentences: {labels}")
    speed = f"{s['seconds']:,.1f} s, {s['sentences_per_second'] or 0:,.0f} sentences/s"
    lines.append(f"{speed}, {s['model_version']}, {s['engine']}")
    for field, text in _NOTED.items():
        if s[field]:
            lines.append(f"{s[field]:,} {text.format(out=out)}")
    others = {name: n for name, n in s["encodings"].items() if not name.startswith("utf-8")}
    if others:
        named = ", ".join(f"{n:,} in {name}" for name, n in others.items())
        lines.append(f"documents not in UTF-8: {named}: see {out}/encodings.jsonl")
    lines.append(f"table: {out}/records")
    return "\n".join(lines)


@contextmanager
def _interrupts(stop: threading.Event, bar: Bar) -> Iterator[None]:
    """The first Ctrl-C ends the run after its shard, the second at once."""

    def on_interrupt(*_: Any) -> None:  # noqa: ANN401  signal number and frame
        if stop.is_set() or not bar.begun:
            raise KeyboardInterrupt
        stop.set()
        sys.stderr.write("\ncommunique: finishing this shard; Ctrl-C again to stop at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
