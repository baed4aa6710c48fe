"""The one command: `communique label`, and what the other rooms add to it.

communique label statement.txt
communique label statement.html --output labels.csv
communique label --sentences rows.jsonl > labelled.jsonl
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from communique.model.classifier import Prediction, StanceClassifier
    from communique.model.tokens import SentenceInput

BAD_INPUT = 2
INTERRUPTED = 130
_CHUNK = 512
"""Sentences labelled between two steps of the progress bar."""
_SCREENFUL = 60

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Label every sentence of an official statement as position, demand, concession or agreement.",
)


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2."""
    from communique.model.artifact import ArtifactError
    from communique.model.errors import InputError

    try:
        app()
    except (InputError, ArtifactError) as error:
        sys.stderr.write(f"communique: {error}\n")
        sys.exit(BAD_INPUT)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"communique {installed('communique')}")
        raise typer.Exit


@app.command()
def label(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE…|-", help="Statements: text, HTML or Markdown files, or - for standard input."
        ),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help="Label the rows of this JSON Lines file: field text, and before and after if known."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write records here: .jsonl, .csv or .parquet.")
    ] = None,
    doc_id: Annotated[
        str | None, typer.Option(help="Name of the statement in the records; the file's name if not given.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder; the model that ships if not given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Below this share a stance becomes none (see README).")
    ] = None,
    no_abstain: Annotated[bool, typer.Option("--no-abstain", help="Force one of the four stances.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; one a core if not given.")] = None,
    backend: Annotated[
        str, typer.Option(help="auto, onnxruntime (the same digits everywhere) or openvino.")
    ] = "onnxruntime",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
) -> None:
    """Label the sentences of statements.

    On a terminal the statement is shown sentence by sentence; piped, or with --output, there is one
    record a sentence.
    """
    from communique.archive import writer
    from communique.model.backends import choose
    from communique.model.classifier import StanceClassifier
    from communique.model.errors import InputError

    if (sentences is None) == (not files):
        raise InputError("name statements (or - for standard input), or --sentences ROWS, one of the two")
    if output is not None:
        writer.check_output(output)
    if doc_id is not None and (sentences is not None or len(files or []) > 1):
        raise InputError("--doc-id names one statement: give one file")
    choose(backend)  # refused before anything is read

    def load() -> StanceClassifier:
        return StanceClassifier.load(model, threads=threads, backend=backend)

    job = _Job(load, threshold, not no_abstain, quiet)
    show = output is None and sentences is None and sys.stdout.isatty()
    try:
        if sentences is not None:
            records = _label_rows(job, sentences)
        else:
            records = _label_files(job, files or [], doc_id, show=show)
        if output is not None:
            writer.write_records(records, output)
        elif not show:
            writer.write_jsonl(records, sys.stdout)
    except KeyboardInterrupt:
        sys.stderr.write("communique: interrupted; an output file is written whole or not at all\n")
        raise typer.Exit(INTERRUPTED) from None


class _Job:
    """A classifier and how it is asked to label, with progress on a terminal."""

    def __init__(self, load: Any, threshold: float | None, abstain: bool, quiet: bool) -> None:  # noqa: ANN401
        from rich.console import Console

        self._load = load
        self._threshold = threshold
        self._abstain = abstain
        self.quiet = quiet
        self.notes: Console = Console(stderr=True)
        self._classifier: StanceClassifier | None = None

    @property
    def classifier(self) -> StanceClassifier:
        """Loaded at first use, so that bad input is reported without waiting for the model."""
        if self._classifier is None:
            self._classifier = self._load()
        return self._classifier

    def label(self, inputs: Sequence[SentenceInput]) -> list[Prediction]:
        found: list[Prediction] = []
        for chunk in self._chunks(inputs):
            found += self.classifier.label_sentences(chunk, threshold=self._threshold, abstain=self._abstain)
        return found

    def _chunks(self, inputs: Sequence[SentenceInput]) -> Iterator[Sequence[SentenceInput]]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        hidden = self.quiet or len(inputs) <= _SCREENFUL or not self.notes.is_terminal
        columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.notes, transient=True, disable=hidden) as progress:
            task = progress.add_task("labelling", total=len(inputs))
            for start in range(0, len(inputs), _CHUNK):
                yield inputs[start : start + _CHUNK]
                progress.advance(task, min(_CHUNK, len(inputs) - start))


def _label_files(job: _Job, names: Sequence[str], doc_id: str | None, *, show: bool) -> list[dict[str, Any]]:
    """Records of all statements, each shown on the terminal if asked for."""
    import dataclasses

    from rich.console import Console

    from communique.archive.readers import read_statement, read_stream
    from communique.archive.terminal import show as show_statement
    from communique.model.classifier import in_context
    from communique.model.sentences import segment

    statements = [
        read_stream(sys.stdin.buffer) if name == "-" else read_statement(Path(name)) for name in names
    ]
    records: list[dict[str, Any]] = []
    for statement in statements:
        spans = segment(statement.text)
        found = job.label(in_context([statement.text[s.start : s.end] for s in spans]))
        placed = [dataclasses.replace(p, start=s.start, end=s.end) for p, s in zip(found, spans, strict=True)]
        name = doc_id or statement.doc_id
        if show:
            show_statement(Console(), name, placed)
        records += [p.record(name, n, job.classifier.version) for n, p in enumerate(placed)]
    return records


def _label_rows(job: _Job, path: Path) -> list[dict[str, Any]]:
    """Rows with the model's fields added; a carried field of the same name is kept as `input_NAME`."""
    from communique.archive.readers import read_rows
    from communique.model.classifier import set_aside
    from communique.model.errors import InputError
    from communique.model.tokens import SentenceInput

    rows = [row for _, row in read_rows(path)]
    if not rows:
        raise InputError(f"{path}: holds no rows")
    found = job.label([SentenceInput(r["text"], r.get("before") or "", r.get("after") or "") for r in rows])
    records = []
    renamed: set[str] = set()
    for row, p in zip(rows, found, strict=True):
        added = p.fields(job.classifier.version)
        renamed |= row.keys() & added.keys()
        records.append({**set_aside(row, added), **added})
    if renamed and not job.quiet:
        job.notes.print(
            f"[dim]note: the rows' own {', '.join(sorted(renamed))} carried as input_…[/dim]", soft_wrap=True
        )
    return records


def _mount() -> None:
    """Commands of the other rooms; their modules import nothing heavy until they are run."""
    from communique.archive.archive_cli import run as archive
    from communique.eval import eval_cli as evaluation
    from communique.serve import run as serve
    from communique.train.benchmark_cli import app as benchmark
    from communique.train.data_cli import app as data
    from communique.train.train_cli import app as training

    app.command("archive")(archive)
    app.command("serve")(serve)
    app.add_typer(data, name="data", help="Check, compare, split and exchange the annotations.")
    evaluation.split_rows = _split_rows
    app.add_typer(evaluation.app, name="eval", help="Evaluate: reports of models, comparisons, shares.")
    app.add_typer(training, name="train")
    app.add_typer(benchmark, name="benchmark")


def _split_rows(name: str) -> list[dict[str, Any]]:
    """Rows of a split with gold and text, for the evaluation, which does not know the annotations."""
    from communique.train.corpus import load_annotations
    from communique.train.table import table_rows

    return list(table_rows(load_annotations(None, None).split(name), None))


_mount()

if __name__ == "__main__":
    main()
