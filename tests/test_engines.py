"""Engines differ in the forward pass alone: the same labels, the same order, chosen by one rule."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from communique.archive.labelling import archive_engine
from communique.archive.torch_engine import backing_off, budget_for
from communique.model import backends
from communique.model.artifact import ArtifactError, load_artifact
from communique.model.backends import choose
from communique.model.classifier import StanceClassifier
from communique.model.engine import Engine
from communique.model.errors import InputError
from communique.model.tokens import SentenceInput, SentenceTokenizer

NEAR = 0.12
"""bf16 and int8 keep eight bits: what they may move logits by on average, of a dozen from least to most."""
WORDS = "The envoy of Belmar urges both sides to open the port and welcomes the talks"


def sentences(count):
    rng = random.Random(4)
    return [
        SentenceInput(" ".join(rng.choices(WORDS.split(), k=rng.randint(3, 60))) + ".", "It met on Monday.")
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def encoded():
    artifact = load_artifact()
    tokenizer = SentenceTokenizer.from_file(artifact.path("tokenizer.json"), artifact.config)
    return tokenizer.encode(sentences(24)), tokenizer.pad_id


@pytest.fixture(scope="module")
def reference(encoded):
    return logits(Engine, encoded)


def logits(kind, encoded, **settings):
    model = load_artifact().path("model.onnx")
    return kind(model, pad_id=encoded[1], token_types=True, threads=1, **settings).logits(encoded[0])


def test_openvino_in_fp32_is_onnxruntime(encoded, reference):
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    from communique.model.openvino_engine import OpenVinoEngine

    assert np.abs(logits(OpenVinoEngine, encoded) - reference).max() < 1e-3


def test_openvino_by_default_gives_the_same_labels(encoded, reference):
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    kind = choose("openvino")
    assert kind.name.startswith("openvino")
    found = logits(kind, encoded, streams=2, token_budget=512)
    assert np.abs(found - reference).mean() < NEAR
    sure = np.diff(np.sort(reference, axis=1)[:, -2:], axis=1)[:, 0] > 0.6
    assert sure.sum() >= 12
    assert (found.argmax(axis=1) == reference.argmax(axis=1))[sure].all()


@pytest.mark.parametrize(
    "flags, bf16, auto, openvino",
    [
        ({"avx512_vnni", "avx512_bf16"}, True, "openvino-int8", "openvino-int8"),
        ({"avx_vnni"}, False, "onnxruntime-fp32", "openvino-fp32"),
        ({"avx512_vnni", "amx_bf16"}, True, "openvino-bf16", "openvino-bf16"),
        (set(), True, "openvino-bf16", "openvino-bf16"),
        ({"avx2"}, False, "onnxruntime-fp32", "openvino-fp32"),
    ],
)
def test_auto_takes_openvino_where_it_is_faster(monkeypatch, flags, bf16, auto, openvino):
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    monkeypatch.setattr("communique.model.openvino_engine.processor_flags", lambda: flags)
    monkeypatch.setattr("communique.model.openvino_engine.has_bf16", lambda: bf16)
    assert choose("auto").name == auto
    assert choose("openvino").name == openvino


@pytest.mark.parametrize(
    "vendor, flags, bf16",
    [
        ("AuthenticAMD", "avx512_bf16", True),
        ("GenuineIntel", "avx512_bf16", False),
        ("GenuineIntel", "avx512_bf16 amx_bf16", True),
        ("GenuineIntel", "avx2", False),
    ],
)
def test_training_takes_bf16_where_it_is_faster(monkeypatch, vendor, flags, bf16):
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    from communique.train.config import TrainConfig
    from communique.train.fit import use_bf16

    said = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: said)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert use_bf16(TrainConfig()) is bf16
    assert not use_bf16(TrainConfig(precision="fp32"))


def test_bf16_changes_little(encoded, reference):
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    from communique.model.openvino_engine import OpenVinoBf16Engine, core

    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor multiplies no bf16")
    assert np.abs(logits(OpenVinoBf16Engine, encoded) - reference).max() < 0.3  # it keeps eight bits


def test_integers_change_little_and_a_batchs_company_nothing(encoded, reference):
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    from communique.model.openvino_engine import OpenVinoInt8Engine, has_vnni

    if not has_vnni():
        pytest.skip("the processor has no AVX-512 VNNI")
    alone = logits(OpenVinoInt8Engine, encoded, token_budget=1)
    together = logits(OpenVinoInt8Engine, encoded, token_budget=2048)
    assert np.abs(together - reference).mean() < NEAR
    assert (together == alone).all()


def test_without_the_newer_instructions_openvino_says_what_onnxruntime_says(encoded, reference, tmp_path):
    """What it falls back to, with those instructions switched off."""
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    import os
    import pickle
    import subprocess

    (tmp_path / "encoded").write_bytes(pickle.dumps(encoded))
    code = (
        "import pathlib, pickle, sys, numpy;"
        "from communique.model import openvino_engine;"
        "from communique.model.artifact import load_artifact;"
        "from communique.model.backends import choose;"
        "openvino_engine.processor_flags = openvino_engine.has_bf16 = lambda: set();"
        "rows, pad = pickle.loads(pathlib.Path(sys.argv[1], 'encoded').read_bytes());"
        "model = load_artifact().path('model.onnx');"
        "kind = choose('openvino');"
        "found = kind(model, pad_id=pad, token_types=True, threads=1).logits(rows);"
        "numpy.save(pathlib.Path(sys.argv[1], 'found.npy'), found)"
    )
    older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.check_call([sys.executable, "-c", code, str(tmp_path)], env=older)
    assert np.abs(np.load(tmp_path / "found.npy") - reference).max() < 1e-3


def test_openvino_comes_without_its_telemetry():
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    import subprocess

    code = (
        "import sys; from communique.model.openvino_engine import core; core();"
        "print([m for m in sys.modules if 'telemetry' in m or m == 'openvino.tools.ovc'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_ctrl_c_is_heard_after_two_engines_that_overlapped():
    """OpenVINO gives its thread a stack for signals; of two, the one left must not be freed."""
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    import subprocess

    code = (
        "import signal\n"
        "from communique.model.artifact import load_artifact\n"
        "from communique.model.openvino_engine import OpenVinoEngine\n"
        "model = load_artifact().path('model.onnx')\n"
        "load = lambda: OpenVinoEngine(model, pad_id=0, token_types=False, threads=1)\n"
        "first = load()\nsecond = load()\ndel first, second\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('heard')\n"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_torch_takes_over_the_shipped_weights(encoded, reference):
    pytest.importorskip("transformers", reason="needs the extra 'train'")
    kind = archive_engine("torch")
    if kind.name == "torch-fp32":
        assert np.abs(logits(kind, encoded) - reference).max() < 1e-3
    from communique.archive.torch_engine import TorchEngine

    assert np.abs(logits(TorchEngine, encoded) - reference).max() < 1e-3


def test_torch_takes_the_weights_that_the_artefact_hashes_not_a_training_near_it(
    encoded, reference, tmp_path
):
    pytest.importorskip("transformers", reason="needs the extra 'train'")
    import shutil

    import torch

    from communique.archive.torch_engine import TorchEngine, from_onnx

    shutil.copytree(load_artifact().folder, tmp_path / "artifact")
    trained = from_onnx(load_artifact().path("model.onnx"))
    with torch.no_grad():
        for parameter in trained.classifier.parameters():
            parameter += 1.0  # so that it shows which of the two was loaded
    trained.save_pretrained(tmp_path)
    engine = TorchEngine(tmp_path / "artifact" / "model.onnx", pad_id=encoded[1], token_types=True, threads=1)
    assert np.abs(engine.logits(encoded[0]) - reference).max() < 1e-3


def test_torch_refuses_another_graph(toy_model):
    pytest.importorskip("transformers", reason="needs the extra 'train'")
    from communique.archive.torch_engine import from_onnx

    with pytest.raises(ArtifactError, match="neither a BERT nor an mpnet that --backend torch can take over"):
        from_onnx(toy_model / "model.onnx")


def test_a_batch_that_does_not_fit_is_halved():
    sizes = []

    def run(feed):
        rows = len(feed["input_ids"])
        sizes.append(rows)
        if rows > 3:
            raise MemoryError
        return feed["input_ids"][:, :1].astype(np.float32)

    feed = {"input_ids": np.arange(22).reshape(11, 2)}
    assert backing_off(run, feed, MemoryError)[:, 0].tolist() == list(range(0, 22, 2))
    assert max(sizes) == 11 and sizes[-1] <= 3

    def never(feed):
        raise MemoryError

    with pytest.raises(MemoryError):
        backing_off(never, feed, MemoryError)


def test_the_budget_follows_the_free_memory():
    gigabyte = 2**30
    budgets = [budget_for(n * gigabyte) for n in (0, 1, 8, 9, 80)]
    assert budgets == [1024, 8192, 65536, 65536, 131072]


def test_the_choice(monkeypatch):
    with pytest.raises(InputError, match="'tensorrt' is unknown: use one of auto, onnxruntime"):
        choose("tensorrt")
    with pytest.raises(InputError, match="for `communique archive`"):
        choose("torch")
    assert choose("onnxruntime") is Engine
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert choose("auto") is Engine
    with pytest.raises(InputError, match=r"pip install 'communique\[fast\]'"):
        choose("openvino")


def test_a_classifier_takes_a_backend():
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    classifier = StanceClassifier(load_artifact(), threads=1, backend="openvino")
    assert [str(p.label) for p in classifier.label("We urge Belmar to free the crew.")] == ["demand"]
