"""The model that ships as a Hugging Face pipeline: the same weights, for comparisons.

    from hf_model import pipeline_of
    pipe = pipeline_of(load_artifact())        # pipe("We urge Belmar to free the crew.")

Weights come out of the artefact's graph as `--backend torch` takes them over: in fp32, as ONNX Runtime
computes with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from communique.archive.torch_engine import from_onnx
from communique.model.artifact import Artifact
from communique.model.tokens import SentenceTokenizer


def tokenizer_of(artifact: Artifact) -> Any:  # noqa: ANN401  a PreTrainedTokenizerFast
    """The artefact's tokenizer in the form of `transformers`, cutting at the same length."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    config = artifact.config
    backend = Tokenizer.from_file(str(artifact.path("tokenizer.json")))
    ids = SentenceTokenizer(backend, config)
    types = ["token_type_ids"] if config.token_types else []
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", *types, "attention_mask"],
        cls_token=backend.id_to_token(ids.cls_id),
        sep_token=backend.id_to_token(ids.sep_id),
        pad_token=backend.id_to_token(ids.pad_id),
        model_max_length=config.max_tokens + config.before_tokens + config.after_tokens + 3,
    )


def pipeline_of(artifact: Artifact) -> Any:  # noqa: ANN401
    """A `text-classification` pipeline in fp32 on the processor, all labels with their probabilities."""
    from transformers import pipeline

    model = from_onnx(artifact.path("model.onnx")).eval()
    model.config.id2label = dict(enumerate(artifact.config.labels))
    model.config.label2id = {label: i for i, label in enumerate(artifact.config.labels)}
    return pipeline(
        "text-classification",
        model=model,
        tokenizer=tokenizer_of(artifact),
        top_k=None,
        truncation=True,
        device="cpu",
    )


def plain_onnx(artifact: Artifact, folder: Path) -> Path:
    """The artefact's graph with its weights in fp32, for quantisers that know no other."""
    from communique.train.export import to_onnx

    from_onnx(artifact.path("model.onnx")).save_pretrained(folder / "plain")
    to_onnx(folder / "plain", folder / "plain.onnx")
    return folder / "plain.onnx"
