"""An invented archive with everything in it: every type, nesting, bad documents, repeats."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from communique.archive.documents import read_documents
from communique.archive.sources import Blob, unpack
from communique.archive.tables import Columns

VERBS = ("condemns", "urges", "lifts", "agreed", "met")
PARTIES = ("Belmar", "Ostrava Bay", "Kelmen", "Tirania", "Veldt")
AKN = (
    '<akomaNtoso xmlns="http://docs.oasis-open.org/legaldocml/ns/akn/3.0"><statement><meta><identification>'
    '<FRBRWork><FRBRdate date="2031-05-02"/></FRBRWork></identification></meta><mainBody>'
    "<num>1.</num><p>The Council urges Kelmen to withdraw.</p><p>It met on Monday.</p>"
    "</mainBody></statement></akomaNtoso>"
)


def statement(rng: random.Random, sentences: int = 8) -> str:
    return " ".join(
        f"The envoy of {rng.choice(PARTIES)} {rng.choice(VERBS)} the other side on point {rng.randrange(60)}."
        for _ in range(sentences)
    )


def rows(rng: random.Random, n: int) -> list[dict[str, object]]:
    return [
        {"id": f"r{i}", "text": statement(rng, 3), "year": 2000 + i, "issuer": rng.choice(PARTIES)}
        for i in range(n)
    ]


def jsonl(found: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in found).encode()


def csv_bytes(found: list[dict[str, object]], encoding: str = "utf-8") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(found[0]))
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue().encode(encoding)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zst(data: bytes) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


def parquet(found: list[dict[str, object]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(found), sink)
    return bytes(sink.getvalue())


def make(folder: Path, documents: int = 40) -> Path:
    """Write it; some 200 documents, a few bad ones among them."""
    rng = random.Random(7)
    folder.mkdir(parents=True)
    for number in range(documents):
        (folder / f"s{number:03d}.txt").write_text(statement(rng), encoding="utf-8")
    (folder / "s999-again.txt").write_bytes((folder / "s000.txt").read_bytes())
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "old.txt").write_bytes("The Minister’s café met “both” sides.".encode("cp1252"))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(jsonl(rows(rng, 50)) + b"{broken\n", mtime=0))
    (folder / "rows.csv.zst").write_bytes(zst(csv_bytes(rows(rng, 30))))
    (folder / "un.xml").write_text(AKN, encoding="utf-8")
    inner = {f"t{i}.txt": statement(rng).encode() for i in range(30)}
    (folder / "box.zip").write_bytes(zipped({"in.tar": tarred(inner), "p.parquet": parquet(rows(rng, 20))}))
    return folder


def read(name: str, data: bytes, columns: Columns | None = None) -> list[Any]:
    """What an archive run reads of a file: documents, and what is rejected."""
    found: list[Any] = []
    for item in unpack(name, io.BytesIO(data)):
        found += read_documents(item, columns or Columns()) if isinstance(item, Blob) else [item]
    return found
