"""Damaged and hostile documents: each costs itself and no other, and never the run."""

from __future__ import annotations

import gzip
import io
import random
import runpy
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from communique.archive.csv_lines import Lines
from communique.archive.sources import Rejected
from communique.archive.tables import Document

INVENTED = runpy.run_path(str(Path(__file__).with_name("archive_corpus.py")))
csv_bytes, parquet, tarred, zipped = (INVENTED[n] for n in ("csv_bytes", "parquet", "tarred", "zipped"))
read, zst = INVENTED["read"], INVENTED["zst"]
TEXT = "The envoy urges Belmar to open the port. Both sides met."


NO_CHARSETS = "undefined rot13 hex base64 bz2 unicode_escape raw_unicode_escape idna punycode utf-7 utf-16"


@pytest.mark.parametrize("name", NO_CHARSETS.split())
def test_a_declared_charset_that_is_none_of_text_is_not_believed(name):
    page = f"<html><head><meta charset={name}></head><body><p>The café \\ud800 met.</p></body></html>"
    (found,) = read("a.html", page.encode("cp1252"))
    assert isinstance(found, Document) and found.encoding == "cp1252" and "café" in found.text


@pytest.mark.parametrize("tail", [b"x", b"\x00\xd8\x0a\x00", b"\x00\xdc,\x001\x00\n\x00"])
def test_utf16_csv_with_half_a_character_loses_one_row(tail):
    good = "text,n\nIt met.,1\nBoth agreed.,2\n".encode("utf-16")
    *rows, bad = read("a.csv", good + tail)
    assert [r.text for r in rows] == ["It met.", "Both agreed."]
    assert isinstance(bad, Rejected) and bad.place == "row 4"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 2**31 - 1, 0], pa.date32()),
        pa.array([0, 2**62, 0], pa.timestamp("us")),
        pa.array([b"ok", b"\xff\xfe", b"ok"], pa.binary()).view(pa.string()),
    ],
    ids=["date", "timestamp", "bad UTF-8"],
)
def test_a_parquet_value_that_cannot_be_read_loses_one_row(column):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["It met.", "Lost.", "Both agreed."], "when": column}), sink)
    first, bad, last = read("a.parquet", bytes(sink.getvalue()))
    assert (first.text, last.text) == ("It met.", "Both agreed.")
    assert isinstance(bad, Rejected) and bad.place == "row 2" and "cannot be read" in bad.reason


def test_a_bad_quote_loses_its_line_alone():
    good = [{"text": f'Point "{n}", they said.', "n": n} for n in range(3)]
    whole = csv_bytes(good).decode()
    for bad in ('"Never closed,7\n', '"closed" too early,7\n', '"a""b,"c" d,7\n'):
        head, first, rest = whole.split("\n", 2)
        found = read("a.csv", f"{head}\n{first}\n{bad}{rest}".encode())
        assert [d.text for d in found if isinstance(d, Document)] == [row["text"] for row in good]
        (lost,) = (f for f in found if isinstance(f, Rejected))
        assert lost.place == "row 3" and "not CSV" in lost.reason and "; line 3)" in lost.reason


def test_a_bad_quote_in_a_table_of_one_column_says_which_lines_it_took():
    found = read("a.csv", b'text\nIt met.\n"One line\nand another" too much\nBoth agreed.\n')
    assert [f.text for f in found if isinstance(f, Document)] == ["It met.", "Both agreed."]
    assert "lines 3 to 4" in found[1].reason


def test_quotes_that_never_balance_are_read_in_time_that_grows_with_the_file(monkeypatch):
    monkeypatch.setattr("communique.archive.csv_lines.MAX_STATEMENT_BYTES", 10_000)
    given = []
    whole = Lines.__next__
    monkeypatch.setattr(Lines, "__next__", lambda self: given.append(1) or whole(self))
    found = read("a.csv", b"text,n\n" + b'a","\n' * 20_000)
    assert all(isinstance(f, Rejected) for f in found)
    assert 20_000 < len(given) < 2.1 * 20_000
    rows = b"".join(b"Point %d was raised.,%d\n" % (n, n) for n in range(2_000))
    found = read("a.csv", b'text,n\n"Never closed,1\n' + rows)
    assert [isinstance(f, Rejected) for f in found] == [True] + [False] * 2_000


def test_a_line_without_end_is_not_held_in_memory(monkeypatch):
    monkeypatch.setattr("communique.archive.csv_lines.MAX_STATEMENT_BYTES", 10_000)
    longest = []
    append = Lines._read
    monkeypatch.setattr(Lines, "_read", lambda self: longest.append(len(s := append(self))) or s)
    bomb = gzip.compress(b"text,n\nIt met.,1\n" + b"x" * 3_000_000 + b",2\nBoth agreed.,3\n")
    first, bad, last = read("a.csv.gz", bomb)
    assert (first.text, last.text) == ("It met.", "Both agreed.")
    assert bad.place == "row 3" and max(longest) == 10_001
    (refused,) = read("a.csv", b"x" * 20_000)
    assert "in the header" in refused.reason


def test_a_zip_name_that_is_not_utf8_is_rejected():
    data = zipped({"caf\xe9.txt": TEXT.encode()}).replace("caf\xe9".encode(), b"caf\xff\xfe")
    (found,) = read("x.zip", data)
    assert isinstance(found, Rejected) and "damaged archive" in found.reason


def packed(kind):
    """Every method that zip has, and archives in archives."""
    rows = [{"id": n, "text": TEXT, "n": n} for n in range(20)]
    files = {"a.txt": TEXT.encode() * 9, "b.csv": csv_bytes(rows), "c.parquet": parquet(rows)}
    if kind == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for at, (name, data) in enumerate({**files, "in.tar": tarred(files)}.items()):
                method = (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[at]
                archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
        return "x.zip", out.getvalue()
    if kind == "tar":
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("é" * 120 + ".txt")  # in a header of its own
            member.size = 9
            archive.addfile(member, io.BytesIO(b"It met. \n"))
        return "x.tar", out.getvalue()[:-1024].rstrip(b"\0") + bytes(512) + tarred(files)
    return f"x.tar.{kind}", {"gz": gzip.compress, "zst": zst}[kind](tarred(files))


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "zst"])
def test_no_flipped_byte_stops_the_run(kind):
    rng = random.Random(11)
    name, whole = packed(kind)
    rejected = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        found = read(name, bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data)))) or 1]))
        assert all(isinstance(f, Document | Rejected) for f in found)
        rejected += any(isinstance(f, Rejected) for f in found)
    assert rejected > 30
