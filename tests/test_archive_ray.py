"""On a Ray cluster of two workers, one of them killed: the same bytes as on this machine alone."""

from __future__ import annotations

import os
import runpy
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from communique.archive.labelling import Job
from communique.archive.run import Options, Watch, run_archive
from communique.archive.torch_engine import TorchCudaEngine
from communique.model.engine import Engine
from communique.model.errors import InputError
from communique.model.tokens import TokenIds

make = runpy.run_path(str(Path(__file__).with_name("archive_corpus.py")))["make"]
SMALL = Options(format="jsonl", shard_documents=20)


def content(out):
    names = ("rejected", "duplicates", "encodings")
    files = [*(out / "records").iterdir(), *(out / f"{n}.jsonl" for n in names)]
    return {path.name: path.read_bytes() for path in files}


def kill_a_worker(killed, done):
    """SIGKILL the first process that runs the model."""
    import psutil

    while not killed and not done.is_set():
        for process in psutil.Process().children(recursive=True):
            try:
                if "MapWorker" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            except (psutil.Error, ProcessLookupError):
                continue
        time.sleep(0.05)


class Cluster:
    """What a labeller asks of Ray Data: notes it, and fails as a worker's error does."""

    def __init__(self, error=None):
        self.asked = {}
        self._error = error

    def map_batches(self, worker, **asked):
        self.asked = asked
        return self

    def iter_rows(self):
        if self._error is not None:
            raise self._error
        return iter(())


def labeller_on(cluster, monkeypatch, kind=Engine, resources=None, workers=None):
    """A labeller that has set up all but a model, on that cluster."""
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    from communique.archive import labelling
    from communique.archive.ray import RayLabeller

    def init(self, artifact, **settings):
        self._engine = kind.__new__(kind)
        self._tokenizer = SimpleNamespace(pad_id=0)

    artifact = SimpleNamespace(path=lambda name: Path(__file__), config=SimpleNamespace(token_types=True))
    monkeypatch.setattr(labelling.Labeller, "__init__", init)
    monkeypatch.setattr(labelling.Labeller, "__exit__", lambda self, *details: None)
    answers = {"is_initialized": True, "cluster_resources": resources or {"CPU": 4}, "put": None}
    for name, value in answers.items():
        monkeypatch.setattr(ray, name, lambda *_, value=value: value)
    monkeypatch.setattr(ray.data, "from_items", lambda rows, **_: cluster)
    return RayLabeller(artifact, workers=workers)


JOB = {0: Job([b"k"], {b"k": TokenIds((1,), 1, truncated=False)}, [[b"k"]] * 99)}


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize(
    "kind, resources, gpus, workers",
    [(Engine, {"CPU": 4}, 0, 4), (TorchCudaEngine, {"CPU": 8, "GPU": 2}, 1, 2)],
    ids=["cores", "GPUs"],
)
def test_a_worker_asks_for_what_its_engine_runs_on(monkeypatch, kind, resources, gpus, workers):
    cluster = Cluster()
    list(labeller_on(cluster, monkeypatch, kind, resources, workers=64)._rows(JOB))
    assert (cluster.asked["num_cpus"], cluster.asked["num_gpus"]) == (1, gpus)
    assert cluster.asked["compute"].max_size == workers
    if gpus:
        with pytest.raises(InputError, match="the cluster offers no GPU"):
            labeller_on(cluster, monkeypatch, kind, {"CPU": 8})


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_failure_in_a_worker_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    error = ray.exceptions.RayError(
        "Traceback (most recent call last):\n  x\nRuntimeError: no such library\n"
    )
    with pytest.raises(
        InputError, match="--engine ray: RuntimeError: no such library; every shard"
    ) as raised:
        list(labeller_on(Cluster(error), monkeypatch)._rows(JOB))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_lost_worker_and_a_stop_change_nothing(toy_model, tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    corpus = make(tmp_path / "corpus")
    run_archive([str(corpus)], tmp_path / "local", SMALL, model=toy_model)
    stop, done, killed = threading.Event(), threading.Event(), []

    class Stopping(Watch):
        def advance(self, done_bytes, documents, sentences, skipped):
            if documents >= 40:
                stop.set()

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    killer = threading.Thread(target=kill_a_worker, args=(killed, done))
    killer.start()
    try:
        settings = {"model": toy_model, "threads": 2, "engine": "ray"}
        first = run_archive([str(corpus)], tmp_path / "out", SMALL, **settings, stop=stop, watch=Stopping())
        assert not first.finished
        second = run_archive([str(corpus)], tmp_path / "out", SMALL, **settings)
        assert second.finished and second.summary["documents"] == 172
    finally:
        done.set()
        killer.join()
        ray.shutdown()
    assert killed
    assert content(tmp_path / "out") == content(tmp_path / "local")
