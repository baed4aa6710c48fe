"""Token ids -> logits: ONNX Runtime, batches sorted by length under a token budget.

    engine = Engine(artifact.path("model.onnx"), pad_id=0, token_types=True)
    logits = engine.logits(encoded)        # (sentences, 5), in the order given

Sorting by length before batching saves the padding that a batch in reading order wastes (1.5 to 1.8
times the speed on official prose); results are put back in order. Other engines (`backends.py`) share
all of this and differ in `_load` and `_forward` alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from communique.model.artifact import ArtifactError
from communique.model.labels import LABELS
from communique.model.tokens import TokenIds

Logits = npt.NDArray[np.float32]
Feed = dict[str, npt.NDArray[np.int64]]
"""`input_ids`, `attention_mask` and, where the encoder has them, `token_type_ids`: (batch, tokens)."""

FILLED = 16
"""What engines of few bits fill a batch's length up to a multiple of, see `openvino_engine`."""


def filled(length: int, multiple: int = FILLED) -> int:
    """The next multiple."""
    return -(-length // multiple) * multiple


def available_cores() -> int:
    """Cores this process may run on (an affinity mask or a container's share, not the machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def processor_flags() -> set[str]:
    """What Linux says the processor can do, and its `vendor_id`; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    said = [line.split(":")[1] for line in lines if line.startswith(("flags", "vendor_id"))]
    return {flag for one in said for flag in one.split()}


def slow_bf16() -> bool:
    """Whether the processor has AVX-512 BF16, but multiplies fp32 faster: Intel's without AMX do.

    On a Xeon whose AMX was hidden bf16 had 0.6 of fp32's speed, in torch and in OpenVINO; AMD's have twice
    and more.
    """
    flags = processor_flags()
    return {"GenuineIntel", "avx512_bf16"} <= flags and "amx_bf16" not in flags


class Engine:
    """Runs a model; safe to call from several threads."""

    name = "onnxruntime-fp32"
    """Library and number format: what decides a probability's last digits, besides the model."""
    _accuracy = "1"
    """How ONNX Runtime multiplies by 4-bit weights: 1 in fp32; 4 would round activations to int8."""
    _multiple = 1
    """Batches are filled up to a multiple of so many tokens."""
    budget = 1024
    """Tokens a batch, padding included: fits the second-level cache, see `make bench`."""

    def __init__(
        self,
        model: Path,
        *,
        pad_id: int,
        token_types: bool,
        threads: int | None = None,
        streams: int = 1,
        token_budget: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: an ONNX file as `communique.train.export` writes it.
            pad_id: token id that fills short rows.
            token_types: whether the encoder tells sentence and context apart by token type.
            threads: threads of one forward pass; one a core if not given.
            streams: forward passes that callers will run side by side, each with its own threads.
            token_budget: most tokens a batch, padding included; the engine's own if None.

        Raises:
            ArtifactError: the file cannot be loaded.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be 1 or more, not {threads}")
        self._pad_id = pad_id
        self._token_types = token_types
        if token_budget is not None:
            self.budget = token_budget
        self.streams = streams
        self._inputs = self._load(model, threads or available_cores(), streams)

    def _load(self, model: Path, threads: int, streams: int) -> set[str]:
        """Make ready for `_forward`; names of the model's inputs. Callers bring their own streams here."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle worker threads would otherwise spin and take the core from tokenising and writing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", self._accuracy)
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ArtifactError(f"{model}: ONNX Runtime cannot load it: {error}") from error
        return {i.name for i in self._session.get_inputs()}

    def _forward(self, feed: Feed) -> Logits:
        """One batch's logits, (batch, 5)."""
        logits: Logits = self._session.run(["logits"], feed)[0]
        return logits

    def logits(self, encoded: Sequence[TokenIds]) -> Logits:
        """Logits of encoded sentences, shape (sentences, 5), in the order given."""
        out = np.empty((len(encoded), len(LABELS)), dtype=np.float32)
        for batch in self.groups([len(e.ids) for e in encoded]):
            out[batch] = self._run([encoded[i] for i in batch])
        return out

    def groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """`batches` of items of so many tokens, under this engine's budget and filling."""
        return batches(lengths, self.budget, self._multiple)

    def _run(self, batch: Sequence[TokenIds]) -> Logits:
        longest = filled(max(len(e.ids) for e in batch), self._multiple)
        ids = np.full((len(batch), longest), self._pad_id, dtype=np.int64)  # (batch, tokens)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids)
        for row, e in enumerate(batch):
            ids[row, : len(e.ids)] = e.ids
            mask[row, : len(e.ids)] = 1
            types[row, e.first_context : len(e.ids)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        if self._token_types and "token_type_ids" in self._inputs:
            feed["token_type_ids"] = types
        return self._forward(feed)


def batches(lengths: Sequence[int], budget: int, multiple: int = 1) -> Iterator[list[int]]:
    """Indices in batches of similar length; each batch's padded size stays within the budget.

    Args:
        lengths: tokens of each item.
        budget: most tokens a batch, counted with padding; an item longer than it goes alone.
        multiple: padded lengths are multiples of it.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * filled(lengths[batch[0]], multiple) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
