"""Shared fixtures: the statement texts where they are at hand, and a toy model made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def shared_folder() -> Path | None:
    """The folder with the statement texts: COMMUNIQUE_SHARED, or `shared` beside the repository."""
    named = os.environ.get("COMMUNIQUE_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "corpus" / "statements.jsonl").is_file() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("needs the statement texts (set COMMUNIQUE_SHARED to the folder that holds corpus/)")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


TOY_WORDS = {
    "condemns": "position",
    "urges": "demand",
    "lifts": "concession",
    "agreed": "agreement",
    "met": "none",
}


def build_toy_model(folder: Path, **settings: object) -> Path:
    """A model folder whose label is decided by five known words: a table look-up, averaged."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    from communique.model.artifact import ModelConfig, write_manifest
    from communique.model.labels import LABELS, LABELS_VERSION, label_index

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TOY_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))

    table = np.zeros((len(vocabulary), len(LABELS)), dtype=np.float32)
    table[1:4, label_index("none")] = 0.2
    for word, label in TOY_WORDS.items():
        table[vocabulary[word], label_index(label)] = 60.0
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["rows", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "README.md").write_text("A toy for tests.\n")
    defaults: dict[str, object] = {
        "name": "toy",
        "encoder": "table",
        "labels": tuple(map(str, LABELS)),
        "labels_version": LABELS_VERSION,
        "max_tokens": 32,
        "before_tokens": 0,
        "after_tokens": 0,
        "temperature": 1.0,
        "threshold": 0.3,
        "token_types": False,
    }
    write_manifest(folder, ModelConfig(**(defaults | settings)))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_model(tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="session")
def weighing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model, a concession weighing twice: "lifts" beside "condemns" is a concession, not a tie."""
    weights = (1.0, 1.0, 2.0, 1.0, 1.0)
    return build_toy_model(tmp_path_factory.mktemp("weighing") / "model", label_weights=weights)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory, root):
    """A two-layer BERT with random weights and a vocabulary made from the project's own statements."""
    import json

    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    lines = (
        (root / "data" / "annotations" / "own_documents.jsonl")
        .read_text(encoding="utf-8")
        .strip()
        .split("\n")
    )
    words = BertWordPieceTokenizer()
    words.train_from_iterator(
        (json.loads(line)["text"] for line in lines), vocab_size=3000, show_progress=False
    )
    words.save(str(folder / "raw.json"))
    BertTokenizerFast(tokenizer_file=str(folder / "raw.json")).save_pretrained(folder)
    settings = BertConfig(
        vocab_size=3000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=256,
    )
    BertModel(settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def own(root):
    """The project's own statements as if they were the corpus: two thirds to learn from."""
    import dataclasses

    from communique.train.corpus import load_annotations

    annotations = load_annotations(root / "data" / "annotations")
    kept = [s for s in annotations.sentences if s.row.synthetic]
    documents = sorted({s.row.doc_id for s in kept})
    places = {d: ("train", "train", "train", "train", "dev", "test")[i % 6] for i, d in enumerate(documents)}
    real = tuple(
        dataclasses.replace(s, row=dataclasses.replace(s.row, synthetic=False, passes=2)) for s in kept
    )
    return dataclasses.replace(annotations, sentences=real, splits={"split": places})


@pytest.fixture(scope="session")
def wide_encoder(tiny_encoder, tmp_path_factory):
    """The tiny encoder's tokenizer over two layers that are wide enough for weights in 4 bits."""
    import shutil

    from transformers import AutoConfig, BertModel

    folder = tmp_path_factory.mktemp("wide")
    shutil.copytree(tiny_encoder, folder, dirs_exist_ok=True)
    BertModel(AutoConfig.from_pretrained(tiny_encoder, hidden_size=128)).save_pretrained(folder)
    return folder
