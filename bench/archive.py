"""An archive end to end: read zip, cut, tokenise, label, write Parquet, against the obvious script.

    python bench/archive.py --documents 60 --rounds 5      # part of `make bench`; --all for the whole zip

The obvious script reads the same zip, cuts the same sentences, and gives them with their neighbours to
the Hugging Face pipeline (torch fp32, the shipped weights turned back to fp32, `batch_size=32`), then
writes Parquet. "Naive" is the same script with one of our engines, one pass of all threads, batches of
32 in reading order. All are whole processes, interleaved; ratios are of medians, load times included.

Then, ours alone: one core and two, half of the sentences repeated, the share of the wall time in which
no forward pass runs, and time and memory as the archive grows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from council import council_zip, cut, sample, texts
from rich.console import Console
from rich.table import Table

from communique.archive.labelling import archive_engine
from communique.archive.run import Options, run_archive
from communique.model.artifact import load_artifact
from communique.model.classifier import StanceClassifier, decide
from communique.model.engine import Engine, Feed, Logits, available_cores

CONSOLE = Console(width=120)


# --- what runs in a process of its own: python bench/archive.py --job NAME SOURCE OUT SETTINGS ----------


def ours(
    source: Path, out: Path, *, backend: str = "auto", cores: int = 0, model: str | None = None
) -> dict[str, Any]:
    """`communique archive`, timing what runs beside the forward passes."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    clock = Busy()
    kind = archive_engine(backend)
    forward = kind._forward
    kind._forward = lambda self, feed: clock.timed(forward, self, feed)  # type: ignore[method-assign]
    start = time.perf_counter()
    summary = run_archive(
        [str(source)], out, Options(), model=Path(model) if model else None, backend=backend
    ).summary
    wall = time.perf_counter() - start
    return {"sentences": summary["sentences"], "beside": 1 - clock.seconds / wall}


class Busy:
    """Seconds in which at least one forward pass was running."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = 0
        self._since = 0.0
        self._lock = threading.Lock()

    def timed(self, call: Callable[[Engine, Feed], Logits], engine: Engine, feed: Feed) -> Logits:
        self._change(+1)
        try:
            return call(engine, feed)
        finally:
            self._change(-1)

    def _change(self, step: int) -> None:
        with self._lock:
            now = time.perf_counter()
            if self._running:
                self.seconds += now - self._since
            self._running, self._since = self._running + step, now


def obvious(source: Path, out: Path) -> dict[str, Any]:
    """What one writes in ten minutes with `transformers`."""
    from hf_model import pipeline_of

    artifact = load_artifact()
    config = artifact.config
    classify = pipeline_of(artifact)
    backend = classify.tokenizer.backend_tokenizer

    @lru_cache(2)  # a sentence, and next the one before
    def offsets(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = backend.encode(text, add_special_tokens=False).offsets
        return found

    # The same beginning of a long sentence and the same end of the one before that our model is given.
    def sentence(text: str) -> str:
        kept = offsets(text)[: config.max_tokens]
        return text[: kept[-1][1]] if kept else text

    def context(text: str) -> str:
        kept = offsets(text)[-config.before_tokens :]
        return text[kept[0][0] :] if kept else ""

    inputs = [s for text in texts(source, None) for s in cut(text)]
    pairs = ({"text": sentence(s.text), "text_pair": context(s.before)} for s in inputs)
    found = []
    for answer in classify(pairs, batch_size=32, truncation="only_first"):
        scores = {a["label"]: a["score"] for a in answer}
        found.append([scores[name] for name in config.labels])
    # The pipeline's softmax knows no temperature: p ** (1 / T), normed, is the softmax of logits / T.
    import numpy as np

    p = np.array(found, dtype=np.float64) ** (1 / config.temperature)
    p /= p.sum(axis=1, keepdims=True)
    labels = [str(label) for label in decide(p, **config.rule)]
    write(out, labels, [s.text for s in inputs])
    return {"sentences": len(inputs)}


def naive(source: Path, out: Path, *, backend: str) -> dict[str, Any]:
    """An engine with all threads in one pass, batches of 32 in reading order."""
    classifier = StanceClassifier(load_artifact(), token_budget=10**9, backend=backend)
    inputs = [s for text in texts(source, None) for s in cut(text)]
    labels = []
    for at in range(0, len(inputs), 32):
        labels += [str(p.label) for p in classifier.label_sentences(inputs[at : at + 32])]
    write(out, labels, [s.text for s in inputs])
    return {"sentences": len(inputs)}


def write(out: Path, labels: list[str], found: list[str]) -> None:
    (out / "records").mkdir(parents=True)
    pq.write_table(pa.table({"text": found, "label": labels}), out / "records" / "part-00000.parquet")


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"ours": ours, "obvious": obvious, "naive": naive}


def job(name: str, source: str, out: str, settings: str) -> None:
    found = JOBS[name](Path(source), Path(out), **json.loads(settings))
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps(found | {"cpu": cpu, "mb": used.ru_maxrss / 1024}))


# --- the bench ----------------------------------------------------------------------------------


def timed(name: str, source: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a fresh process: its answer and `seconds` of the whole process."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--job", name, str(source), str(out), json.dumps(settings)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} on {source.name} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer | {"seconds": time.perf_counter() - start}


def interleaved(
    jobs: dict[str, tuple[str, Path, dict[str, Any]]], folder: Path, rounds: int
) -> dict[str, Any]:
    """Every job once a round; all answers by name."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, (kind, source, settings) in jobs.items():
            answers[name].append(timed(kind, source, folder / name.replace(" ", "-"), settings))
            print(f"round {number + 1}: {name}: {answers[name][-1]}", file=sys.stderr, flush=True)
    return answers


def median(answers: list[dict[str, Any]], field: str = "seconds") -> float:
    return statistics.median(a[field] for a in answers)


def labels_of(out: Path) -> list[str]:
    found: list[str] = pq.read_table(out / "records", columns=["label"])["label"].to_pylist()
    return found


def zip_of(source: Path, names: list[str], target: Path) -> Path:
    with zipfile.ZipFile(source) as box, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in names:
            copy.writestr(name, box.read(name))
    return target


def against(source: Path, folder: Path, rounds: int, number: str) -> None:
    """Ours, the obvious script, the naive engines."""
    jobs: dict[str, tuple[str, Path, dict[str, Any]]] = {
        "ours": ("ours", source, {}),
        "obvious script": ("obvious", source, {}),
        "naive onnxruntime": ("naive", source, {"backend": "onnxruntime"}),
    }
    if archive_engine("auto").name.startswith("openvino"):
        jobs["naive openvino"] = ("naive", source, {"backend": "openvino"})
    answers = interleaved(jobs, folder, rounds)
    wanted = labels_of(folder / "ours")
    sentences = answers["ours"][0]["sentences"]
    table = Table(
        title=f"{number} Security Council texts, {sentences:,} sentences, {available_cores()} cores, "
        f"{archive_engine('auto').name}, {load_artifact().version}"
    )
    for column in ("end to end", "s, median", "sentences/s", "ours is", "CPU s", "labels equal", "peak MB"):
        table.add_column(column, justify="left" if column == "end to end" else "right")
    for name, found in answers.items():
        labels = labels_of(folder / name.replace(" ", "-"))
        # Ours labels a document that is there twice once; compare where both have every sentence.
        same = len(labels) == len(wanted)
        equal = f"{sum(a == b for a, b in zip(labels, wanted)) / len(labels):.2%}" if same else "other rows"
        table.add_row(
            name,
            f"{median(found):.1f}",
            f"{sentences / median(found):,.0f}",
            f"{median(found) / median(answers['ours']):.2f}x as fast",
            f"{median(found, 'cpu'):.1f}",
            equal,
            f"{median(found, 'mb'):,.0f}",
        )
    CONSOLE.print(table)
    CONSOLE.print(
        f"wall time without a forward pass: {median(answers['ours'], 'beside'):.1%} (target < 12 %)"
    )


def scaling(source: Path, folder: Path, rounds: int) -> None:
    """Two cores against one; half of the sentences repeated against none."""
    found = texts(source, None)
    plain, repeated = folder / "plain.jsonl", folder / "repeated.jsonl"
    rows(plain, found)
    # Half as many texts, each with a twin that the reader does not take for the same document.
    rows(repeated, [t for text in found[: len(found) // 2] for t in (text, f"{text}\n\n*")])
    jobs: dict[str, tuple[str, Path, dict[str, Any]]] = {
        "one core": ("ours", plain, {"cores": 1}),
        "two cores": ("ours", plain, {"cores": 2}),
        "half repeated": ("ours", repeated, {"cores": 2}),
    }
    answers = interleaved(jobs, folder, rounds)
    speed = {name: statistics.median(a["sentences"] / a["seconds"] for a in answers[name]) for name in jobs}
    CONSOLE.print(
        f"two cores against one: {speed['two cores'] / speed['one core']:.2f}x (target 1.8; "
        f"this process may use {available_cores()})"
    )
    CONSOLE.print(
        f"half of the sentences repeated: {speed['half repeated'] / speed['two cores']:.2f}x (target 1.7)"
    )


def rows(path: Path, found: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")


def growth(folder: Path, sizes: list[int], rounds: int) -> None:
    """Time and memory as the archive grows: short invented sentences, all different, and a small model.

    The forward pass keeps nothing from batch to batch; what could grow is the rest, and with a model that
    takes next to no time a million sentences can be waited for. What memory grows by is to be seen beside the
    peak of the model that ships (target < 10 %). Starting takes the same time for any size, and is measured
    with ten sentences.
    """
    model = str(folder / "small-model")
    # In a process of its own: those started from here would count this one's memory, with torch, as theirs.
    subprocess.run([sys.executable, str(Path(__file__).with_name("small_model.py")), model], check=True)
    jobs: dict[str, tuple[str, Path, dict[str, Any]]] = {}
    for size in (10, *sorted(sizes)):
        path = folder / f"grown-{size}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for d in range(size // 10):
                text = " ".join(f"The envoy raised point {d} of list {n} on the port." for n in range(10))
                file.write(json.dumps({"text": text}) + "\n")
        jobs[f"{size:,} sentences"] = ("ours", path, {"backend": "onnxruntime", "model": model})
    answers = interleaved(jobs, folder, rounds)
    table = Table(title=f"growth: invented sentences, all different, a small model, medians of {rounds}")
    for column in ("sentences", "s", "s after the start", "sentences/s", "peak MB"):
        table.add_column(column, justify="right")
    start = median(next(iter(answers.values())))
    for found in answers.values():
        count = found[0]["sentences"]
        after = median(found) - start
        rate = f"{count / after:,.0f}" if after else ""
        table.add_row(
            f"{count:,}", f"{median(found):.1f}", f"{after:.1f}", rate, f"{median(found, 'mb'):,.0f}"
        )
    CONSOLE.print(table)
    for (before, small), (name, large) in itertools.pairwise(list(answers.items())[1:]):
        grown = large[0]["sentences"] / small[0]["sentences"]
        more = median(large, "mb") - median(small, "mb")
        share = more / median(small, "mb")
        longer = (median(large) - start) / (median(small) - start) / grown
        CONSOLE.print(
            f"{before} to {name}, {grown:.0f}x the input: memory {more:+.0f} MB, {share:+.1%}; "
            f"time after the start {longer:.2f}x what is in proportion (target 0.9 to 1.1)"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--documents", type=int, default=60, help="texts in the sample")
    options.add_argument("--all", action="store_true", help="the whole zip")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--growth", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="numbers of sentences"
    )
    options.add_argument("--parts", nargs="*", default=["against", "scaling", "growth"])
    options.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.job:
        job(*chosen.job)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        box = council_zip()
        if box is None:
            CONSOLE.print("skipped: the Security Council texts are not at hand (COMMUNIQUE_SHARED)")
        else:
            names = sample(box, None if chosen.all else chosen.documents)
            source = zip_of(box, names, folder / "sample.zip")
            if "against" in chosen.parts:
                against(source, folder, chosen.rounds, f"{len(names):,}")
            if "scaling" in chosen.parts:
                scaling(source, folder, chosen.rounds)
        if "growth" in chosen.parts:
            growth(folder, chosen.growth, chosen.rounds)


if __name__ == "__main__":
    main()
