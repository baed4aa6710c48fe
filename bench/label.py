"""What a user waits for: load to first label, sentences a second, peak memory, and what batching changes.

    make bench

Fresh processes for load times (median of five); speed is sentences a second over the project's own
statements, with batches sorted by length under the token budget against batches of 32 in reading order,
interleaved, median of five. The last lines are the largest change of a probability that a sentence's
company in a batch makes, and the labels that change with it.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from communique.model.artifact import load_artifact
from communique.model.classifier import StanceClassifier, decide, in_context
from communique.model.sentences import segment
from communique.model.tokens import SentenceInput

ROOT = Path(__file__).parent.parent
ROUNDS = 5
FIRST = """
import time; start = time.perf_counter()
from communique.model.classifier import StanceClassifier
StanceClassifier.load().label("We urge Belmar to free the crew.")
print(time.perf_counter() - start)
"""


def first_label_seconds() -> tuple[float, float]:
    """Median seconds to the first label: of the Python import, load and call; of the whole command."""
    inside, command = [], []
    for _ in range(ROUNDS):
        inside.append(float(subprocess.check_output([sys.executable, "-c", FIRST])))
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "communique.cli", "label", "-"],
            input=b"We urge Belmar to free the crew.",
            stdout=subprocess.DEVNULL,
            check=True,
        )
        command.append(time.perf_counter() - start)
    return statistics.median(inside), statistics.median(command)


def own_sentences() -> list[SentenceInput]:
    """Sentences of the project's own statements, with neighbours."""
    lines = (ROOT / "data" / "annotations" / "own_documents.jsonl").read_text(encoding="utf-8").strip()
    inputs = []
    for line in lines.split("\n"):
        text = json.loads(line)["text"]
        inputs += in_context([text[s.start : s.end] for s in segment(text)])
    return inputs


def naive(classifier: StanceClassifier, inputs: list[SentenceInput]) -> np.ndarray:
    """Batches of 32 in reading order."""
    return np.concatenate(
        [classifier.probabilities(inputs[i : i + 32])[0] for i in range(0, len(inputs), 32)]
    )


def main() -> None:
    inside, command = first_label_seconds()
    inputs = own_sentences()
    rule = load_artifact().config.rule
    sorted_ = StanceClassifier.load()
    plain = StanceClassifier(load_artifact(), token_budget=10**9)
    speed: dict[str, list[float]] = {"sorted, token budget": [], "batches of 32 in reading order": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        together, _ = sorted_.probabilities(inputs)
        speed["sorted, token budget"].append(len(inputs) / (time.perf_counter() - start))
        start = time.perf_counter()
        apart = naive(plain, inputs)
        speed["batches of 32 in reading order"].append(len(inputs) / (time.perf_counter() - start))
    table = Table(title=f"label: {load_artifact().version}")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("import, load, first label (s)", f"{inside:.2f}")
    table.add_row("communique label, whole command (s)", f"{command:.2f}")
    for name, values in speed.items():
        table.add_row(f"sentences/s, {name}", f"{statistics.median(values):,.0f}")
    fast, slow = (statistics.median(v) for v in speed.values())
    table.add_row("ratio", f"{fast / slow:.2f}")
    table.add_row(
        "peak memory of this process (MB)",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}",
    )
    table.add_row("largest change of a probability by company", f"{np.abs(together - apart).max():.1e}")
    pairs = zip(decide(together, **rule), decide(apart, **rule), strict=True)
    table.add_row("labels changed by company", str(sum(a != b for a, b in pairs)))
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
