"""The model that ships as a Hugging Face pipeline: the same weights, for comparisons.

    from hf_model import pipeline_of
    pipe = pipeline_of(load_artifact())        # pipe("We urge Belmar to free the crew.")

The weights are read out of the ONNX graph (int8 values times their scales are what ONNX Runtime computes
with) into `BertForSequenceClassification`; a model of another family is refused.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from communique.model.artifact import Artifact

_HEADS = {384: 12, 768: 12, 1024: 16, 312: 12, 512: 8, 128: 2}
"""Attention heads of the usual BERT encoders, by hidden size: the graph does not name them."""


def state_dict(artifact: Artifact) -> dict[str, Any]:
    """PyTorch's names -> fp32 tensors, from the graph's initialisers."""
    import torch

    graph = onnx.load(str(artifact.path("model.onnx"))).graph
    raw = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    weights = {n: w for n, w in raw.items() if not n.endswith(("_int8", "_scale"))}
    for name, values in raw.items():
        if name.endswith("_int8"):
            stem = name.removesuffix("_int8")
            weights[stem] = values.astype(np.float32) * raw[f"{stem}_scale"]
    named = {n.removeprefix("model."): w for n, w in weights.items() if n.startswith("model.")}
    for node in graph.node:  # the exporter drops the names of matrices, but not of the layers that use them
        matrix = node.input[1].removesuffix("_fp32") if node.op_type == "MatMul" else ""
        if matrix in weights:
            layer = node.name.removeprefix("/model/").removesuffix("/MatMul").replace("/", ".")
            named[f"{layer}.weight"] = weights[matrix].T
    return {name: torch.tensor(np.ascontiguousarray(weight)) for name, weight in named.items()}


def pipeline_of(artifact: Artifact) -> Any:  # noqa: ANN401
    """A `text-classification` pipeline on the processor, cutting at the same length."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
        TextClassificationPipeline,
    )

    weights = state_dict(artifact)
    words = weights.get("bert.embeddings.word_embeddings.weight")
    if words is None:
        raise SystemExit(f"{artifact.config.encoder} is no BERT: the comparison is written for BERT encoders")
    layers = 1 + max(int(m[1]) for n in weights if (m := re.search(r"layer\.(\d+)\.", n)))
    config = BertConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=layers,
        num_attention_heads=_HEADS[words.shape[1]],
        intermediate_size=weights["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=weights["bert.embeddings.position_embeddings.weight"].shape[0],
        id2label=dict(enumerate(artifact.config.labels)),
        label2id={label: i for i, label in enumerate(artifact.config.labels)},
    )
    model = BertForSequenceClassification(config)
    model.load_state_dict(weights)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(artifact.path("tokenizer.json")),
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=artifact.config.max_tokens + 2,
    )
    return TextClassificationPipeline(model=model.eval(), tokenizer=tokenizer, device="cpu")
