"""The saved model's folder: its files, their hashes, the format's version. Load refuses anything else.

    communique label --model my-model/ statement.txt     # says in one line what is wrong with my-model/

A folder holds `model.onnx`, `tokenizer.json`, `config.json`, `README.md` (the model card) and
`artifact.json`, which lists the others with size and SHA-256. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from communique.model.labels import EVEN, LABELS, LABELS_VERSION

SCHEMA_VERSION = 1
"""Raised when an older reader would misread the folder."""

MANIFEST = "artifact.json"
FILES = ("model.onnx", "tokenizer.json", "config.json", "README.md")
DEFAULT_MODEL = Path(__file__).parent / "weights"


class ArtifactError(Exception):
    """A model folder that cannot be used: what, where, and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything a model needs besides weights and vocabulary; saved as `config.json`."""

    name: str
    encoder: str
    labels: tuple[str, ...]
    labels_version: str
    max_tokens: int
    """Tokens kept of the sentence itself; longer ones are cut and flagged `truncated`."""
    before_tokens: int
    """Tokens kept of the sentence before (its end); 0 where the model reads no context."""
    after_tokens: int
    """Tokens kept of the sentence after (its beginning)."""
    temperature: float
    """Logits are divided by it before the softmax; fitted on the dev split."""
    threshold: float
    """A stance whose share (probability by `label_weights`) lies below it becomes `none`; chosen on dev."""
    token_types: bool
    """Whether the encoder tells sentence (0) and context (1) apart by token type."""
    label_weights: tuple[float, ...] = EVEN
    """What each label's probability is multiplied by where one is chosen, not where it is shown: of a rare
    label, one missed costs more than one too many (Elkan 2001). Chosen on the dev split."""
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    """`document_digest` of every real document that a training row came from; empty where it is not known.
    With it an evaluation notices documents that the model has learnt from."""

    def __post_init__(self) -> None:
        if self.labels != tuple(LABELS) or self.labels_version != LABELS_VERSION:
            raise ArtifactError(
                f"the model's labels {list(self.labels)} (version {self.labels_version}) are not this "
                f"version's {[str(label) for label in LABELS]} (version {LABELS_VERSION}): "
                "use a matching model"
            )
        if not self.temperature > 0:
            raise ArtifactError(f"temperature must be above 0, not {self.temperature}")
        if not 0 <= self.threshold <= 1:
            raise ArtifactError(f"threshold must lie in [0, 1], not {self.threshold}")
        if len(self.label_weights) != len(LABELS) or not all(0 < w < 1000 for w in self.label_weights):
            raise ArtifactError(
                f"label_weights must be {len(LABELS)} numbers above 0, below 1000, "
                f"not {list(self.label_weights)}"
            )
        if not 8 <= self.max_tokens <= 512:
            raise ArtifactError(f"max_tokens must lie in [8, 512], not {self.max_tokens}")
        if min(self.before_tokens, self.after_tokens) < 0:
            raise ArtifactError("before_tokens and after_tokens must be 0 or more")

    @property
    def rule(self) -> dict[str, Any]:
        """How a label is chosen from probabilities: keywords of `decide` and of `evaluate`."""
        return {"threshold": self.threshold, "label_weights": self.label_weights}

    @property
    def reads_context(self) -> bool:
        """Whether neighbouring sentences change the label."""
        return self.before_tokens > 0 or self.after_tokens > 0


@dataclass(frozen=True)
class Artifact:
    """A verified model folder."""

    folder: Path
    config: ModelConfig
    version: str

    def path(self, name: str) -> Path:
        """Path of one of `FILES`."""
        return self.folder / name


def load_artifact(folder: Path | None = None) -> Artifact:
    """Open a model folder after checking every file against the manifest.

    Args:
        folder: where the model lies; the one that ships with the package if not given.

    Raises:
        ArtifactError: no such folder, a missing or altered file, a newer schema, other labels.
    """
    folder = DEFAULT_MODEL if folder is None else folder
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder}: no such model folder; expected one with {MANIFEST}, {', '.join(FILES)}"
        )
    manifest = _read_json(folder / MANIFEST)
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise ArtifactError(
            f"{folder / MANIFEST}: field 'schema' is {schema!r}, expected a whole number from 1"
        )
    if schema > SCHEMA_VERSION:
        raise ArtifactError(
            f"{folder}: written in format {schema}, this version reads up to {SCHEMA_VERSION}: "
            "upgrade communique"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ArtifactError(f"{folder / MANIFEST}: no list of files: get the model again")
    for name in FILES:
        _verify(folder / name, files.get(name))
    config = _config(folder / "config.json")
    return Artifact(folder=folder, config=config, version=str(manifest["model_version"]))


def write_manifest(folder: Path, config: ModelConfig) -> Artifact:
    """Write `config.json` and `artifact.json` beside a model's other files.

    The version is the model's name and eight digits of the hash of everything that decides a label,
    so that two models never share one.
    """
    (folder / "config.json").write_text(
        json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8"
    )
    deciding = hashlib.sha256()
    for name in ("model.onnx", "tokenizer.json"):
        deciding.update(bytes.fromhex(sha256_file(folder / name)))
    decisive = dataclasses.asdict(dataclasses.replace(config, metrics={}))
    del decisive["trained_on"]
    if config.label_weights == EVEN:  # as models were hashed that knew no weights
        del decisive["label_weights"]
    deciding.update(json.dumps(decisive, sort_keys=True).encode())
    version = f"{config.name}-{deciding.hexdigest()[:8]}"
    files = {n: {"sha256": sha256_file(folder / n), "bytes": (folder / n).stat().st_size} for n in FILES}
    manifest = {"schema": SCHEMA_VERSION, "model_version": version, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return Artifact(folder=folder, config=config, version=version)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path.parent}: {path.name} is missing: the folder is not a whole model"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: not valid JSON ({error}): get the model again") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: expected a JSON object: get the model again")
    return value


def _verify(path: Path, entry: Any) -> None:  # noqa: ANN401  whatever the manifest held
    if not path.is_file():
        raise ArtifactError(f"{path.parent}: {path.name} is missing: get the model again")
    if not isinstance(entry, dict) or "sha256" not in entry:
        raise ArtifactError(f"{path.parent / MANIFEST}: no hash for {path.name}: get the model again")
    found = sha256_file(path)
    if found != entry["sha256"]:
        raise ArtifactError(
            f"{path}: altered (SHA-256 {found[:12]}…, the manifest says {str(entry['sha256'])[:12]}…): "
            "get the model again"
        )


_OPTIONAL = {"label_weights", "metrics", "trained_on"}
"""Fields that older models lack."""


def _config(path: Path) -> ModelConfig:
    raw = _read_json(path)
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown, missing = sorted(set(raw) - known), sorted(known - set(raw) - _OPTIONAL)
    if unknown or missing:
        raise ArtifactError(
            f"{path}: unknown fields {unknown}, missing fields {missing}: get the model again"
        )
    for name in {"labels", "label_weights", "trained_on"} & raw.keys():  # JSON carries them as lists
        raw[name] = tuple(raw[name])
    return ModelConfig(**raw)


def document_digest(doc_id: str) -> str:
    """The first eight hexadecimal digits of the SHA-256 of a document's id."""
    return hashlib.sha256(doc_id.encode()).hexdigest()[:8]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
