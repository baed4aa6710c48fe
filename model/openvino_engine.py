"""The same batches through OpenVINO: int8 or bf16 multiplications where the processor has them.

    pip install 'communique[fast]'
    engine = OpenVinoInt8Engine(artifact.path("model.onnx"), pad_id=0, token_types=True, threads=1, streams=2)

Weights in 4 bits stay so in memory. With VNNI each token's activations are rounded to int8, one scale for
64 of them, and multiplied by the 4-bit weights as integers; all else stays in fp32. The error is that of bf16
(`make bench`). A token's scales are its own and batches are filled to whole vectors, so that what stands
beside a sentence in a batch changes not one bit: an instruction of AVX-512 works on 16 fp32 values, and sums
over tokens and filler up to a multiple of that are the same whatever the batch's length, sums over a rest are
not.
"""

from __future__ import annotations

import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from communique.model.artifact import ArtifactError
from communique.model.engine import FILLED, Engine, Feed, Logits, processor_flags, slow_bf16

SHAPES = 64
"""Compiled kernels kept, by shape of the batch: thousands would be, hundreds of megabytes, 2 % faster."""
_CONVERTER = "openvino.tools.ovc"
"""Converter of training frameworks' models: not needed, and the part that reports use to its makers."""


def openvino() -> ModuleType:
    """The library, imported without its converter and telemetry.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    blocked = _CONVERTER not in sys.modules
    if blocked:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # makes its import fail, which is handled
    try:
        ov: ModuleType = import_module("openvino")
    finally:
        if blocked:
            del sys.modules[_CONVERTER]
    return ov


@cache
def core() -> Any:  # noqa: ANN401  openvino.Core
    """The one `openvino.Core` of this process, kept as long as it lives.

    The first to load a device gives its thread a stack for signals and the last to go takes it away; of two
    that overlap, the thread is left with the stack of the first, freed: the next Ctrl-C would crash Python.
    """
    return openvino().Core()


def has_vnni() -> bool:
    """Whether int8 is the fastest: VNNI, but no AMX, which multiplies bf16 faster than VNNI does int8.

    Only the AVX-512 form counts: OpenVINO's kernels for the other were not at hand to be tried.
    """
    flags = processor_flags()
    return "avx512_vnni" in flags and "amx_bf16" not in flags


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 (AVX-512 BF16, AMX) faster than fp32."""
    return not slow_bf16() and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine(Engine):
    """fp32 anywhere."""

    name = "openvino-fp32"
    _precision = "f32"
    _group = 0
    """Activations of a token that share one int8 scale; 0 leaves them as they are."""

    def _load(self, model: Path, threads: int, streams: int) -> set[str]:
        ov = openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self._group,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads * streams,
            "ENABLE_CPU_PINNING": False,  # the machine may be shared
            "CPU_RUNTIME_CACHE_CAPACITY": SHAPES,
        }
        try:
            graph = core().read_model(str(model))
            if self._group:
                _turn(ov, graph)
            _fold(ov, graph)
            self._compiled = core().compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise ArtifactError(f"{model}: OpenVINO cannot load it: {error}") from error
        self._mine = threading.local()
        return {name for port in self._compiled.inputs for name in port.names}

    def _forward(self, feed: Feed) -> Logits:
        if not hasattr(self._mine, "request"):  # one a thread: a request holds its own buffers
            self._mine.request = self._compiled.create_infer_request()
        result = self._mine.request.infer(feed, share_inputs=True)
        return np.array(result["logits"], dtype=np.float32)


class OpenVinoBf16Engine(OpenVinoEngine):
    """bf16 multiplications, fp32 sums; for processors that have them."""

    name = "openvino-bf16"
    _precision = "bf16"
    _multiple = FILLED


class OpenVinoInt8Engine(OpenVinoEngine):
    """Integer products of 4-bit weights and int8 activations, fp32 for the rest; for processors with VNNI."""

    name = "openvino-int8"
    # 128 a scale is 10 % faster and flips more labels; bf16 for the rest another 10 %, and a batch's company
    # then moves probabilities.
    _group = 64
    _multiple = FILLED
    budget = 384  # 5 % faster than 1,024, and what stands in a batch changes nothing


def _turn(ov: ModuleType, graph: Any) -> None:  # noqa: ANN401  openvino.Model
    """Lay out small weights as OpenVINO's integer kernels want them: (outputs, groups, inputs), unsigned.

    Signed weights of shape (inputs, outputs), as ONNX has them, would be multiplied in floats.
    """
    ops = ov.opset13
    for node in graph.get_ordered_ops():
        found = _small(node)
        if found is None:
            continue
        weight, scales, bits = found  # (inputs, outputs), (groups, outputs)
        inputs, outputs = weight.shape
        shape = [outputs, len(scales), inputs // len(scales)]
        middle = 2 ** (bits - 1)
        flat = (weight.T.reshape(-1).astype(np.int16) + middle).astype(np.uint8)
        zero = np.full(outputs * len(scales), middle, dtype=np.uint8)
        floats = (
            ops.convert(_unsigned(ov, values, shape, bits), "f32")
            for values, shape in ((flat, shape), (zero, [*shape[:2], 1]))
        )
        scaled = ops.multiply(ops.subtract(*floats), ops.constant(np.ascontiguousarray(scales.T[:, :, None])))
        whole = ops.reshape(scaled, ops.constant(np.array([outputs, inputs])), special_zero=False)
        node.output(0).replace(ops.matmul(node.input_value(0), whole, False, True).output(0))
    graph.validate_nodes_and_infer_types()


def _unsigned(ov: ModuleType, values: Any, shape: list[int], bits: int) -> Any:  # noqa: ANN401  openvino.Node
    """A constant of numbers in 4 or 8 bits; the tensor owns its memory, unlike one made of an array."""
    stored = ov.Tensor(ov.Type.u4 if bits == 4 else ov.Type.u8, ov.Shape(shape))
    if bits == 4:
        values = np.append(values, np.zeros(len(values) % 2, dtype=np.uint8))
        values = values[0::2] | values[1::2] << 4
    stored.data.reshape(-1)[:] = values
    return ov.op.Constant(stored)


def _small(node: Any) -> tuple[Any, Any, int] | None:  # noqa: ANN401  openvino.Node
    """A product's weights (inputs, outputs) in int8, scales (groups, outputs) and bits; None if in floats.

    Patterns are what OpenVINO reads the weights of `communique.train.export` as: in 4 bits
    reshape(cast(weights) * cast(scales)), in 8 bits cast(weights) * scales.
    """
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_b"]:
        return None
    product = _above(node, 1, "Multiply")
    if product is not None:
        stored, scales = _above(product, 0, "Convert", "Constant"), _above(product, 1, "Constant")
        if stored is None or scales is None or stored.get_element_type().get_type_name() != "i8":
            return None
        weight = np.array(stored.data, dtype=np.int8)
        row = np.asarray(scales.data, dtype=np.float32).reshape(-1)
        return (weight, row[None], 8) if len(row) == weight.shape[1] else None
    product = _above(node, 1, "Reshape", "Multiply")
    for side in (0, 1) if product is not None else ():
        stored = _above(product, side, "Convert", "Reshape", "Constant")
        scales = _above(product, 1 - side, "Unsqueeze", "Convert", "Constant")
        if stored is not None and scales is not None and stored.get_element_type().get_type_name() == "i4":
            packed = np.asarray(stored.data).reshape(-1).view(np.uint8)
            weight = np.empty(2 * packed.size, dtype=np.int8)
            weight[0::2], weight[1::2] = packed & 15, packed >> 4
            weight[weight > 7] -= 16
            return weight.reshape(tuple(stored.shape)), np.asarray(scales.data, dtype=np.float32), 4
    return None


def _above(node: Any, port: int, *kinds: str) -> Any:  # noqa: ANN401  openvino.Node
    """What lies over an input: a chain of first inputs of these kinds, its last; None if another."""
    for kind in kinds:
        node, port = node.input_value(port).get_node(), 0
        if node.get_type_name() != kind:
            return None
    return node


def _fold(ov: ModuleType, graph: Any) -> None:  # noqa: ANN401  openvino.Model
    """Replace int8 constant -> float -> times scale by the product."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Multiply":
            continue
        cast, scale = (node.input_value(i).get_node() for i in (0, 1))
        if cast.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
            continue
        stored = cast.input_value(0).get_node()
        if stored.get_type_name() == "Constant":
            product = stored.data.astype(np.float32) * scale.data
            node.output(0).replace(ov.opset8.constant(product).output(0))
