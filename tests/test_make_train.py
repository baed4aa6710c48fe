"""`make train`, with a small encoder and few steps: the commands are those of the Makefile."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.slow
def test_the_recipe_from_encoder_to_weights_in_four_bits(root, wide_encoder, tmp_path, monkeypatch):
    from communique.cli import app
    from communique.model.classifier import StanceClassifier

    if shutil.which("make") is None:
        pytest.skip("needs make")
    monkeypatch.setenv("COMMUNIQUE_SHARED", str(tmp_path / "nowhere"))  # the project's own statements alone
    dry = subprocess.run(
        ["make", "-n", "-W", "pyproject.toml", "train"], cwd=root, capture_output=True, text=True, check=True
    )
    lines = [line for line in dry.stdout.replace("\\\n", " ").splitlines() if "/communique train" in line]
    assert len(lines) == 2
    for line in lines:
        given = [part.replace("runs/", f"{tmp_path}/runs/") for part in shlex.split(line)[1:]]
        given = [str(wide_encoder) if part == "all-mpnet-base-v2" else part for part in given]
        if "shrink" in given:
            given += ["--vocabulary", "2000"]
        else:  # weights of a model that has hardly learnt anything do not survive being rounded afterwards
            given += ["--epochs", "0.1", "--frozen-layers", "1", "--grid-from", "0.5"]
            given += ["--threads", "1", "--max-tokens", "48"]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, (line, done.output, done.exception)
    folder = tmp_path / "runs" / "model" / "artifact"
    feed = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert feed["encoder"] == str(wide_encoder)  # the one that the chain began with
    assert feed["metrics"]["quantisation"] == {"f1_loss": 0.0, "flips": 0.0}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "stored as 4 bits, for which they were trained," in card and "before that" not in card
    assert "its lowest layers (1) not trained" in card
    classifier = StanceClassifier.load(folder)
    assert len(classifier.label_sentences(["The minister met the ambassador."])) == 1
