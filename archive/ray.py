"""The same run on a Ray cluster: this machine reads, cuts and writes, the workers do the forward passes.

    RAY_ADDRESS=head:6379 communique archive statements/ --out labelled --engine ray

Without an address Ray starts on this machine alone. Shards go out in waves as batches (Ray Data,
`map_batches` with an actor pool, one model and one thread a worker) and come back to the same writer
and journal, so that the table has the same bytes as a local run's and a killed run goes on with either.
Ray starts a lost worker anew and repeats its batches. A wave is large so that starting the actors, some
seconds, weighs nothing; what it holds in memory here is bounded by `WAVE` shards.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from communique.archive.labelling import (
    Job,
    Labelled,
    Labeller,
    Memory,
    ShardLabels,
    archive_engine,
    sentence_key,
    sentence_of,
)
from communique.archive.prepare import Shard
from communique.archive.torch_engine import TorchCudaEngine
from communique.model.artifact import Artifact
from communique.model.engine import Engine, Logits
from communique.model.errors import InputError
from communique.model.labels import LABELS

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

WAVE = 32
"""Shards sent out together; at most some 500,000 sentences."""
_CALL = 8
"""Batches that a worker takes at a time."""
_UNKNOWN: Labelled = (str(LABELS[-1]), (0.0,) * len(LABELS))
"""Stands for a label while shards are planned: what counts then is whether a sentence is remembered."""


class Worker:
    """One model in a worker process; batches in, logits out."""

    def __init__(
        self, model: ray.ObjectRef[bytes], backend: str, name: str, settings: dict[str, Any]
    ) -> None:
        import ray

        kind = archive_engine(backend)
        if kind.name != name:
            raise RuntimeError(
                f"this worker would run {kind.name}, the run was begun with {name}: give all machines of the "
                "cluster the same libraries and processors, or --backend onnxruntime"
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "artifact" / "model.onnx"
            path.parent.mkdir()
            path.write_bytes(ray.get(model))
            self._engine: Engine = kind(path, threads=1, **settings)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns shard, group, sentences -> shard, group, logits (float32, as bytes)."""
        import pyarrow as pa

        logits = [
            self._engine.logits([sentence_of(key) for key in row]).tobytes()
            for row in table["sentences"].to_pylist()
        ]
        return pa.table({"shard": table["shard"], "group": table["group"], "logits": logits})


class RayLabeller(Labeller):
    """A labeller whose forward passes run on the cluster's workers."""

    def __init__(self, artifact: Artifact, *, workers: int | None = None, backend: str = "auto") -> None:
        super().__init__(artifact, threads=1, backend=backend)
        ray: Any = import_module("ray")  # untyped in parts
        self._started = not ray.is_initialized()
        if self._started:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InputError(f"--engine ray: no cluster ({last_line(error)}): see RAY_ADDRESS") from None
        # A worker runs one stream, so on GPUs each is to have one of its own; Ray shows it no other.
        self._gpus = 1 if isinstance(self._engine, TorchCudaEngine) else 0
        try:
            room = places(ray.cluster_resources(), self._gpus)
        except InputError:
            self.__exit__()
            raise
        self._workers = min(workers or room, room)  # one more would be waited for without end
        self._model = ray.put(artifact.path("model.onnx").read_bytes())
        self._construct = {
            "backend": backend,
            "name": self._engine.name,
            "settings": {"pad_id": self._tokenizer.pad_id, "token_types": artifact.config.token_types},
        }

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self._started:
            import ray

            ray.shutdown()

    def stream(
        self,
        shards: Iterable[Shard],
        restore: Callable[[Shard, dict[str, Any]], list[Labelled]],
        advance: Callable[[Shard, float], None],
    ) -> Iterator[tuple[Shard, ShardLabels | None]]:
        """See `Labeller.stream`; batches as a local run would."""
        planned = Memory(self.remembered)  # what will be remembered when a shard's turn comes
        remaining = iter(shards)
        while wave := list(islice(remaining, WAVE)):
            jobs: dict[int, Job] = {}
            for shard in wave:
                if shard.done is not None:
                    self.restore(shard.encoded, restore(shard, shard.done))
                    yield shard, None
                else:
                    jobs[shard.number] = self.plan(shard.encoded, planned)
                if shard.encoded:
                    planned.add(dict.fromkeys(map(sentence_key, shard.encoded), _UNKNOWN))
            whole = {shard.number: shard for shard in wave}
            for number, results in self._run(jobs, whole, advance):
                yield whole[number], self.finish(jobs[number], results)

    def _run(
        self, jobs: dict[int, Job], shards: dict[int, Shard], advance: Callable[[Shard, float], None]
    ) -> Iterator[tuple[int, list[Logits]]]:
        """Each shard's logits, shards in order as they become whole."""
        found: dict[int, dict[int, Logits]] = {number: {} for number in jobs}
        waiting = iter(jobs)
        current = next(waiting, None)
        for row in self._rows(jobs):
            logits = np.frombuffer(row["logits"], dtype=np.float32).reshape(-1, len(LABELS))
            found[row["shard"]][row["group"]] = logits
            if current is not None and row["shard"] == current:
                advance(shards[current], len(found[current]) / len(jobs[current].groups))
            while current is not None and len(found[current]) == len(jobs[current].groups):
                whole = found.pop(current)
                yield current, [whole[i] for i in range(len(whole))]
                current = next(waiting, None)
        while current is not None:  # shards without a fresh sentence at the wave's end
            yield current, []
            current = next(waiting, None)

    def _rows(self, jobs: dict[int, Job]) -> Iterator[dict[str, Any]]:
        import ray

        rows = [
            {"shard": number, "group": at, "sentences": list(group)}
            for number, job in jobs.items()
            for at, group in enumerate(job.groups)
        ]
        if not rows:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told below, in one line
        blocks = max(1, min(len(rows), -(-len(rows) // _CALL)))
        answers = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Worker,
            batch_format="pyarrow",
            batch_size=_CALL,
            compute=ray.data.ActorPoolStrategy(size=min(self._workers, blocks)),
            num_cpus=1,
            num_gpus=self._gpus,
            fn_constructor_args=(self._model,),
            fn_constructor_kwargs=self._construct,
        )
        try:
            yield from answers.iter_rows()
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"--engine ray: {last_line(error)}; every shard in the journal is safe: "
                "see to the cluster and run the same command again"
            ) from None


def places(resources: Mapping[str, float], gpus: int) -> int:
    """How many workers a cluster has room for.

    Raises:
        InputError: workers need a GPU each, and the cluster offers none.
    """
    if not gpus:
        return max(1, int(resources.get("CPU", 1)))
    if (found := int(resources.get("GPU", 0))) < 1:
        raise InputError(
            "--engine ray --backend torch: the cluster offers no GPU: start Ray with --num-gpus, "
            "or use another backend"
        )
    return found


def last_line(error: BaseException) -> str:
    """What went wrong in a worker: Ray's message ends with it, behind the worker's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
