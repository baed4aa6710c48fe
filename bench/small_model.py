"""A tiny model with random weights: an archive run with next to no forward pass.

    python bench/small_model.py FOLDER      # with the shipped model's tokenizer and context

With it a million sentences take minutes, so that memory and time of all but the forward pass can be seen to
grow as they should. Its labels mean nothing.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

from communique.model.artifact import load_artifact, write_manifest
from communique.train.export import to_onnx


def small_model(folder: Path) -> None:
    """One layer of 32 numbers a token."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification, set_seed

    artifact = load_artifact()
    folder.mkdir(parents=True)
    shutil.copyfile(artifact.path("tokenizer.json"), folder / "tokenizer.json")
    (folder / "README.md").write_text("Random weights, for benches.\n", encoding="utf-8")
    set_seed(6)
    shape = BertConfig(
        vocab_size=Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=32,
        num_labels=len(artifact.config.labels),
    )
    BertForSequenceClassification(shape).save_pretrained(folder / "torch")
    to_onnx(folder / "torch", folder / "model.onnx")
    shutil.rmtree(folder / "torch")
    config = artifact.config
    own = {"name": "small", "encoder": "random", "token_types": True, "metrics": {}, "trained_on": ()}
    write_manifest(folder, dataclasses.replace(config, **own))


if __name__ == "__main__":
    small_model(Path(sys.argv[1]))
