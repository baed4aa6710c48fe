"""Where documents come from: folders, files and globs, and what lies inside zip, tar, gz and zst.

    roots = find_roots(["speeches/", "un.zip", "rows/*.jsonl.gz"])
    for file in walk(roots):                              # in a fixed order, one at a time
        with file.path.open("rb") as stream:
            for item in unpack(file.name, stream): ...    # Blob, or Rejected

Nothing is unpacked to disk, except a member that must be read from its end (a zip or Parquet inside
another archive), which goes to an unnamed temporary file. Names that begin with a dot and `__MACOSX`
are no documents and are passed over.
"""

from __future__ import annotations

import glob
import gzip
import io
import lzma
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from communique.model.errors import InputError

READ_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
    ValueError,
)
"""What reading a damaged file or archive raises; ValueError: a name that is not UTF-8, a negative offset."""


class TemporarySpaceError(Exception):
    """No room for a temporary copy: the disk's fault, not the document's."""


_DEEPEST = 5
"""Archives inside archives; deeper ones are made to harm."""
_LARGEST_SPOOL = 8 * 2**30
_IN_MEMORY = 16 * 2**20


@dataclass(frozen=True)
class InputFile:
    """A file on disk; `name` is what records call it, the same from wherever the run is started."""

    path: Path
    name: str


@dataclass(frozen=True)
class Blob:
    """A file's content, on disk or in an archive; `stream` is valid until the next one is asked for."""

    name: str
    suffix: str
    """Of the content: ".txt" for "a.txt.gz"."""
    stream: IO[bytes]


@dataclass(frozen=True)
class Rejected:
    """A document, or more, that cannot be read: where, and why."""

    file: str
    place: str
    reason: str


def find_roots(inputs: Sequence[str], *, out: Path | None = None) -> list[InputFile]:
    """Files and folders named, globs resolved, in the order given; what lies in another one once.

    Each is called by its last part, or by as many as tell it from the others.

    Raises:
        InputError: nothing there, or the output folder lies inside an input or around it.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text)
        if path.exists():
            paths = [path]
        else:
            paths = sorted(map(Path, glob.glob(text, recursive=True)))  # noqa: PTH207  absolute ones too
            if not paths:
                kind = "no file matches" if glob.has_magic(text) else "no such file or folder"
                raise InputError(f"{text}: {kind}")
        for p in paths:
            found.setdefault(p.resolve(), p)
    if out is not None:
        for place in found:
            if out.resolve().is_relative_to(place):
                raise InputError(f"--out {out} lies inside the input {place}: write somewhere else")
            if place.is_relative_to(out.resolve()):
                raise InputError(f"the input {place} lies inside --out {out}: write somewhere else")
    names = _names([place for place in found if found.keys().isdisjoint(place.parents)])
    return [InputFile(found[place], name) for place, name in names.items()]


def _names(places: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path; where two would be called alike, as many parts as tell them apart.

    Nor may one name be a folder of another: `a/x` in the root `a` is not the root `b/a/x`.
    """
    parts = dict.fromkeys(places, 1)
    while True:
        names = {place: "/".join(place.parts[-n:]) for place, n in parts.items()}
        count = Counter(names.values())
        alike = set()
        for name in names.values():
            above = {str(folder) for folder in PurePosixPath(name).parents} & count.keys()
            alike |= {name, *above} if above or count[name] > 1 else set()
        longer = [p for p, name in names.items() if name in alike and parts[p] < len(p.parts)]
        if not longer:
            return {place: _printable(name) for place, name in names.items()}
        for place in longer:
            parts[place] += 1


def walk(roots: Sequence[InputFile]) -> Iterator[InputFile]:
    """Every file of the roots, folders in the order of their names; links to folders are not followed."""
    for root in roots:
        if root.path.is_dir():
            yield from _walk(root.path, root.name)
        else:
            yield root


def _walk(folder: Path, name: str) -> Iterator[InputFile]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if _hidden(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/{_printable(entry.name)}")
        elif entry.is_file():
            yield InputFile(Path(entry.path), f"{name}/{_printable(entry.name)}")


def _printable(name: str) -> str:
    """A file's name whose bytes are not UTF-8, with those bytes written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def unpack(
    name: str, stream: IO[bytes], inner: str | None = None, depth: int = 0
) -> Iterator[Blob | Rejected]:
    """Documents' files in a stream, archives and compression opened by the name's ending.

    Args:
        name: what to call it in records and errors.
        stream: open for reading in binary.
        inner: the name without the compression's ending, where that was taken off already.
        depth: how many archives it lies in.
    """
    path = PurePosixPath(inner if inner is not None else name)
    suffix = path.suffix.lower()
    if depth > _DEEPEST:
        yield Rejected(name, "", f"more than {_DEEPEST} archives inside one another: unpack it first")
        return
    try:
        if suffix == ".gz":
            yield from unpack(name, _gzip(stream), str(path.with_suffix("")), depth + 1)
        elif suffix == ".tgz":
            yield from unpack(name, _gzip(stream), f"{path.stem}.tar", depth + 1)
        elif suffix == ".zst":
            yield from unpack(name, _zstd(stream), str(path.with_suffix("")), depth + 1)
        elif suffix == ".zip":
            yield from _unzip(name, stream, depth)
        elif suffix == ".tar":
            yield from _untar(name, stream, depth)
        else:
            yield Blob(name, suffix, stream)
    except READ_ERRORS as error:
        yield Rejected(name, "", f"damaged archive: {why(error)}; what came before was read")


def why(error: BaseException) -> str:
    """An error's message in one line; its kind where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _unzip(name: str, stream: IO[bytes], depth: int) -> Iterator[Blob | Rejected]:
    with seekable(stream) as whole, zipfile.ZipFile(whole) as archive:
        for member in archive.infolist():
            if member.is_dir() or any(map(_hidden, PurePosixPath(member.filename).parts)):
                continue
            place = f"{name}/{member.filename}"
            try:
                content = archive.open(member)
            except (*READ_ERRORS, RuntimeError) as error:  # RuntimeError: encrypted
                yield Rejected(place, "", why(error))
                continue
            with content:
                yield from unpack(place, content, None, depth + 1)


def _untar(name: str, stream: IO[bytes], depth: int) -> Iterator[Blob | Rejected]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if not member.isfile() or any(map(_hidden, PurePosixPath(member.name).parts)):
                continue
            content = archive.extractfile(member)
            if content is not None:
                clean = _printable(str(PurePosixPath(member.name)))  # "./a.txt" is "a.txt"
                yield from unpack(f"{name}/{clean}", content, None, depth + 1)


def _gzip(stream: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(fileobj=stream))


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    """PyArrow brings the decoder; it also reads several frames put one behind another."""
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"))


def seekable(stream: IO[bytes]) -> IO[bytes]:
    """The stream itself if it can be read from its end, else a temporary copy that vanishes when closed."""
    if isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO):
        return stream
    copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  the caller closes it
    try:
        while block := stream.read(2**20):
            _keep(copy, block)
            if copy.tell() > _LARGEST_SPOOL:
                raise OSError(f"over {_LARGEST_SPOOL // 2**30} GiB when unpacked: unpack it first")
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _keep(copy: IO[bytes], block: bytes) -> None:
    try:
        copy.write(block)
    except OSError as error:
        raise TemporarySpaceError(f"{tempfile.gettempdir()}: {why(error)}") from None
