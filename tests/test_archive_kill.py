"""Killed anywhere, by hand or by a full disk, a run goes on to the same bytes."""

from __future__ import annotations

import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

make = runpy.run_path(str(Path(__file__).with_name("archive_corpus.py")))["make"]

DRIVER = """
import os, resource, signal, sys
from pathlib import Path
from communique.archive.run import Options, run_archive
from communique.model.errors import InputError

source, out, model, suffix, kill_at, limit = sys.argv[1:]
count = 0

def counted(call):
    def wrapper(*args, **settings):
        global count
        count += 1
        if count == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **settings)
    return wrapper

os.fsync, os.replace = counted(os.fsync), counted(os.replace)
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
print("ready", flush=True)
try:
    options = Options(format=suffix, shard_documents=20)
    run_archive([source], Path(out), options, model=Path(model), threads=2)
except InputError as error:
    sys.exit(f"communique: {error}")
"""


def start(source, out, model, suffix, kill_at=0, limit=0):
    arguments = [str(source), str(out), str(model), suffix, str(kill_at), str(limit)]
    return subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stdout=-1, stderr=-1, text=True)


def finish(*arguments, **settings):
    process = start(*arguments, **settings)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def content(out: Path) -> dict[str, bytes]:
    """All that a run leaves but how long it took."""
    files = [
        *(out / "records").iterdir(),
        *(out / f"{n}.jsonl" for n in ("rejected", "duplicates", "encodings")),
    ]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("kill") / "corpus", documents=120)
    rng = random.Random(13)
    noise = " ".join(f"{rng.getrandbits(64):x}" for _ in range(4_000))  # does not compress
    (folder / "zz.txt").write_text(f"The envoy urges {noise}.")
    return folder


@pytest.fixture(scope="module", params=["parquet", "jsonl"])
def undisturbed(request, corpus, toy_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert finish(corpus, out, toy_model, request.param) == (0, "")
    return request.param, content(out)


@pytest.mark.slow
def test_killed_around_every_step_of_a_shard(corpus, toy_model, undisturbed, tmp_path):
    suffix, wanted = undisturbed
    kills = 0
    for kill_at in (1, 3, 7, 9, 10, 11, 12, 13, 14, 15):  # write, sync, rename, sync, notes, journal
        code, said = finish(corpus, tmp_path / "out", toy_model, suffix, kill_at=kill_at)
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        kills += 1
    assert kills >= 5
    assert finish(corpus, tmp_path / "out", toy_model, suffix) == (0, "")
    assert content(tmp_path / "out") == wanted


@pytest.mark.slow
def test_killed_at_random_moments(corpus, toy_model, undisturbed, tmp_path):
    suffix, wanted = undisturbed
    rng = random.Random(11)
    process = start(corpus, tmp_path / "whole", toy_model, suffix)
    assert process.stdout.readline() == "ready\n"
    begun = time.perf_counter()
    process.communicate()
    whole = time.perf_counter() - begun  # seconds that a run takes here, today
    kills = 0
    for _ in range(6):
        process = start(corpus, tmp_path / "out", toy_model, suffix)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.7 * whole))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills
    assert finish(corpus, tmp_path / "out", toy_model, suffix) == (0, "")
    assert content(tmp_path / "out") == wanted


def test_a_full_disk_and_a_torn_journal(corpus, toy_model, undisturbed, tmp_path):
    suffix, wanted = undisturbed
    out = tmp_path / "out"
    limit = max(map(len, wanted.values())) - 1  # the largest file does not fit
    code, said = finish(corpus, out, toy_model, suffix, limit=limit)
    assert code == 1
    assert "cannot be written (File too large)" in said and "run the same command again" in said
    assert not list((out / "records").glob(".*")), "half a shard was left"
    assert len(content(out)) < len(wanted)
    with (out / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"shard": "part-00')
    with (out / "rejected.jsonl").open("ab") as rejected:
        rejected.write(b'{"file": "half')
    assert finish(corpus, out, toy_model, suffix) == (0, "")
    assert content(out) == wanted
