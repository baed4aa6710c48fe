"""Killed at twenty random moments and once by a full disk, an archive run ends with the undisturbed table.

So does a run on a Ray cluster of this machine, one of whose workers is killed while it labels.

    python bench/kill.py --documents 40 --kills 20       # part of `make bench`

The moments are drawn over the time that an undisturbed run takes; whatever a kill leaves is gone on with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from council import council_zip, some_sentences, texts
from rich.console import Console

CONSOLE = Console(width=110)


def start(source: Path, out: Path, limit: int | None = None, engine: str = "local") -> subprocess.Popen[str]:
    """A run in a process of its own; files of at most `limit` bytes."""

    def bounded() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "communique.cli", "archive", str(source), "--out", str(out)]
    command += ["--shard-documents", "2", "--quiet", "--engine", engine]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=bounded)


def digest(out: Path) -> str:
    """A hash of the names and bytes of all that a run leaves but how long it took."""
    whole = hashlib.sha256()
    for path in [*sorted((out / "records").iterdir()), out / "rejected.jsonl", out / "duplicates.jsonl"]:
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def shards(out: Path) -> int:
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def finish(source: Path, out: Path) -> None:
    process = start(source, out)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"a run ended with {process.returncode}: {said}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--documents", type=int, default=40)
    options.add_argument("--kills", type=int, default=20)
    chosen = options.parse_args()
    rng = random.Random(20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "rows.jsonl"
        box = council_zip()
        found = texts(box, chosen.documents) if box else [s.text for s in some_sentences(0)[1]][:400]
        source.write_text("".join(json.dumps({"text": t}) + "\n" for t in found), encoding="utf-8")
        begun = time.perf_counter()
        finish(source, folder / "whole")
        whole = time.perf_counter() - begun
        wanted = digest(folder / "whole")
        CONSOLE.print(f"undisturbed: {shards(folder / 'whole') - 1} shards, {whole:.1f} s, table {wanted}")
        out = folder / "killed"
        kills = 0
        while kills < chosen.kills:
            process = start(source, out)
            moment = rng.uniform(0, whole)
            try:
                process.communicate(timeout=moment)
                how = "had ended"
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                how = f"SIGKILL after {moment:.2f} s"
            CONSOLE.print(f"{kills:2}: {how}, {shards(out)} lines in the journal")
            if how == "had ended":  # begin again, so that the next kill finds work to interrupt
                finish_and_compare(source, out, wanted)
                out = folder / f"killed-{kills}-{moment:.4f}"
        finish_and_compare(source, out, wanted)
        limit = max(p.stat().st_size for p in (folder / "whole" / "records").iterdir()) - 1
        process = start(source, folder / "full", limit)
        _, said = process.communicate()
        CONSOLE.print(
            f"full disk: exit {process.returncode}: {said.strip().split(': ', 2)[-1]}", markup=False
        )
        finish_and_compare(source, folder / "full", wanted)
        if find_spec("ray") is None:
            CONSOLE.print("skipped: Ray is not installed (communique[ray])")
        else:
            on_ray(source, folder / "ray", wanted)


def on_ray(source: Path, out: Path, wanted: str) -> None:
    """A run on Ray, a worker killed once it has written something."""
    process = start(source, out, engine="ray")
    victim = None
    while process.poll() is None and victim is None:
        time.sleep(0.2)
        if shards(out) > 1:
            victim = kill_a_worker(process.pid)
    _, said = process.communicate()
    CONSOLE.print(f"Ray: SIGKILL of worker {victim}, the run's exit {process.returncode}")
    if process.returncode or victim is None:
        sys.exit(f"no worker was killed, or the run did not outlive it: {said}")
    finish_and_compare(source, out, wanted)


def kill_a_worker(run: int) -> int | None:
    """SIGKILL one process that runs the model; its number."""
    import psutil

    for process in psutil.Process(run).children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                process.kill()
                return int(process.pid)
        except psutil.Error:  # it has ended by itself
            continue
    return None


def finish_and_compare(source: Path, out: Path, wanted: str) -> None:
    """Go on to the end; leave with an error if the table is another."""
    finish(source, out)
    found = digest(out)
    CONSOLE.print(f"    gone on to the end: table {found}, {'the same' if found == wanted else 'ANOTHER'}")
    if found != wanted:
        sys.exit(1)


if __name__ == "__main__":
    main()
