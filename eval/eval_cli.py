"""`communique eval`: the report of a table of predictions, and the behaviour of a model on written pairs.

    python -m communique.eval.eval_cli behaviour --json behaviour.json
    python -m communique.eval.eval_cli report test.jsonl --train train.jsonl --out report/

`app` is a typer app of its own. Nothing heavy is imported before a command runs. Exit code 2: bad input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from communique.eval.tools_cli import bad_input_exits, made_by, read_json, shares

app = typer.Typer(
    help="Report on predictions, and test a model's behaviour.", no_args_is_help=True, add_completion=False
)

_PACKAGES = ("communique", "numpy", "scikit-learn", "statsmodels")


@app.command()
def behaviour(
    model: Annotated[
        Path | None, typer.Option(help="A model folder; the model that ships if not given.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs to run; the project's own if not given.")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Also write rates and failures here.")
    ] = None,
    failures: Annotated[int, typer.Option(min=0, help="Failed pairs to print at most.")] = 20,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; one a core if not given.")] = None,
) -> None:
    """Run written pairs of sentences through a model: pass rate and consistency of each family."""
    import json

    from rich.console import Console

    from communique.eval.behaviour import PAIRS, behaviour_tables, read_pairs, run_pairs, to_json
    from communique.model.classifier import StanceClassifier
    from communique.model.jsonl import write_text

    with bad_input_exits():
        cases = read_pairs(pairs or PAIRS)
        classifier = StanceClassifier.load(model, threads=threads)
        outcomes = run_pairs(classifier, cases)
        if as_json:
            content = json.dumps(to_json(outcomes, classifier.version), ensure_ascii=False, indent=1)
            write_text(as_json, content + "\n")
    Console().print(behaviour_tables(outcomes, classifier.version, failures))


@app.command()
def report(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE…", help="JSONL of predictions with gold; the first is reported on."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")],
    train: Annotated[
        Path | None, typer.Option(help="JSONL of labelled rows for the learned baseline.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--behaviour", help="What `communique eval behaviour --json` wrote.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Abstention threshold; the tables' own if not given.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of documents.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    min_rows: Annotated[int, typer.Option(min=1, help="Sentences a slice must have to be scored.")] = 30,
    errors: Annotated[int, typer.Option(min=0, help="Wrong sentences listed at most.")] = 50,
) -> None:
    """Write the report of a table of predictions: one HTML page, and its numbers as JSON, CSV and LaTeX."""
    from rich.console import Console

    from communique.eval.report import Settings, build, write
    from communique.eval.table import read_labelled, read_table
    from communique.eval.verdict import verdict

    console = Console(stderr=True)
    with bad_input_exits(), console.status("evaluating"):
        read = [read_table(path, threshold) for path in tables]
        digests = {str(path): table.sha256 for path, table in zip(tables, read, strict=True)}
        rows, digest = read_labelled(train) if train else ((), "")
        if train:
            digests[str(train)] = digest
        found = build(
            read,
            _head(digests),
            train=rows,
            behaviour=_behaviour(pairs) if pairs else None,
            settings=Settings(resamples, seed, min_rows, errors),
        )
        paths = write(found, out)
    typer.echo("\n".join(verdict(found)))
    typer.echo(f"written: {', '.join(map(str, paths))}")


def _head(digests: Mapping[str, str]) -> Any:  # noqa: ANN401 - the class is imported only here
    import platform
    from importlib.metadata import version

    from communique.eval.report import Head

    return Head(
        **made_by(),
        files=digests,
        versions={"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    )


def _behaviour(path: Path) -> dict[str, Any]:
    """The file of `behaviour --json`, checked for being one."""
    from communique.eval.behaviour import SCHEMA

    return read_json(path, SCHEMA, "`behaviour --json`")


app.command()(shares)

if __name__ == "__main__":
    app()
