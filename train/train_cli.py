"""`communique train`: every field of `TrainConfig` is a flag.

communique train --out runs/student
communique train --config runs/student/train.json --seed 2 --out runs/second
communique train --out runs/student --resume
communique train --folds --out ../folds
communique train --out runs/search search --trials 30
communique train --out runs/soup soup runs/one runs/two
communique train --out runs/small shrink runs/teacher
communique train soft-labels runs/teacher --file ../soft.jsonl
torchrun --nproc-per-node 2 -m communique.cli train --out runs/two
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from communique.model.errors import InputError
from communique.train.config import TrainConfig

if TYPE_CHECKING:
    from communique.train.corpus import Annotations

INTERRUPTED = 130

app = typer.Typer(invoke_without_command=True)

_OWN = (
    (
        "out",
        Path,
        Path("runs/model"),
        "Folder for the model; `artifact/` in it is what `label --model` loads.",
    ),
    ("config", Path | None, None, "Start from a saved train.json; flags win over it."),
    ("annotations", Path | None, None, "Folder of the annotations; the repository's if not given."),
    (
        "shared",
        Path | None,
        None,
        "Folder with the texts of real statements; COMMUNIQUE_SHARED if not given.",
    ),
    ("name", str, "communique", "Name in the model's version."),
    ("resume", bool, False, "Go on with the run in --out that was interrupted."),
    ("seeds", int, 1, "Train under this many seeds; mean and sd in summary.json."),
    ("folds", bool, False, "Hold out each grouped fold in turn; mean and sd in summary.json."),
    (
        "hold_out",
        str | None,
        None,
        "Hold out `issuers`, one by one, `issuers-at-once`, or the latest `years`.",
    ),
)

_HOLD_OUT = {"issuers": "issuers", "issuers-at-once": "issuers_at_once", "years": "latest_years"}
"""What `--hold-out` takes, and the function of `communique.train.repeat` that makes the runs."""
_ALONE = ("name", "resume", "seeds", "folds", "hold_out")
"""Flags of `communique train` itself, which no command under it reads."""


@dataclass(frozen=True)
class _Job:
    """What the flags ask for."""

    config: TrainConfig
    annotations: Annotations
    public: Path | None
    folder: Path | None
    out: Path
    shared: Path | None
    given: frozenset[str]
    """Settings named on the command line."""


def run(ctx: typer.Context, **given: Any) -> None:  # noqa: ANN401  one argument a flag
    """Train a model from annotations and public data, and write what `communique label --model` loads.

    Without the texts of real statements it trains on the project's own alone, and says so.
    """
    own = {flag: given.pop(flag) for flag, *_ in _OWN}
    if own["hold_out"] not in (None, *_HOLD_OUT):
        raise InputError(f"--hold-out takes {' or '.join(_HOLD_OUT)}, not {own['hold_out']!r}")
    if own["folds"] and own["hold_out"]:
        raise InputError("--folds and --hold-out: give one of the two")
    if own["seeds"] < 1:
        raise InputError(f"--seeds must be at least 1, not {own['seeds']}")
    if ctx.invoked_subcommand is not None:
        alone = [flag for flag, _, default, _ in _OWN if flag in _ALONE and own[flag] != default]
        if alone:
            raise InputError(
                f"{_flags(alone)} before {ctx.invoked_subcommand} would do nothing: leave it out"
            )
    job = _prepare(given, **{flag: own[flag] for flag in ("out", "config", "annotations", "shared")})
    if ctx.invoked_subcommand is not None:
        ctx.obj = job
        return
    try:
        if own["folds"] or own["hold_out"] or own["seeds"] > 1:
            _repeat(job, own)
        else:
            _once(job, own)
    except KeyboardInterrupt as stopped:
        reason = str(stopped) or "interrupted: the same command with --resume goes on from what was saved"
        sys.stderr.write(f"communique: {reason}\n")
        raise typer.Exit(INTERRUPTED) from None


def _prepare(
    given: dict[str, Any], *, out: Path, config: Path | None, annotations: Path | None, shared: Path | None
) -> _Job:
    base = TrainConfig.load(config) if config else TrainConfig()
    flags = {key: value for key, value in given.items() if value is not None}
    settings = dataclasses.replace(base, **flags)
    try:
        from communique.train import recipe  # noqa: F401  what is missing shows here
        from communique.train.corpus import load_annotations
        from communique.train.files import DataError
        from communique.train.texts import shared_folder
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}: pip install 'communique[train]'") from None
    try:
        found = load_annotations(annotations, shared)
    except DataError as error:
        raise InputError(str(error)) from None
    if found.notice:
        sys.stderr.write(f"communique: {found.notice}\n")
    public = shared_folder(shared) / "public"
    if not public.is_dir():
        sys.stderr.write(f"communique: no public data sets in {public}: training without them\n")
    return _Job(
        settings, found, public if public.is_dir() else None, annotations, out, shared, frozenset(flags)
    )


def _once(job: _Job, own: dict[str, Any]) -> None:
    from communique.train.fit import processes
    from communique.train.recipe import run as train

    artifact = train(
        job.config,
        job.annotations,
        job.out,
        name=own["name"],
        public_folder=job.public,
        resume=own["resume"],
        annotations_folder=job.folder,
        say=_say if processes().is_main_process else lambda line: None,
    )
    if processes().is_main_process:
        sys.stdout.write(f"{artifact.version} in {artifact.folder}\n")


def _repeat(job: _Job, own: dict[str, Any]) -> None:
    from communique.train import repeat
    from communique.train.fit import processes
    from communique.train.repeat_scores import table

    plan = getattr(repeat, "folds" if own["folds"] else _HOLD_OUT.get(own["hold_out"], "seeds"))
    parts = plan(job.annotations, job.config, own["seeds"])
    summary = repeat.repeat(
        job.config, job.annotations, parts, job.out, public_folder=job.public, resume=own["resume"], say=_say
    )
    if processes().is_main_process:
        results = json.loads((job.out / "results.json").read_text(encoding="utf-8"))
        sys.stdout.write(table(results, summary) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(f"communique: {line}\n")


def search(
    ctx: typer.Context,
    trials: Annotated[int, typer.Option(min=1, help="Trials to run, besides those in the folder.")] = 20,
) -> None:
    """Search for better settings with Optuna; flags before `search` hold for every trial."""
    try:
        from communique.train.search import BEST, TRIALS
        from communique.train.search import search as run_search
    except ModuleNotFoundError as error:
        raise InputError(f"the search needs {error.name}: pip install {error.name}") from None
    job: _Job = ctx.obj
    try:
        run_search(
            job.config, job.annotations, job.out, trials=trials, fixed=job.given, public_folder=job.public
        )
    except KeyboardInterrupt:
        sys.stderr.write(
            f"communique: interrupted; trials that ended are in {job.out / TRIALS}, the same "
            "command goes on\n"
        )
        raise typer.Exit(INTERRUPTED) from None
    sys.stdout.write(f"best settings in {job.out / BEST}, all trials in {job.out / TRIALS}\n")


def soft_labels(
    ctx: typer.Context,
    teachers: Annotated[list[Path], typer.Argument(help="Folders that `communique train` wrote.")],
    file: Annotated[Path, typer.Option(help="JSONL file to write, outside the repository.")] = Path(
        "../soft.jsonl"
    ),
    sentences: Annotated[int, typer.Option(min=1, help="How many at most.")] = 12_000,
    annotated: Annotated[
        bool, typer.Option(help="Those of the train split too, for --soft-share of their targets.")
    ] = True,
) -> None:
    """Write teachers' probabilities for sentences that nobody annotated, for --soft-labels."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from communique.model.tokens import SentenceInput
    from communique.train import soft
    from communique.train.exchange import refuse_inside

    refuse_inside(file)
    job: _Job = ctx.obj
    found = soft.unlabelled(job.annotations, job.shared, sentences, job.config.seed)
    train = job.annotations.split("train") if annotated else []
    known = [SentenceInput(s.text, s.before, s.after) for s in train if s.text is not None]
    columns = (TextColumn("teaching"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("teaching", total=(len(found) + len(known)) * len(teachers))
            soft.soft_labels(
                teachers,
                found,
                file,
                annotated=known,
                threads=job.config.threads,
                tick=lambda n: progress.advance(bar, n),
            )
    except KeyboardInterrupt:
        sys.stderr.write("communique: interrupted; nothing was written\n")
        raise typer.Exit(INTERRUPTED) from None
    sys.stdout.write(f"{len(found):,} unlabelled and {len(known):,} annotated sentences in {file}\n")


def shrink(
    ctx: typer.Context,
    run: Annotated[
        Path, typer.Argument(help="Folder that `communique train` wrote, or an encoder: its folder or name.")
    ],
    vocabulary: Annotated[int, typer.Option(min=1000, help="Tokens to keep.")] = 12_000,
) -> None:
    """Keep the tokens and positions that official statements need, to train on from there."""
    from communique.train import recipe
    from communique.train import shrink as smaller

    job: _Job = ctx.obj
    _settings_of_runs(job, "shrink")
    public = recipe.public_apart(recipe.with_dev(job.annotations), job.config, job.public)
    rows = [*recipe.training_rows(job.annotations, job.config), *public]
    kept = smaller.shrink(run, job.out, [row.text for row in rows], vocabulary)
    sys.stdout.write(f"{kept:,} tokens kept in {job.out}\n")


def _settings_of_runs(job: _Job, command: str, but: frozenset[str] = frozenset()) -> None:
    """Refuse settings before a command that has those of the runs it reads."""
    if job.given - but:
        named = _flags(sorted(job.given - but))
        raise InputError(f"{named} before {command}: settings are those of what was trained, leave it out")


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def soup(
    ctx: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Trainings of one encoder, or checkpoints of one.")],
    name: Annotated[str, typer.Option(help="Name in the model's version.")] = "communique",
) -> None:
    """Average the weights of several trainings where dev says that it pays, and ship the mean."""
    from communique.train import recipe
    from communique.train.corpus import default_folder
    from communique.train.manifest import Meter, write_run_manifest
    from communique.train.soup import Tried, settings_of
    from communique.train.soup import soup as mix

    def say(tried: Tried) -> None:
        verdict = "" if len(tried.parts) == 1 else " (kept)" if tried.kept else " (left out)"
        sys.stderr.write(f"dev macro-F1 {tried.macro_f1:.4f}{verdict}: {' + '.join(tried.parts)}\n")

    job: _Job = ctx.obj
    _settings_of_runs(job, "soup", but=frozenset({"threads"}))
    meter = Meter.start()
    config = dataclasses.replace(settings_of(runs), threads=job.config.threads)
    annotations = recipe.with_dev(job.annotations)
    dev = recipe.labelled_rows(recipe.held_out(annotations, "dev"))
    try:
        public = recipe.public_apart(annotations, config, job.public, _say)
        rows = [*recipe.training_rows(annotations, config), *public]
        mix(runs, config, dev, job.out, say)
        artifact = recipe.ship(config, annotations, job.out, name=name, rows=rows)
        write_run_manifest(
            job.out,
            config,
            rows,
            meter,
            annotations=job.folder or default_folder(),
            public=job.public if public else None,
        )
    except KeyboardInterrupt:
        sys.stderr.write("communique: interrupted; begin the soup again\n")
        raise typer.Exit(INTERRUPTED) from None
    sys.stdout.write(f"{artifact.version} in {artifact.folder}\n")


def _signature() -> inspect.Signature:
    """One keyword for each own flag and each field of the config; None means "not given"."""
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    parameters += [
        inspect.Parameter(
            flag,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(help=text)],
        )
        for flag, kind, default, text in _OWN
    ]
    for field in dataclasses.fields(TrainConfig):
        kind = {"int": int, "float": float, "bool": bool}.get(str(field.type), str)
        option = typer.Option(help=f"[default: {field.default}]", show_default=False)
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )
    return inspect.Signature(parameters)


run.__signature__ = _signature()  # type: ignore[attr-defined]
run.__annotations__ = {p.name: p.annotation for p in _signature().parameters.values()}
app.callback()(run)
app.command("search")(search)
app.command("soft-labels")(soft_labels)
app.command("shrink")(shrink)
app.command("soup")(soup)
