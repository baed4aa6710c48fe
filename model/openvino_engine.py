"""The same batches through OpenVINO: twice the speed of fp32 where the processor multiplies bf16.

    pip install 'communique[fast]'
    engine = OpenVinoEngine(artifact.path("model.onnx"), pad_id=0, token_types=True, threads=1, streams=2)

int8 weights of the file are turned back to fp32 before the model is compiled; weights in 4 bits stay so in
memory. OpenVINO would otherwise also quantise activations on the fly, which moves probabilities by up to
0.07 (`make bench`); `OpenVinoInt8Engine` lets it, with one scale a token, and is there to be measured.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from communique.model.artifact import ArtifactError
from communique.model.engine import Engine, Feed, Logits

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


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 (AVX-512 BF16, AMX), so that it is faster than fp32."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine(Engine):
    """fp32 anywhere."""

    name = "openvino-fp32"
    _precision = "f32"
    _group = 0
    """Activations that share one int8 scale; 0 leaves them as they are."""

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
            core = ov.Core()
            graph = core.read_model(str(model))
            if not self._group:
                _fold(ov, graph)
            self._compiled = core.compile_model(graph, "CPU", settings)
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


class OpenVinoInt8Engine(OpenVinoEngine):
    """int8 weights and, one scale for each token and 384 values, int8 activations."""

    name = "openvino-int8"
    _precision = "bf16"
    _group = 384


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
