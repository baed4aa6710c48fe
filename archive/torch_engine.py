"""The same batches through torch: bf16 on CUDA, several GPUs side by side; fp32 on a processor for tests.

    communique archive statements/ --out labelled --backend torch

Weights are those of the artefact's `model.onnx`, turned back to fp32 as the other engines do, never a
fp32 model that lies near it: one version, one set of weights, on every engine and every machine. Only the
forward pass differs: batches, order, repeats, shards and journal are those of the other engines.

The budget of a batch follows from the free memory of the smallest GPU, in powers of two so that it is
the same tomorrow; a batch that still does not fit is halved, again and again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from communique.model.artifact import ArtifactError
from communique.model.engine import Engine, Feed, Logits
from communique.model.errors import InputError

Fp32 = npt.NDArray[np.float32]

BYTES_A_TOKEN = 64 * 1024
"""Activations of one token in bf16 with room to spare: a 768-wide encoder needs some 40 KiB."""
LARGEST_BUDGET = 2**17
"""Tokens a batch beyond which no GPU gets faster."""


def torch_engine() -> type[Engine]:
    """The engine for CUDA where there is one, else the one for the processor.

    Raises:
        InputError: torch, transformers or onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("--backend torch needs torch: pip install 'communique[train]'") from None
    return TorchCudaEngine if torch.cuda.is_available() else TorchEngine


class TorchEngine(Engine):
    """fp32 on the processor."""

    name = "torch-fp32"

    def _load(self, model: Path, threads: int, streams: int) -> set[str]:
        import torch

        torch.set_num_threads(threads)
        self._models = [(from_onnx(model).eval(), torch.device("cpu"))]
        return self._prepare()

    def _prepare(self) -> set[str]:
        """Ready for streams; names of the model's inputs."""
        self._next = itertools.count()
        self._mine = threading.local()
        types = {"token_type_ids"} if self._models[0][0].config.model_type == "bert" else set()
        return {"input_ids", "attention_mask"} | types

    def _forward(self, feed: Feed) -> Logits:
        import torch

        if not hasattr(self._mine, "at"):  # each stream keeps to one device
            self._mine.at = next(self._next) % len(self._models)
        model, device = self._models[self._mine.at]

        def run(part: Feed) -> Logits:
            with torch.inference_mode():
                logits = model(**{k: torch.from_numpy(v).to(device) for k, v in part.items()}).logits
                out: Logits = logits.float().cpu().numpy()
                return out

        return backing_off(run, feed, torch.cuda.OutOfMemoryError)


class TorchCudaEngine(TorchEngine):
    """bf16 on every GPU of the machine, a stream each."""

    name = "torch-bf16-cuda"

    def _load(self, model: Path, threads: int, streams: int) -> set[str]:
        import torch

        self.streams = torch.cuda.device_count()
        devices = [torch.device("cuda", i) for i in range(self.streams)]
        self._models = [(from_onnx(model).eval().to(d, torch.bfloat16), d) for d in devices]
        self.budget = budget_for(min(torch.cuda.mem_get_info(d)[0] for d in devices))
        return self._prepare()


def budget_for(free: int) -> int:
    """Tokens a batch for so many bytes of free memory: a power of two, half of it kept in reserve."""
    most = max(1024, free // 2 // BYTES_A_TOKEN)
    return int(min(LARGEST_BUDGET, 2 ** (most.bit_length() - 1)))


def backing_off(run: Callable[[Feed], Logits], feed: Feed, error: type[BaseException]) -> Logits:
    """Run a batch; where memory does not suffice, its halves, and theirs.

    Raises:
        error: a single sentence does not fit.
    """
    rows = len(feed["input_ids"])
    try:
        return run(feed)
    except error:
        if rows == 1:
            raise
    half = rows // 2  # outside of the handler, so that the failed batch's memory is free again
    parts = ({k: v[:half] for k, v in feed.items()}, {k: v[half:] for k, v in feed.items()})
    return np.concatenate([backing_off(run, part, error) for part in parts])


def from_onnx(path: Path) -> Any:  # noqa: ANN401  a torch module
    """The sentence classifier of an exported graph in fp32: BERT's or mpnet's.

    Raises:
        ArtifactError: the graph is not one of these as `communique.train.export` writes it.
    """
    import torch

    weights, told = _weights(path)
    try:
        build = _mpnet if any(name.startswith("mpnet.") for name in weights) else _bert
        model = build(weights, told)
        model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    except (KeyError, RuntimeError, ZeroDivisionError) as error:
        raise ArtifactError(
            f"{path}: neither a BERT nor an mpnet that --backend torch can take over ({error}): "
            "use another backend"
        ) from None
    return model


def _bert(weights: dict[str, Fp32], told: dict[str, float]) -> Any:  # noqa: ANN401
    from transformers import BertConfig, BertForSequenceClassification

    shape = _shape(weights, told, "bert", "attention.self.query", "classifier")
    shape["num_attention_heads"] = shape["hidden_size"] // int(told["head"])
    shape["attn_implementation"] = "sdpa"  # transformers has no such attention for mpnet
    shape["type_vocab_size"] = len(weights["bert.embeddings.token_type_embeddings.weight"])
    return BertForSequenceClassification(BertConfig(**shape))


def _mpnet(weights: dict[str, Fp32], told: dict[str, float]) -> Any:  # noqa: ANN401
    from transformers import MPNetConfig, MPNetForSequenceClassification

    shape = _shape(weights, told, "mpnet", "attention.attn.q", "classifier.out_proj")
    buckets, heads = weights["mpnet.encoder.relative_attention_bias.weight"].shape
    shape |= {"num_attention_heads": heads, "relative_attention_num_buckets": buckets}
    return MPNetForSequenceClassification(MPNetConfig(**shape))


def _shape(
    weights: dict[str, Fp32], told: dict[str, float], family: str, query: str, head: str
) -> dict[str, Any]:
    """Settings of a model that both families have under the same names."""
    vocabulary, hidden = weights[f"{family}.embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": sum(name.endswith(f"{query}.weight") for name in weights),
        "intermediate_size": len(weights[f"{family}.encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(weights[f"{family}.embeddings.position_embeddings.weight"]),
        "num_labels": len(weights[f"{head}.bias"]),
        "layer_norm_eps": told["epsilon"],
    }


def _weights(path: Path) -> tuple[dict[str, Fp32], dict[str, float]]:
    """fp32 weights by their names in transformers, and what only the graph's nodes tell.

    These are `epsilon` of its layer norms and, of BERT, the width of an attention `head`.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    groups = {  # along which axis weights in 4 bits share a scale, and how many
        node.input[0].removesuffix("_int4"): {a.name: a.i for a in node.attribute}
        for node in graph.node
        if node.op_type == "DequantizeLinear"
    }
    for name in [n.removesuffix("_int8") for n in stored if n.endswith("_int8")]:
        stored[name] = stored.pop(f"{name}_int8").astype(np.float32) * stored.pop(f"{name}_scale")
    for name in [n.removesuffix("_int4") for n in stored if n.endswith("_int4")]:
        values, scale = stored.pop(f"{name}_int4"), stored.pop(f"{name}_scale").astype(np.float32)
        if name in groups:
            axis = groups[name]["axis"]
            stored[name] = values.astype(np.float32) * scale.repeat(groups[name]["block_size"], axis)
        else:  # a table to look up in: two values a byte, one of each half of a row
            whole = np.concatenate([values & 15, values >> 4], axis=1).astype(np.float32) - 8
            grouped = whole.reshape(len(whole), scale.shape[1], -1)
            stored[name] = (grouped * scale).reshape(whole.shape)
    found = {
        n.removeprefix("model."): w
        for n, w in stored.items()
        if n.startswith("model.") and n.endswith((".weight", ".bias"))
    }
    told: dict[str, float] = {}
    for node in graph.node:
        # The exporter loses the names of the matrices, not of the modules that multiply by them.
        matrix = node.input[1].removesuffix("_fp32") if len(node.input) > 1 else ""
        if node.op_type == "MatMul" and matrix in stored:
            module = node.name.strip("/").removesuffix("/MatMul").replace("/", ".").removeprefix("model.")
            found[f"{module}.weight"] = stored[matrix].T
        elif node.op_type == "Constant" and "layer.0/attention/self/" in node.output[0]:
            value = numpy_helper.to_array(node.attribute[0].t)
            if value.dtype == np.int64 and value.shape == (1,) and value[0] > 1:
                told["head"] = int(value[0])
        elif node.op_type == "LayerNormalization":
            # As it stands in a configuration: a float32 of 1e-12 is not quite that.
            told["epsilon"] = float(f"{next(a.f for a in node.attribute if a.name == 'epsilon'):.6g}")
    return found, told
