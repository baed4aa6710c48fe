"""`communique eval shares | compare | card`: what is done with predictions and with reports that are there.

communique eval shares labelled/records --gold gold.jsonl --by issuer,year --out shares/
communique eval compare reports/old/report.json reports/new/report.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


@contextmanager
def bad_input_exits() -> Iterator[None]:
    """One line on standard error and exit code 2 for input that cannot be used."""
    from communique.model.artifact import ArtifactError
    from communique.model.errors import InputError

    try:
        yield
    except (InputError, ArtifactError, OSError) as error:
        sys.stderr.write(f"communique: {error}\n")
        raise typer.Exit(2) from None


def made_by() -> dict[str, str]:
    """The command that runs, and when, as reports state them."""
    import shlex
    from datetime import UTC, datetime

    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": shlex.join(words), "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


def shares(
    predictions: Annotated[
        Path, typer.Argument(help="Records of an archive: Parquet, JSON Lines or CSV, a file or a folder.")
    ],
    gold: Annotated[
        Path, typer.Option(help="JSONL of labelled sentences of it: doc_id, sent_id, gold, weight.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")],
    by: Annotated[
        str, typer.Option(help="Columns to group by, comma between; year comes from date if need be.")
    ] = "",
    simple_random: Annotated[
        bool, typer.Option("--simple-random", help="All gold rows were drawn with the same chance.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=1, help="Resamples for the adjusted shares.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Groups to print at most.")] = 10,
) -> None:
    """Estimate how often each label occurs in an archive, by group: counted, adjusted, and design-based."""
    from rich.console import Console
    from rich.progress import Progress

    from communique.eval import share_files
    from communique.eval.predictions import read_gold, read_predictions
    from communique.eval.prevalence import group_shares

    notes = Console(stderr=True)
    with bad_input_exits():
        with notes.status("reading"):
            read = read_predictions(predictions, [name.strip() for name in by.split(",") if name.strip()])
            sample = read_gold(gold, read, simple_random=simple_random)
        with Progress(console=notes, transient=True) as progress:
            task = progress.add_task("resampling", total=resamples)
            found = group_shares(
                read, sample, resamples=resamples, seed=seed, tick=lambda n: progress.advance(task, n)
            )
        said = share_files.notes(sample)
        paths = share_files.write(out, found, read, made_by(), said)
    console = Console()
    wide = console if console.is_terminal else Console(width=160)
    wide.print(share_files.printed(found, limit))
    for words in said:
        sys.stderr.write(f"note: {words}\n")
    thin = [g for g in found if g.warnings]
    for g in thin[:limit]:
        sys.stderr.write(f"warning: {g.name}: {'; '.join(g.warnings)}\n")
    if len(thin) > limit:
        sys.stderr.write(f"warning: {len(thin) - limit} more groups have warnings: see shares.csv\n")
    typer.echo(f"written: {', '.join(map(str, paths))}")


def read_json(path: Path, schema: str, what: str) -> dict[str, Any]:
    """A JSON file of a known schema, which is named where it is something else.

    Raises:
        InputError: it cannot be read, or is not of the schema.
    """
    import json

    from communique.model.errors import InputError

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found.get("schema") == schema
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): write it with {what}") from None
    if not known:
        raise InputError(f"{path}: not a result of {what}: write it with that command")
    return dict(found)


def compare(
    first: Annotated[Path, typer.Argument(help="report.json of the one model.")],
    second: Annotated[Path, typer.Argument(help="report.json of the other.")],
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of documents.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> None:
    """Compare two reports: every score, paired by document if they are of the same sentences."""
    import json

    from rich.console import Console

    from communique.eval.exports import SCHEMA
    from communique.eval.report_compare import compare_reports, printed
    from communique.model.jsonl import write_text

    with bad_input_exits():
        read = [read_json(path, SCHEMA, "`communique eval`") for path in (first, second)]
        found = compare_reports(*read, resamples=resamples, seed=seed)
        if as_json:
            write_text(as_json, json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n")
    Console().print(printed(found))


def card(
    report: Annotated[Path, typer.Argument(help="report.json of the model.")],
    model: Annotated[Path, typer.Argument(help="The model's folder; its card is its README.md.")],
) -> None:
    """Write a report's scores into the model's card."""
    from communique.eval.card import fill
    from communique.eval.exports import SCHEMA

    with bad_input_exits():
        path = fill(read_json(report, SCHEMA, "`communique eval`"), model)
    typer.echo(f"written: {path}")
