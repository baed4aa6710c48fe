"""`communique train`: every field of `TrainConfig` is a flag.

communique train --out runs/student
communique train --config runs/student/train.json --seed 2 --out runs/second
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from communique.model.errors import InputError
from communique.train.config import TrainConfig

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
)


def run(**given: Any) -> None:  # noqa: ANN401  one argument a flag
    """Train a model from annotations and public data, and write what `communique label --model` loads.

    Without the texts of real statements it trains on the project's own alone, and says so.
    """
    out, saved, folder, shared, name = (given.pop(flag) for flag, *_ in _OWN)
    try:
        from communique.train.corpus import load_annotations
        from communique.train.files import DataError
        from communique.train.recipe import run as train
        from communique.train.texts import shared_folder
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}: pip install 'communique[train]'") from None
    base = TrainConfig.load(saved) if saved else TrainConfig()
    flags = {key: value for key, value in given.items() if value is not None}
    config = dataclasses.replace(base, **flags)
    try:
        annotations = load_annotations(folder, shared)
    except DataError as error:
        raise InputError(str(error)) from None
    if annotations.notice:
        sys.stderr.write(f"communique: {annotations.notice}\n")
    public = shared_folder(shared) / "public"
    if not public.is_dir():
        sys.stderr.write(f"communique: no public data sets in {public}: training without them\n")
    artifact = train(config, annotations, out, name=name, public_folder=public if public.is_dir() else None)
    sys.stdout.write(f"{artifact.version} in {artifact.folder}\n")


def _signature() -> inspect.Signature:
    """One keyword for each own flag and each field of the config; None means "not given"."""
    parameters = [
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
