"""`communique eval`: the report of models on a split, and what belongs to it.

    communique eval my-model/ other-model/ --data test --out reports/test
    communique eval --behaviour
    communique eval report test.jsonl --train train.jsonl --out report/

`app` is a typer app of its own; what is no command's name is taken for models to report on (`run`).
Nothing heavy is imported before a command runs. Exit code 2: bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from communique.eval.tools_cli import bad_input_exits, card, compare, made_by, read_json, shares

if TYPE_CHECKING:
    from communique.eval.predict import Heard
    from communique.eval.table import Row, Table

split_rows: Callable[[str], Sequence[dict[str, Any]]] | None = None
"""Rows of a named split of the annotations. Set by the command line that holds them: the evaluation itself
knows only files."""

_PACKAGES = ("communique", "numpy", "scikit-learn", "statsmodels")


class _RunByDefault(TyperGroup):
    """A group in which `eval MODEL --data test` means `eval run MODEL --data test`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  typer's own click
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Report on models, compare reports, estimate shares. MODEL… --data SPLIT alone means `run`.",
    no_args_is_help=True,
    add_completion=False,
)

Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Abstention threshold; the model's own if not given.")
]
Resamples = Annotated[int, typer.Option(min=1, help="Resamples of documents.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the resamples.")]
MinRows = Annotated[int, typer.Option(min=1, help="Sentences a slice must have to be scored.")]
Errors = Annotated[int, typer.Option(min=0, help="Wrong sentences listed at most.")]
Results = Annotated[
    Path | None, typer.Option(help="JSON list of trainings with something held out; see eval/generalise.py.")
]
Folds = Annotated[
    Path | None,
    typer.Option(
        help="JSONL of annotated rows with out-of-fold p_… and fold, for labels worth a second look."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; one a core if not given.")]


@app.command()
def run(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL…", help="Model folders, or tables of predictions; the model that ships if none."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Gold rows: train, dev or test of the annotations, or a JSONL file.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")] = Path("reports/eval"),
    only_behaviour: Annotated[
        bool, typer.Option("--behaviour", help="Only run the written pairs through the model.")
    ] = False,
    train: Annotated[
        str | None, typer.Option(help="Rows of the learned baseline; the train split if --data is a split.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Rows for conformal sets, with probabilities if the first model is a table; the dev split "
            "if --data is test."
        ),
    ] = None,
    results: Results = None,
    folds: Folds = None,
    threshold: Threshold = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    min_rows: MinRows = 30,
    errors: Errors = 50,
    threads: Threads = None,
) -> None:
    """Report on models: label a split with each, and write everything that can be said of the first."""
    if only_behaviour:
        if data is not None or len(models or []) > 1:
            raise typer.BadParameter("--behaviour runs alone, on one model: leave out --data")
        behaviour(model=models[0] if models else None, threads=threads)
        return
    from communique.eval.models import predicted
    from communique.eval.table import SPLITS
    from communique.model.errors import InputError

    with bad_input_exits():
        if data is None:
            raise InputError("no --data: name test, dev or train, or a JSONL file of gold rows")
        rows, digests = _gold(data)
        learned = train or ("train" if data in SPLITS and data != "train" else None)
        calibration = calibrate or ("dev" if data == "test" else None)
        tables, extra = predicted(
            models or [None], rows, data, digests, calibration, _gold, threshold=threshold, threads=threads
        )
        known: tuple[Row, ...] = ()
        if learned:
            known, more = _gold(learned)
            digests |= more
        extra["folds"] = _folds(folds, digests)
        split = data if data in SPLITS else ""
        _write(
            tables, digests, known, results, (resamples, seed, min_rows, errors), out, split=split, **extra
        )


def _gold(name: str) -> tuple[tuple[Row, ...], dict[str, str]]:
    """Gold rows of a split or a file, and what they are by hash."""
    from communique.eval.table import SPLITS, labelled_rows, read_labelled
    from communique.model.errors import InputError

    if name not in SPLITS:
        rows, digest = read_labelled(Path(name))
        return rows, {name: digest}
    if split_rows is None:
        raise InputError(f"split {name}: the annotations are not at hand here: name a JSONL file")
    rows, digest = labelled_rows(split_rows(name), f"split {name}")
    return rows, {f"split {name}": digest}


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
    threads: Threads = None,
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
    calibrate: Annotated[
        Path | None, typer.Option(help="JSONL of dev rows with the first model's probabilities.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--behaviour", help="What `communique eval behaviour --json` wrote.")
    ] = None,
    results: Results = None,
    folds: Folds = None,
    threshold: Threshold = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    min_rows: MinRows = 30,
    errors: Errors = 50,
) -> None:
    """Write the report of a table of predictions: one HTML page, and its numbers as JSON, CSV and LaTeX."""
    from communique.eval.behaviour import SCHEMA
    from communique.eval.predict import Heard, unchecked
    from communique.eval.table import read_labelled, read_table

    with bad_input_exits():
        read = [read_table(path, threshold) for path in tables]
        digests = {str(path): table.sha256 for path, table in zip(tables, read, strict=True)}
        rows: tuple[Row, ...] = ()
        extra: dict[str, Any] = {"heard": Heard()}
        for table in read:
            extra["heard"] += unchecked(table.name, "these sentences")
        if train:
            rows, digests[str(train)] = read_labelled(train)
        if calibrate:
            extra["calibration"] = read_table(calibrate, threshold)
            digests[str(calibrate)] = extra["calibration"].sha256
        if pairs:
            extra["behaviour"] = read_json(pairs, SCHEMA, "`behaviour --json`")
        extra["folds"] = _folds(folds, digests)
        _write(read, digests, rows, results, (resamples, seed, min_rows, errors), out, **extra)


def _folds(path: Path | None, digests: dict[str, str]) -> Table | None:
    """The out-of-fold table, checked; its hash is added to those of what was read."""
    from communique.eval.label_issues import require_folds
    from communique.eval.table import read_table

    if path is None:
        return None
    require_folds(path)
    table = read_table(path)
    digests[str(path)] = table.sha256
    return table


def _write(
    tables: Sequence[Table],
    digests: Mapping[str, str],
    train: Sequence[Row],
    results: Path | None,
    settings: tuple[int, int, int, int],
    out: Path,
    heard: Heard,
    split: str = "",
    **extra: Any,  # noqa: ANN401  of `build`
) -> None:
    import platform
    from importlib.metadata import version

    from rich.console import Console

    from communique.eval.generalise import read_results
    from communique.eval.report import Head, Settings, build
    from communique.eval.report_page import write
    from communique.eval.verdict import verdict

    versions = {"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    by = made_by()
    head = Head(by["command"], by["when"], digests, versions, heard.warnings, heard.notes, split)
    trained = read_results(results) if results else ()
    with Console(stderr=True).status("evaluating"):
        found = build(tables, head, train=train, results=trained, settings=Settings(*settings), **extra)
        paths = write(found, out)
    for line in heard.lines():
        typer.echo(line, err=True)
    typer.echo("\n".join(verdict(found)))
    typer.echo(f"written: {', '.join(map(str, paths))}")


for command in (shares, compare, card):
    app.command()(command)


if __name__ == "__main__":
    app()
