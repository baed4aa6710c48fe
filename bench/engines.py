"""Every engine with the shipped weights: speed, labels equal to fp32, what a batch's company changes.

    python bench/engines.py --documents 40 --rounds 5      # part of `make bench`
    python bench/engines.py --dev --rounds 1               # on the dev split, with macro-F1

Each engine runs in a process of its own (load time, memory); rounds are interleaved, so that ratios hold
on a machine that does other things too. Rows whose library is not installed say so: NNCF and
CTranslate2 are for this table alone (`pip install nncf ctranslate2`). Speed is in sentences a second,
with one stream and with two streams of one thread each; company is the largest change of a probability
between batches by length and batches of 32 in reading order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from council import dev_sentences, some_sentences
from rich.console import Console
from rich.table import Table

from communique.archive.labelling import archive_engine
from communique.model.artifact import load_artifact
from communique.model.classifier import decide, softmax
from communique.model.engine import Engine, Feed, Logits
from communique.model.labels import label_index
from communique.model.tokens import SentenceInput, SentenceTokenizer, TokenIds

# Platforms of the wheels on the package index, read there for onnxruntime 1.32.0, openvino 2026.4.1,
# ctranslate2 4.8.5 and torch 2.13.0.
ORT = "Linux x86-64 ARM64, macOS 14 ARM64, Windows x86-64 ARM64"
OPENVINO = "Linux x86-64 ARM64 (glibc 2.35), macOS 11 ARM64, Windows x86-64"
CT2 = "Linux x86-64 ARM64, macOS 11 both, Windows x86-64"
TORCH = "Linux x86-64 ARM64, macOS 14 ARM64, Windows x86-64"


def onnxruntime_fp32() -> type[Engine]:
    return Engine


def onnxruntime_int8_block() -> type[Engine]:
    """4-bit weights and, a scale for each token's groups of values, activations in int8."""

    class Blocks(Engine):
        _accuracy = "4"

        def _load(self, model: Path, threads: int, streams: int) -> set[str]:
            if b"DequantizeLinear" not in model.read_bytes():
                raise ValueError("the weights that ship are not in 4 bits")
            return super()._load(model, threads, streams)

    return Blocks


def onnxruntime_int8() -> type[Engine]:
    """Weights and, a scale a tensor, activations in int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Dynamic(Engine):
        def _load(self, model: Path, threads: int, streams: int) -> set[str]:
            with tempfile.TemporaryDirectory() as folder:
                small = Path(folder) / "int8.onnx"
                quantize_dynamic(plain(), small, weight_type=QuantType.QInt8, per_channel=True)
                return super()._load(small, threads, streams)

    return Dynamic


def plain() -> Path:
    """The shipped graph with weights in fp32, which `main` wrote."""
    return Path(os.environ["COMMUNIQUE_BENCH"]) / "plain.onnx"


def openvino(name: str) -> Callable[[], type[Engine]]:
    def make() -> type[Engine]:
        from communique.model import openvino_engine

        found: type[Engine] = getattr(openvino_engine, name)
        return found

    return make


def openvino_nncf() -> type[Engine]:
    """int8 throughout, calibrated on sentences of the benchmark; the rest in bf16."""
    import nncf

    from communique.model.openvino_engine import OpenVinoBf16Engine, core
    from communique.model.openvino_engine import openvino as library

    class Calibrated(OpenVinoBf16Engine):
        def _load(self, model: Path, threads: int, streams: int) -> set[str]:
            ov = library()
            path = Path(os.environ["COMMUNIQUE_BENCH"]) / "int8.xml"
            if not path.exists():  # calibrated once, for one stream and for two
                graph = core().read_model(str(plain()))
                data = nncf.Dataset(calibration_feeds())
                small = nncf.quantize(graph, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=50)
                ov.save_model(small, str(path), compress_to_fp16=False)
            return super()._load(path, threads, streams)

    return Calibrated


def calibration_feeds() -> list[Feed]:
    tokenizer = SentenceTokenizer.from_file(load_artifact().path("tokenizer.json"), load_artifact().config)
    encoded = tokenizer.encode(some_sentences(200)[1][:4000:80])
    return [feed([e], tokenizer.pad_id) for e in encoded]


def feed(batch: list[TokenIds], pad_id: int) -> Feed:
    longest = max(len(e.ids) for e in batch)
    ids = np.full((len(batch), longest), pad_id, dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, e in enumerate(batch):
        ids[row, : len(e.ids)], mask[row, : len(e.ids)] = e.ids, 1
        types[row, e.first_context : len(e.ids)] = 1
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return found if load_artifact().config.token_types else {k: found[k] for k in list(found)[:2]}


def ctranslate2(compute: str) -> Callable[[], type[Engine]]:
    def make() -> type[Engine]:
        import ctranslate2 as library

        from communique.archive.torch_engine import from_onnx

        class CTranslate2(Engine):
            def _load(self, model: Path, threads: int, streams: int) -> set[str]:
                whole = from_onnx(model)
                if not hasattr(whole, "bert"):
                    raise ValueError("written for BERT: its converter knows no pooled mpnet")
                self._weight = whole.classifier.weight.detach().numpy().T
                self._bias = whole.classifier.bias.detach().numpy()
                with tempfile.TemporaryDirectory() as folder:
                    whole.config.position_embedding_type = "absolute"  # the converter asks for it
                    whole.bert.save_pretrained(f"{folder}/bert")
                    tokenizer = model.with_name("tokenizer.json").read_bytes()
                    (Path(folder) / "bert" / "tokenizer.json").write_bytes(tokenizer)
                    library.converters.TransformersConverter(f"{folder}/bert").convert(f"{folder}/ct2")
                    settings: dict[str, Any] = {"inter_threads": streams, "intra_threads": threads}
                    self._encoder = library.Encoder(f"{folder}/ct2", compute_type=compute, **settings)
                return {"input_ids", "attention_mask", "token_type_ids"}

            def _forward(self, feed: Feed) -> Logits:
                lengths = feed["attention_mask"].sum(axis=1)
                ids = library.StorageView.from_array(feed["input_ids"].astype(np.int32))
                types = feed["token_type_ids"].tolist()
                lengths = library.StorageView.from_array(lengths.astype(np.int32))
                found = self._encoder.forward_batch(ids, lengths, token_type_ids=types)
                logits: Logits = np.array(found.pooler_output) @ self._weight + self._bias
                return logits

        return CTranslate2

    return make


def torch_bf16() -> type[Engine]:
    import torch

    class Bf16(archive_engine("torch")):  # type: ignore[misc]
        def _load(self, model: Path, threads: int, streams: int) -> set[str]:
            found: set[str] = super()._load(model, threads, streams)
            self._models = [(m.to(torch.bfloat16), device) for m, device in self._models]
            return found

    return Bf16


ENGINES: dict[str, tuple[Callable[[], type[Engine]], tuple[str, ...], str]] = {
    "onnxruntime fp32": (onnxruntime_fp32, ("onnxruntime",), ORT),
    "onnxruntime int8 by 128": (onnxruntime_int8_block, ("onnxruntime",), f"{ORT}; VNNI"),
    "onnxruntime int8 dynamic": (onnxruntime_int8, ("onnxruntime",), ORT),
    "openvino fp32": (openvino("OpenVinoEngine"), ("openvino",), OPENVINO),
    "openvino bf16": (openvino("OpenVinoBf16Engine"), ("openvino",), f"{OPENVINO}; AVX-512 BF16 or AMX"),
    "openvino int8 by 64": (openvino("OpenVinoInt8Engine"), ("openvino",), f"{OPENVINO}; VNNI"),
    "openvino int8 calibrated": (openvino_nncf, ("openvino", "nncf"), f"{OPENVINO}; VNNI"),
    "ctranslate2 fp32": (ctranslate2("float32"), ("ctranslate2",), CT2),
    "ctranslate2 int8": (ctranslate2("int8"), ("ctranslate2",), CT2),
    "torch bf16": (torch_bf16, ("torch", "transformers"), TORCH),
}


QUANTISED = {"onnxruntime int8 dynamic", "openvino int8 calibrated"}
"""Engines whose quantisers start from fp32 weights."""


def chosen_sentences(documents: int) -> tuple[str, list[SentenceInput], list[str]]:
    """What they are, sentences, and their labels where annotated; 0 documents for the dev split."""
    return (*some_sentences(documents), []) if documents else dev_sentences()


def write_plain(folder: str) -> None:
    from hf_model import plain_onnx

    plain_onnx(load_artifact(), Path(folder))


def serve(name: str, streams: int, documents: int, pipe: Connection) -> None:
    """An engine's process: answers with (load seconds, MB), then with seconds or probabilities."""
    artifact = load_artifact()
    tokenizer = SentenceTokenizer.from_file(artifact.path("tokenizer.json"), artifact.config)
    encoded = tokenizer.encode(chosen_sentences(documents)[1])
    start = time.perf_counter()
    try:
        made = ENGINES[name][0]()
        settings: dict[str, Any] = {"pad_id": tokenizer.pad_id, "token_types": artifact.config.token_types}
        engine = made(artifact.path("model.onnx"), threads=1, streams=streams, **settings)
        engine.logits(encoded[:8])
    except Exception as error:  # noqa: BLE001  a library that cannot is a row of the table
        pipe.send(f"{type(error).__name__}: {error}".split("\n")[0][:60])
        return
    pipe.send((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    pool = ThreadPoolExecutor(streams)
    while (order := pipe.recv()) != "end":
        start = time.perf_counter()
        if order == "speed":
            groups = list(engine.groups([len(e.ids) for e in encoded]))
            list(pool.map(lambda group: engine.logits([encoded[i] for i in group]), groups))
            pipe.send(time.perf_counter() - start)
            continue
        by_length = engine.logits(encoded)
        engine.budget = 10**9
        in_order = [engine.logits(encoded[i : i + 32]) for i in range(0, len(encoded), 32)]
        temperature = artifact.config.temperature
        pipe.send((softmax(by_length, temperature), softmax(np.concatenate(in_order), temperature)))


def installed_mb(packages: tuple[str, ...]) -> float:
    """Megabytes of the packages themselves, without what they depend on."""
    found = [path for package in packages for path in files(package) or []]
    return sum(Path(str(f.locate())).stat().st_size for f in found if Path(str(f.locate())).is_file()) / 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    texts = options.add_mutually_exclusive_group()
    texts.add_argument("--documents", type=int, default=40)
    texts.add_argument("--dev", action="store_const", dest="documents", const=0, help="the dev split")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", nargs="*", default=list(ENGINES), help="names of engines")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COMMUNIQUE_BENCH"] = folder
        if set(chosen.only) & QUANTISED:
            # In a process of its own: an engine's peak memory would begin at this one's.
            writer = multiprocessing.get_context("spawn").Process(target=write_plain, args=(folder,))
            writer.start()
            writer.join()
        measure(chosen)


def measure(chosen: argparse.Namespace) -> None:
    source, inputs, gold = chosen_sentences(chosen.documents)
    context = multiprocessing.get_context("spawn")
    pipes: dict[tuple[str, int], Connection] = {}
    loaded: dict[tuple[str, int], Any] = {}
    for name in chosen.only:
        for streams in (1, 2):
            here, there = context.Pipe()
            daemon = context.Process(target=serve, args=(name, streams, chosen.documents, there), daemon=True)
            daemon.start()
            there.close()  # so that an engine that dies is noticed
            pipes[name, streams], loaded[name, streams] = here, here.recv()
            print(f"{name}, {streams}: {loaded[name, streams]}", file=sys.stderr, flush=True)
    ready = [key for key, found in loaded.items() if not isinstance(found, str)]
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in ready}
    for _ in range(chosen.rounds):
        for key in ready:
            pipes[key].send("speed")
            seconds[key].append(pipes[key].recv())
    scores = {}
    for key in ready:
        if key[1] == 1:
            pipes[key].send("scores")
            scores[key[0]] = pipes[key].recv()
        pipes[key].send("end")
    report(source, len(inputs), gold, loaded, seconds, scores)


def report(source: str, sentences: int, gold: list[str], loaded: Any, seconds: Any, scores: Any) -> None:  # noqa: ANN401
    """The table; with macro-F1 of the four stances where there are annotations."""
    rule = load_artifact().config.rule
    console = Console(width=150)
    first = next(iter(scores))
    reference = decide(scores[first][0], **rule)
    table = Table(title=f"{load_artifact().version}: {sentences:,} sentences of {source}; equal to {first}")
    for column in ("engine", "1 stream", "2 streams", "x", "labels equal", "company"):
        table.add_column(column)
    truth = np.array([label_index(label) for label in gold])
    if gold:
        from communique.train.calibrate import Rule, macro_f1

        table.add_column("macro-F1")
    for column in ("load s", "peak MB", "installed MB", "wheels for"):
        table.add_column(column)
    base = statistics.median(seconds[first, 1])
    for name in dict.fromkeys(name for name, _ in loaded):
        if name not in scores:
            table.add_row(name, f"[dim]not run: {loaded[name, 1]}[/dim]")
            continue
        by_length, in_order = scores[name]
        labels = decide(by_length, **rule)
        one, two = (statistics.median(seconds[name, n]) for n in (1, 2))
        try:
            size = f"{installed_mb(ENGINES[name][1]):,.0f}"
        except PackageNotFoundError:
            size = "?"
        table.add_row(
            name,
            f"{sentences / one:,.1f}",
            f"{sentences / two:,.1f}",
            f"{base / one:.2f}",
            f"{np.mean([a == b for a, b in zip(labels, reference, strict=True)]):.2%}",
            f"{np.abs(by_length - in_order).max():.4f}",
            *([f"{macro_f1(truth, by_length, Rule(**rule)):.4f}"] if gold else []),
            f"{loaded[name, 1][0]:.1f}",
            f"{loaded[name, 1][1]:,.0f}",
            size,
            ENGINES[name][2],
        )
    console.print(table)


if __name__ == "__main__":
    main()
