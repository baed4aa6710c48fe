"""torch -> ONNX -> int8 weights: the artefact that `communique label` loads.

    python -m communique.train.export runs/student model/weights     # what `communique train` does last

Weights are stored as int8, one scale an output channel (a row of the vocabulary), or in 4 bits where they
were trained for it, and are turned back into fp32 while the model loads. Activations stay fp32:
quantising them dynamically, per tensor, makes a sentence's label depend on the other sentences of its
batch, which a system that must say the same tomorrow cannot have. A quantised model is refused where it
falls behind its fp32 form on the dev split.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from communique.model.errors import InputError
from communique.train import grid

Fp32 = npt.NDArray[np.float32]

OPSET = 17
"""Old enough for every ONNX Runtime and OpenVINO that is still installed."""
OPSET_INT4, IR_INT4 = 21, 10
"""The first that know 4-bit values in groups; ONNX Runtime 1.18, OpenVINO 2024.5."""

MAX_F1_LOSS = 0.005
MAX_FLIPS = 0.01


class GateError(InputError):
    """A quantised model that is too far from its fp32 form."""


@dataclass(frozen=True)
class Gate:
    """What quantisation cost on the dev split."""

    f1_loss: float
    """Macro-F1 of the four labels, fp32 minus quantised."""
    flips: float
    """Share of sentences whose label changed."""

    def check(self) -> None:
        """Raise GateError where the loss is over 0.005 or more than 1 % of labels flip."""
        if self.f1_loss > MAX_F1_LOSS or self.flips > MAX_FLIPS:
            raise GateError(
                f"quantised model refused: macro-F1 falls by {self.f1_loss:.4f} (limit {MAX_F1_LOSS}), "
                f"{self.flips:.2%} of labels flip (limit {MAX_FLIPS:.0%}): train longer, or another encoder"
            )


def to_onnx(model_folder: Path, target: Path) -> None:
    """Write the fp32 graph of a saved `AutoModelForSequenceClassification`.

    Inputs `input_ids`, `attention_mask` and, for BERT, `token_type_ids`, each int64 (batch, tokens);
    output `logits`, float32 (batch, 5).
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32)

    class Logits(torch.nn.Module):
        """The model with positional inputs and one output, as the tracer wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> torch.Tensor:
            """Token ids (batch, tokens) -> logits (batch, labels)."""
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            out = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
            logits: torch.Tensor = out.logits
            return logits

    ids = torch.arange(24).reshape(2, 12) + 5
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if has_token_types(model.config.model_type):
        inputs["token_type_ids"] = torch.zeros_like(ids)
    axes = {name: {0: "batch", 1: "tokens"} for name in inputs} | {"logits": {0: "batch"}}
    with warnings.catch_warnings():
        # The tracer warns of shapes it takes as constant and of its own age; the gate compares the result.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits().eval(),
            tuple(inputs.values()),
            str(target),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def has_token_types(model_type: str) -> bool:
    """Whether an encoder family tells segments apart by token type."""
    return model_type in {"bert", "electra", "deberta-v2", "deberta", "albert"}


def quantise_weights(source: Path, target: Path, bits: int = 8) -> None:
    """Store a graph's large weights as int8, or in 4 bits (see `communique.train.grid`).

    A matrix (in, out) gets one int8 scale an output column; the embedding table one a row, and its rows
    are turned back only when they are looked up. Scales are max(|w|) / 127: symmetric, so no zero points.
    """
    matrix, gather = (_matrix_int8, _gather_int8) if bits == 8 else (_matrix_int4, _gather_int4)
    model = onnx.load(str(source))
    graph = model.graph
    weights = {i.name: i for i in graph.initializer if i.data_type == TensorProto.FLOAT}
    fresh: list[onnx.NodeProto] = []
    done: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type == "Gather" and _large(weights.get(node.input[0]), bits, 1):
            fresh += gather(graph, node, weights[node.input[0]])
            graph.node.remove(node)
        elif node.op_type in ("MatMul", "Gemm"):
            name = node.input[1]
            outputs = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
            if not _large(weights.get(name), bits, 1 - outputs):
                continue
            if name not in done:
                nodes, done[name] = matrix(graph, weights[name], axis=outputs)
                fresh += nodes
            node.input[1] = done[name]
    used = {name for node in [*graph.node, *fresh] for name in node.input}
    for initialiser in list(graph.initializer):
        if initialiser.name not in used:
            graph.initializer.remove(initialiser)
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend(
        _sorted([*fresh, *body], {i.name for i in graph.initializer} | {i.name for i in graph.input})
    )
    if bits == 4:
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid("", OPSET_INT4))
        model.ir_version = max(model.ir_version, IR_INT4)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _large(tensor: onnx.TensorProto | None, bits: int, axis: int) -> bool:
    """Whether a weight is stored small; `axis` is the one along which values are summed up."""
    if tensor is None or len(tensor.dims) != 2:
        return False
    return grid.fits(list(tensor.dims), axis) if bits == 4 else int(np.prod(tensor.dims)) >= grid.SMALLEST


def _to_int8(weight: Fp32, axis: int) -> tuple[npt.NDArray[np.int8], Fp32]:
    """int8 values and scales, kept dimension, one scale for each index of `axis`."""
    peak = np.abs(weight).max(axis=1 - axis, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def _matrix_int8(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, axis: int
) -> tuple[list[onnx.NodeProto], str]:
    values, scale = _to_int8(numpy_helper.to_array(tensor), axis)
    name = tensor.name
    _add(graph, f"{name}_int8", values)
    _add(graph, f"{name}_scale", scale)
    # Cast and Mul of constants are folded when the session is made: the run itself sees plain fp32.
    nodes = [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [f"{name}_fp32"]),
    ]
    return nodes, f"{name}_fp32"


def _gather_int8(
    graph: onnx.GraphProto, node: onnx.NodeProto, tensor: onnx.TensorProto
) -> list[onnx.NodeProto]:
    name, out = tensor.name, node.output[0]
    values, scale = _to_int8(numpy_helper.to_array(tensor), 0)
    _add(graph, f"{name}_int8", values)
    _add(graph, f"{name}_scale", scale)
    return [
        helper.make_node("Gather", [f"{name}_int8", node.input[1]], [f"{out}_rows"], axis=0),
        helper.make_node("Gather", [f"{name}_scale", node.input[1]], [f"{out}_scales"], axis=0),
        helper.make_node("Cast", [f"{out}_rows"], [f"{out}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_cast", f"{out}_scales"], [out]),
    ]


def _matrix_int4(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, axis: int
) -> tuple[list[onnx.NodeProto], str]:
    """`axis` is that of the outputs; groups run along the other."""
    name, inner = tensor.name, 1 - axis
    values, scale = grid.four_bits(numpy_helper.to_array(tensor), inner)
    _add(graph, f"{name}_int4", values.astype(ml_dtypes.int4))
    _add(graph, f"{name}_scale", scale)
    # Engines keep such weights in 4 bits and turn them back as they multiply.
    nodes = [
        helper.make_node("Cast", [f"{name}_scale"], [f"{name}_scale32"], to=TensorProto.FLOAT),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}_int4", f"{name}_scale32"],
            [f"{name}_fp32"],
            axis=inner,
            block_size=grid.GROUP,
        ),
    ]
    return nodes, f"{name}_fp32"


def _gather_int4(
    graph: onnx.GraphProto, node: onnx.NodeProto, tensor: onnx.TensorProto
) -> list[onnx.NodeProto]:
    """Two values lie in a byte, one of each half of a row: rows of 4-bit values cannot be looked up."""
    name, out = tensor.name, node.output[0]
    values, scale = grid.four_bits(numpy_helper.to_array(tensor), 1)
    low, high = np.split((values + 8).astype(np.uint8), 2, axis=1)
    _add(graph, f"{name}_int4", (low + 16 * high).astype(np.uint8))
    _add(graph, f"{name}_scale", np.expand_dims(scale, 2))
    _add(graph, "sixteen", np.array(16, dtype=np.int32))
    _add(graph, "eight", np.array(8, dtype=np.int32))
    _add(graph, f"{name}_groups", np.array([0, 0, -1, grid.GROUP], dtype=np.int64))
    _add(graph, f"{name}_shape", np.array([0, 0, tensor.dims[1]], dtype=np.int64))
    return [
        helper.make_node("Gather", [f"{name}_int4", node.input[1]], [f"{out}_rows"], axis=0),
        helper.make_node("Gather", [f"{name}_scale", node.input[1]], [f"{out}_scales"], axis=0),
        helper.make_node("Cast", [f"{out}_scales"], [f"{out}_scales32"], to=TensorProto.FLOAT),
        # OpenVINO shifts bytes in a wider type, so the halves are had by division.
        helper.make_node("Cast", [f"{out}_rows"], [f"{out}_bytes"], to=TensorProto.INT32),
        helper.make_node("Div", [f"{out}_bytes", "sixteen"], [f"{out}_high"]),
        helper.make_node("Mul", [f"{out}_high", "sixteen"], [f"{out}_above"]),
        helper.make_node("Sub", [f"{out}_bytes", f"{out}_above"], [f"{out}_low"]),
        helper.make_node("Concat", [f"{out}_low", f"{out}_high"], [f"{out}_nibbles"], axis=-1),
        helper.make_node("Sub", [f"{out}_nibbles", "eight"], [f"{out}_signed"]),
        helper.make_node("Cast", [f"{out}_signed"], [f"{out}_values"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [f"{out}_values", f"{name}_groups"], [f"{out}_grouped"]),
        helper.make_node("Mul", [f"{out}_grouped", f"{out}_scales32"], [f"{out}_scaled"]),
        helper.make_node("Reshape", [f"{out}_scaled", f"{name}_shape"], [out]),
    ]


def _add(graph: onnx.GraphProto, name: str, array: npt.NDArray[Any]) -> None:
    """An initialiser, once a name."""
    if not any(i.name == name for i in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _sorted(nodes: Sequence[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Nodes in an order in which every input exists before it is read."""
    known = known | {""}
    ordered: list[onnx.NodeProto] = []
    waiting = list(nodes)
    while waiting:
        ready = [n for n in waiting if all(i in known for i in n.input)]
        if not ready:
            raise ValueError("the graph has a cycle or reads a tensor that nothing writes")
        for node in ready:
            known.update(node.output)
        ordered += ready
        taken = {id(n) for n in ready}
        waiting = [n for n in waiting if id(n) not in taken]
    return ordered
