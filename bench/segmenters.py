"""Sentence segmenters side by side: boundary F1 on the written set, and sentences a second.

    make bench-sentences        # or: python bench/segmenters.py

Each well-kept segmenter is run alone (blank lines split, everything else is its own doing) and under
the layer of `communique.model.sentences`. Speed is the median of five interleaved rounds over the
project's own statements, repeated; ratios within one run count, absolute numbers are this machine's.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from communique.model.sentences import Span, segment

ROOT = Path(__file__).parent.parent
SETS = ("segmentation.jsonl", "segmentation_heldout.jsonl")
Pieces = Callable[[str], list[str]]


def pysbd_pieces() -> Pieces:
    import pysbd

    cutter = pysbd.Segmenter(language="en", clean=False)
    return lambda block: [str(piece) for piece in cutter.segment(block)]


def syntok_pieces() -> Pieces:
    from syntok import segmenter

    def cut(block: str) -> list[str]:
        starts = [s[0].offset for paragraph in segmenter.analyze(block) for s in paragraph if s]
        starts = [0, *starts[1:], len(block)] if starts else [0, len(block)]
        return [block[a:b] for a, b in itertools.pairwise(starts)]

    return cut


def nupunkt_pieces() -> Pieces:
    import nupunkt

    return lambda block: [block[a:b] for a, b in nupunkt.sent_spans(block)]


def blingfire_pieces() -> Pieces:
    import blingfire

    def cut(block: str) -> list[str]:
        _, places = blingfire.text_to_sentences_and_offsets(block)
        starts = [0, *(a for a, _ in places[1:]), len(block)]
        return [block[a:b] for a, b in itertools.pairwise(starts)]

    return cut


def sentencex_pieces() -> Pieces:
    import sentencex

    return lambda block: list(sentencex.segment("en", block))


SEGMENTERS: dict[str, Callable[[], Pieces]] = {
    "sentencex": sentencex_pieces,
    "nupunkt": nupunkt_pieces,
    "blingfire": blingfire_pieces,
    "syntok": syntok_pieces,
    "pysbd": pysbd_pieces,
}


def alone(pieces: Pieces) -> Callable[[str], list[Span]]:
    """A segmenter on its own: blank lines split, its pieces are trimmed."""

    def cut(text: str) -> list[Span]:
        spans = []
        for block in re.finditer(r"(?:(?!\n\s*\n).)+", text, re.DOTALL):
            at = block.start()
            for piece in pieces(block.group()):
                found = text.find(piece, at) if piece.strip() else -1
                if found >= 0:
                    left = len(piece) - len(piece.lstrip())
                    spans.append(Span(found + left, found + len(piece.rstrip())))
                    at = found + len(piece)
        return spans

    return cut


def layered(pieces: Pieces) -> Callable[[str], list[Span]]:
    """The project's layer over a segmenter."""

    def propose(block: str) -> Iterator[int]:
        at = 0
        for piece in pieces(block):
            found = block.find(piece, at)
            at = (found if found >= 0 else at) + len(piece)
            yield at

    return lambda text: segment(text, propose)


def boundary_f1(cut: Callable[[str], list[Span]], file: Path) -> tuple[float, int]:
    """F1 of the places where a sentence ends inside a text, and their number."""
    hits = wrong = missed = 0
    for line in file.read_text(encoding="utf-8").strip().split("\n"):
        entry = json.loads(line)
        at, gold = 0, []
        for sentence in entry["sentences"]:
            at = entry["text"].index(sentence, at) + len(sentence)
            gold.append(at)
        expected = set(gold[:-1])
        found = {span.end for span in cut(entry["text"])[:-1]}
        hits += len(found & expected)
        wrong += len(found - expected)
        missed += len(expected - found)
    return 2 * hits / max(1, 2 * hits + wrong + missed), hits + missed


def speeds(cutters: dict[str, Callable[[str], list[Span]]], rounds: int = 5) -> dict[str, float]:
    """Sentences a second, median over interleaved rounds."""
    lines = (ROOT / "data" / "annotations" / "own_documents.jsonl").read_text(encoding="utf-8").strip()
    texts = [json.loads(line)["text"] for line in lines.split("\n")]
    seen: dict[str, list[float]] = {name: [] for name in cutters}
    for _ in range(rounds):
        for name, cut in cutters.items():
            repeats = 1 if "pysbd" in name else 5
            start = time.perf_counter()
            count = sum(len(cut(text)) for _ in range(repeats) for text in texts)
            seen[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    files = [ROOT / "tests" / "data" / name for name in SETS]
    cutters: dict[str, Callable[[str], list[Span]]] = {"communique": segment}
    for name, make in SEGMENTERS.items():
        pieces = make()
        cutters[name] = alone(pieces)
        cutters[f"{name} + layer"] = layered(pieces)
    speed = speeds(cutters)
    table = Table(title="sentence boundaries")
    for column in ("segmenter", *(f"F1 {f.stem}" for f in files), "sentences/s"):
        table.add_column(column, justify="left" if column == "segmenter" else "right")
    for name, cut in cutters.items():
        scores = [f"{boundary_f1(cut, f)[0]:.4f}" for f in files]
        table.add_row(name, *scores, f"{speed[name]:,.0f}")
    Console(width=110).print(table)
    counts = ", ".join(f"{f.stem}: {boundary_f1(segment, f)[1]} boundaries" for f in files)
    sys.stdout.write(f"{counts}\n")


if __name__ == "__main__":
    main()
