"""A model folder is whole, unaltered and of a known format, or it is refused in one line."""

import dataclasses
import json
import shutil

import pytest

from communique.model.artifact import ArtifactError, load_artifact


@pytest.fixture
def folder(toy_model, tmp_path):
    return shutil.copytree(toy_model, tmp_path / "model")


@pytest.fixture
def toy_config(toy_model):
    return load_artifact(toy_model).config


def test_a_whole_folder_loads(folder):
    artifact = load_artifact(folder)
    assert artifact.version.startswith("toy-")
    assert artifact.config.threshold == 0.3


def test_the_shipped_model_loads_and_is_small():
    artifact = load_artifact()
    assert sum(path.stat().st_size for path in artifact.folder.iterdir()) < 50_000_000


@pytest.mark.parametrize(
    "name", ["model.onnx", "tokenizer.json", "config.json", "README.md", "artifact.json"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json", "README.md"])
def test_an_altered_file_is_named(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ArtifactError, match=f"{name}: altered"):
        load_artifact(folder)


def rewrite(folder, **changes):
    manifest = json.loads((folder / "artifact.json").read_text())
    (folder / "artifact.json").write_text(json.dumps(manifest | changes))


def test_a_newer_format_asks_for_an_upgrade(folder):
    rewrite(folder, schema=99)
    with pytest.raises(ArtifactError, match="format 99.*upgrade"):
        load_artifact(folder)


@pytest.mark.parametrize("schema", [None, "1", 0])
def test_a_senseless_format_is_refused(folder, schema):
    rewrite(folder, schema=schema)
    with pytest.raises(ArtifactError, match="'schema'"):
        load_artifact(folder)


def test_a_broken_manifest_is_refused(folder):
    (folder / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        load_artifact(folder)


def test_no_folder(tmp_path):
    with pytest.raises(ArtifactError, match="no such model folder"):
        load_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"labels": ("for", "against")}, "labels"),
        ({"labels_version": "0"}, "version 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"threshold": 1.5}, "threshold"),
        ({"label_weights": (1.0, 1.0, 2.0)}, "label_weights must be 5 numbers above 0, below"),
        ({"label_weights": (1.0, 1.0, 0.0, 1.0, 1.0)}, "label_weights"),
        ({"max_tokens": 4}, "max_tokens"),
        ({"before_tokens": -1}, "before_tokens"),
    ],
)
def test_an_impossible_config_is_refused(toy_config, settings, words):
    with pytest.raises(ArtifactError, match=words):
        dataclasses.replace(toy_config, **settings)
