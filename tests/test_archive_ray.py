"""On a Ray cluster of two workers, one of them killed: the same bytes as on this machine alone."""

from __future__ import annotations

import os
import runpy
import signal
import threading
import time
from pathlib import Path

import pytest

from communique.archive.run import Options, Watch, run_archive

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
