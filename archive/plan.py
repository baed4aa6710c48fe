"""What a run was begun with, so that going on with anything else is noticed: `run.json`, `inputs.jsonl`.

    with Plan(out, options, roots) as plan:      # new, or begun before and unchanged; else InputError

Inputs are compared by size and time of change; where only the time differs, by SHA-256.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from communique.archive.shards import OUTPUTS, RECORDS, json_line, write_whole
from communique.archive.sources import InputFile, walk
from communique.model.artifact import sha256_file
from communique.model.errors import InputError

FORMAT = 2
"""Of the output folder; raised when an older one cannot be gone on with. 2: ids and numbers that do not
collide, quoted CSV."""
_RUN, _INPUTS, _LOCK = "run.json", "inputs.jsonl", ".lock"


class Plan:
    """An output folder held by one run, with what that run was begun with."""

    def __init__(
        self, out: Path, options: Mapping[str, Any], roots: Sequence[InputFile], *, restart: bool = False
    ) -> None:
        self.out = out
        self._options = {"folder_format": FORMAT, **options}
        self._roots = roots
        self._restart = restart
        self._lock: int | None = None
        self.total_bytes = 0
        self.resumed = False

    def __enter__(self) -> Self:
        _make_folder(self.out)
        self._lock = _lock(self.out / _LOCK)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> None:
        begun = (self.out / _RUN).is_file()
        if begun and self._restart:
            _clear(self.out)
            begun = False
        if begun:
            self._compare_options()
            self._compare_inputs()
            self.resumed = True
            return
        ours = {_LOCK, _INPUTS, f".{_INPUTS}.part", f".{_RUN}.part"}
        others = sorted({p.name for p in self.out.iterdir()} - ours)
        if others:
            raise InputError(f"{self.out}: holds other files ({', '.join(others[:3])}): use an empty folder")
        write_whole(self.out / _INPUTS, lambda file: file.writelines(self._describe()))
        if not self.total_bytes:
            raise InputError(f"{', '.join(r.name for r in self._roots)}: no files, or only empty ones")
        write_whole(self.out / _RUN, lambda file: file.write(json_line(self._options)))

    def _describe(self) -> Iterator[bytes]:
        for file in walk(self._roots):
            size, changed = _stat(file.path)
            self.total_bytes += size
            yield json_line(
                {"file": file.name, "bytes": size, "mtime_ns": changed, "sha256": _sha256(file.path)}
            )

    def _compare_options(self) -> None:
        before = _read(self.out / _RUN)
        for name in sorted(before.keys() | self._options.keys()):
            old, new = before.get(name), self._options.get(name)
            if old != new:
                raise InputError(
                    f"{self.out}: begun with {name} = {json.dumps(old)}, now {json.dumps(new)}: "
                    "use another --out, or --restart to delete these results and begin again"
                )

    def _compare_inputs(self) -> None:
        if not (self.out / _INPUTS).is_file():
            raise InputError(f"{self.out / _INPUTS}: is gone: --restart begins again")
        with (self.out / _INPUTS).open(encoding="utf-8") as lines:
            before = (json.loads(line) for line in lines)
            for old, file in itertools.zip_longest(before, walk(self._roots)):
                change = self._change(old, file)
                if change:
                    raise InputError(
                        f"{self.out}: the input changed since this run began ({change}): "
                        "use another --out, or --restart to delete these results and begin again"
                    )

    def _change(self, old: dict[str, Any] | None, file: InputFile | None) -> str | None:
        if old is None or file is None:
            return f"{file.name} is new" if file is not None else f"{(old or {})['file']} is gone"
        if file.name != old["file"]:
            return f"{file.name} stands where {old['file']} was"
        size, changed = _stat(file.path)
        self.total_bytes += size
        if size == old["bytes"] and (changed == old["mtime_ns"] or _sha256(file.path) == old["sha256"]):
            return None
        return f"{file.path} has other content"


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"--out {out}: is a file, expected a folder") from None
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from None


def _lock(path: Path) -> int | None:
    """Keep a second run out; the system lets go when the process ends, however it ends."""
    if sys.platform == "win32":
        return None
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{path.parent}: another run is writing there: wait for it, or use another --out"
        ) from None
    return handle


def _clear(out: Path) -> None:
    """Delete what a run wrote, and nothing else; `run.json` last, so that a kill in between is noticed."""
    for path in sorted((out / RECORDS).glob("*")) if (out / RECORDS).is_dir() else []:
        if path.name.lstrip(".").startswith("part-"):
            path.unlink()
    for name in (*OUTPUTS, _INPUTS):
        (out / name).unlink(missing_ok=True)
    if (out / RECORDS).is_dir():
        (out / RECORDS).rmdir()
    (out / _RUN).unlink()


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # unreadable: rejected by name when its turn comes
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}): --restart begins again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object: --restart begins again")
    return value
