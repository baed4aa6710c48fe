"""`communique data`: check, agree, splits, export and import of the annotations.

    python -m communique.train.data_cli check      # the same as `communique data check`

`app` is a typer app of its own: another command joins it with `app.command("name")(function)`. Nothing
heavy is imported before a command runs. Exit code 1: the data has problems; 2: the input is bad.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from communique.train.corpus import Annotations, Sentence
    from communique.train.datacheck import Finding
    from communique.train.rows import Row

app = typer.Typer(
    help="Check, split, measure and exchange the annotated statements.",
    no_args_is_help=True,
    add_completion=False,
)

Folder = Annotated[Path | None, typer.Option(help="Folder of the annotations [default: data/annotations].")]
Shared = Annotated[
    Path | None,
    typer.Option(help="Folder of the texts [default: COMMUNIQUE_SHARED, or shared beside the repository]."),
]


_LOG_WIDTH = 132


class Tool(StrEnum):
    """Annotation tools that rows are exchanged with."""

    LABELSTUDIO = "labelstudio"
    DOCCANO = "doccano"
    PRODIGY = "prodigy"
    INCEPTION = "inception"


class Which(StrEnum):
    """Whose statements."""

    REAL = "real"
    OWN = "own"
    ALL = "all"


@app.command()
def check(
    folder: Folder = None,
    shared: Shared = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the counts here.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Findings to print at most.")] = 50,
) -> None:
    """Check form, hashes, splits, duplicates, label counts and floors; print what the data is made of."""
    from communique.train.composition import composition_table
    from communique.train.datacheck import check as look

    console = _console()
    with _bad_input_exits(), console.status("checking"):
        report = look(folder, shared)
    _print_findings(console, report.findings, limit)
    if report.composition:
        console.print(composition_table(report.composition))
        console.print(
            f"{report.verified:,} of {report.rows:,} rows joined with their sentence, hash verified."
        )
        if as_json:
            _write_json(as_json, report.composition.to_json())
    problems, notices = len(report.problems), len(report.findings) - len(report.problems)
    console.print(f"{problems} problems, {notices} notices.", style="red" if problems else "green")
    raise typer.Exit(1 if problems else 0)


@app.command()
def agree(
    folder: Folder = None,
    which: Annotated[Which, typer.Option(help="Whose statements.")] = Which.REAL,
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of documents.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Print the agreement of the two passes, their confusion, and the ceiling for a model."""
    from rich.progress import Progress

    from communique.eval.agreement import compare_passes
    from communique.eval.agreement_tables import agreement_tables

    console = _console()
    with _bad_input_exits():
        rows = [s.row for s in _chosen(_load(folder, None), which)]
        pairs = [(row.a.label, row.b.label, row.label, row.doc_id) for row in rows if row.b]
        if not pairs:
            raise ValueError(f"none of {len(rows)} {which} rows has two passes: nothing to compare")
        first, second, final, documents = zip(*pairs, strict=True)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("resampling documents", total=resamples)
            report = compare_passes(
                first,
                second,
                final,
                documents,
                resamples,
                seed,
                tick=lambda done: progress.advance(task, done),
            )
    console.print(agreement_tables(report))
    console.print(_reread(folder, rows))
    if as_json:
        _write_json(as_json, report.to_json())


@app.command()
def splits(
    folder: Folder = None,
    shared: Shared = None,
    seed: Annotated[int, typer.Option(help="Of the cuts that are compared.")] = 7,
    out: Annotated[
        Path | None, typer.Option(help="Where to write [default: splits.json of the folder].")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Move nothing that is placed; place new documents only.")
    ] = False,
) -> None:
    """Cut the real statements into train, dev, test and folds, and write splits.json."""
    from communique.train.composition import compose, composition_table
    from communique.train.corpus import default_folder
    from communique.train.rows import SPLITS
    from communique.train.splits import extend_splits, make_splits

    console = _console()
    with _bad_input_exits():
        annotations = _load(folder, shared)
        rows = [s.row for s in annotations.sentences]
        with console.status("comparing cuts"):
            if extend:
                made = extend_splits(annotations.splits, rows, annotations.texts)
            else:
                made = make_splits(rows, annotations.documents, annotations.texts, seed)
        if "own_dev" in annotations.splits:
            made["own_dev"] = annotations.splits["own_dev"]
        path = out or (folder or default_folder()) / SPLITS
        _write_json(path, made)
    console.print(composition_table(compose(annotations.sentences, made)))
    left_out = ", ".join(made["leave_issuer_out"])
    console.print(escape(f"issuers to leave out: {left_out}\nwritten: {path}"), soft_wrap=True)


@app.command()
def table(
    path: Annotated[Path, typer.Argument(help="JSON Lines file to write, outside the repository.")],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    model: Annotated[
        Path | None, typer.Option(help="A model folder [default: the model that ships].")
    ] = None,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """Write a split with the model's probabilities: what `communique eval report` reads.

    The train split is written without probabilities: a baseline is trained on it.
    """
    from communique.model.classifier import StanceClassifier
    from communique.train.exchange import refuse_inside
    from communique.train.files import write_bytes
    from communique.train.table import table_rows

    with _bad_input_exits():
        refuse_inside(path)
        sentences = _load(folder, shared).split(split)
        classifier = None if split == "train" else StanceClassifier.load(model)
        lines = [json.dumps(row, ensure_ascii=False) for row in table_rows(sentences, classifier)]
        if not lines:
            raise ValueError(f"split {split} has no sentence with its text: set COMMUNIQUE_SHARED")
        write_bytes(path, ("\n".join(lines) + "\n").encode())
    _console().print(f"{len(lines):,} rows in {path}")


@app.command("export")
def export_(
    path: Annotated[Path, typer.Argument(help="File to write, outside the repository.")],
    to: Annotated[Tool, typer.Option(help="The tool.")],
    folder: Folder = None,
    shared: Shared = None,
    which: Annotated[Which, typer.Option(help="Whose statements.")] = Which.ALL,
) -> None:
    """Write the annotated sentences for an annotation tool."""
    from communique.train.exchange import export

    console = _console()
    with _bad_input_exits():
        annotations = _load(folder, shared)
        chosen = [s for s in _chosen(annotations, which) if s.text is not None]
        if annotations.notice:
            Console(stderr=True).print(escape(annotations.notice), style="yellow", soft_wrap=True)
        if not chosen:
            raise ValueError(f"no {which} row has its sentence: nothing to export")
        export(chosen, to, path, annotations.texts)
    console.print(escape(f"{len(chosen):,} sentences written for {to}: {path}"), soft_wrap=True)


@app.command()
def queue(
    path: Annotated[Path, typer.Argument(help="File to write, outside the repository.")],
    table: Annotated[Path, typer.Option(help="JSONL of rows with gold, p_… and fold.")],
    to: Annotated[Tool, typer.Option(help="The tool.")],
    held_out: Annotated[
        bool, typer.Option("--held-out", help="The model was trained on none of the rows: no fold needed.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Candidates to write at most.")] = None,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """Write the rows whose label is the likely mistake for an annotation tool, likeliest first."""
    from communique.eval.label_issues import label_issues, require_folds
    from communique.eval.table import read_table
    from communique.train.exchange import export
    from communique.train.files import DataError

    console = _console()
    with _bad_input_exits():
        if not held_out:
            require_folds(table)
        read = read_table(table)
        annotations = _load(folder, shared)
        known = {(s.row.doc_id, s.row.sent_id): s for s in annotations.sentences if s.text is not None}
        found = label_issues(read)
        joined = [known[key] for i in found if (key := read.rows[i].key) in known]
        if not joined:
            raise DataError(f"{table}: {len(found)} candidates, none a sentence of the annotations at hand")
        export(joined[:limit], to, path, annotations.texts)
    console.print(
        escape(
            f"{len(found):,} of {len(read.rows):,} labels are doubtful; {len(joined[:limit]):,} written for "
            f"{to}: {path}"
        ),
        soft_wrap=True,
    )


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="File that the tool wrote.")],
    tool: Annotated[Tool, typer.Option("--from", help="The tool.")],
    folder: Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Take labels that were changed in an annotation tool back into the rows."""
    from communique.train.corpus import default_folder
    from communique.train.exchange import import_ as read
    from communique.train.merge import merge_rows

    console = _console()
    with _bad_input_exits():
        rows = [s.row for s in read(path, tool)]
        merged = merge_rows(folder or default_folder(), rows, write=not dry_run)
    done = "would be " if dry_run else ""
    console.print(
        f"{merged.changed:,} rows {done}changed, {merged.added:,} {done}added, {merged.same:,} are the same."
    )


@app.command()
def public(
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets as published [default: public/ of the texts]."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="permissive: only MIT and United Nations texts.")
    ] = None,
) -> None:
    """Print each public data set: rows, labels, licence, and how far its mapping was found to hold."""
    from rich.table import Table

    from communique.model.labels import LABELS
    from communique.train.public import drop_near_duplicates, near_texts, public_table, read_public
    from communique.train.texts import shared_folder

    console = _console()
    with _bad_input_exits():
        source = folder or shared_folder() / "public"
        entries = public_table(source, licence)
        rows = read_public(source, licence=licence)
        kept, dropped = drop_near_duplicates(rows)
        annotations = _load(None, None)
        held = [s.text for name in ("dev", "test") for s in annotations.split(name) if s.text is not None]
        near = len(near_texts(rows, held))
    table = Table(title="public data sets")
    titles = ("data set", "licence", "rows", *LABELS, "left out", "read", "mapping fits (rows read)")
    for title in (*titles, "mapping fits (blind check)", "near-duplicates dropped"):
        table.add_column(str(title), justify="left" if title in ("data set", "licence") else "right")
    for e in entries:
        cells = [e["dataset"], e["licence"], f"{e['rows']:,}", *(f"{e[str(label)]:,}" for label in LABELS)]
        cells += [f"{e['left_out']:,}", f"{e['decided']:,}", _share(e, ""), _share(e, "check_")]
        table.add_row(*map(str, cells), f"{dropped[e['dataset']]:,}")
    console.print(table)
    console.print(
        f"{len(kept):,} rows after near-duplicates. Only the blind check, drawn after a mapping was fixed, "
        "says how far it holds; the other rows read were picked because they looked hard."
    )
    console.print(
        f"{near:,} rows nearly repeat a sentence of dev or test: training leaves them out."
        if held
        else "Not compared with dev and test, whose texts are not at hand: set COMMUNIQUE_SHARED."
    )


def _share(entry: dict[str, Any], prefix: str) -> str:
    read, fit = entry[f"{prefix}read"], entry[f"{prefix}fit"]
    return f"{fit}/{read} [{entry[f'{prefix}low']:.2f}, {entry[f'{prefix}high']:.2f}]" if read else "-"


# --- shared ----------------------------------------------------------------------------------------


def _console() -> Console:
    """Wide where nobody's window is: a log keeps each table row on one line."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _LOG_WIDTH))


@contextmanager
def _bad_input_exits() -> Iterator[None]:
    """One line on standard error and exit code 2 for input that cannot be used."""
    from communique.model.errors import InputError

    try:
        yield
    except (InputError, ValueError, OSError) as error:
        sys.stderr.write(f"communique: {error}\n")
        raise typer.Exit(2) from None


def _reread(folder: Path | None, rows: Sequence[Row]) -> str:
    """What a fresh reader, given codebook and sentence in context alone, would change of the final labels."""
    from communique.train.corpus import default_folder
    from communique.train.files import read_jsonl

    file = (folder or default_folder()) / "reread.jsonl"
    if not file.is_file():
        return "No fresh re-reading: reread.jsonl is not there."
    final = {(row.doc_id, row.start): row.label for row in rows}
    read = [
        (record["label"], final.get((record["doc_id"], record["start"]))) for _, record in read_jsonl(file)
    ]
    known = [(label, kept) for label, kept in read if kept is not None]
    changed = sum(label != kept for label, kept in known)
    return f"A fresh reader of {len(known)} random adjudicated sentences would change {changed} labels."


def _load(folder: Path | None, shared: Path | None) -> Annotations:
    from communique.train.corpus import load_annotations

    return load_annotations(folder, shared)


def _chosen(annotations: Annotations, which: Which) -> list[Sentence]:
    wanted = {Which.REAL: (False,), Which.OWN: (True,), Which.ALL: (False, True)}[which]
    return [s for s in annotations.sentences if s.row.synthetic in wanted]


def _print_findings(console: Console, findings: Sequence[Finding], limit: int) -> None:
    ordered = sorted(findings, key=lambda finding: not finding.fatal)
    for finding in ordered[:limit]:
        mark = "[red]problem[/]" if finding.fatal else "[yellow]notice[/] "
        console.print(f"{mark} {escape(f'{finding.where}: {finding.what}')}", soft_wrap=True, highlight=False)
    if len(ordered) > limit:
        console.print(f"… and {len(ordered) - limit:,} more (--limit shows them)")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from communique.train.files import write_bytes

    write_bytes(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


if __name__ == "__main__":
    app()
