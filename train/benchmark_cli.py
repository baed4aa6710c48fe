"""`communique benchmark`: the model beside what could be picked instead, and what its parts are worth.

communique benchmark plover --out runs/plover
communique benchmark baselines --split dev --out runs/baselines
communique benchmark swap --split dev
communique benchmark curve --out runs/curve
communique benchmark ablation --out runs/ablation
communique benchmark errors --split dev --out ../errors.md

`app` is a typer app of its own. Nothing heavy is imported before a command runs. What was computed is kept
in the `--out` folder, and a command that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from communique.model.errors import InputError
from communique.train.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from communique.model.artifact import Artifact
    from communique.train.corpus import Annotations, Sentence

app = typer.Typer(
    help="Baselines, PLOVER, learning curve, ablations, name swaps, worst errors.",
    no_args_is_help=True,
    add_completion=False,
)


class Split(StrEnum):
    """Held-out splits."""

    DEV = "dev"
    TEST = "test"


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for results and what is kept of each.")]
Shared = Annotated[
    Path | None,
    typer.Option(help="Folder of the texts [default: COMMUNIQUE_SHARED, or shared beside the repository]."),
]
Folder = Annotated[Path | None, typer.Option(help="Folder of the annotations [default: data/annotations].")]
Held = Annotated[Split, typer.Option(help="Split that is scored.")]
Model = Annotated[Path | None, typer.Option(help="A model folder; the model that ships if not given.")]
Encoder = Annotated[str, typer.Option(help="A pinned encoder, a model of the hub, or a folder.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads; 0 means one a core.")]


@app.command()
def plover(
    out: Out = Path("runs/plover"),
    encoder: Encoder = "bge-small-en-v1.5",
    epochs: Annotated[
        float | None, typer.Option(help="[default: the recipe's 8]", show_default=False)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="[default: the recipe's 5e-05]", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds to train; of several, also together.")] = 1,
    threads: Threads = 0,
    shared: Shared = None,
) -> None:
    """Train on Zero-Shot PLOVER's training file alone and score its test file, by stance and by root."""
    from rich.console import Console

    from communique.train import plover as benchmark
    from communique.train.public import plv_benchmark
    from communique.train.texts import shared_folder

    flags = {"epochs": epochs, "learning_rate": learning_rate}
    given = {name: value for name, value in flags.items() if value is not None}
    config = benchmark.plover_config(encoder=encoder, threads=threads, **given)
    rows = plv_benchmark(shared_folder(shared) / "public")
    found = benchmark.run(config, rows, out, seeds)
    Console().print(benchmark.table(found, config, rows))


@app.command()
def baselines(
    out: Out = Path("runs/baselines"),
    split: Held = Split.DEV,
    model: Annotated[list[Path] | None, typer.Option(help="Model folders beside the one that ships.")] = None,
    setfit: Annotated[
        list[int] | None, typer.Option(min=0, help="SetFit on so many sentences a label; 0 for all.")
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Frozen encoder with logistic regression.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Public data only: TF-IDF and encoder.")] = False,
    first: Annotated[
        Path | None, typer.Option(help="A first stage trained already (`first` of a training run).")
    ] = None,
    encoder: Encoder = "bge-small-en-v1.5",
    seed: Annotated[int, typer.Option(min=0, help="Of samples and SetFit.")] = 1,
    threads: Threads = 0,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """Score the model and what could be picked instead on one split: Markdown, and JSON in --out."""
    from communique.model.artifact import load_artifact
    from communique.model.jsonl import write_text
    from communique.train import baselines as rivals

    annotations = _annotations(folder, shared)
    held_sentences = annotations.split(split.value)
    train, held = rivals.rows_of(annotations.split("train")), rivals.rows_of(held_sentences)
    if not held:
        raise InputError(f"no {split.value} sentence has its text: set COMMUNIQUE_SHARED")
    systems = rivals.simple_systems(train, held)
    if public:
        config = TrainConfig(encoder=encoder, threads=threads)
        learnt = _public_rows(config, annotations, shared)
        systems += rivals.public_systems(learnt, held_sentences, config, out, first)
    if frozen:
        systems.append(rivals.frozen_system(train, held, encoder))
    for count in setfit or ():
        systems.append(rivals.setfit_system(train, held, encoder, count or None, seed))
    models: list[Path | None] = [None, *(model or ())]
    for path in models:
        _check_unseen(load_artifact(path), held_sentences, split.value)
    systems += [rivals.model_system(path, held_sentences, threads or None) for path in models]
    results = rivals.run_systems(systems, train, held, out, on_start=_say)
    content = {"split": split.value, "train_rows": len(train), "systems": [r.to_json() for r in results]}
    write_text(out / f"baselines-{split.value}.json", json.dumps(content, indent=1) + "\n")
    table = rivals.markdown(results, split.value)
    write_text(out / f"baselines-{split.value}.md", table)
    sys.stdout.write(table)


@app.command()
def swap(
    split: Held = Split.DEV,
    model: Model = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the rates here.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which name replaces which.")] = 0,
    threads: Threads = 0,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """Replace the parties' names in real sentences and count the labels that change."""
    from communique.model.classifier import StanceClassifier
    from communique.model.jsonl import write_text
    from communique.train.swaps import swap_test

    sentences = _annotations(folder, shared).split(split.value)
    classifier = StanceClassifier.load(model, threads=threads or None)
    _check_unseen(classifier.artifact, sentences, split.value)
    found = swap_test(classifier, sentences, seed=seed)
    if as_json is not None:
        write_text(as_json, json.dumps(found.to_json(), indent=1) + "\n")
    sys.stdout.write(found.text())


@app.command()
def curve(
    out: Out = Path("runs/curve"),
    sizes: Annotated[
        str, typer.Option(help="Sentences a label, comma between; `all` for the train split.")
    ] = "10,25,50,100,200,all",
    start: Annotated[
        Path | None, typer.Option(help="Folder to start from, such as `first` of a run.")
    ] = None,
    encoder: Encoder = "bge-small-en-v1.5",
    epochs: Annotated[float, typer.Option(help="Passes over the rows, at least.")] = 3.0,
    seeds: Annotated[int, typer.Option(min=1, help="Samples and trainings of each size.")] = 1,
    threads: Threads = 0,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """What more annotated sentences buy: the same training on samples of each size, scored on dev."""
    from communique.train import experiments

    config = TrainConfig(encoder=str(start or encoder), epochs=epochs, threads=threads)
    parts = experiments.curve(_annotations(folder, shared), config, _sizes(sizes), seeds)
    results = experiments.run(parts, out, "curve", on_start=_say)
    sys.stdout.write(experiments.markdown(results))


@app.command()
def ablation(
    out: Out = Path("runs/ablation"),
    encoder: Encoder = "bge-small-en-v1.5",
    epochs: Annotated[float, typer.Option(help="On annotated sentences.")] = 3.0,
    first_epochs: Annotated[float, typer.Option(help="On public data before.")] = 2.0,
    teacher: Annotated[
        str | None, typer.Option(help="Also the recipe with this encoder in place of the student's.")
    ] = None,
    soft_labels: Annotated[
        Path | None, typer.Option(help="A teacher's probabilities: also with distillation.")
    ] = None,
    only: Annotated[str, typer.Option(help="Variants, comma between; all if not given.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 1,
    threads: Threads = 0,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """What each part of the recipe is worth: it is left out or put in, alone, and dev is scored."""
    from communique.train import experiments

    config = TrainConfig(
        encoder=encoder, epochs=epochs, first_epochs=first_epochs, seed=seed, threads=threads
    )
    annotations = _annotations(folder, shared)
    parts = experiments.ablation(
        annotations,
        config,
        public=_public_rows(config, annotations, shared),
        teacher=teacher,
        soft_labels=soft_labels,
    )
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    unknown = sorted(set(wanted) - {part.variant for part in parts})
    if unknown:
        there = ", ".join(part.variant for part in parts)
        raise InputError(f"--only: no variant {', '.join(unknown)}: use {there}")
    chosen = [part for part in parts if not wanted or part.variant in wanted]
    results = experiments.run(chosen, out, "ablation", on_start=_say)
    sys.stdout.write(experiments.markdown(results))


@app.command()
def errors(
    out: Annotated[Path, typer.Option("--out", "-o", help="Markdown file, outside any repository.")],
    split: Held = Split.DEV,
    model: Model = None,
    most: Annotated[int, typer.Option(min=1, help="Errors to list.")] = 30,
    threads: Threads = 0,
    folder: Folder = None,
    shared: Shared = None,
) -> None:
    """List the surest mistakes with their sentences and what the annotators said. Holds texts."""
    from communique.model.classifier import StanceClassifier
    from communique.train.worst import write_errors

    sentences = _annotations(folder, shared).split(split.value)
    classifier = StanceClassifier.load(model, threads=threads or None)
    _check_unseen(classifier.artifact, sentences, split.value)
    sys.stdout.write(write_errors(classifier, sentences, out, most))


def _annotations(folder: Path | None, shared: Path | None) -> Annotations:
    from communique.train.corpus import load_annotations

    annotations = load_annotations(folder, shared)
    if annotations.notice:
        sys.stderr.write(f"communique: {annotations.notice}\n")
    return annotations


def _check_unseen(artifact: Artifact, held: Sequence[Sentence], split: str) -> None:
    """Say on standard error where a model has learnt from what it is to be scored on, or may have."""
    from communique.eval.predict import learnt_from

    documents = [s.row.doc_id for s in held if s.text is not None]
    heard = learnt_from(documents, artifact.config.trained_on, artifact.version, f"the {split} split")
    for line in heard.lines():
        _say(line)


def _public_rows(config: TrainConfig, annotations: Annotations, shared: Path | None) -> Any:  # noqa: ANN401
    """Public rows that resemble no sentence of dev or test."""
    from communique.train.recipe import public_apart
    from communique.train.texts import shared_folder

    return public_apart(annotations, config, shared_folder(shared) / "public", _say)


def _sizes(text: str) -> list[int | None]:
    sizes: list[int | None] = []
    for word in (w.strip() for w in text.split(",")):
        if word != "all" and (not word.isdigit() or int(word) == 0):
            raise InputError(f"--sizes has {word!r}: give numbers above 0 or `all`, comma between")
        sizes.append(None if word == "all" else int(word))
    return sizes


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
