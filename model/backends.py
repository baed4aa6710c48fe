"""Which library runs the forward pass: the one rule by which an engine is chosen and opened.

    engine_class = choose("auto")             # the fastest that is installed
    engine = engine_class(artifact.path("model.onnx"), pad_id=0, token_types=True)

`engine_class.name` says what was chosen (`openvino-int8`), for records that must be the same tomorrow.
"""

from __future__ import annotations

from importlib.util import find_spec

from communique.model.engine import Engine
from communique.model.errors import InputError

BACKENDS = ("auto", "onnxruntime", "openvino", "torch")
"""`auto` is OpenVINO where it is installed and the processor has VNNI (int8) or bf16, else ONNX Runtime,
which always is there and in fp32 as fast (`make bench`)."""


def choose(backend: str) -> type[Engine]:
    """The engine's class.

    OpenVINO runs in int8 or bf16 where the processor has them, else in fp32.

    Raises:
        InputError: an unknown name, or a library that is not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"--backend {backend!r} is unknown: use one of {', '.join(BACKENDS)}")
    if backend == "torch":
        raise InputError("--backend torch is for `communique archive`")
    installed = find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise InputError("--backend openvino needs OpenVINO: pip install 'communique[fast]'")
    if backend == "onnxruntime" or not installed:
        return Engine
    from communique.model.openvino_engine import (
        OpenVinoBf16Engine,
        OpenVinoEngine,
        OpenVinoInt8Engine,
        has_bf16,
        has_vnni,
    )

    if has_vnni():
        return OpenVinoInt8Engine
    if has_bf16():
        return OpenVinoBf16Engine
    return OpenVinoEngine if backend == "openvino" else Engine
