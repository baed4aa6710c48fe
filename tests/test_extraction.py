"""Word and PDF files: their text whole and in order; a file built to do harm ends only its own process."""

import asyncio
import io
import runpy
import time
import zipfile
from pathlib import Path

import docx
import pypdf
import pytest

from communique.model import extraction
from communique.model.errors import InputError
from communique.model.extraction import extract, paragraphs, read


def word(*texts: str) -> bytes:
    document = docx.Document()
    for text in texts:
        document.add_paragraph(text)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


pdf = runpy.run_path(str(Path(__file__).with_name("service_tools.py")))["pdf"]
LINES = [
    "Readout of the call",
    "The Foreign Minister of Ardenia called on Belmar to release the eleven crew mem-",
    "bers without delay. She also asked that the inspection report be shared before the",
    "end of the month.",
    "The two sides agreed to reopen the joint maritime hotline. A second call is planned",
    "Page 1 of 2",
]
NEXT = ["for next week, at the level of deputies, and will be held in the capital of Belmar."]


def test_a_pdf_becomes_paragraphs():
    assert read(pdf(LINES, NEXT), "pdf").split("\n\n") == [
        "Readout of the call",
        "The Foreign Minister of Ardenia called on Belmar to release the eleven crew members without delay. "
        "She also asked that the inspection report be shared before the end of the month.",
        "The two sides agreed to reopen the joint maritime hotline. A second call is planned for next week, "
        "at the level of deputies, and will be held in the capital of Belmar.",
    ]


def test_lines_become_paragraphs():
    assert paragraphs([["a b c", "", "d"], ["e"]]) == ["a b c", "d e"]
    assert paragraphs([["12"], ["- 3 -", "words", "4"]]) == ["words"]
    assert paragraphs([[], [""]]) == []


def test_a_word_file_keeps_its_order_with_tables_links_and_accepted_changes():
    document = docx.Document()
    document.add_heading("Joint statement")
    document.add_paragraph("Ardenia urges calm.")
    document.add_table(1, 2).cell(0, 0).text = "In a cell."
    changed = document.add_paragraph("They ")
    for tag, kept in (("ins", "agreed"), ("moveFrom", " moved"), ("del", " gone")):
        around = docx.oxml.OxmlElement(f"w:{tag}")
        run = docx.oxml.OxmlElement("w:r")
        text = docx.oxml.OxmlElement("w:delText" if tag == "del" else "w:t")
        text.text = kept
        run.append(text)
        around.append(run)
        changed._p.append(around)
    changed.add_run("\tto meet.")
    out = io.BytesIO()
    document.save(out)
    assert read(out.getvalue(), "docx").split("\n\n") == [
        "Joint statement",
        "Ardenia urges calm.",
        "In a cell.",
        "They agreed to meet.",
    ]


def encrypted() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["Secret."])))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def bomb() -> bytes:
    """A .docx of 250 kB whose document part is 200 MB of spaces."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("word/document.xml", "w") as part,
    ):
        for _ in range(200):
            part.write(b" " * 1_000_000)
    return out.getvalue()


@pytest.mark.parametrize(
    "data, kind, told",
    [
        (b"", "pdf", "pdf: cannot be read"),
        (b"", "docx", "docx: is not a Word document"),
        (b"%PDF-1.4\nrubbish", "pdf", "pdf: cannot be read"),
        (b"PK\x03\x04rubbish", "docx", "docx: is not a Word document"),
        (pdf(["Text."])[:200], "pdf", "pdf: cannot be read"),
        (pdf([]), "pdf", "pdf: holds no text"),
        (word(), "docx", "docx: holds no text"),
        (pdf(*[["x"]] * 201), "pdf", "pdf: 201 pages: send at most 200"),
        (word("a" * 1_000_001), "docx", "docx: over 1,000,000 characters"),
        pytest.param(None, "encrypted", "pdf: asks for a password", id="encrypted"),
        pytest.param(None, "bomb", "docx: 200 MB unpacked", id="bomb"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(data, kind, told):
    if data is None:
        data, kind = (encrypted(), "pdf") if kind == "encrypted" else (bomb(), "docx")
    with pytest.raises(InputError, match=told) as error:
        read(data, kind)
    assert "\n" not in str(error.value)


def test_a_process_of_its_own_reads_and_tells():
    assert asyncio.run(extract(word("Ardenia urges calm."), "docx")) == "Ardenia urges calm."
    with pytest.raises(InputError, match="is not a Word document"):
        asyncio.run(extract(b"PK", "docx"))


def test_a_file_that_takes_for_ever_or_all_memory_ends_only_its_process(monkeypatch, tmp_path):
    (tmp_path / "pypdf.py").write_text("while True: pass\n")
    (tmp_path / "docx.py").write_text("x = bytearray(4_000_000_000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(extraction, "SECONDS", 1.0)
    began = time.perf_counter()
    with pytest.raises(InputError, match="took over 1 s"):
        asyncio.run(extract(pdf(["x"]), "pdf"))
    assert time.perf_counter() - began < 5
    monkeypatch.setattr(extraction, "SECONDS", 20.0)
    with pytest.raises(InputError, match="built to be too large"):
        asyncio.run(extract(word("x"), "docx"))
